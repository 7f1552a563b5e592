"""MPI ranks: cells on them, functions over many values, what they exchange."""
