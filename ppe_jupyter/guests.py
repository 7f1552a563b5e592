"""Who is let into a cluster beside whoever launched it. The part of Cluster that tells, adds and takes away."""

from __future__ import annotations

from .cloud.keeping import guests
from .held import Held
from .ssh import PublicKey


class Guests(Held):
    """The guests of a cluster."""

    def guests(self) -> list[PublicKey]:
        """The keys of those whom its owner has let in."""
        return guests.guests(self.ssh())

    def share(self, key: PublicKey) -> dict[str, str]:
        """Let a colleague in, on all nodes and on those that come later, as the login user, which can do all there.

        Of nodes that could not be told why, by address: repeat it, or the next set-up does it. Raises NothingToDo,
        UsageError.
        """
        late = guests.share(self._account.context, self.ssh(), self.record, key)
        self.refresh()
        return late

    def unshare(self, who: str) -> dict[str, str]:
        """Let the guest of that name, or fingerprint, in no longer; who is in stays in.

        Else as ``share``: the nodes that could not be told still let the key in.
        """
        late = guests.revoke(self._account.context, self.ssh(), self.record, who)
        self.refresh()
        return late
