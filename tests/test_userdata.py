import gzip
import json
from email import message_from_bytes

from ppe_jupyter import ssh
from ppe_jupyter.cloud.configure import bootstrap_script
from ppe_jupyter.cloud.userdata import MAX_BYTES, PER_BOOT, user_data

HOST_KEY = ssh.generate_key_pair()
CLUSTER_KEY = ssh.generate_key_pair("ppe-x")


def made(bootstrap: str | None) -> bytes:
    return user_data(
        host_key=HOST_KEY, cluster_key=CLUSTER_KEY.public, login_user="admin", bootstrap=bootstrap
    )


def test_a_node_image_gets_a_plain_cloud_config() -> None:
    first, _, rest = made(None).partition(b"\n")
    config = json.loads(rest)
    assert first == b"#cloud-config"
    assert config["ssh_keys"]["ed25519_private"] == HOST_KEY.private
    assert config["ssh_keys"]["ed25519_public"] == HOST_KEY.public
    assert config["ssh_deletekeys"] is True
    assert config["manage_etc_hosts"] is False
    assert config["ssh_authorized_keys"] == [CLUSTER_KEY.public]
    assert config["write_files"][0]["path"] == PER_BOOT
    assert "runuser -l admin" in config["write_files"][0]["content"]


def test_the_launch_host_key_is_the_only_secret() -> None:
    assert CLUSTER_KEY.private.encode() not in made(None)
    assert made(None).count(b"PRIVATE KEY") == 2  # begin and end of the one


def test_a_stock_image_gets_the_bootstrap_too_within_the_limit() -> None:
    data = made(bootstrap_script())
    # instancedata-add-user-data: limited to 16 KB, in raw form, before it is base64-encoded
    assert len(data) <= MAX_BYTES == 16384
    config, script = message_from_bytes(gzip.decompress(data)).get_payload()
    assert config.get_content_type() == "text/cloud-config"
    assert script.get_content_type() == "text/x-shellscript"
    assert script.get_payload(decode=True).decode() == bootstrap_script()
