"""The Monte Carlo of its notebook, on mpi4py ranks that keep their counts, whatever happens in the middle of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from notebook_kernel import one_message
from proof import BEGUN, DONE, Proof

if TYPE_CHECKING:
    from ppe_jupyter.manager import Manager

pytestmark = pytest.mark.slow

RANKS, FIRST, MORE, COUNTS, ALONE, SAME = (
    "def go_on(until)", "go_on(12)", "go_on(90)", "counts = sum(mine)", "serial = sum(", "same = (",
)  # fmt: skip
# A block ends when what is to happen has happened.
SLOW = f"""%%remote_py --ranks all
import pathlib, time
quick_hits = hits

def hits(block, quantiles):
    pathlib.Path.home().joinpath("{BEGUN}").touch()
    while not pathlib.Path.home().joinpath("{DONE}").exists():
        time.sleep(0.05)
    return quick_hits(block, quantiles)"""


@pytest.fixture(scope="module")
def module_proof(manager: Manager, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proof]:
    proof = Proof("monte-carlo", manager, tmp_path_factory.mktemp("notebook"), ready=SAME)
    try:
        yield proof
    finally:
        proof.close()


@pytest.fixture
def proof(module_proof: Proof) -> Proof:
    """After its first look, on new ranks whose blocks take their time."""
    module_proof.runs("%remote_py --ranks all --fresh")
    module_proof.again(RANKS, FIRST)
    module_proof.runs(SLOW)
    return module_proof


def the_same(proof: Proof) -> bool:
    """What the ranks have counted, once more, is what one process has."""
    proof.again(COUNTS, ALONE, SAME)
    return True


def test_a_rank_that_is_killed(proof: Proof) -> None:
    victim = next(rank for rank in proof.cluster.ranks() if rank.rank == 3)
    kill = f"ssh {victim.node} kill -9 {victim.pid}"
    said = one_message(proof.disturbed(proof.source(MORE), lambda: proof.cluster.ssh().run(kill)))
    assert (
        f"rank 3 on {victim.node} failed: it was ended by SIGKILL; the variables of all ranks are gone"
        in said
    )
    proof.again(RANKS, MORE)
    assert the_same(proof)


def test_a_line_that_is_cut(proof: Proof) -> None:
    with proof.a_cut_line() as cut:
        said = one_message(proof.disturbed(proof.source(MORE), cut))
    assert "the ranks go on with this cell and keep their variables" in said
    [again] = proof.again(MORE)
    assert again.stdout.count("90,000 samples on 6 ranks") == 1
    assert the_same(proof)


def test_a_kernel_that_is_killed(proof: Proof) -> None:
    proof.kernel_dies(proof.source(MORE))
    proof.again(MORE)
    assert the_same(proof)


def test_a_node_that_is_lost(proof: Proof) -> None:
    lost: list[str] = []
    said = one_message(proof.disturbed(proof.source(MORE), lambda: lost.append(proof.a_node_is_lost())))
    assert f"the connection to {lost[0]} was lost" in said and "the variables of all ranks are gone" in said
    early = one_message(proof.kernel.cell(proof.source(RANKS)))
    assert lost[0] in early and "%ppe_retry" in early
    proof.runs("%ppe_retry trio --replace --yes")
    proof.again("%ppe_upload", RANKS, MORE)
    assert the_same(proof)
