"""How instances with tags become clusters again.

An instance's index is its AmiLaunchIndex (user guide, AMI-launch-index-examples) after the request's first one. The
master is index 0 until another instance takes its place, which a tag then names. What a tag cannot have been written
as by us is as if it were not there: tags can be edited by anyone. Pure.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone

from .. import catalog
from .facts import Instance
from .records import ClusterRecord, ClusterState, Cost, Node, cluster_state, troubles, usd_per_hour
from .spec import ClusterSpec
from .tags import (
    BUSY_UNTIL,
    CLUSTER,
    COST,
    ED25519,
    FIRST_INDEX,
    GUESTS,
    HOST_KEYS,
    KEY_PREFIX,
    KEY_WIDTH,
    KEYS_PER_TAG,
    LAUNCH,
    LAUNCH_HOST_KEY,
    LOGIN_USER,
    MASTER,
    MAX_SPEC_TAGS,
    NO_KEY,
    OWNER,
    PRICE,
    SLOTS,
    SPEC,
    STATE,
)  # fmt: skip


def clusters(instances: Iterable[Instance], *, now: datetime) -> list[ClusterRecord]:
    """The clusters that these instances make, the newest first."""
    ours = sorted((each for each in instances if CLUSTER in each.tags), key=lambda each: each.tags[CLUSTER])
    groups = itertools.groupby(ours, key=lambda each: each.tags[CLUSTER])
    records = [_record(name, _newest_launch(list(members)), now) for name, members in groups]
    return sorted(records, key=lambda record: record.launched, reverse=True)


def user_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Those that the user gave."""
    return {
        key: value for key, value in tags.items() if key != "Name" and not key.startswith(("ppe:", "aws:"))
    }


def spec_of(tags: Mapping[str, str]) -> ClusterSpec | None:
    """The spec that a resource's tags hold, or None."""
    text = "".join(
        itertools.takewhile(bool, (tags.get(f"{SPEC}{number}", "") for number in range(MAX_SPEC_TAGS)))
    )
    return ClusterSpec.from_tag(text, name=tags.get(CLUSTER, ""), tags=user_tags(tags))


def busy_until_of(tags: Mapping[str, str]) -> datetime | None:
    """Till when a client may be at work on what has these tags."""
    return _time(tags.get(BUSY_UNTIL, ""))


def was_configured(tags: Mapping[str, str]) -> bool:
    """Whether setting the instance up has ever ended well; what was then is "configuring" till it is so again."""
    return tags.get(STATE) not in (None, "", ClusterState.PENDING.value)


def host_key(tags: Mapping[str, str], index: int) -> str:
    """The host key of the node of that index: its own one, else the one it was launched with, else ""."""
    tag, place = divmod(index, KEYS_PER_TAG)
    raw = tags.get(f"{HOST_KEYS}{tag}", "")[place * KEY_WIDTH : (place + 1) * KEY_WIDTH]
    if len(raw) == KEY_WIDTH and raw != NO_KEY:
        return f"{ED25519} {base64.b64encode(KEY_PREFIX + base64.b64decode(raw + '=')).decode()}"
    return tags.get(LAUNCH_HOST_KEY, "")


def _newest_launch(instances: list[Instance]) -> list[Instance]:
    """Terminated instances stay visible for an hour; a new cluster may have taken their name meanwhile.

    A cluster that has run keeps its name, whatever a later launch that ended half-way has left.
    """

    def claim(each: Instance) -> tuple[bool, bool, datetime]:
        return each.state.alive, each.state.alive and was_configured(each.tags), each.launched

    newest = max(instances, key=claim)
    return [each for each in instances if each.tags.get(LAUNCH) == newest.tags.get(LAUNCH)]


