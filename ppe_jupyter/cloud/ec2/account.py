"""The account: whose it is."""

from __future__ import annotations

from ..facts import Identity
from .session import Session, translated


class Account(Session):
    """Verbs on the account."""

    @translated
    def identity(self) -> Identity:
        """Whose account this is."""
        answer = self._sts.get_caller_identity()
        return Identity(account=answer["Account"], arn=answer["Arn"], region=self.region)
