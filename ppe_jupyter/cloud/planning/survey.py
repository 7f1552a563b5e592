"""Survey: ask the account and its region what a plan has to know, and change nothing there.

All questions at once, in threads, and each in as few calls as EC2 allows: some fifteen for a launch. Of what an
account may refuse to tell (quotas, prices, its plan), the refusal is noted, and is never an error.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from ... import catalog
from ...errors import CloudError, CredentialsError, PpeError
from .. import access
from ..context import Context
from ..facts import Caps, Facts, Subnet, UserKey
from ..keeping.images import ImageStore
from ..lock import Lock
from ..plan import Plan
from ..records import ClusterRecord, ClusterState
from ..spec import ClusterSpec, generate_name
from .permissions import calls
from .plan_launch import plan_launch
from .prices import Prices, cheapest

if TYPE_CHECKING:
    import pandas as pd

Answer = Mapping[str, Any]  # some fields of Facts
Question = Callable[[], Answer]
THREADS = 8
# EC2 takes about three seconds to tell all types and spot prices, page by page; these move over hours.
MARKET_KEPT = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Market:
    """The region's instance types, without prices, and spot prices in USD per hour by type and zone, as of then."""

    asked: datetime
    kinds: Sequence[catalog.InstanceType]
    spot: Mapping[str, Mapping[str, float]]


