"""What is read from a rank's stack and from the kernel's log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ppe_jupyter.node.ranks import census, stacks
from ppe_jupyter.node.ranks.census import killed, memory_words
from ppe_jupyter.node.ranks.stacks import mpi_call, mpi_calls

# As eu-stack prints it, of R's session in a call that waits.c has made one that polls.
EU_STACK = """PID 180 - process
TID 180:
#0  0x00007fc919aed545 clock_nanosleep@@GLIBC_2.17
#1  0x00007fc919af1e53 __nanosleep
#2  0x00007fc91a1b42e6 sched_yield
#3  0x00007fc9165ed560 ompi_request_default_test
#4  0x00007fc91662d64e PMPI_Test
#5  0x00007fc91a1b480c wait_for
#6  0x00007fc91a1b6391 MPI_Bcast
#7  0x00007fc916ab73ec mpi_bcast
"""
GDB = "#3  0x00007fb3bdf300d5 in PMPI_Barrier () from /usr/lib/libmpi.so.40\n#4  0x00 in mpi_barrier ()"
KERNEL = (
    "[ 812.1] Out of memory: Killed process 4234 (R) total-vm:16922512kB, anon-rss:15210004kB, file-rss:3328kB, x\n"
    "[ 912.1] Memory cgroup out of memory: Killed process 51 (py) total-vm:9kB, anon-rss:7kB, file-rss:1kB, x\n"
)


def test_the_call_is_the_one_that_the_program_has_made() -> None:
    assert mpi_call(EU_STACK) == "MPI_Bcast"
    assert mpi_call(GDB) == "MPI_Barrier"
    assert mpi_call("#0  0x00 in Rf_eval ()") == ""


def test_the_kernel_says_whom_it_killed_for_memory() -> None:
    found = killed(KERNEL)
    assert {pid: used for pid, (used, _) in found.items()} == {"4234": 15213332 * 1024, "51": 8 * 1024}
    used, total = killed(f"[ 1.0] memory: usage 9kB, limit 2048kB, failcnt 3\n{KERNEL}")["51"]
    assert (used, total) == (8 * 1024, 2048 * 1024)
    assert memory_words(15_600_000_000, 15_800_000_000) == "15.6 of 15.8 GB"


def test_the_stacks_of_many_ranks_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = f"touch {tmp_path}/$$; until [ $(ls {tmp_path} | wc -l) = 8 ]; do sleep 0.05; done"
    monkeypatch.setattr(stacks, "DEBUGGERS", (["sh", "-c", f"{wait}; echo '#0  0x0 in MPI_Bcast'"],))
    monkeypatch.setattr(stacks, "STACKS_SECONDS", 60.0)
    assert mpi_calls(range(8)) == dict.fromkeys(range(8), "MPI_Bcast")


def test_a_rank_whose_stack_takes_too_long_is_no_silent_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "DEBUGGERS", (["sleep", "600"], ["sleep", "600"]))
    monkeypatch.setattr(stacks, "STACKS_SECONDS", 0.3)
    monkeypatch.setattr(census, "_own_processes", lambda: iter([os.getpid()]))
    monkeypatch.setattr(census, "_rank", lambda pid: {"job": "1", "rank": 0})
    (row,) = census.here()["ranks"]
    assert row["call"] == "?"
