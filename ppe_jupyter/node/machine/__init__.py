"""What one node does to itself, most of it as root: its boot, names, disks, software. Knows no other node."""