class Survey:
    """Questions to one account and region."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ec2 = context.ec2
        self._settings = context.settings
        self._market: Market | None = None

    def whose(self) -> str:
        """Whose money a launch spends: the first line of every review and status. Raises CredentialsError."""
        if self._settings.cloud == "local":
            return "local cloud: free"
        identity, alias = self._ec2.identity(), ""
        with contextlib.suppress(CloudError):  # many may not ask for it, and the number says it all
            alias = self._ec2.alias()
        called = f" ({alias})" if alias else ""
        return (
            f"AWS account {identity.account}{called}, region {identity.region}, profile {self._ec2.profile}"
        )

    def plan(
        self,
        spec: ClusterSpec,
        *,
        existing: Sequence[ClusterRecord],
        dry_run: bool = False,
        lock: Lock | None = None,
    ) -> Plan:
        """What launching ``spec`` would do beside the clusters that exist. ``dry_run`` asks EC2 what we may do.

        With a ``lock`` from an image that fits it, if the spec names none.
        """
        facts = self.facts(spec, existing=existing, lock=lock)
        plan = plan_launch(spec, facts)
        if not (dry_run and plan.steps):
            return plan
        return plan_launch(spec, replace(facts, denied=tuple(dict.fromkeys(self._denied(plan)))))

    def facts(
        self, spec: ClusterSpec, *, existing: Sequence[ClusterRecord], lock: Lock | None = None
    ) -> Facts:
        """What the plan for ``spec`` is decided from. Raises CloudError when EC2 does not answer."""
        name = spec.name or generate_name({record.name for record in existing}, rng=self._context.rng)
        for record in existing:
            if record.name == name and record.state is not ClusterState.TERMINATED:
                return Facts(name=name, owner=record.owner, existing=record)
        with ThreadPoolExecutor(THREADS) as pool:
            answers = [each.result() for each in [pool.submit(ask) for ask in self._questions(spec, lock)]]
        known = {field: value for answer in answers for field, value in answer.items()}
        known["unchecked"] = tuple(answer["unchecked"] for answer in answers if "unchecked" in answer)
        settings = self._settings
        return Facts(
            name=name,
            caps=Caps(max_usd_per_hour=settings.max_usd_per_hour, max_nodes=settings.max_nodes),
            idle_hours=settings.idle_hours,
            boot_timeout=settings.boot_timeout,
            local=settings.cloud == "local",
            proxy=access.proxy(settings),
            lock=lock,
            **known,
        )

    def types(self, **filters: Any) -> pd.DataFrame:
        """The region's instance types with their prices now: ``catalog.table`` with its filters.

        When EC2 cannot be asked, those of the shipped catalog; the table's ``attrs["source"]`` says which.
        """
        now = self._context.now()
        try:
            if self._market is None or now - self._market.asked > MARKET_KEPT:
                self._market = self._asked_market(now)
        except CloudError as exc:
            return catalog.table(**filters, source=f"{catalog.shipped()} (EC2 cannot be asked: {exc})")
        market, prices = self._market, Prices(self._context).on_demand()
        kinds = [replace(each, usd_per_hour=prices.usd_per_hour.get(each.name)) for each in market.kinds]
        spot = cheapest(market.spot, [each.name for each in kinds])
        source = f"EC2 and its spot prices at {market.asked.astimezone():%H:%M}; prices: {prices.source}"
        return catalog.table(kinds, spot=spot, **filters, source=source)

    def _asked_market(self, now: datetime) -> Market:
        with ThreadPoolExecutor(THREADS) as pool:
            kinds = pool.submit(self._ec2.instance_types)
            pool.submit(Prices(self._context).on_demand)  # kept on the disk then
            spot = pool.submit(_unless_refused("spot prices", "spot", self._ec2.spot_prices))
        return Market(asked=now, kinds=kinds.result(), spot=spot.result().get("spot", {}))

    # -- questions --------------------------------------------------------------------------------------

    def _questions(self, spec: ClusterSpec, lock: Lock | None) -> Iterator[Question]:
        ec2, name = self._ec2, spec.instance_type
        yield partial(self._machine, spec, lock)
        yield partial(self._network, spec)
        yield partial(self._price, spec)
        yield partial(self._caller, spec)
        yield partial(self._user_key, spec)
        yield lambda: {"owner": self._context.owner()}
        yield lambda: {"zones": ec2.zones_offering(name)}
        yield _unless_refused("the quota of vCPUs", "quotas", partial(ec2.vcpu_quotas, name, spot=spec.spot))
        yield _unless_refused("whether the account is on the free plan", "account_plan", ec2.account_plan)
        if spec.spot:
            yield _unless_refused("the role for spot instances", "spot_role", ec2.has_spot_role)
            yield _unless_refused("the spot price", "spot_usd", lambda: ec2.spot_prices([name]).get(name, {}))
        if profile := spec.instance_profile:
            has = partial(ec2.has_instance_profile, profile)
            yield _unless_refused("the instance profile", "instance_profile", has)
        if group := spec.security_group:
            yield lambda: {"group": ec2.security_group(group)}
        if spec.placement not in ("auto", "off"):
            yield lambda: {"placement_group": ec2.placement_group(spec.placement)}
        if spec.volumes:
            yield partial(self._volumes, spec)

    def _machine(self, spec: ClusterSpec, lock: Lock | None) -> Answer:
        kind = self._ec2.instance_type(spec.instance_type)
        if lock and not spec.image:
            return {"instance_type": kind, "image": ImageStore(self._context).locked(lock)}
        if kind is None and not spec.image:
            return {}
        architectures = kind.architectures if kind else ()
        return {
            "instance_type": kind,
            "image": ImageStore(self._context).resolve(spec.image, architectures),
        }

    def _network(self, spec: ClusterSpec) -> Answer:
        subnets = self._ec2.subnets(spec.subnet)
        vpcs = {subnet.vpc_id for subnet in subnets}
        asked = [_unless_refused("ways out", vpc, partial(self._ec2.ways_out, vpc))() for vpc in vpcs]
        ways = {vpc: way for answer in asked for vpc, way in answer.items()}
        unchecked = {"unchecked": ways.pop("unchecked")} if "unchecked" in ways else {}
        return {"subnets": tuple(leading(each, ways.get(each.vpc_id, {})) for each in subnets), **unchecked}

    def _price(self, spec: ClusterSpec) -> Answer:
        prices = Prices(self._context).on_demand(spec.instance_type)
        return {"usd_per_hour": prices.usd_per_hour.get(spec.instance_type), "prices": prices.source}

    def _caller(self, spec: ClusterSpec) -> Answer:
        """The range that may reach port 22, or None and why it is unknown."""
        if given := spec.caller_cidr or self._settings.caller_cidr:
            return {"caller_cidr": given, "caller_given": True}
        try:
            return {"caller_cidr": f"{ipaddress.IPv4Address(self._context.caller_address())}/32"}
        except (PpeError, ValueError) as exc:
            return {"caller_problem": str(exc)}

    def _user_key(self, spec: ClusterSpec) -> Answer:
        keys = self._context.keys
        name, public = keys.chosen(spec.key_name)
        there = {"in_ec2": self._ec2.has_key_pair(name), "private_here": keys.path(name).exists()}
        return {"user_key": UserKey(name=name, public=public, **there)}

    def _volumes(self, spec: ClusterSpec) -> Answer:
        found = [each for name, _ in spec.mounts() for each in self._ec2.volumes(volume_id=name)]
        return {"volumes": {each.volume_id: each for each in found}}

    def _denied(self, plan: Plan) -> Iterator[str]:
        """What EC2 says against the plan's calls."""

        def ask(operation: str, arguments: dict[str, Any]) -> str:
            try:
                action = self._ec2.dry_run(operation, arguments)
            except CloudError as exc:
                return f"EC2 would refuse it: {exc}"
            return f"your credentials do not allow {action} (IAM)" if action else ""

        with ThreadPoolExecutor(THREADS) as pool:
            yield from filter(None, pool.map(lambda call: ask(*call), calls(plan)))


def leading(subnet: Subnet, ways_out: Mapping[str, str]) -> Subnet:
    """The subnet with where it leads: as its own route table says, else the VPC's main one."""
    return replace(subnet, way_out=ways_out.get(subnet.subnet_id, ways_out.get("", "")))


def _unless_refused(what: str, field: str, call: Callable[[], Any]) -> Question:
    """The question, answered with a note if it may not be asked or is not answered."""

    def ask() -> Answer:
        try:
            return {field: call()}
        except CredentialsError as exc:
            return {"unchecked": f"{what} ({exc.operation} is not allowed)"}
        except CloudError as exc:
            return {"unchecked": f"{what} ({exc})"}

    return ask
