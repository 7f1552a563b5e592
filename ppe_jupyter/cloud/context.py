"""Context: what every piece of cloud work needs: the account, the settings, the keys, a clock, a way to connect.

Made once by ``manager``; tests put their own clock, connection or address in it. Decides nothing.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone

from .. import ssh
from ..errors import CloudError
from ..person import host, os_user
from ..settings import Settings
from .ec2 import EC2
from .keys import KeyStore
from .pace import Pace

Connect = Callable[..., ssh.Connection]


def utc_now() -> datetime:
    """Now, in UTC."""
    return datetime.now(timezone.utc)


@dataclass(frozen=True, kw_only=True)
class Context:
    """One account and region. ``caller_address`` finds out this machine's address as the nodes see it, and may
    raise CloudError."""

    ec2: EC2
    settings: Settings
    caller_address: Callable[[], str]
    connect: Connect = ssh.connect
    now: Callable[[], datetime] = utc_now
    pace: Callable[[], Pace] = Pace
    rng: random.Random = field(default_factory=random.Random)  # names, not secrets

    def owner(self) -> str:
        """OS user and STS identity; that STS cannot be asked forbids nothing."""
        arn = "unknown"
        with contextlib.suppress(CloudError):
            arn = self.ec2.identity().arn
        return f"{os_user()}@{host()} {arn}"

    @property
    def keys(self) -> KeyStore:
        """The private keys on this machine."""
        return KeyStore(self.settings)
