"""What tests make the local cloud do: faults, want of capacity, interruptions; and what it was asked for.

Each hook is a signed request of this package's own to the owner's endpoint, and acts at once. Raises
LocalCloudUnavailable if the endpoint does not answer or does not know what is meant.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..errors import LocalCloudUnavailable
from . import Endpoint, ask
from .controls import MARKETS, Market
from .faults import Fault as Fault

CAPACITY = "InsufficientInstanceCapacity"


def inject(endpoint: Endpoint, *faults: Fault) -> None:
    """Let the next matching calls go wrong."""
    _tell(endpoint, "inject", faults=[asdict(fault) for fault in faults])


def clear_faults(endpoint: Endpoint) -> None:
    """Forget the faults that were not met yet."""
    _tell(endpoint, "clear-faults")


def calls(endpoint: Endpoint) -> list[str]:
    """The API actions in order since the daemon's start or the last reset(), the failed ones too."""
    answer: list[str] = _tell(endpoint, "calls")["calls"]
    return answer


def reset(endpoint: Endpoint) -> None:
    """No faults, no calls counted, no terminated instances listed, every switch here as at the start."""
    _tell(endpoint, "reset")


def set_capacity(
    endpoint: Endpoint,
    *,
    zone: str | None,
    available: bool,
    market: Market | None = None,
    code: str = CAPACITY,
) -> None:
    """Let launches in a zone (None: in every zone) and market (None: both) fail with ``code``, or succeed."""
    markets = (market,) if market else MARKETS
    _tell(endpoint, "capacity", zone=zone, markets=markets, code=None if available else code)


def set_quota(endpoint: Endpoint, *, vcpus: int, market: Market = "on-demand") -> None:
    """How many vCPUs of standard types may run at a time."""
    _tell(endpoint, "set", vcpus={market: vcpus})


def set_account(
    endpoint: Endpoint, *, free_plan: bool | None = None, cost_explorer: bool | None = None
) -> None:
    """Whether the account is on the free plan, and whether it may ask Cost Explorer; None: as it is."""
    changes = {"free_plan": free_plan, "cost_explorer": cost_explorer}
    _tell(endpoint, "set", **{name: value for name, value in changes.items() if value is not None})


def set_visibility(endpoint: Endpoint, *, calls: int) -> None:
    """For how many requests after its launch an instance is not found (EC2's eventual consistency)."""
    _tell(endpoint, "set", unseen_calls=calls)


def set_containerless(endpoint: Endpoint, containerless: bool) -> None:
    """Whether new instances are records only, without a container."""
    _tell(endpoint, "containerless", containerless=containerless)


def interrupt_spot(endpoint: Endpoint, instance_id: str, seconds: float = 120.0) -> None:
    """Reclaim a spot instance: notice now, termination after so many seconds."""
    _tell(endpoint, "interrupt", instance_id=instance_id, seconds=seconds)


def impair(endpoint: Endpoint, instance_id: str, *, impaired: bool = True) -> None:
    """Let an instance's status checks fail, or pass again."""
    _tell(endpoint, "impair", instance_id=instance_id, impaired=impaired)


def _tell(endpoint: Endpoint, what: str, **parameters: Any) -> dict[str, Any]:
    answer = ask(endpoint, what, parameters) or {"error": "it does not answer; see: ppe local status"}
    if "error" in answer:
        raise LocalCloudUnavailable(f"the local cloud did not do {what}: {answer['error']}")
    return answer
