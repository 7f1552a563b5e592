"""Processes of Python or R over the nodes, which keep their variables from cell to cell; every MPI rank there is."""
