"""User data: what cloud-init makes of a node at its first boot.

Pure. Holds one secret only, the one-launch host key, which setup.py replaces at once: whoever can read the
user data could impersonate the node until then. JSON is YAML, so nothing here needs a YAML library.
"""

from __future__ import annotations

import gzip
import json
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

from ..ssh import KeyPair

# In raw form, before base64 (user guide, instancedata-add-user-data).
MAX_BYTES = 16384
PER_BOOT = "/var/lib/cloud/scripts/per-boot/ppe-agent"
# cloud-init runs this as root at every boot. At the first one setup.py starts the agent: only with the host
# file that it writes can R reach every node.
START_AGENT = """\
#!/bin/sh
exec runuser -l {user} -c 'if [ -e ~/.ppe/session-hostfile ]; then python3 ~/.ppe/node/agent.py start; fi'
"""


def user_data(*, host_key: KeyPair, cluster_key: str, login_user: str, bootstrap: str | None) -> bytes:
    """The user data of every node of a launch.

    ``host_key`` is the launch's host key, ``cluster_key`` the public half of the cluster's own key pair,
    ``bootstrap`` the script that makes a stock image a node (None: the image is one).
    """
    config = "#cloud-config\n" + json.dumps(
        _cloud_config(host_key=host_key, cluster_key=cluster_key, login_user=login_user), indent=1
    )
    if bootstrap is None:
        return config.encode()
    parts = MIMEMultipart(boundary="ppe")
    parts.attach(MIMEText(config, "cloud-config", "us-ascii"))
    parts.attach(MIMEText(bootstrap, "x-shellscript", "utf-8"))
    data = gzip.compress(parts.as_bytes(), mtime=0)
    assert len(data) <= MAX_BYTES, f"user data of {len(data)} bytes is more than {MAX_BYTES}"
    return data


def _cloud_config(*, host_key: KeyPair, cluster_key: str, login_user: str) -> dict[str, object]:
    return {
        # Only this key exists when sshd starts, so that the first packet is verified.
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host_key.private, "ed25519_public": host_key.public},
        "ssh_authorized_keys": [cluster_key],
        # Else cloud-init writes /etc/hosts anew at every boot, and the nodes' names are gone.
        "manage_etc_hosts": False,
        "package_update": False,
        "package_upgrade": False,
        "write_files": [
            {"path": PER_BOOT, "permissions": "0755", "content": START_AGENT.format(user=login_user)}
        ],
    }
