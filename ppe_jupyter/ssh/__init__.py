"""SSH to a machine: connect with a verified host key, run commands, hold duplex channels.

The only importer of paramiko. A host is known by the keys its caller names, or by the user's known hosts, never by what
it shows first: one with any other key is refused at the key exchange, before anything is sent to it. Knows nothing of
clusters, EC2 or R.
"""

from .connecting import Target, connect
from .connection import Channel, Completed, Connection, quote_path
from .hosts import Place, config_hosts, reach
from .keys import KeyPair, PublicKey, generate_key_pair

__all__ = [
    "Channel", "Completed", "Connection", "KeyPair", "Place", "PublicKey", "Target", "config_hosts", "connect",
    "generate_key_pair", "quote_path", "reach",
]  # fmt: skip
