"""build/bench.json: what the benchmarks measured, flat; each run of one adds its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "build" / "bench.json"


def add(found: Mapping[str, float]) -> None:
    """Print it as a table, and put it into the file."""
    for name, value in found.items():
        print(f"{name:<36}{value:10.3f}")
    RESULTS.parent.mkdir(exist_ok=True)
    earlier = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**earlier, **found}, indent=1) + "\n")
