"""The sidebar's weight: all scripts of the JupyterLab extension, styles included, as they are sent; in KB."""

from __future__ import annotations

from pathlib import Path

from results import add

STATIC = Path(__file__).parents[2] / "ppe_jupyter" / "labextension" / "static"


def main() -> None:
    """Weigh, and add to build/bench.json."""
    add({"sidebar_bundle_kb": sum(script.stat().st_size for script in STATIC.glob("*.js")) / 1024})


if __name__ == "__main__":
    main()
