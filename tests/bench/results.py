"""build/bench.json: what the benchmarks measured, flat; each run of one adds its own. And what they are to reach."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "build" / "bench.json"
SIGNS = {"<=": operator.le, ">=": operator.ge}
TARGETS = {
    "eval_vs_ssh_echo": ("<=", 2.5),
    "text_seconds": ("<=", 0.1),
    "irkernel_vs_eval": (">=", 25),
    "pyrserve_vs_eval": (">=", 50),
    "pull_numeric_vs_ssh": (">=", 0.85),
    "push_numeric_vs_ssh": (">=", 0.85),
    "rpy2_vs_pull_frame": (">=", 10),
    "rpy2_vs_push_frame": (">=", 10),
    "stdout_vs_ssh_r": (">=", 0.8),
    "magic_vs_eval": ("<=", 4),
    "load_ext_vs_ipython": ("<=", 0.15),
    "round_trips_per_cell": ("<=", 1.2),
    "round_trips_connect": ("<=", 8),
    "launch_16_vs_3": ("<=", 3.5),
    "launch_connections_16": ("<=", 1),
    "launch_api_calls_500": ("<=", 25),
    "panel_describe_calls_per_min": ("<=", 7),
    "lapply_efficiency_100ms": (">=", 0.9),
    "lapply_vs_snow_1ms": (">=", 1),
}


def row(name: str, value: float) -> str:
    """A line of the table; a target that is missed is marked."""
    line = f"{name:<36}{value:10.3f}"
    if name not in TARGETS:
        return line
    sign, target = TARGETS[name]
    return f"{line}   {sign} {target:g}{'' if SIGNS[sign](value, target) else '   MISSED'}"


def add(found: Mapping[str, float]) -> None:
    """Print it as a table, and put it into the file."""
    for name, value in found.items():
        print(row(name, value))
    RESULTS.parent.mkdir(exist_ok=True)
    earlier = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**earlier, **found}, indent=1) + "\n")
