"""The cross-validation of its notebook, with future over PSOCK workers, whatever happens in the middle of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from notebook_kernel import one_message
from proof import BEGUN, DONE, Proof

if TYPE_CHECKING:
    from ppe_jupyter.manager import Manager

pytestmark = pytest.mark.slow

FITS, SERIAL = "errors <- future_mapply", "plan(sequential)"
# A fit ends when what is to happen has happened.
SLOW = f"""%%remote_r
fit_one <- error_of
error_of <- function(decay, k) {{
  file.create("~/{BEGUN}")
  while (!file.exists("~/{DONE}")) Sys.sleep(0.05)
  fit_one(decay, k)
}}"""
WORKERS = "exec/[R].*workRSOCK"


@pytest.fixture(scope="module")
def module_proof(manager: Manager, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proof]:
    proof = Proof("cross-validation", manager, tmp_path_factory.mktemp("notebook"), ready=SERIAL)
    try:
        proof.runs(SLOW)
        yield proof
    finally:
        proof.close()


@pytest.fixture
def proof(module_proof: Proof) -> Proof:
    """With new workers, and no answer yet."""
    module_proof.runs("%%remote_r\nrm(errors)")
    module_proof.again("plan(cluster)")
    return module_proof


def the_same(proof: Proof) -> bool:
    return proof.runs("%remote_r identical(errors, serial)").result == "True"


def test_a_worker_that_is_killed(proof: Proof) -> None:
    node = proof.cluster.nodes[1].private_dns.split(".")[0]
    kill = f"ssh {node} \"pgrep -of '{WORKERS}' | xargs kill -9\""
    shown = proof.disturbed(proof.source(FITS), lambda: proof.cluster.ssh().run(kill))
    said = one_message(shown)
    assert re.search(
        rf"worker \d on {node} was lost \(process \d+\): start other workers with plan\(cluster\)", said
    )
    assert proof.runs("%remote_r nrow(houses)").result == "506"
    proof.again("plan(cluster)", FITS)
    assert the_same(proof)


def test_a_line_that_is_cut(proof: Proof) -> None:
    with proof.a_cut_line() as cut:
        shown = proof.disturbed(proof.source(FITS), cut)
    assert "Connected again" in shown.stderr
    assert shown.error is None and shown.stdout.count("40 fits on 6 slots") == 1
    assert the_same(proof)


def test_a_kernel_that_is_killed(proof: Proof) -> None:
    proof.kernel_dies(proof.source(FITS))
    assert the_same(proof)


def test_a_node_that_is_lost(proof: Proof) -> None:
    lost: list[str] = []
    shown = proof.disturbed(proof.source(FITS), lambda: lost.append(proof.a_node_is_lost()))
    said = one_message(shown)
    assert f"on {lost[0]} was lost" in said and "%ppe_retry" in said and "plan(cluster)" in said
    early = one_message(proof.kernel.cell(proof.source("plan(cluster)")))
    assert f"nodes do not answer: {lost[0]}. Mend the cluster with %ppe_retry" in early
    proof.runs("%ppe_retry trio --replace --yes")
    proof.again("plan(cluster)", FITS)
    assert the_same(proof)
    proof.runs("%%remote_r\nplan(sequential)")
    count = f"for h in $(cut -d' ' -f1 ~/ompi-hostfile); do ssh -n $h \"pgrep -fc '{WORKERS}'\"; done"
    assert set(proof.cluster.ssh().run(count, check=False).stdout.split()) == {b"0"}
