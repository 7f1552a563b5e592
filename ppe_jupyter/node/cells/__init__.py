"""Cells of Python and shell: on this node, or on all."""
