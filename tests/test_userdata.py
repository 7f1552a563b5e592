import gzip
import json
import random
from typing import Any

import pytest

from ppe_jupyter import errors, ssh
from ppe_jupyter.cloud.userdata import (
    DEADMAN,
    DEADMAN_FOLDER,
    DEADMAN_LIMITS,
    MAX_BYTES,
    PER_BOOT,
    RUN_SCRIPTS,
    SCRIPTS,
    NodeLimits,
    user_data,
)
from ppe_jupyter.delivery import bootstrap_script

HOST_KEY = ssh.generate_key_pair()
CLUSTER_KEY = ssh.generate_key_pair("ppe-x")


def made(**options: Any) -> bytes:
    return user_data(host_key=HOST_KEY, cluster_key=CLUSTER_KEY.public, login_user="admin", **options)


def config(**options: Any) -> dict[str, Any]:
    first, _, rest = gzip.decompress(made(**options)).partition(b"\n")
    assert first == b"#cloud-config"
    found: dict[str, Any] = json.loads(rest)
    return found


def files(**options: Any) -> dict[str, str]:
    return {file["path"]: file["content"] for file in config(**options)["write_files"]}


def test_keys_names_and_the_agent_at_each_boot() -> None:
    found = config()
    assert found["ssh_keys"] == {"ed25519_private": HOST_KEY.private, "ed25519_public": HOST_KEY.public}
    assert found["ssh_deletekeys"] is True
    assert found["manage_etc_hosts"] is False
    assert found["ssh_authorized_keys"] == [CLUSTER_KEY.public]
    assert "runuser -l admin" in files()[PER_BOOT]
    assert "runcmd" not in found


def test_the_launch_host_key_is_the_only_secret() -> None:
    text = gzip.decompress(made(bootstrap=bootstrap_script()))
    assert CLUSTER_KEY.private.encode() not in text
    assert text.count(b"PRIVATE KEY") == 2  # begin and end of the one


def test_the_dead_man_timer_is_armed_at_every_boot_before_anything_else() -> None:
    found = files(limits=NodeLimits(boot_seconds=60, hard_hours=2))
    # bootcmd runs at every boot, before everything but the early stages (cloud-init, module reference "Bootcmd")
    assert f"exec {DEADMAN} run" in config()["bootcmd"][0]
    assert json.loads(found[DEADMAN_LIMITS]) == {
        "boot_seconds": 60, "hard_seconds": 7200, "silence_seconds": 600,
    }  # fmt: skip
    assert "class Deadman" in found[f"{DEADMAN_FOLDER}/deadman.py"]


def test_a_stock_image_gets_the_bootstrap_and_the_users_script_within_the_limit() -> None:
    options = {"bootstrap": bootstrap_script(), "extra_bootstrap": "#!/bin/sh\ntouch /here\n"}
    # instancedata-add-user-data: limited to 16 KB, in raw form, before it is base64-encoded
    assert len(made(**options)) <= MAX_BYTES == 16384
    found = files(**options)
    assert found[f"{SCRIPTS}/bootstrap"] == bootstrap_script()
    assert found[f"{SCRIPTS}/extra"] == "#!/bin/sh\ntouch /here\n"
    assert config(**options)["runcmd"] == [[RUN_SCRIPTS]]


def test_what_is_too_big_is_named() -> None:
    script = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=40_000))
    with pytest.raises(
        errors.SpecError, match=r"EC2 takes 16384: \d{5} of them are the extra bootstrap script"
    ):
        made(extra_bootstrap=script)
