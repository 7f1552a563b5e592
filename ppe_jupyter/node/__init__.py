"""What runs on the nodes: standard-library Python and plain R, nothing of the package."""
