"""A JupyterLab of a test's own: empty settings, a token, any base URL."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ARGUMENTS = ["--no-browser", "--allow-root", "--port=0", "--LabApp.extension_manager=readonly"]
NEWS = "@jupyterlab/apputils-extension:announcements"


@dataclass(frozen=True)
class Lab:
    """``root`` is its address with the base URL; ``environment`` is that of its kernels."""

    root: str
    token: str
    log: Path
    environment: dict[str, str]
    pid: int

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"token {self.token}"}

    def page(self, path: str) -> str:
        return f"{self.root}{path}?token={self.token}"


@contextlib.contextmanager
def jupyter_lab(
    folder: Path, *, base_url: str = "/", arguments: tuple[str, ...] = (), python: str = sys.executable
) -> Iterator[Lab]:
    """A lab that serves ``folder``/notebooks; that of another ``python`` has the packages of that one only."""
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    page = folder / "config" / "labconfig" / "page_config.json"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(json.dumps({"disabledExtensions": {NEWS: True}}))
    token = secrets.token_hex()
    places = {f"JUPYTER_{kind.upper()}_DIR": str(folder / kind) for kind in ("config", "data", "runtime")}
    environment = {**os.environ, **places, "JUPYTER_TOKEN": token}
    if python != sys.executable:
        environment.pop("PYTHONPATH", None)
    own = [f"--ServerApp.root_dir={folder / 'notebooks'}", f"--ServerApp.base_url={base_url}", *arguments]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [python, "-m", "jupyter", "lab", *ARGUMENTS, *own],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        root = _address_of(server, folder)
        yield Lab(root, token, folder / "log", environment, server.pid)
    finally:
        server.terminate()
        try:
            server.wait(4)
        except subprocess.TimeoutExpired:
            # It has stopped serving, and waits for an idle AnyIO worker thread that nobody ends.
            server.kill()
            server.wait()


def _address_of(server: subprocess.Popen[bytes], folder: Path, *, within: float = 90) -> str:
    """The URL that a Jupyter server writes down once it listens."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline and server.poll() is None:
        for file in (folder / "runtime").glob(f"jpserver-{server.pid}.json"):
            if text := file.read_text():
                return str(json.loads(text)["url"])
        time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start: {(folder / 'log').read_text()}")
