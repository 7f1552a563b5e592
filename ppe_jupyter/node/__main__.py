"""Runs a program of this folder: ``python3 ~/.ppe/node PROGRAM ARGUMENT…``. Commands name programs, never modules."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

PROGRAMS = {
    "belongings": "files.belongings",
    "census": "ranks.census",
    "files": "files.transfer",
    "glance": "glance",
    "guests": "setting_up.guests",
    "inventory": "setting_up.inventory",
    "lone_r": "r.lone",
    "map_keeper": "maps.keeper",
    "own_packages": "machine.own_packages",
    "pins": "setting_up.pins",
    "probe": "setting_up.probe",
    "relay": "wire.relay",
    "rstudio": "r.rstudio",
    "run_cell": "cells.cell",
    "run_script": "runs.script",
    "runs": "runs.runs",
    "s3": "files.s3",
    "setup": "setting_up.setup",
    "team": "ranks.team",
    "team_cell": "ranks.cell",
    "team_rank": "ranks.rank",
    "team_relay": "ranks.relay",
    "termination": "runs.termination",
    "this_node": "this_node",
}

if __name__ == "__main__":
    # Run as a folder, this one is the package, whatever its name. Links are not followed: tests run it behind one.
    _folder = Path(__file__).absolute().parent
    sys.path[0] = str(_folder.parent)
    _program = sys.argv.pop(1) if sys.argv[1:] else ""
    if _program not in PROGRAMS:
        sys.exit(f"{_folder} has no program named {_program!r}, but {', '.join(PROGRAMS)}")
    runpy.run_module(f"{_folder.name}.{PROGRAMS[_program]}", run_name="__main__", alter_sys=True)
