"""What tests can switch in the local cloud: capacity, quotas, the account's plan, how soon instances show.

Plain data that the EC2 actions and the fakes read; the endpoint sets it on signed requests. Knows neither
HTTP nor moto.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Market = Literal["on-demand", "spot"]
MARKETS: tuple[Market, ...] = ("on-demand", "spot")
PLENTY = 100_000  # vCPUs


@dataclass
class Controls:
    """``exhausted`` maps zone and market to the error code of a launch there; a zone "" is every zone.

    ``vcpus`` are the quotas of the standard types. ``unseen_calls`` is for how many requests a new instance
    is not there yet, ``unseen`` what is left of that. ``impaired`` are instances whose status checks fail.
    """

    exhausted: dict[tuple[str, Market], str] = field(default_factory=dict)
    vcpus: dict[Market, int] = field(default_factory=lambda: dict.fromkeys(MARKETS, PLENTY))
    free_plan: bool = False
    cost_explorer: bool = False
    unseen_calls: int = 0
    unseen: dict[str, int] = field(default_factory=dict)
    impaired: set[str] = field(default_factory=set)

    def reset(self) -> None:
        """As after the start."""
        self.__dict__.update(vars(Controls()))

    def switch(self, *, vcpus: Mapping[Market, int] | None = None, **switches: Any) -> None:
        """Set switches by their names; quotas that are not named stay."""
        self.vcpus.update(vcpus or {})
        for name, value in switches.items():
            setattr(self, name, value)

    def set_capacity(self, zone: str | None, markets: tuple[Market, ...], code: str | None) -> None:
        """Let launches in the zone (None: in every zone) fail with the code, or succeed again."""
        for market in markets:
            if code:
                self.exhausted[zone or "", market] = code
            else:
                self.exhausted.pop((zone or "", market), None)

    def lacks(self, zone: str, market: Market) -> str | None:
        """The error code of a launch in that zone, if there is no capacity."""
        return self.exhausted.get((zone, market)) or self.exhausted.get(("", market))

    def pass_request(self) -> None:
        """A request has come: the unseen instances are one request nearer to being seen."""
        self.unseen = {instance_id: left - 1 for instance_id, left in self.unseen.items() if left > 1}
