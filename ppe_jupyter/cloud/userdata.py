"""User data: what cloud-init makes of a node at its first boot.

Arms the node's dead-man timer before anything else, puts the launch's host key and the cluster's key in place, makes
a stock image a node, and runs the user's own script. Pure. Holds one secret only, the one-launch host key, which
setup.py replaces at once: whoever can read the user data could impersonate the node until then. JSON is YAML, so
nothing here needs a YAML library.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from importlib import resources

from ..errors import SpecError
from ..ssh import KeyPair

# In raw form, before base64 (user guide, instancedata-add-user-data).
MAX_BYTES = 16384
PER_BOOT = "/var/lib/cloud/scripts/per-boot/ppe-agent"
DEADMAN_FOLDER = "/usr/local/lib/ppe_node"
DEADMAN = "/usr/local/sbin/ppe-deadman"
DEADMAN_LIMITS = "/etc/ppe/deadman.json"
SCRIPTS = "/var/lib/ppe-node"
RUN_SCRIPTS = "/usr/local/sbin/ppe-bootstrap"

# cloud-init runs this as root at every boot. At the first one setup.py starts the agent: only with the host
# file that it writes can R reach every node.
START_AGENT = """\
#!/bin/sh
[ -e ~{user}/.ppe/session-hostfile ] || exit 0
exec runuser -l {user} -c 'python3 ~/.ppe/node/agent.py start'
"""
CALL_DEADMAN = """\
#!/bin/sh
cd {folder}/.. && exec python3 -SEc 'from ppe_node import deadman; deadman.main()' "$@"
"""
# At each boot, early, before the network; at the first one cloud-init writes the files only after it.
START_DEADMAN = (
    "setsid sh -c 'until [ -x {call} ]; do sleep 1; done; exec {call} run'"
    " </dev/null >>/var/log/ppe-deadman.log 2>&1 &"
)
# What each script prints and how it ends is kept for this_node.py, which tells whoever waits.
RUN = """\
#!/bin/sh
cd {folder} || exit
for name in bootstrap extra; do
  [ -e $name ] || continue
  echo $name >step
  {{ ./$name 2>&1 </dev/null; echo $? >$name.status; }} | tee $name.log
  [ "$(cat $name.status)" = 0 ] || exit 1
done
rm step
"""


@dataclass(frozen=True, kw_only=True)
class NodeLimits:
    """When a node ends by itself: not configured ``boot_seconds`` after its boot, ``hard_hours`` after its first boot
    (None: never), after ``silence_seconds`` without the master.

    ``hard_hours`` is to be later than the watchdog's own limit, which saves the workspace first.
    """

    boot_seconds: float = 1800.0
    hard_hours: float | None = None
    silence_seconds: float = 600.0

    def dump(self) -> str:
        """What deadman.py reads."""
        hard = None if self.hard_hours is None else 3600 * self.hard_hours
        return json.dumps(
            {
                "boot_seconds": self.boot_seconds,
                "hard_seconds": hard,
                "silence_seconds": self.silence_seconds,
            }
        )


def user_data(
    *,
    host_key: KeyPair,
    cluster_key: str,
    login_user: str,
    bootstrap: str | None = None,
    extra_bootstrap: str | None = None,
    limits: NodeLimits | None = None,
) -> bytes:
    """The user data of every node of a launch, gzipped.

    ``host_key`` is the launch's host key, ``cluster_key`` the public half of the cluster's own key pair,
    ``bootstrap`` the script that makes a stock image a node (None: the image is one), ``extra_bootstrap`` the
    user's own script, run after it. Raises SpecError when it is more than EC2 takes.
    """
    lifetime = resources.files("ppe_jupyter.node.lifetime")
    files = [
        *(
            _file(f"{DEADMAN_FOLDER}/{name}", (lifetime / name).read_text(encoding="utf-8"), "0644")
            for name in ("activity.py", "beacon.py", "deadman.py")
        ),
        _file(DEADMAN, CALL_DEADMAN.format(folder=DEADMAN_FOLDER)),
        _file(DEADMAN_LIMITS, (limits or NodeLimits()).dump(), "0644"),
        _file(PER_BOOT, START_AGENT.format(user=login_user)),
    ]
    scripts = {"bootstrap": bootstrap, "extra": extra_bootstrap}
    files += [_file(f"{SCRIPTS}/{name}", text) for name, text in scripts.items() if text is not None]
    config: dict[str, object] = {
        "bootcmd": [START_DEADMAN.format(call=DEADMAN)],
        # Only this key exists when sshd starts, so that the first packet is verified.
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host_key.private, "ed25519_public": host_key.public},
        "ssh_authorized_keys": [cluster_key],
        # Else cloud-init writes /etc/hosts anew at every boot, and the nodes' names are gone.
        "manage_etc_hosts": False,
        "package_update": False,
        "package_upgrade": False,
        "write_files": files,
    }
    if any(text is not None for text in scripts.values()):
        files.append(_file(RUN_SCRIPTS, RUN.format(folder=SCRIPTS)))
        config["runcmd"] = [[RUN_SCRIPTS]]
    data = gzip.compress(f"#cloud-config\n{json.dumps(config)}".encode(), mtime=0)
    if len(data) > MAX_BYTES:
        raise SpecError(_too_big(len(data), extra_bootstrap))
    return data


def _file(path: str, content: str, permissions: str = "0755") -> dict[str, str]:
    return {"path": path, "permissions": permissions, "content": content}


def _too_big(size: int, extra: str | None) -> str:
    part = len(gzip.compress((extra or "").encode()))
    return (
        f"the nodes' user data has {size} bytes compressed, and EC2 takes {MAX_BYTES}: {part} of them are the extra"
        " bootstrap script; shorten it, or have it fetch its larger parts"
    )
