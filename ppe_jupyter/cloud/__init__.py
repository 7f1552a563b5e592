"""The cloud side: specify, plan and run clusters of EC2 instances."""
