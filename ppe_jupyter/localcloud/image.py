"""The nodes' image: Debian 12 with what node/bootstrap.sh installs, built once for each content and cached. And, on
demand, the stock image: what a cloud image of Debian's has, on which bootstrap.sh runs from user data.

An image is a directory ``<local root>/images/<name>/rootfs`` that is never changed once it has its name:
overlays lie on it. Its key is a hash of everything that makes it, so that a changed bootstrap.sh is a new
image. A build works in a directory of its own that is renamed at the end, in a mount and PID namespace that
ends with it; one build at a time, and what a killed one left is removed by the next. Knows nothing of
instances.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .. import settings as settings_module
from ..errors import LocalCloudUnavailable, PpeError
from . import check, hostfiles, privilege

HERE = Path(__file__).parent
BOOTSTRAP = HERE.parent / "node" / "bootstrap.sh"
NEEDED_BYTES = 2_500_000_000  # an image is 1 GB, its packages 0.4 GB more while they are installed
KEPT_IMAGES = 3
ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}  # Python's name: EC2's name

Report = Callable[[str], None]


class Kind(Enum):
    """What an image is; the value begins its name."""

    NODE = "ppe-node-debian-12"
    STOCK = "debian-12-stock"


@dataclass(frozen=True)
class Image:
    """A built image; ``key`` is its content's hash."""

    key: str
    rootfs: Path

    @property
    def name(self) -> str:
        """Its name in EC2."""
        return self.rootfs.parent.name

    @property
    def ami_id(self) -> str:
        """Its id in EC2: the same whichever daemon registers it."""
        return "ami-" + hashlib.sha256(self.name.encode()).hexdigest()[:17]


