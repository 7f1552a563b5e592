"""Files to the cluster and from it, from this machine and from S3."""
