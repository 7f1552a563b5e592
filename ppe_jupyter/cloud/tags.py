"""The tags that hold a cluster's truth, and how instances with tags become clusters again.

All of a cluster's tags are written in two calls whatever its size: those of RunInstances, and one CreateTags
when it runs. Tags are the same on every instance; an instance's index is its AmiLaunchIndex, and the master's
is 0 (user guide, AMI-launch-index-examples). Pure.
"""

from __future__ import annotations

import base64
import itertools
import struct
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone

from .. import catalog
from .facts import Instance
from .records import ClusterRecord, ClusterState, Node, cluster_state
from .spec import DEFAULT_ROOT_GB, ClusterSpec

CLUSTER = "ppe:cluster"
LAUNCH = "ppe:launch"
OWNER = "ppe:owner"
LAUNCHING_UNTIL = "ppe:launching-until"
SPEC = "ppe:spec"
STATE = "ppe:state"
SLOTS = "ppe:slots"
LOGIN_USER = "ppe:login-user"
LAUNCH_HOST_KEY = "ppe:launch-host-key"
HOST_KEYS = "ppe:host-keys-"
IMAGE = "ppe:image"

# A value has at most 256 characters (user guide, Using_Tags), a raw ed25519 key in base64 43.
KEYS_PER_TAG = 5
# 50 tags a resource less ours and the user's. Further nodes are reached through the master, which knows all.
MAX_HOST_KEY_TAGS = 28
_ED25519 = "ssh-ed25519"
_PREFIX = struct.pack(">I", len(_ED25519)) + _ED25519.encode() + struct.pack(">I", 32)


def for_everything(
    spec: ClusterSpec, *, name: str, owner: str, launch: str, launching_until: datetime
) -> dict[str, str]:
    """The tags of every resource of one launch."""
    return {
        **spec.tags,
        "Name": f"ppe-{name}",
        CLUSTER: name,
        OWNER: owner[:256],
        LAUNCH: launch,
        LAUNCHING_UNTIL: launching_until.astimezone(timezone.utc).isoformat(timespec="seconds"),
    }


def for_instances(
    common: Mapping[str, str], *, spec: ClusterSpec, slots: int, login_user: str, launch_host_key: str
) -> dict[str, str]:
    """The tags of every instance of one launch."""
    return {
        **common,
        SPEC: spec.to_tag(),
        STATE: ClusterState.PENDING.value,
        SLOTS: str(slots),
        LOGIN_USER: login_user,
        LAUNCH_HOST_KEY: launch_host_key,
    }


def when_running(host_keys: Sequence[str]) -> dict[str, str]:
    """The tags that every instance gets when the cluster runs; ``host_keys`` in order of index."""
    raw = [_raw_key(key) for key in host_keys[: KEYS_PER_TAG * MAX_HOST_KEY_TAGS]]
    tags = {
        f"{HOST_KEYS}{start // KEYS_PER_TAG}": "".join(raw[start : start + KEYS_PER_TAG])
        for start in range(0, len(raw), KEYS_PER_TAG)
    }
    return {**tags, STATE: ClusterState.RUNNING.value}


def host_key(tags: Mapping[str, str], index: int) -> str:
    """The host key of the node of that index: its own one, else the one it was launched with, else ""."""
    width = len(_raw_key(f"{_ED25519} {base64.b64encode(_PREFIX + bytes(32)).decode()}"))
    tag, place = divmod(index, KEYS_PER_TAG)
    raw = tags.get(f"{HOST_KEYS}{tag}", "")[place * width : (place + 1) * width]
    if len(raw) == width:
        return f"{_ED25519} {base64.b64encode(_PREFIX + base64.b64decode(raw + '=')).decode()}"
    return tags.get(LAUNCH_HOST_KEY, "")


def clusters(instances: Iterable[Instance], *, now: datetime) -> list[ClusterRecord]:
    """The clusters that these instances make, the newest first."""
    ours = sorted((each for each in instances if CLUSTER in each.tags), key=lambda each: each.tags[CLUSTER])
    groups = itertools.groupby(ours, key=lambda each: each.tags[CLUSTER])
    records = [_record(name, _newest_launch(list(members)), now) for name, members in groups]
    return sorted(records, key=lambda record: record.launched, reverse=True)


def _newest_launch(instances: list[Instance]) -> list[Instance]:
    """Terminated instances stay visible for an hour; a new cluster may have taken their name meanwhile."""
    newest = max(instances, key=lambda each: (each.state.alive, each.launched))
    same = [each for each in instances if each.tags.get(LAUNCH) == newest.tags.get(LAUNCH)]
    return sorted(same, key=lambda each: each.launch_index)


def _record(name: str, instances: list[Instance], now: datetime) -> ClusterRecord:
    first = instances[0]
    user_tags = {
        key: value for key, value in first.tags.items() if key != "Name" and not key.startswith("ppe:")
    }
    spec = ClusterSpec.from_tag(first.tags.get(SPEC, ""), name=name, tags=user_tags)
    until = _time(first.tags.get(LAUNCHING_UNTIL, ""))
    nodes = tuple(_node(each) for each in instances)
    return ClusterRecord(
        name=name,
        state=cluster_state(
            instances=[each.state for each in instances],
            tagged=[each.tags.get(STATE, "") for each in instances],
            expected=spec.nodes if spec else len(instances),
            launching=until is not None and now < until,
        ),
        nodes=nodes,
        usd_per_hour=_usd_per_hour(nodes, root_gb=spec.root_gb if spec else DEFAULT_ROOT_GB),
        launched=min(each.launched for each in instances),
        owner=first.tags.get(OWNER, ""),
        slots=sum(node.slots for node in nodes),
        login_user=first.tags.get(LOGIN_USER, ""),
        key_name=first.key_name,
        spec=spec,
        launching_until=until,
    )


def _node(instance: Instance) -> Node:
    return Node(
        instance_id=instance.instance_id,
        index=instance.launch_index,
        role="master" if instance.launch_index == 0 else "worker",
        state=instance.state,
        private_ip=instance.private_ip,
        private_dns=instance.private_dns,
        public_ip=instance.public_ip,
        public_dns=instance.public_dns,
        instance_type=instance.instance_type,
        zone=instance.zone,
        slots=_number(instance.tags.get(SLOTS, ""), 1),
        launched=instance.launched,
        host_key=host_key(instance.tags, instance.launch_index),
    )


def _usd_per_hour(nodes: Iterable[Node], *, root_gb: int) -> float | None:
    total = 0.0
    for node in nodes:
        if not node.state.alive:
            continue
        price = catalog.usd_per_hour(node.instance_type, root_gb=root_gb, public_address=bool(node.public_ip))
        if price is None:
            return None
        total += price
    return total


def _raw_key(public: str) -> str:
    """The 32 bytes of an ed25519 key as 43 characters of base64."""
    blob = base64.b64decode(public.split()[1])
    assert blob.startswith(_PREFIX) and len(blob) == len(_PREFIX) + 32, f"not an ed25519 key: {public}"
    return base64.b64encode(blob[len(_PREFIX) :]).decode().rstrip("=")


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isdigit() else otherwise


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def launching_until(now: datetime, *, boot_timeout: float) -> datetime:
    """Till when others keep their hands off a launch: booting, and as long again for setting up."""
    return now + timedelta(seconds=2 * boot_timeout)
