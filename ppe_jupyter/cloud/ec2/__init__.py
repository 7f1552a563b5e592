"""EC2 and the services beside it as typed verbs: the only importer of boto3.

Each verb is one API call (or its pages), takes and gives this package's own values, and raises only errors of
``errors``: boto's are translated in ``session``, once. Throttling and passing faults are retried by botocore's
standard mode. Nothing is decided and nothing is waited for here.
"""

from __future__ import annotations

from .account import Account
from .costs import Costs
from .groups import Groups
from .images import Images
from .instances import Instances
from .network import Network
from .ours import Ours
from .power import Power
from .prices import Prices
from .types import Types
from .volumes import Volumes


class EC2(Account, Types, Network, Images, Groups, Instances, Volumes, Prices, Costs, Power, Ours):
    """One account in one region."""