def architecture() -> str:
    """This machine's architecture as EC2 calls it."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def current_key(kind: Kind = Kind.NODE) -> str:
    """The key of the image that this version of the package makes: 8 hex digits."""
    digest = hashlib.sha256(architecture().encode())
    recipe = [HERE / "build.sh", *sorted(p for p in (HERE / "rootfs").rglob("*") if p.is_file())]
    for path in [BOOTSTRAP, *recipe] if kind is Kind.NODE else recipe:
        digest.update(f"{path.name}\0{path.stat().st_mode & 0o111}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def find(local_root: Path, key: str | None = None, *, kind: Kind = Kind.NODE) -> Image | None:
    """The built image of that key (the current one by default), or None."""
    key = key or current_key(kind)
    rootfs = local_root / "images" / f"{_prefix(kind)}-{key}" / "rootfs"
    return Image(key, rootfs) if rootfs.is_dir() else None


def find_stock(local_root: Path) -> Image | None:
    """The current stock image, if it has been built."""
    return find(local_root, kind=Kind.STOCK)


def find_all(local_root: Path, *, kind: Kind = Kind.NODE) -> list[Image]:
    """Every built image, oldest first."""
    folders = (local_root / "images").glob(f"{_prefix(kind)}-*/rootfs")
    found = sorted(folders, key=lambda path: path.stat().st_ctime)
    return [Image(path.parent.name.rpartition("-")[2], path) for path in found]


def ensure(local_root: Path, *, report: Report, kind: Kind = Kind.NODE) -> Image:
    """The current image, built if need be: as root, or through sudo without a password.

    Raises LocalCloudUnavailable, with the end of the build's log if there is one.
    """
    for _ in range(3):
        if image := find(local_root, kind=kind):
            return image
        if os.geteuid() != 0:
            arguments = ("--root", str(local_root), *(["--stock"] if kind is Kind.STOCK else []))
            privilege.run_module("ppe_jupyter.localcloud.image", *arguments, report=report)
        else:
            _build(local_root, kind, report)
    raise LocalCloudUnavailable("the files that the node image is made of change faster than it is built")


def ensure_stock(local_root: Path, *, report: Report) -> Image:
    """The current stock image, as ensure()."""
    return ensure(local_root, report=report, kind=Kind.STOCK)


def _prefix(kind: Kind) -> str:
    return f"{kind.value}-{architecture()}"


def _build(local_root: Path, kind: Kind, report: Report) -> None:
    images = local_root / "images"
    images.mkdir(parents=True, exist_ok=True)
    with _sole_builder(images, report):
        key = current_key(kind)
        if find(local_root, key, kind=kind):
            return
        for stale in images.glob(".building-*"):
            shutil.rmtree(stale)
        free = shutil.disk_usage(images).free
        if free < NEEDED_BYTES:
            raise LocalCloudUnavailable(
                f"the node image needs {NEEDED_BYTES / 1e9:.1f} GB, but {images} has {free / 1e9:.1f} GB"
                " free: make room, or set local_root to a directory on a larger disk"
            )
        work = Path(tempfile.mkdtemp(prefix=".building-", dir=images))
        work.chmod(0o755)
        try:
            hostfiles.write(work / "host")
            _run_recipe(work, kind, images / "build.log", report)
            if current_key(kind) == key:
                shutil.rmtree(work / "host")
                work.rename(images / f"{_prefix(kind)}-{key}")
                _remove_old(local_root, kind)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _remove_old(local_root: Path, kind: Kind) -> None:
    """Keep the newest few images and those that an instance, or an image made of one, of any local cloud lies on."""
    users = [*local_root.glob("clouds/*/instances/*/config"), *local_root.glob("clouds/*/images/*/lower")]
    used = "".join(user.read_text(encoding="utf-8") for user in users)
    for image in find_all(local_root, kind=kind)[:-KEPT_IMAGES]:
        if image.name not in used:
            shutil.rmtree(image.rootfs.parent)


@contextmanager
def _sole_builder(images: Path, report: Report) -> Iterator[None]:
    with (images / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that builds the node image")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run_recipe(work: Path, kind: Kind, log: Path, report: Report) -> None:
    """Run build.sh in namespaces that end with it, and it with this process, even when that is killed."""
    debian, _ = hostfiles.mirrors()
    namespaces = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    recipe = ["sh", str(HERE / "build.sh"), str(work / "rootfs"), debian, str(work / "host")]
    recipe += [str(BOOTSTRAP)] if kind is Kind.NODE else []
    with (
        log.open("w", encoding="utf-8") as log_file,
        subprocess.Popen(
            [*namespaces, *recipe], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        ) as build,
    ):  # fmt: skip
        assert build.stdout is not None
        try:
            for line in build.stdout:
                log_file.write(line)
                if line.startswith("ppe "):
                    report(line.strip())
        except BaseException:
            build.kill()
            raise
    if build.returncode:
        lines = log.read_text(encoding="utf-8").splitlines()
        full = [line for line in lines if "No space left" in line]
        reason = full[-1] if full else " / ".join(lines[-3:])
        raise LocalCloudUnavailable(f"building the node image failed ({log} has it all): {reason}")


def main() -> int:
    """Build the image ahead of time, printing progress; for the Makefile and for sudo."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--root", type=Path, help="the local cloud's root directory; then no times are shown")
    parser.add_argument("--stock", action="store_true", help="the stock Debian image, without R and Open MPI")
    options = parser.parse_args()
    chosen: Path | None = options.root
    started = time.monotonic()

    def report(line: str) -> None:
        elapsed = "" if chosen else f"[{time.monotonic() - started:4.0f} s] "
        sys.stdout.write(f"{elapsed}{line}\n")
        sys.stdout.flush()

    try:
        root = chosen or settings_module.load().local_root
        if problem := check.problem():
            raise LocalCloudUnavailable(problem)
        image = ensure(root, report=report, kind=Kind.STOCK if options.stock else Kind.NODE)
    except PpeError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was kept\n")
        return 130
    report(f"{image.name} is ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
