"""The tags that hold a cluster's truth, and how instances with tags become clusters again.

A launch writes them in two calls whatever its size: those of RunInstances, and one CreateTags when it runs.
Tags are the same on every instance of a request: an instance's index is its AmiLaunchIndex (user guide,
AMI-launch-index-examples) after the request's first one. The master is index 0 until another instance takes
its place, which a tag then names. Pure.
"""

from __future__ import annotations

import base64
import itertools
import struct
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone

from .. import catalog
from .facts import Instance
from .records import ClusterRecord, ClusterState, Cost, Node, cluster_state, troubles, usd_per_hour
from .spec import MAX_TAG_VALUE, ClusterSpec

CLUSTER = "ppe:cluster"
LAUNCH = "ppe:launch"
OWNER = "ppe:owner"
# Till when a client may be at work on what carries it: on a launch, or on another change.
BUSY_UNTIL = "ppe:launching-until"
# The spec's JSON, cut to the length of a tag.
SPEC = "ppe:spec-"
STATE = "ppe:state"
SLOTS = "ppe:slots"
LOGIN_USER = "ppe:login-user"
LAUNCH_HOST_KEY = "ppe:launch-host-key"
HOST_KEYS = "ppe:host-keys-"
MADE = "ppe:made"  # what was not made for one cluster: image, volume, or what a bake needs on its way
IMAGE = "ppe:image"
SURCHARGE = "ppe:surcharge"  # of an image: USD per hour and instance
FIRST_INDEX = "ppe:first-index"
MASTER = "ppe:master"
PRICE = "ppe:price"
COST = "ppe:cost"
GUESTS = "ppe:guests"

# A value has at most 256 characters (user guide, Using_Tags), a raw ed25519 key in base64 43.
KEYS_PER_TAG = 5
KEY_WIDTH = 43
NO_KEY = KEY_WIDTH * "-"
# 50 tags a resource less ours and the user's. Further nodes are reached through the master, which knows all.
MAX_HOST_KEY_TAGS = 18
MAX_SPEC_TAGS = 6
_ED25519 = "ssh-ed25519"
_PREFIX = struct.pack(">I", len(_ED25519)) + _ED25519.encode() + struct.pack(">I", 32)


def for_everything(
    spec: ClusterSpec, *, name: str, owner: str, launch: str, busy_until: datetime
) -> dict[str, str]:
    """The tags of every resource of one launch; the spec among them, so that anybody can finish it."""
    return {
        **spec.tags,
        "Name": f"ppe-{name}",
        CLUSTER: name,
        OWNER: owner[:MAX_TAG_VALUE],
        LAUNCH: launch,
        **busy(busy_until),
        **of_spec(spec),
    }


def for_instances(
    common: Mapping[str, str],
    *,
    slots: int,
    login_user: str,
    launch_host_key: str,
    cost: Cost,
    price: float | None,
    first_index: int = 0,
) -> dict[str, str]:
    """The tags of every instance of one request; ``price`` is what each alone costs an hour."""
    return {
        **common,
        STATE: ClusterState.PENDING.value,
        SLOTS: str(slots),
        LOGIN_USER: login_user,
        LAUNCH_HOST_KEY: launch_host_key,
        FIRST_INDEX: str(first_index),
        **({} if price is None else {PRICE: f"{price:.6f}"}),
        **of_cost(cost),
    }


def of_spec(spec: ClusterSpec) -> dict[str, str]:
    """The tags that hold the spec; a shorter one leaves older tags behind it, so the last ones are empty."""
    text = spec.to_tag()
    pieces = [text[start : start + MAX_TAG_VALUE] for start in range(0, len(text), MAX_TAG_VALUE)]
    return {f"{SPEC}{number}": piece for number, piece in enumerate([*pieces, ""])}


def of_cost(cost: Cost) -> dict[str, str]:
    """The tag that says what was spent until when, and the rate from then on."""
    rate = "?" if cost.usd_per_hour is None else f"{cost.usd_per_hour:.6f}"
    return {COST: f"{cost.spent_usd:.6f} {rate} {_iso(cost.since)}"}