def _record(name: str, instances: list[Instance], now: datetime) -> ClusterRecord:
    # What was launched last was tagged last; the oldest that lives says whose and since when.
    latest = max(instances, key=lambda each: (each.state.alive, each.tags.get(BUSY_UNTIL, "")))
    tags = latest.tags
    spec = spec_of(tags)
    expected = spec.nodes if spec else len(instances)
    nodes = _nodes(instances, master_id=tags.get(MASTER, ""), expected=expected)
    until = busy_until_of(tags)
    size = spec or ClusterSpec()
    return ClusterRecord(
        name=name,
        state=cluster_state(
            nodes,
            tagged=[each.tags.get(STATE, "") for each in instances if each.state.alive],
            expected=expected,
            busy=until is not None and now < until,
        ),
        nodes=nodes,
        usd_per_hour=usd_per_hour(nodes, root_gb=size.root_gb, root_type=size.root_type),
        launched=min(each.launched for each in instances),
        owner=tags.get(OWNER, ""),
        slots=sum(node.slots for node in nodes if node.state.alive),
        login_user=tags.get(LOGIN_USER, ""),
        key_name=latest.key_name,
        spec=spec,
        busy_until=until,
        launch=tags.get(LAUNCH, ""),
        cost=_cost(tags.get(COST, "")),
        troubles=troubles(nodes, expected=expected),
        guests=_guests(instances),
    )


def _guests(instances: Iterable[Instance]) -> tuple[str, ...]:
    """As the oldest that lives says: a new node has the tag only when it is set up."""
    living = sorted((each for each in instances if each.state.alive), key=lambda each: each.launched)
    return tuple(next((each.tags[GUESTS] for each in living if GUESTS in each.tags), "").split())


def _nodes(instances: list[Instance], *, master_id: str, expected: int) -> tuple[Node, ...]:
    """For each index the instance that lives, else the last that did, if there should be one."""
    by_index: dict[int, Instance] = {}
    for each in sorted(instances, key=lambda each: (each.state.alive, each.launched)):
        by_index[_index(each)] = each
    known = {each.instance_id for each in by_index.values() if each.state.alive}
    master_index = 0
    if master_id in known:
        master_index = next(index for index, each in by_index.items() if each.instance_id == master_id)
    return tuple(
        _node(each, index, "master" if index == master_index else "worker")
        for index, each in sorted(by_index.items())
        if each.state.alive or index < expected
    )


def _index(instance: Instance) -> int:
    return _whole(instance.tags.get(FIRST_INDEX, ""), 0) + instance.launch_index


def _node(instance: Instance, index: int, role: str) -> Node:
    return Node(
        instance_id=instance.instance_id,
        index=index,
        role=role,
        state=instance.state,
        private_ip=instance.private_ip,
        private_dns=instance.private_dns,
        public_ip=instance.public_ip,
        public_dns=instance.public_dns,
        instance_type=instance.instance_type,
        zone=instance.zone,
        subnet_id=instance.subnet_id,
        slots=_whole(instance.tags.get(SLOTS, ""), 1),
        launched=instance.launched,
        host_key=host_key(instance.tags, index),
        launch_host_key=instance.tags.get(LAUNCH_HOST_KEY, ""),
        spot=instance.spot,
        price=_price(instance),
        was_configured=was_configured(instance.tags),
        configured=was_configured(instance.tags) and instance.tags[STATE] != ClusterState.CONFIGURING.value,
        reason=instance.reason,
        stopped=instance.stopped,
    )


def _price(instance: Instance) -> float | None:
    """As it was known at the launch; else, for a tag that is damaged, the catalog's."""
    try:
        return float(instance.tags[PRICE])
    except (KeyError, ValueError):
        known = catalog.instance_types().get(instance.instance_type)
        return known.usd_per_hour if known else None


def _cost(text: str) -> Cost | None:
    try:
        spent, rate, since = text.split()
        usd_per_hour = None if rate == "?" else float(rate)
        return Cost(spent_usd=float(spent), usd_per_hour=usd_per_hour, since=datetime.fromisoformat(since))
    except ValueError:
        return None


def _whole(text: str, otherwise: int) -> int:
    return int(text) if text.removeprefix("-").isdigit() else otherwise


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
