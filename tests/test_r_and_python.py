"""The permutation test of its notebook, R's session and ranks of Python, whatever happens in the middle of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from notebook_kernel import one_message
from proof import BEGUN, DONE, Proof

if TYPE_CHECKING:
    from ppe_jupyter.manager import Manager

pytestmark = pytest.mark.slow

RANKS, P_VALUE, SERIAL, AGREE = "--to-r observed,null", "hist(null", "serial <- apply", "assert agree"
IMPORTS = "from mpi4py import MPI\n"
# Then no rank has an answer before what is to happen has happened.
WAITS = f"""{IMPORTS}
import pathlib, time
pathlib.Path.home().joinpath("{BEGUN}").touch()
while not pathlib.Path.home().joinpath("{DONE}").exists():
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def module_proof(manager: Manager, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proof]:
    proof = Proof("r-and-python", manager, tmp_path_factory.mktemp("notebook"), ready=RANKS)
    try:
        yield proof
    finally:
        proof.close()


@pytest.fixture
def proof(module_proof: Proof) -> Iterator[Proof]:
    """Without an answer; in the end nothing is left of the values that went from R to the ranks and back."""
    module_proof.runs("%%remote_r\nrm(observed, null)")
    yield module_proof
    kept = module_proof.cluster.ssh().run("ls -d /dev/shm/ppe-team-* /tmp/R*/ppe-team-* 2>&-", check=False)
    assert kept.stdout == b""


def slow(proof: Proof) -> str:
    return proof.source(RANKS).replace(IMPORTS, WAITS)


def the_same(proof: Proof) -> bool:
    """As R alone has it: the notebook's last cell says so itself."""
    proof.again(P_VALUE, SERIAL, AGREE)
    return True


def test_a_rank_that_is_killed(proof: Proof) -> None:
    victim = next(rank for rank in proof.cluster.ranks() if rank.rank == 3)
    kill = f"ssh {victim.node} kill -9 {victim.pid}"
    said = one_message(proof.disturbed(slow(proof), lambda: proof.cluster.ssh().run(kill)))
    assert f"rank 3 on {victim.node} failed: it was ended by SIGKILL" in said
    assert "the next cell starts new ranks" in said
    assert proof.runs("%remote_r n").result == "146", "R's session has its variables"
    proof.again(RANKS)
    assert the_same(proof)


def test_a_line_that_is_cut(proof: Proof) -> None:
    with proof.a_cut_line() as cut:
        said = one_message(proof.disturbed(slow(proof), cut))
    assert (
        "the ranks go on with this cell" in said
        and "-o and --to-r, also without code, fetch variables" in said
    )
    proof.runs("%remote_py --ranks all --to-r observed,null")
    assert the_same(proof)


def test_a_kernel_that_is_killed(proof: Proof) -> None:
    proof.kernel_dies(slow(proof))
    proof.runs("%remote_py --ranks all --to-r observed,null")
    assert the_same(proof)


def test_a_node_that_is_lost(proof: Proof) -> None:
    lost: list[str] = []
    said = one_message(proof.disturbed(slow(proof), lambda: lost.append(proof.a_node_is_lost())))
    assert f"the connection to {lost[0]} was lost" in said and "the next cell starts new ranks" in said
    early = one_message(proof.kernel.cell(proof.source(RANKS)))
    assert lost[0] in early and "%ppe_retry" in early
    proof.runs("%ppe_retry trio --replace --yes")
    proof.again(RANKS)
    assert the_same(proof)
