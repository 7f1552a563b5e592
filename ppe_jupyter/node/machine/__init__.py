"""What one node does to itself, most of it as root: its boot, names, disks, software. Knows no other node."""

# Where a node keeps the lock that its software is to satisfy. No Path: a client of another system reads it, too.
LOCK = "/etc/ppe/lock.toml"
