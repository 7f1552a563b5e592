"""Images made of instances: a copy of what differs from the image that the instance lay on, stacked upon that.

``<folder>/ami-…/rootfs`` is the copy and ``lower`` beside it lists what is below, top first, so that image.py and
this module leave that alone. An image that is given up is removed when no instance and no image lies on it. Knows
nothing of records.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from ...errors import LocalCloudUnavailable
from .container import Container, layers

PASSING = ("No such file or directory", "was replaced while being copied")  # of a file system in use


class Captures:
    """The images of one local cloud's instances, in ``folder``."""

    def __init__(self, folder: Path, instances: Path) -> None:
        self._folder, self._instances = folder, instances
        self._given_up: set[str] = set()

    def rootfs(self, ami_id: str) -> Path:
        """Where an image's files are."""
        return self._folder / ami_id / "rootfs"

    def take(self, ami_id: str, container: Container, image: Path) -> str:
        """Copy the file system of a container on ``image``, running or not; why not, or an empty string.

        Of a running one it is as consistent as after a crash, file by file.
        """
        work = self._folder / f".{ami_id}"
        try:
            work.mkdir(parents=True)
            command = ["cp", "-a", "--reflink=auto", str(container.upper), str(work / "rootfs")]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
            )
            problems = [line for line in done.stderr.splitlines() if not line.endswith(PASSING)]
            if problems or (done.returncode and container.ended):
                raise LocalCloudUnavailable(next(iter(problems), done.stderr.strip()))
            (work / "lower").write_text("".join(f"{path}\n" for path in layers(image)))
            work.rename(self._folder / ami_id)
        except (OSError, LocalCloudUnavailable) as exc:
            shutil.rmtree(work, ignore_errors=True)
            return str(exc)
        return ""

    def give_up(self, ami_id: str) -> None:
        """Nobody will launch it any more."""
        self._given_up.add(ami_id)

    def collect(self) -> None:
        """Remove what was given up and is not lain on; then what only that lay on."""
        while self._given_up:
            users = [*self._instances.glob("*/config"), *self._folder.glob("*/lower")]
            used = "".join(user.read_text(encoding="utf-8") for user in users)
            unused = {ami_id for ami_id in self._given_up if f"/{ami_id}/" not in used}
            for ami_id in unused:
                shutil.rmtree(self._folder / ami_id, ignore_errors=True)
            self._given_up -= unused
            if not unused:
                return
