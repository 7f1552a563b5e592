"""Archives of packages as Debian's, CRAN's and PyPI's are, with one tiny package each, that nodes reach by HTTP.

Which versions they have is for a test to say, and to say again.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from test_own_packages import source_package, wheel

CONTROL = "Package: ppetiny\nVersion: {version}\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: tiny\n"
# What a node needs to take packages from here: Debian's are not signed, and no TLS.
BOOTSTRAP = """#!/bin/sh
echo 'Acquire::AllowInsecureRepositories "true"; APT::Get::AllowUnauthenticated "true";' >/etc/apt/apt.conf.d/96test
echo 'deb {url}/debian/now bookworm main' >/etc/apt/sources.list.d/test.list
mkdir -p /home/admin/.config/pip
printf '[global]\\nindex-url = {url}/simple\\ntrusted-host = {host}\\n' >/home/admin/.config/pip/pip.conf
chown -R admin: /home/admin/.config
"""


class Archives:
    """The archives below a folder; ``url`` is where they are served."""

    def __init__(self, folder: Path, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.url = f"http://{host}:{port}"
        self.bootstrap = BOOTSTRAP.format(url=self.url, host=host)
        self._folder = folder

    def debian(self, name: str, *versions: str) -> None:
        """Have these, and no others, in the archive ``debian/NAME``."""
        root = self._emptied(f"debian/{name}")
        index = ""
        for version in versions:
            data, control = deb(version), CONTROL.format(version=version)
            (root / f"ppetiny_{version}.deb").write_bytes(data)
            file = f"Filename: ppetiny_{version}.deb\nSize: {len(data)}\nSHA256: {_sha256(data)}\n"
            index += f"{control}{file}\n"
        packages = root / "dists/bookworm/main/binary-amd64/Packages"
        packages.parent.mkdir(parents=True)
        packages.write_text(index)
        release = "Codename: bookworm\nComponents: main\nArchitectures: amd64\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n"
        listed = f" {_sha256(index.encode())} {len(index)} main/binary-amd64/Packages\n"
        (root / "dists/bookworm/Release").write_text(f"{release}SHA256:\n{listed}")

    def cran(self, *versions: str) -> None:
        """Have the last of these as the present one, and those before in the Archive."""
        *former, present = versions
        contrib = self._emptied("cran/src/contrib")
        (contrib / "PACKAGES").write_text(f"Package: ppetiny\nVersion: {present}\nNeedsCompilation: no\n")
        (contrib / f"ppetiny_{present}.tar.gz").write_bytes(source_package(present))
        archive = contrib / "Archive/ppetiny"
        archive.mkdir(parents=True)
        for version in former:
            (archive / f"ppetiny_{version}.tar.gz").write_bytes(source_package(version))

    def pypi(self, *versions: str) -> None:
        """Have wheels of these."""
        project = self._emptied("simple/ppetiny")
        names = [f"ppetiny-{version}-py3-none-any.whl" for version in versions]
        for name, version in zip(names, versions, strict=True):
            (project / name).write_bytes(wheel(version))
        (project / "index.html").write_text("".join(f'<a href="{name}">{name}</a>\n' for name in names))

    def _emptied(self, name: str) -> Path:
        folder = self._folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path, host: str) -> Iterator[Archives]:
    """Archives below that folder, on an address of this machine that nodes reach."""
    server = ThreadingHTTPServer((host, 0), partial(_Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Archives(folder, host, server.server_port)
    finally:
        server.shutdown()
        server.server_close()


def deb(version: str) -> bytes:
    """A package as deb(5) says: an ar(5) archive of two tar files."""
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": _tar({"./control": CONTROL.format(version=version)}),
        "data.tar.gz": _tar({"./usr/share/ppetiny": version}),
    }
    archive = b"!<arch>\n"
    for name, data in members.items():
        archive += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        archive += data + b"\n" * (len(data) % 2)
    return archive


def _tar(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
