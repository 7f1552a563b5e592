"""What runs on the nodes: standard-library Python and plain R, nothing of the package.

The folder is copied to ~/.ppe/node of each node as it is. Each of its rooms imports only from those above it. Of the
files beside them ``whole`` is for all; the others join the rooms: ``agent`` starts and asks the ``server``, which keeps
R's sessions and the ``watchdog``; ``this_node`` is what root runs, ``glance`` what a panel asks for.

- ``wire``        frames on a line
- ``lifetime``    who works, limits, the dead-man timer, what follows the end
- ``machine``     what one node does to itself
- ``cells``       Python and shell cells
- ``files``       files to a node and from it
- ``r``           one R under Open MPI, and all R code; ``lapply``: that of ppe.lapply
- ``ranks``       ranks that keep their variables; ``maps``: functions over many values on them
- ``sessions``    R sessions and their evaluations
- ``runs``        scripts without a client
- ``setting_up``  machines become a cluster
"""
