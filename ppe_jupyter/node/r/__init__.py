"""One R under Open MPI: its process and terminal, its workers, and all R code that it is given."""
