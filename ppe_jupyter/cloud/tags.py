"""The tags that hold a cluster's truth, as they are written; tagged.py reads them.

A launch writes them in two calls whatever its size: those of RunInstances, and one CreateTags when it runs. They are
the same on every instance of a request. Pure.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone

from .facts import Instance
from .records import ClusterState, Cost
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
ED25519 = "ssh-ed25519"
KEY_PREFIX = struct.pack(">I", len(ED25519)) + ED25519.encode() + struct.pack(">I", 32)


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


def busy_until(now: datetime, *, boot_timeout: float, install_seconds: float = 0.0) -> datetime:
    """Till when others keep their hands off: booting, as long again for setting up, and installing."""
    return now + timedelta(seconds=2 * boot_timeout + install_seconds)


def at_index(instance: Instance, index: int) -> dict[str, str]:
    """The instance is the node of that index from now on; its first one may become negative."""
    return {FIRST_INDEX: str(index - instance.launch_index)}


def in_state(state: ClusterState) -> dict[str, str]:
    """What its clients are about to make of it, or have made."""
    return {STATE: state.value}


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


def _raw_key(public: str) -> str:
    """The 32 bytes of an ed25519 key as 43 characters of base64."""
    blob = base64.b64decode(public.split()[1])
    assert blob.startswith(KEY_PREFIX) and len(blob) == len(KEY_PREFIX) + 32, f"not an ed25519 key: {public}"
    return base64.b64encode(blob[len(KEY_PREFIX) :]).decode().rstrip("=")


def _iso(time: datetime) -> str:
    return time.astimezone(timezone.utc).isoformat(timespec="seconds")
