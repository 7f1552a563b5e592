"""What only a notebook has: magics, remote cells, the help and completion of R code."""
