"""What outlives clusters: volumes, images, history."""