def of_guests(names: Iterable[str]) -> dict[str, str]:
    """The tag that names those who were let in, as many as fit and how many more; the master knows their keys."""
    listed = list(names)
    for left_out in range(len(listed) + 1):
        more = [f"+{left_out}"] if left_out else []
        text = " ".join([*listed[: len(listed) - left_out], *more])
        if len(text) <= MAX_TAG_VALUE:
            break
    return {GUESTS: text}


def busy(until: datetime) -> dict[str, str]:
    """A client is at work on it till then."""
    return {BUSY_UNTIL: _iso(until)}


def at_index(instance: Instance, index: int) -> dict[str, str]:
    """The instance is the node of that index from now on; its first one may become negative."""
    return {FIRST_INDEX: str(index - instance.launch_index)}


def busy_until_of(tags: Mapping[str, str]) -> datetime | None:
    """Till when a client may be at work on what has these tags."""
    return _time(tags.get(BUSY_UNTIL, ""))


def in_state(state: ClusterState) -> dict[str, str]:
    """What its clients are about to make of it, or have made."""
    return {STATE: state.value}


def was_configured(tags: Mapping[str, str]) -> bool:
    """Whether setting the instance up has ever ended well; what was then is "configuring" till it is so again."""
    return tags.get(STATE) not in (None, "", ClusterState.PENDING.value)


def of_master(instance_id: str) -> dict[str, str]:
    """This instance is the master from now on."""
    return {MASTER: instance_id}


def when_running(host_keys: Mapping[int, str]) -> dict[str, str]:
    """The tags that every instance gets when the cluster runs; ``host_keys`` by index, complete."""
    return {**of_host_keys(host_keys), **in_state(ClusterState.RUNNING)}


def of_host_keys(host_keys: Mapping[int, str]) -> dict[str, str]:
    """The tags that hold the nodes' own host keys, by index."""
    last = min(max(host_keys, default=-1) + 1, KEYS_PER_TAG * MAX_HOST_KEY_TAGS)
    raw = [_raw_key(host_keys[index]) if host_keys.get(index) else NO_KEY for index in range(last)]
    return {
        f"{HOST_KEYS}{start // KEYS_PER_TAG}": "".join(raw[start : start + KEYS_PER_TAG])
        for start in range(0, len(raw), KEYS_PER_TAG)
    }


def host_key(tags: Mapping[str, str], index: int) -> str:
    """The host key of the node of that index: its own one, else the one it was launched with, else ""."""
    tag, place = divmod(index, KEYS_PER_TAG)
    raw = tags.get(f"{HOST_KEYS}{tag}", "")[place * KEY_WIDTH : (place + 1) * KEY_WIDTH]
    if len(raw) == KEY_WIDTH and raw != NO_KEY:
        return f"{_ED25519} {base64.b64encode(_PREFIX + base64.b64decode(raw + '=')).decode()}"
    return tags.get(LAUNCH_HOST_KEY, "")


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


def _raw_key(public: str) -> str:
    """The 32 bytes of an ed25519 key as 43 characters of base64."""
    blob = base64.b64decode(public.split()[1])
    assert blob.startswith(_PREFIX) and len(blob) == len(_PREFIX) + 32, f"not an ed25519 key: {public}"
    return base64.b64encode(blob[len(_PREFIX) :]).decode().rstrip("=")


def _iso(time: datetime) -> str:
    return time.astimezone(timezone.utc).isoformat(timespec="seconds")


def _whole(text: str, otherwise: int) -> int:
    return int(text) if text.removeprefix("-").isdigit() else otherwise


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def busy_until(now: datetime, *, boot_timeout: float, install_seconds: float = 0.0) -> datetime:
    """Till when others keep their hands off: booting, as long again for setting up, and installing."""
    return now + timedelta(seconds=2 * boot_timeout + install_seconds)
