"""What a client does with the master: the R session, values, cells.

Each of its rooms imports only from those above it; of the files beside them all use ``outputs``, the others join rooms.

- ``values``    Python's values as R's, and back
- ``line``      frames and calls over a line to the agent
- ``sessions``  R sessions, their jobs and their watchdog
- ``ranks``     cells and functions on MPI ranks
- ``files``     files both ways
"""
