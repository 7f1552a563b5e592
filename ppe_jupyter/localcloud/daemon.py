"""The local cloud's daemon: network, endpoint and reconciler of one owner, in one process that runs as root.

Started by start() of the package, never by hand. Takes its parameters as one JSON line on stdin (the secret
must not show in ``ps``), answers with one on stdout when requests are served, and runs until asked to stop.
Before anything else it ends a predecessor and removes what a dead one left: whoever starts it holds the new
key.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..errors import LocalCloudUnavailable, PpeError
from . import network
from .machines import container, kernel_log, metadata, resolver, volumes
from .machines.reconciler import Action, Reconciler
from .machines.resolver import Resolver

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STOP_SECONDS = 20.0


def main() -> int:
    """Serve one local cloud, or remove what is left of it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--id", required=True, help="8 hex digits that name this local cloud on this machine")
    parser.add_argument("--root", type=Path, required=True, help="where images and disks are")
    parser.add_argument("--remove", action="store_true", help="only end and remove what there is")
    options = parser.parse_args()
    os.environ["PATH"] = PATH
    os.umask(0o022)
    folder = options.root / "clouds" / options.id
    folder.parent.mkdir(parents=True, exist_ok=True)
    parameters = {} if options.remove else json.loads(sys.stdin.readline())
    try:
        with _sole_daemon(folder.with_suffix(".lock")):
            _remove(options.id, folder, options.root)
            if not options.remove:
                _serve(options.id, folder, options.root, key=parameters["key"], secret=parameters["secret"])
    except PpeError as exc:
        _answer({"error": str(exc)})
        return 1
    finally:
        with contextlib.suppress(OSError):
            (options.root / "clouds").rmdir()
    return 0


def _serve(cloud_id: str, folder: Path, root: Path, *, key: str, secret: str) -> None:
    from .endpoint import Endpoint, serve  # imports moto: seconds that --remove does not need

    (folder / "instances").mkdir(parents=True)
    try:
        bridge = network.up(cloud_id, local_root=root)
        names = Resolver(bridge, folder / "hosts")
        reconciler = Reconciler(folder, bridge, names, cloud_id=cloud_id)
        about_themselves = metadata.Service(bridge, reconciler.caller)
        network.lead_to_metadata(bridge, about_themselves.server_address[1])
        about_themselves.start()
        threading.Thread(target=kernel_log.follow, args=(folder / "instances",), daemon=True).start()

        def stop(*_: object) -> None:
            reconciler.submit(Action.QUIT)

        endpoint = Endpoint(
            key=key, secret=secret, cidr=bridge.cidr, local_root=root, reconciler=reconciler, on_stop=stop
        )
        server = serve(endpoint)
        signal.signal(signal.SIGTERM, stop)
        # A handler, not SIG_IGN: containers inherit what is ignored, and their init could not trap it.
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGPWR, signal.SIG_DFL)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _answer(
            {"url": f"http://127.0.0.1:{server.server_port}", "pid": os.getpid(), "gateway": bridge.gateway}
        )
        reconciler.run()  # in the main thread, whose end is the containers' end
        server.shutdown()
        names.stop()
    finally:
        _remove(cloud_id, folder, root)


def _remove(cloud_id: str, folder: Path, root: Path) -> None:
    """Leave nothing of this local cloud but its images."""
    container.sweep(folder / "instances")
    volumes.sweep(folder / "volumes")
    shutil.rmtree(folder, ignore_errors=True)
    resolver.sweep(network.bridge_name(cloud_id))
    network.down(cloud_id, local_root=root)


@contextlib.contextmanager
def _sole_daemon(lock_file: Path) -> Iterator[None]:
    """Hold the lock of this local cloud, ending the daemon that holds it."""
    with lock_file.open("a+") as lock:
        for number, patience in ((0, 0.0), (signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
            if number:
                lock.seek(0)
                with contextlib.suppress(ProcessLookupError, ValueError):
                    os.kill(int(lock.read()), number)
            if _acquired(lock, patience):
                break
        else:
            raise LocalCloudUnavailable(f"another daemon holds {lock_file} and does not end")
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield
        finally:
            lock_file.unlink(missing_ok=True)


def _acquired(lock: IO[str], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        else:
            return True


def _answer(answer: dict[str, object]) -> None:
    """Tell whoever started this process how it went, once."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
