"""The software on a cluster's nodes: added to, and kept in an image. The part of Cluster that has it done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace

from . import settings
from .cloud import tags
from .cloud.keeping.install import Installed, Packages, install
from .cloud.pace import IGNORE, Report, Undertaking
from .cloud.records import Progress
from .errors import CloudError, PartlyInstalled, PpeError
from .held import Held


class Equipment(Held):
    """The software of a cluster."""

    def install(
        self,
        *,
        apt: Sequence[str] = (),
        r: Sequence[str] = (),
        python: Sequence[str] = (),
        report: Report = IGNORE,
    ) -> Installed:
        """Install packages on every node, and on those that come later. Raises SetupFailed with the logs' ends."""
        packages = Packages(apt=tuple(apt), r=tuple(r), python=tuple(python))
        context = self._account.context
        pace = context.pace()
        connection, cran_url = self.ssh(), settings.load().cran_url
        work = Undertaking(
            lambda send: install(connection, packages, report=send, pace=pace, cran_url=cran_url), pace
        )
        work.wait(report)
        try:
            done = work.result
        except PartlyInstalled:
            self._add_to_spec(packages)
            raise
        self._add_to_spec(packages)
        return done

    def _add_to_spec(self, packages: Packages) -> None:
        if spec := self.refresh().record.spec:
            ids = [node.instance_id for node in self.nodes if node.state.alive]
            self._account.context.ec2.tag(ids, tags.of_spec(packages.added_to(spec)))
            self.refresh()

    def install_rstudio(self) -> None:
        """RStudio Server on the master: the settings' package or the pinned release. Raises SetupFailed, SshError."""
        from .remote import rstudio

        chosen = settings.load()  # a package may just have been set, because of the last try
        rstudio.install(self.ssh(), url=chosen.rstudio_url, sha256=chosen.rstudio_sha256)

    def add_rstudio(self, *, report: Report = IGNORE, began: float) -> None:
        """The same, last of what ``began``: a cluster without it is as good, and its troubles and reports say so."""

        def say(phase: str, text: str) -> None:
            up = sum(node.up for node in self.nodes)
            report(Progress(phase, up, self.record.wanted, time.monotonic() - began, text))

        said = self.name
        say("installing", "RStudio Server on the master")
        try:
            self.install_rstudio()
        except PpeError as error:
            said = f"{error}. {self.name} runs without it; to try again: %ppe_rstudio {self.name} --install"
            self.record = replace(self.record, troubles=(*self.record.troubles, said))
        say(str(self.state), said)

    def bake(self, name: str | None = None, *, report: Report = IGNORE) -> str:
        """Make an image of the master as it is, without secrets; its id. Later launches use it."""
        account = self._account
        image_id = account.images.bake(self.ssh(), self.record, name, report=report)
        with contextlib.suppress(CloudError):  # there is the image, whatever the ledger knows of it
            for snapshot in account.images.snapshots(account.context.ec2.image(image_id)):
                account.note("create", snapshot)
        return image_id
