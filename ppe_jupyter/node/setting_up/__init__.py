"""Machines become a cluster, and stay one: the master's work over all nodes, at launch and at each change."""
