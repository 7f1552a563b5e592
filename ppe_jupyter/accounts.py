"""Accounts: whose account it is, and where: the clients of EC2, made when they are first wanted.

Starts the local cloud when it is the chosen one, and hands its endpoint to ``cloud``.
"""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING

from . import settings
from .cloud.account import Account
from .cloud.context import Context
from .cloud.ec2 import EC2
from .errors import CloudError, LocalCloudUnavailable

if TYPE_CHECKING:
    from . import localcloud


class Accounts:
    """The user's account in the chosen region, and in others; or the local cloud.

    ``report`` receives a line of text while the local cloud is prepared (its image is built once).
    """

    def __init__(
        self, chosen: settings.Settings | None = None, *, report: Callable[[str], None] = lambda line: None
    ) -> None:
        self.settings = chosen or settings.load()
        self._report = report

    def whose(self) -> str:
        """Whose money a launch spends: the first line of every review and status."""
        return "local cloud: free" if self.is_free else self._account.survey.whose()

    def credentials(self) -> str:
        """Which of boto3's sources the credentials are from; never a secret."""
        return "the local cloud's own" if self.is_free else self._ec2.credentials()

    @property
    def is_free(self) -> bool:
        """Whether it is the local cloud: then prices are what EC2 would charge."""
        return self.settings.cloud == "local"

    @property
    def is_stale(self) -> bool:
        """Whether the local cloud that it has talked to was taken down since."""
        endpoint = vars(self).get("_endpoint")  # not yet there: nothing was contacted
        return endpoint is not None and self._local.known(self.settings) != endpoint

    @cached_property
    def _local(self) -> ModuleType:
        """The local cloud, which needs Linux; a client of AWS does without."""
        if sys.platform != "linux":
            raise LocalCloudUnavailable(
                "the local cloud runs on Linux only; use AWS (%ppe_config cloud aws), or a Linux machine's JupyterLab"
            )
        from . import localcloud

        return localcloud

    @cached_property
    def _endpoint(self) -> localcloud.Endpoint | None:
        return self._local.ensure(self.settings, report=self._report) if self.is_free else None

    @cached_property
    def _ec2(self) -> EC2:
        endpoint = self._endpoint
        if endpoint is None:
            return EC2(self.settings)
        return EC2(
            self.settings,
            endpoint_url=endpoint.url,
            access_key=endpoint.access_key,
            secret_key=endpoint.secret_key,
            region=endpoint.region,
        )

    @cached_property
    def _account(self) -> Account:
        return self._over(self._ec2, self.settings)

    def _over(self, ec2: EC2, chosen: settings.Settings) -> Account:
        return Account(Context(ec2=ec2, settings=chosen, caller_address=self._caller_address))

    def _everywhere(self) -> list[Account]:
        if self.is_free:
            return [self._account]
        return [self._in(region) for region in self._ec2.regions()]

    def _in(self, region: str) -> Account:
        """The same account in another region; the local cloud has one only."""
        if self.is_free or region == self._ec2.region:
            return self._account
        chosen = replace(self.settings, region=region)
        return self._over(EC2(chosen), chosen)

    def _caller_address(self) -> str:
        """This machine's address as the nodes see it."""
        if self._endpoint is not None:
            return self._endpoint.caller_address
        url = self.settings.caller_url
        try:
            with urllib.request.urlopen(url, timeout=self.settings.connect_timeout) as answer:  # noqa: S310
                return str(answer.read(64).decode("ascii").strip())
        except (OSError, ValueError) as exc:
            raise CloudError(
                f"cannot find out this machine's public address from {url} ({exc}); give it with --from CIDR"
            ) from exc
