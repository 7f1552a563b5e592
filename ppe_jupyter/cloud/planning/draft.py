"""Draft: the plan of a change in the making: what there will be, how, and what is wrong with it. Pure.

Indices have no holes: nodes that are added go on counting, and a loss is filled, by a new node or by moving the
last one down.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from ...catalog import InstanceType
from ..facts import Caps, Image, Subnet
from ..plan import Grade, Plan, Problem
from ..records import ClusterRecord, InstanceState, Node, usd_per_hour
from ..spec import ClusterSpec
from ..steps import Configure, RunInstances, Step
from .choices import PACKAGES, gets_out, needs_way_out


@dataclass(frozen=True, kw_only=True)
class ChangeFacts:
    """What a change is decided from, beside the record; what only new nodes need may be missing otherwise.

    ``subnet`` is the cluster's, ``usd_per_hour`` the type's on-demand price, ``spot_usd`` its spot price there now, and
    ``prices`` says where the former is from; without an image's surcharge. ``silent`` says why a node that runs does
    not answer, ``busy`` what the user runs on a node beside the R session itself; both by instance id. ``rstudio``:
    RStudio Server is known to be on the master.
    """

    now: datetime
    caps: Caps = field(default_factory=Caps)
    subnet: Subnet | None = None
    image: Image | None = None
    instance_type: InstanceType | None = None
    usd_per_hour: float | None = None
    spot_usd: float | None = None
    prices: str = ""
    silent: Mapping[str, str] = field(default_factory=dict)
    busy: Mapping[str, str] = field(default_factory=dict)
    rstudio: bool = False


class Draft:
    """A change of ``record``: ``spec`` and ``nodes`` are what the cluster will be."""

    def __init__(self, record: ClusterRecord, facts: ChangeFacts) -> None:
        self.record = record
        self.facts = facts
        self.spec = record.spec or ClusterSpec(
            name=record.name, nodes=len(record.nodes), instance_type=record.nodes[0].instance_type
        )
        self.nodes = [each for each in record.nodes if each.state.alive]
        self._steps: list[Step] = []
        self._problems: list[Problem] = []
        self._nothing = ""

    def plan(self, verb: str) -> Plan:
        """The plan: without steps if something forbids it, or there is nothing to do."""
        self._check_money()
        problems = [Problem(Grade.INFO, self._nothing)] if self._nothing else self._problems
        stands = not self._nothing and all(each.grade is not Grade.ERROR for each in problems)
        return Plan(
            verb=verb,
            spec=self.spec,
            name=self.record.name,
            owner=self.record.owner,
            steps=tuple(self._steps) if stands else (),
            usd_per_hour=self._usd_per_hour(),
            problems=tuple(problems),
            existing=self.record,
            slots=self.slots,
            key_name=self.record.key_name,
        )

    def do(self, step: Step) -> None:
        """This is the next step."""
        self._steps.append(step)

    def nothing(self, text: str) -> None:
        """It is so already."""
        self._nothing = text

    def error(self, text: str) -> None:
        """This forbids it."""
        self._problems.append(Problem(Grade.ERROR, text))

    def warn(self, text: str) -> None:
        """The user should think about this."""
        self._problems.append(Problem(Grade.WARNING, text))

    def info(self, text: str) -> None:
        """The user should know this."""
        self._problems.append(Problem(Grade.INFO, text))

    @property
    def slots(self) -> int:
        """Slots of a node."""
        return max((each.slots for each in self.record.nodes), default=1)

    def configure(self) -> None:
        """Configure the nodes that there are then."""
        self.do(Configure(nodes=len(self.nodes), slots=self.slots))

    def master(self) -> Node | None:
        """The master, if it lives; else an error says what to do."""
        for each in self.nodes:
            if each.role == "master":
                return each
        self.error(f"it has lost its master; mend it with: %ppe_retry {self.record.name}")
        return None

    def set_size(self, nodes: int) -> None:
        """It is to have so many nodes; a master alone has no spot workers."""
        if nodes == 1 and self.spec.spot:
            self.spec = replace(self.spec, nodes=1, spot=False, spot_max_usd=None, spot_fallback=False)
        else:
            self.spec = replace(self.spec, nodes=nodes)

    def add(self, indices: Collection[int], *, master: int | None = None) -> None:
        """Run new nodes under these indices, ``master`` (if given) as the master."""
        for there, what in [
            (self.record.spec, "its specification, a tag, is damaged"),
            (self.facts.image, "its image is gone; launch another cluster from one of %ppe_images"),
            (self.facts.subnet, "its subnet is gone"),
        ]:
            if indices and there is None:
                self.error(f"nodes cannot be added: {what}")
                return
        for first, count in ranges(indices, apart=master):
            step = self._run_step(first, count, master=first == master)
            self._check_way_out(step)
            self.do(step)
            self.nodes += self._to_be(step, role="master" if first == master else "worker")
        if indices and self._own_price(spot=False) is None and self.facts.prices:
            self.info(f"on demand: {self.facts.prices}")

    def public(self, *, master: bool) -> bool:
        """Whether such a node gets a public address; it is of use only where an internet gateway is."""
        wanted = self.spec.public_addresses == "all" or (master and self.spec.public_addresses == "master")
        return wanted and self.facts.subnet is not None and self.facts.subnet.way_out in ("internet", "")

    def _run_step(self, first: int, count: int, *, master: bool) -> RunInstances:
        spec, kind = self.spec, self.facts.instance_type
        assert self.facts.image and self.facts.subnet
        spot = spec.spot and not master
        return RunInstances(
            count=count,
            first_index=first,
            instance_type=spec.instance_type,
            image=self.facts.image,
            subnets=(self.facts.subnet,),
            root_gb=spec.root_gb,
            root_type=spec.root_type,
            encrypted=spec.encrypted,
            cores=kind.cores if kind and kind.one_thread_per_core and spec.threads_per_core != 2 else None,
            public=self.public(master=master),
            spot=spot,
            spot_max_usd=spec.spot_max_usd if spot else None,
            spot_fallback=spot and spec.spot_fallback,
            price=self._price(spot=spot),
        )

    def _to_be(self, step: RunInstances, *, role: str) -> Iterator[Node]:
        """What the step's nodes will be, as far as a price needs it."""
        for index in range(step.first_index, step.first_index + step.count):
            yield replace(
                self.record.nodes[0],
                instance_id="",
                index=index,
                role=role,
                state=InstanceState.RUNNING,
                public_ip="to be given" if step.public else "",
                price=step.price,
                spot=step.spot,
            )

    def _price(self, *, spot: bool) -> float | None:
        """What a new node costs: on demand as the cluster's own ones, on the spot market what it costs there now."""
        own, now = self._own_price(spot=spot), self.facts.spot_usd if spot else self.facts.usd_per_hour
        if now is not None and (spot or own is None):
            return now + self._surcharge
        return self._price(spot=False) if spot and own is None else own

    def _own_price(self, *, spot: bool) -> float | None:
        """What the cluster's nodes of that kind cost."""
        own = (each.price for each in self.record.nodes if each.spot == spot and each.price is not None)
        return next(own, None)

    @property
    def _surcharge(self) -> float:
        return self.facts.image.surcharge if self.facts.image else 0.0

    def _usd_per_hour(self) -> float | None:
        return usd_per_hour(self.nodes, root_gb=self.spec.root_gb, root_type=self.spec.root_type)

    def _most(self, nodes: Iterable[Node]) -> float | None:
        """What they cost an hour if spot prices rise as far as they may: to the user's maximum or on demand's."""
        spec = self.spec
        bounds = [self._price(spot=False)]
        if spec.spot_max_usd is not None and not spec.spot_fallback:
            bounds.append(spec.spot_max_usd + self._surcharge)
        known = [usd for usd in bounds if usd is not None]

        def most(node: Node) -> float | None:
            if not node.spot or node.price is None:
                return node.price
            return max(node.price, min(known)) if known else None

        priced = [replace(each, price=most(each)) for each in nodes]
        return usd_per_hour(priced, root_gb=spec.root_gb, root_type=spec.root_type)

    def _check_way_out(self, step: RunInstances) -> None:
        needed, (subnet,) = needs_way_out(step.image, self.spec), step.subnets
        led = needed == PACKAGES and self.record.master.public_ip  # by the proxy on the master
        if needed and not led and gets_out(subnet, public=step.public) is False:
            self.error(
                f"new nodes in {subnet.subnet_id} have no way out to fetch {needed}: give the subnet a NAT gateway, or "
                "bake an image of a node and launch a cluster from it"
            )

    def _check_money(self) -> None:
        """The configuration's caps and the budget, for what grows: to make less of it is never forbidden."""
        caps, spec = self.facts.caps, self.spec
        had, have = (sum(each.state.computes for each in nodes) for nodes in (self.record.nodes, self.nodes))
        was, rate = self._most(self.record.nodes), self._most(self.nodes)
        if caps.max_nodes is not None and have > max(had, caps.max_nodes):
            self.error(f"{have} nodes are more than max_nodes = {caps.max_nodes} allows")
        if have <= had and (was is None or (rate is not None and rate < was + 1e-6)):
            return
        if caps.max_usd_per_hour is not None and (rate is None or rate > caps.max_usd_per_hour):
            price = "an unknown price" if rate is None else f"${rate:.3f} an hour"
            rise = ", to which spot prices may rise," if rate != self._usd_per_hour() else ""
            self.error(f"{price}{rise} is more than max_usd_per_hour = {caps.max_usd_per_hour:g} allows")
        if spec.budget_usd and self._usd_per_hour() is None:
            self.error(
                "its budget cannot be watched, since the price of new nodes is unknown; set another limit first: "
                f"%ppe_limit {self.record.name} --budget off --max-hours HOURS"
            )


def ids(nodes: Iterable[Node]) -> tuple[str, ...]:
    """Their instance ids."""
    return tuple(each.instance_id for each in nodes)


def ranges(indices: Iterable[int], *, apart: int | None = None) -> Iterator[tuple[int, int]]:
    """(first, count) of each unbroken run of indices, one request each; the index ``apart`` stands alone."""
    run: list[int] = []
    for index in sorted(indices):
        if run and (index != run[-1] + 1 or apart in (index, run[-1])):
            yield run[0], len(run)
            run = []
        run.append(index)
    if run:
        yield run[0], len(run)


def renumbered(nodes: Iterable[Node]) -> dict[str, int]:
    """New indices by instance id, so that there are no holes: the last move into them, the others stay."""
    nodes = sorted(nodes, key=lambda each: each.index)
    holes = iter(sorted(set(range(len(nodes))) - {each.index for each in nodes}))
    return {each.instance_id: next(holes) for each in nodes if each.index >= len(nodes)}
