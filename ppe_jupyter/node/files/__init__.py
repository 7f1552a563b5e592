"""Files to a node and from it, as they are sent, received, checked and found to be worth keeping."""
