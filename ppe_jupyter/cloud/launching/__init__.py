"""From a plan to a running cluster."""
