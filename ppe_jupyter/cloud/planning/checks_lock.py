"""Checks of a lock: whether what it wants can be had, as far as that is known before anything is bought. Pure.

What the nodes then lack is installed, or told, by Cluster.satisfy.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..plan import Grade, Problem
from .choices import Choices


def lock_problems(choices: Choices) -> Iterator[Problem]:
    """What is to be said of the image that the lock names, and of another one in its place."""
    lock, image, kind = choices.facts.lock, choices.image, choices.facts.instance_type
    if lock is None:
        return
    named = f"image {lock.image_id} ({lock.image_name or 'its name is not known'})"
    if image is None and choices.spec.image:
        pass  # checks_machines tells that it is that one which cannot be found
    elif image is None:
        yield Problem(
            Grade.ERROR,
            f"the lock's {named} does not exist any more (deregistered, or of another region or account), and none of "
            "your images was baked from it; --image takes another one, in which the lock's versions are then installed",
        )
    elif image.image_id != lock.image_id:
        yield Problem(Grade.INFO, f"in place of the lock's {named}: {image.image_id} ({image.name})")
    if kind is not None and lock.architecture not in ("", *kind.architectures):
        have = "/".join(kind.architectures)
        yield Problem(
            Grade.ERROR,
            f"the lock's packages are for {lock.architecture}, {kind.name} is {have}: another type",
        )
