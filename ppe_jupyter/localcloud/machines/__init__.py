"""Instances as Linux containers: their disks, networks, metadata, and what makes them follow the API."""
