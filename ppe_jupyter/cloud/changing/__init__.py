"""Clusters that change, and what is left of them."""
