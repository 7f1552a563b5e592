"""Windows and macOS are clients of AWS: the client side imports and runs without what only Unix or Linux has.

The client below runs in an interpreter in which those modules cannot be imported. It treats the local cloud's
endpoint as if it were AWS, because the local cloud itself needs Linux.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint

CLIENT = """
import importlib.abc, json, os, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {"fcntl", "pwd", "termios", "grp", "pty", "resource", "tty"}:
            raise ModuleNotFoundError(f"no module named {name!r} on this system", name=name)

sys.meta_path.insert(0, Missing())
for name in ("fcntl", "pwd", "termios", "grp", "pty", "resource", "tty"):
    sys.modules.pop(name, None)
import dataclasses, pathlib, pkgutil
import ppe_jupyter as ppe
import ppe_jupyter.cloud, ppe_jupyter.frontends, ppe_jupyter.remote
from ppe_jupyter import settings
for room in (ppe_jupyter.cloud, ppe_jupyter.frontends, ppe_jupyter.remote):
    for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
        if not module.name.endswith("local_r"):  # imports R
            __import__(module.name)
from ppe_jupyter.cloud.ec2 import EC2

endpoint = json.loads(sys.argv[1])
chosen = dataclasses.replace(settings.load(), cloud="aws", state_dir=pathlib.Path(sys.argv[2]))
manager = ppe.Manager(chosen)
manager.__dict__["_ec2"] = EC2(
    chosen, endpoint_url=endpoint["url"], access_key=endpoint["access_key"],
    secret_key=endpoint["secret_key"], region=endpoint["region"],
)
cidr = endpoint["caller_address"] + "/32"
cluster = manager.launch(ppe.ClusterSpec(nodes=1, instance_type="m5.large", caller_cidr=cidr))
try:
    assert manager.whose().startswith("AWS account 123456789012"), manager.whose()
    assert cluster.r().eval("6 * 7") == 42
    assert [each.name for each in manager.clusters()].count(cluster.name) == 1
finally:
    cluster.terminate()
print(json.dumps(sorted(name for name in sys.modules if name in {"fcntl", "pwd", "termios"})))
"""


def test_the_client_side_runs_without_unix_modules(local_cloud: Endpoint, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(asdict(local_cloud)), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
