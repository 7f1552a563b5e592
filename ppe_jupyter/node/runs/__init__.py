"""Scripts that run without a client, each in its folder below ~/runs."""
