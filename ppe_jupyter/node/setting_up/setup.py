"""Makes booted nodes a cluster. Runs on the master, as the login user, at launch and whenever nodes change.

    setup              sets up. Reads one JSON object: cluster, login_user, subnet_cidr, cluster_private_key (null: the
                       master has it), launch_host_key, nodes (index, instance_id, private_ip, private_dns, slots,
                       role, and perhaps launch_host_key, host_key, configured), limits (limits.py), silence_seconds,
                       patience_seconds, installs, packages (apt, r, python), cran_url, shared (kind and what sharing.py
                       wants of it), private (whether a worker may have no way out of its own)
    setup install      installs packages on all nodes of the cluster (installing.py): apt, r, python, cran_url

Prints JSON lines: ``progress`` (phase, ready, total, message), ``host_keys`` (those that the nodes will show, by
address), then ``done`` (host_keys by address, versions, and lost: why, of the workers that are left out, by address) or
``error`` (message, node). Ends only when ``mpirun`` over all nodes and the R session have answered. A worker that does
not answer within ``patience_seconds`` is left out; one that answers has an hour for the rest of its boot if that
``installs`` software. Safe to repeat, also after it was cut off. A running R session is left alone. Runs with
the standard library of the master's own Python and must not know EC2.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from ..lifetime.limits import Limits
from ..machine import own_packages, surroundings
from ..whole import write
from . import guests, installing, reach, shared_folder, stranded
from .master import CLUSTER, have_cluster_key, mpi_silence, read, shim, start_r, versions, write_hostfiles
from .phase import Json, Phase, emit
from .reach import FOLDER, Node, NodeFailed

BOOT_SECONDS = 900.0
CONFIGURE_SECONDS = 120.0
PROBE_SECONDS = 10.0
SILENCE_SECONDS = 600.0
# Which key each node has or is to have: a setup that was cut off goes on with them.
HOST_KEYS = FOLDER / "host-keys.json"
LIMITS = FOLDER / "limits.json"
BEACON = FOLDER / "beacon.json"


class SetUp:
    """One run over ``nodes``; ``lost`` has the workers that are left out so far, with the reason."""

    def __init__(self, task: Mapping[str, Any]) -> None:
        self._task = task
        self._nodes = sorted(map(_node, task["nodes"]), key=lambda node: (not node.is_master, node.index))
        self._total = len(self._nodes)
        self._launch_key = _words(task.get("launch_host_key", ""))
        self._lost: dict[str, str] = {}
        self._shim = b""
        if [node.is_master for node in self._nodes].count(True) != 1:
            raise NodeFailed("one of the nodes must have the role of the master")

    def run(self) -> None:
        """Do all of it; the last event is ``done``. Raises NodeFailed."""
        # First of all: limits that are over would end the cluster under our hands.
        write(LIMITS, Limits.parse(self._task.get("limits", {})).dump())
        have_cluster_key(self._task["cluster_private_key"])
        keys = {node.instance_id: node.host_key for node in self._nodes if node.host_key} | self._noted_keys()
        self._expect(keys, launching=True)
        reach.write_ssh_config()

        answers = self._each("booting", partial(self._prepare, reach.software()))
        keys = {node.instance_id: answers[node.private_ip]["host_key"] for node in self._nodes}
        write(HOST_KEYS, json.dumps(keys))
        # Before they are in force, for whoever has to begin again.
        emit("host_keys", host_keys=self._by_address(keys))
        self._expect(keys, launching=True)
        self._configure(
            keys, shared_machine=len({each["machine"] for each in answers.values()}) < len(self._nodes)
        )

        found: dict[str, str] = {}
        reading = threading.Thread(target=lambda: found.update(versions()))
        reading.start()
        while not self._mpi_answers():
            pass
        reading.join()
        emit("progress", phase="starting R", ready=len(self._nodes), total=self._total)
        start_r()
        nodes = [asdict(node) for node in self._nodes]
        write(CLUSTER, json.dumps({"cluster": self._task["cluster"], "nodes": nodes}))
        emit("done", host_keys=self._by_address(keys), versions=found, lost=self._lost)

    def _by_address(self, keys: Mapping[str, str]) -> Json:
        return {node.private_ip: keys[node.instance_id] for node in self._nodes}

    def _configure(self, keys: dict[str, str], *, shared_machine: bool) -> None:
        """Software, settings and ~/shared of all nodes, which have these host keys from then on."""
        cran_url = self._task.get("cran_url") or surroundings.cran()
        if self._task.get("private"):
            stranded.lead_out(self._nodes, cran_url=cran_url)
        wanted = installing.with_earlier(self._task.get("packages", {}))
        missing: list[str] = []
        if wanted:
            told = self._each("installing", partial(installing.of_distribution, wanted))
            missing = installing.missing(told)
        common = {
            "login_user": self._task["login_user"],
            "subnet_cidr": self._task["subnet_cidr"],
            "shared": shared_machine,
            "cran_url": cran_url,
            "share": self._task["shared"],
            "shim": base64.b64encode(self._shim).decode(),
            "guests": guests.listed(),
        }
        while not self._configure_all(keys, common):
            pass
        if self._task["shared"]["kind"] != "bind":
            shared_folder.share(self._nodes, self._task["shared"], self._task["login_user"])
        self._expect(keys, launching=False)
        self._have_own_software(missing, wanted)

    def _each(self, phase: str, act: Callable[[Node, reach.Say], Json]) -> dict[str, Json]:
        """Act on all nodes that are left; the workers at which it fails are lost."""
        answers, failed = Phase(phase, self._nodes, self._total).run(act)
        self._leave_out({address: str(error) for address, error in failed.items()})
        return answers

    def _have_own_software(self, r: Sequence[str], wanted: installing.Wanted) -> None:
        """The user's own packages on the master, and all that it has on the workers, which may be new."""
        phase = Phase("installing", self._nodes, self._total)
        installing.again(r, wanted.get("python", ()), read(installing.PACKAGES), phase)
        if wanted:
            write(installing.PACKAGES, json.dumps(wanted))
        write_hostfiles(self._nodes)
        for line in own_packages.share(everything=own_packages.SHARED.exists()):
            phase.say(self._nodes[0], line.lstrip("!"))

    def _leave_out(self, lost: Mapping[str, str]) -> None:
        self._lost.update(lost)
        self._nodes = [node for node in self._nodes if node.private_ip not in lost]

    def _prepare(self, tar: bytes, node: Node, say: reach.Say) -> Json:
        """Copy the node's software there and wait for its boot; it may only be coming up."""
        seconds = float(self._task.get("patience_seconds", BOOT_SECONDS))
        seconds = max(seconds, BOOT_SECONDS) if node.is_master else seconds
        deadline = time.monotonic() + seconds + reach.SPARE_SECONDS
        if self._task.get("installs"):
            reach.command(node, "true", deadline=deadline)
            deadline = time.monotonic() + installing.SECONDS + reach.SPARE_SECONDS
        answer = reach.prepare(node, self._launch_key_of(node), tar, deadline=deadline, say=say)
        if node.is_master:
            self._shim = shim()  # for all; the others still boot
        return answer

    def _configure_all(self, keys: Mapping[str, str], common: Mapping[str, Any]) -> bool:
        """Have all nodes know each other; False if one was lost meanwhile, whom the others know now."""
        known = [
            {
                "private_ip": node.private_ip,
                "names": [node.private_dns, node.name],
                "host_key": keys[node.instance_id],
            }
            for node in self._nodes
        ]
        secret = self._write_beacon()

        def configure(node: Node, say: reach.Say) -> Json:
            member = {
                "secret": secret,
                "name": node.name,
                "master": self._nodes[0].private_ip,
                "silence_seconds": self._silence_seconds,
                "user": None if node.is_master else self._task["login_user"],
            }
            task = {**common, "nodes": known, "slots": node.slots, "member": member}
            deadline = time.monotonic() + CONFIGURE_SECONDS
            return reach.ask(node, "configure", task, deadline=deadline, say=say)

        before = len(self._nodes)
        answers = self._each("configuring", configure)
        shared_folder.tell(answers, Phase("configuring", self._nodes, self._total))
        return len(self._nodes) == before

    @property
    def _silence_seconds(self) -> float:
        return float(self._task.get("silence_seconds", SILENCE_SECONDS))

    def _write_beacon(self) -> str:
        """Whom the agent tells that they are wanted; the secret that makes them believe it."""
        secret = read(BEACON).get("secret") or secrets.token_hex(32)
        beacon = {
            "secret": secret,
            "name": self._nodes[0].name,
            "addresses": [node.private_ip for node in self._nodes],
            "silence_seconds": self._silence_seconds,
        }
        write(BEACON, json.dumps(beacon))
        return str(secret)

    def _launch_key_of(self, node: Node) -> str:
        return _words(node.launch_host_key) or self._launch_key

    def _noted_keys(self) -> dict[str, str]:
        """Keys that an earlier setup has noted, by instance."""
        noted = read(HOST_KEYS)
        return {
            node.instance_id: noted[node.instance_id] for node in self._nodes if node.instance_id in noted
        }

    def _expect(self, keys: Mapping[str, str], *, launching: bool) -> None:
        """Write which keys the nodes may show now: the launch's until theirs is in force everywhere."""
        finished = {node["instance_id"] for node in read(CLUSTER).get("nodes", ())}
        finished |= {node.instance_id for node in self._nodes if node.host_key and node.configured}
        lines = [
            f"{node.private_ip} {keys[node.instance_id]}\n"
            for node in self._nodes
            if node.instance_id in keys
        ]
        fresh = [node for node in self._nodes if launching and node.instance_id not in finished]
        lines += [f"{node.private_ip} {self._launch_key_of(node)}\n" for node in fresh]
        write(reach.KNOWN_HOSTS, "".join(lines))

    def _mpi_answers(self) -> bool:
        """Whether MPI works on all nodes; False if workers were lost meanwhile, and are left out now."""
        phase = Phase("checking MPI", self._nodes, self._total)
        phase.ready(0)
        write_hostfiles(self._nodes)
        silent, words = mpi_silence(self._nodes)
        if silent:
            _, gone = reach.everywhere(self._nodes, _probe, done=lambda count: None)
            if not gone:
                raise silent[0].failed(words)
            self._leave_out({address: str(failure) for address, failure in gone.items()})
            return False
        phase.ready(len(self._nodes))
        return True


def _probe(node: Node) -> Json:
    reach.command(node, "true", deadline=time.monotonic() + PROBE_SECONDS)
    return {}


def _node(told: Mapping[str, Any]) -> Node:
    return Node(**{key: told[key] for key in Node.__dataclass_fields__ if key in told})


def _words(public_key: str) -> str:
    """A public key without its comment."""
    return " ".join(public_key.split()[:2])


def main(arguments: Iterable[str]) -> int:
    """Set up or install; 0 if it is done."""
    try:
        task = json.load(sys.stdin)
        if list(arguments) == ["install"]:
            installing.install([_node(each) for each in read(CLUSTER).get("nodes", ())], task)
        else:
            SetUp(task).run()
    except NodeFailed as exc:
        emit("error", message=str(exc), node=exc.node)
    except Exception as exc:
        emit("error", message=f"setting up the master failed: {exc!r}", node=None)
    else:
        return 0
    return 1


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    # Threads that still wait for other nodes must not keep a setup that has failed.
    os._exit(status)
