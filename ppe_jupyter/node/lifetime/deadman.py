"""The dead-man timer of a node: ends it when nobody looks after it any more. Needs no credentials.

User data puts it on every machine and starts it, as root, early in each boot. It shuts the node down when (and
EC2's InstanceInitiatedShutdownBehavior says whether that stops or terminates it)

- it was not made a node of a cluster within ``boot_seconds`` of its boot,
- its deadline is over: ``hard_seconds`` after the first boot, then what the master's heartbeats say,
- the master's heartbeat has been missing for ``silence_seconds``, or the master says so.

The deadline survives a reboot. One that is over when the node boots was of an earlier life (parked, and started again):
the node then gets ``boot_seconds`` to be told a new one. It also asks the instance metadata service for spot
interruptions and passes the notice to the master; and it tells the master when the login user's processes on this
worker compute. ``ppe-deadman status`` prints JSON: what ends this node, and when.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

from . import activity, beacon

LIMITS = Path("/etc/ppe/deadman.json")  # user data's: boot_seconds, hard_seconds, silence_seconds
MEMBER = Path(
    "/etc/ppe/member.json"
)  # setup's: secret, name, master, silence_seconds, user (on the master: null)
STATE = Path("/var/lib/ppe-node/deadman.json")
STATUS = Path("/run/ppe-deadman.json")
LOCK = Path("/run/ppe-deadman.lock")
DEFAULTS = {"boot_seconds": 1800, "hard_seconds": None, "silence_seconds": 600}
TICK_SECONDS = 2.0
FORCE_SECONDS = 60.0
METADATA, PORT, MOST_BYTES = "169.254.169.254", 80, 65536
# AWS recommends to look every 5 s (EC2 user guide, spot-instance-termination-notices).
SPOT_SECONDS, NO_METADATA_SECONDS = 5.0, 60.0
WORK_SECONDS = 10.0

Json = dict[str, Any]


def read(path: Path) -> Json | None:
    """A JSON object, or None if there is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def write(path: Path, value: Json) -> None:
    """Write it whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(value), encoding="utf-8")
    new.replace(path)


class Deadman:
    """The timer; ``now`` is in seconds of any clock that nobody sets, ``wall`` in seconds since 1970."""

    def __init__(self, limits: Json, state: Json | None, *, now: float, wall: float) -> None:
        self._limits = limits
        self._booted = self._heard = now
        self._member: Json | None = None
        hard = limits["hard_seconds"]
        first = None if hard is None else wall + hard
        self.deadline: float | None = first if state is None else state["deadline"]
        if self.deadline is not None and self.deadline <= wall:
            self.deadline = wall + limits["boot_seconds"]

    def join(self, member: Json | None, *, now: float) -> None:
        """Setup has made this a node of a cluster, or of another one."""
        if member is not None and member != self._member:
            self._verifier = beacon.Verifier(member["secret"])
            self._signer = beacon.Signer(member["secret"], member["name"])
            self._heard = now
        self._member = member

    def hear(self, datagram: bytes, *, now: float) -> str | None:
        """Take a datagram; why to end at once, or None."""
        message = self._verifier.open(datagram) if self._member else None
        if message is not None and message["kind"] == "heartbeat":
            self._heard, self.deadline = now, message["deadline"]
        return str(message["why"]) if message is not None and message["kind"] == "end" else None

    def left(self, *, now: float, wall: float) -> tuple[float, str]:
        """In how many seconds this node ends if nothing happens, and why."""
        if self._member is None:
            seconds, since = self._limits["boot_seconds"], self._booted
            why = f"it was not made a node of a cluster within {seconds:g} s of its boot"
        else:
            seconds, since = self._member["silence_seconds"], self._heard
            why = f"the master has been silent for {seconds:g} s"
        ends = [(since + seconds - now, why)]
        if self.deadline is not None:
            ends.append((self.deadline - wall, "its time limit is over"))
        return min(ends)

    @property
    def user(self) -> str | None:
        """Whose processes count as work here."""
        return None if self._member is None else self._member.get("user")

    def tell(self, **what: Any) -> None:
        """A notice to the master."""
        if self._member is not None:
            beacon.send(self._signer.sign("notice", **what), [self._member["master"]], beacon.MASTER_PORT)


class Work:
    """What the login user's processes on a worker compute outside of MPI."""

    def __init__(self) -> None:
        self._meter = activity.Meter()
        self._next = 0.0

    def share(self, user: str | None, now: float) -> float:
        """How much of a core, if it is time to look and counts as work; else 0."""
        if user is None or now < self._next:
            return 0.0
        self._next = now + WORK_SECONDS
        found = activity.on_worker(activity.processes(pwd.getpwnam(user).pw_uid))
        share = self._meter.share(found, now=now)
        return share if share > activity.WORKING_SHARE else 0.0


