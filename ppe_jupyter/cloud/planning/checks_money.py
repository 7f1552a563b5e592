"""Checks of what a launch may cost and who may make it: caps, limits, keys, permissions; and what is not known.

Pure: each check yields problems, graded by what would come of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..bill import NO_LIMIT, is_limited
from ..facts import Facts
from ..plan import Grade, Problem
from ..spec import MAX_TAG_VALUE
from ..tags import MAX_SPEC_TAGS
from .choices import Choices

ERROR, WARNING, INFO = Grade.ERROR, Grade.WARNING, Grade.INFO


def money_problems(choices: Choices) -> Iterator[Problem]:
    """What is to be said of money, rights, and what could not be found out."""
    yield from _caps(choices)
    yield from _limits(choices)
    yield from _rights(choices)
    yield from (Problem(ERROR, each) for each in choices.facts.denied)
    yield from (Problem(INFO, f"not checked: {each}") for each in choices.facts.unchecked)


def _caps(choices: Choices) -> Iterator[Problem]:
    spec, bill, caps = choices.spec, choices.bill, choices.facts.caps
    most = caps.max_usd_per_hour
    if caps.max_nodes is not None and spec.nodes > caps.max_nodes:
        yield Problem(ERROR, f"{spec.nodes} nodes are more than max_nodes = {caps.max_nodes} allows")
    if bill is None:
        capped = "; so it cannot be held against max_usd_per_hour" if most is not None else ""
        yield Problem(ERROR if capped else WARNING, f"the price of {spec.instance_type} is unknown{capped}")
    elif most is not None and bill.most > most:
        rise = ", to which spot prices may rise: --spot-price sets a lower maximum" if bill.rise else ""
        yield Problem(
            ERROR, f"${bill.most:.3f} an hour is more than max_usd_per_hour = {most:g} allows{rise}"
        )


def _limits(choices: Choices) -> Iterator[Problem]:
    spec, bill = choices.spec, choices.bill
    if not is_limited(spec):
        yield Problem(WARNING, NO_LIMIT)
    if spec.budget_usd and bill is None:
        yield Problem(
            ERROR, "the budget cannot be watched, since the price is unknown: set --max-hours instead"
        )
    elif spec.budget_usd and bill is not None and spec.budget_usd < bill.most:
        minutes = 60 * spec.budget_usd / bill.most
        yield Problem(
            WARNING, f"the budget of ${spec.budget_usd:.2f} lasts {minutes:.0f} minutes, start-up included"
        )


def _rights(choices: Choices) -> Iterator[Problem]:
    spec, facts = choices.spec, choices.facts
    yield from _key(facts)
    if spec.instance_profile and facts.instance_profile is False:
        yield Problem(ERROR, f"there is no instance profile {spec.instance_profile!r} in this account")
    if len(spec.to_tag()) > MAX_TAG_VALUE * MAX_SPEC_TAGS:
        yield Problem(ERROR, "the specification does not fit the tags of an instance: fewer packages")


def _key(facts: Facts) -> Iterator[Problem]:
    key = facts.user_key
    if key is None:
        return
    if not key.private_here:
        yield Problem(
            ERROR,
            f"the private half of key pair {key.name!r} is not here: tell where it is with %ppe_config key_name "
            f"{key.name} and %ppe_config key_file FILE, or leave --key away: then one is made and kept",
        )
    elif not key.in_ec2 and not key.public:
        yield Problem(ERROR, f"EC2 has no key pair {key.name!r} in this region")
