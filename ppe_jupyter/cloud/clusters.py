"""Clusters: launch, find, connect to and terminate them; the one thing of this package that ``manager`` uses."""