class Metadata:
    """The instance metadata service, version 2. It may not be there."""

    def __init__(self) -> None:
        self._token: dict[str, str] = {}
        self._next = 0.0
        self.spot: Json | None = None

    def look(self, now: float) -> bool:
        """Ask for an interruption, if it is time to; whether ``spot`` has one: {"action", "time"}."""
        if now < self._next:
            return False
        self._next = now + SPOT_SECONDS
        try:
            if not self._token:
                ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
                self._token = {"X-aws-ec2-metadata-token": self._ask("PUT", "/latest/api/token", ttl)}
            self.spot = json.loads(self._ask("GET", "/latest/meta-data/spot/instance-action", self._token))
        except FileNotFoundError:
            self.spot = None
        except (OSError, ValueError):
            self._token, self._next = {}, now + NO_METADATA_SECONDS
        return self.spot is not None

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        """One answer. Without http.client, whose import takes longer than all else here, on every node at once."""
        lines = [f"{method} {path} HTTP/1.0", f"Host: {METADATA}", "Content-Length: 0"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        with socket.create_connection((METADATA, PORT), timeout=1) as connection:
            connection.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
            with connection.makefile("rb") as answer:
                head, _, body = answer.read(MOST_BYTES).partition(b"\r\n\r\n")
        status = head.split(maxsplit=2)[1:2]
        if status != [b"200"]:
            raise (FileNotFoundError if status == [b"404"] else ConnectionError)(path)
        return body.decode()


def end(deadman: Deadman, why: str) -> None:
    """Shut this node down; does not return."""
    sys.stdout.write(f"{time.strftime('%FT%TZ', time.gmtime())} ppe-deadman: shutting down: {why}\n")
    sys.stdout.flush()
    while True:
        deadman.tell(event="shutdown", why=why)
        for command in (["shutdown", "-h", "now"], ["poweroff", "-f"]):
            with contextlib.suppress(OSError):
                os.spawnvp(os.P_WAIT, command[0], command)  # noqa: S606  # as subprocess, which is large, would
            time.sleep(FORCE_SECONDS)


def run() -> None:
    """Be the timer, unless another process is."""
    lock = LOCK.open("w")
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    limits = {**DEFAULTS, **(read(LIMITS) or {})}
    deadman = Deadman(limits, read(STATE), now=time.monotonic(), wall=time.time())
    saved: float | None = -1.0
    metadata, work, ears = Metadata(), Work(), beacon.listen(beacon.NODES_PORT)
    while True:
        deadman.join(read(MEMBER), now=time.monotonic())
        if deadman.deadline != saved:
            saved = deadman.deadline
            write(STATE, {"deadline": saved})
        left, why = deadman.left(now=time.monotonic(), wall=time.time())
        acts_at = time.time() + left
        write(STATUS, {"pid": os.getpid(), "acts_at": acts_at, "why": why, "spot": metadata.spot})
        if left <= 0:
            end(deadman, why)
        if select.select([ears], [], [], min(TICK_SECONDS, left))[0]:
            with contextlib.suppress(BlockingIOError):
                if order := deadman.hear(ears.recv(beacon.MAX_BYTES), now=time.monotonic()):
                    end(deadman, order)
        if metadata.look(time.monotonic()) and metadata.spot:
            deadman.tell(event="spot", **metadata.spot)
        if share := work.share(deadman.user, time.monotonic()):
            deadman.tell(event="work", share=share)


def status() -> Json:
    """What the running timer says; ``running`` tells whether one does."""
    told = read(STATUS)
    if told is None or not Path(f"/proc/{told['pid']}").exists():
        return {"running": False}
    return {"running": True, **told}


def main() -> None:
    """Run, or tell the status."""
    if sys.argv[1:] == ["run"]:
        run()
    else:
        sys.stdout.write(json.dumps(status()) + "\n")


if __name__ == "__main__":
    main()
