"""How R is started under mpirun: by the agent, and by RStudio Server. Must not know what R is for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def mpirun_command(run: Path, hostfile: Path | None) -> list[str]:
    """The command in front of R; none where there is no Open MPI.

    R starts on the master alone, whatever has become of the workers: each spawn adds them (Rprofile.site).
    """
    if hostfile is None or shutil.which("mpirun") is None:
        return []
    here = run / "hostfile"
    here.write_text(hostfile.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    command = ["mpirun", "-np", "1", "--enable-recovery", "--bind-to", "none", "--hostfile", str(here)]
    command += ["--mca", "mpi_yield_when_idle", "1"]
    # Else Open MPI 4.1's daemons never hear of nodes that are added later, and processes beside them fail to start.
    command += ["--mca", "plm_base_node_regex_threshold", "0"]
    # Else the slot of a worker that was killed would stay taken (a shell is around each: Rprofile.site).
    command += ["--mca", "orte_abort_on_non_zero_status", "0"]
    return [*command, "--allow-run-as-root"] if os.geteuid() == 0 else command
