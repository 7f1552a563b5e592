"""The verbs on RStudio Server: the user's, and the one that the Jupyter server calls."""

from __future__ import annotations

from .options import CLOUD, NAME, YES, Option, Verb

RSTUDIO = Verb(
    name="rstudio",
    help="RStudio Server of a cluster's master in a tab of the lab",
    detail=(
        "Without a name the connected cluster's, or the sole running one's. The launcher's tile opens the one that was "
        "chosen here last. RStudio has an R session of its own, in the same home as the remote cells', with MPI over "
        "all nodes."
    ),
    options=(
        NAME,
        Option(name="install", flag=True, help="install it on the master first"),
        Option(name="disconnect", flag=True, help="hang up; RStudio Server and R go on"),
        YES,
        *CLOUD,
    ),
    faces=("magic",),
)
TUNNEL = Verb(
    name="rstudio_tunnel",
    help="what the Jupyter server runs behind the RStudio tab",
    options=(
        Option(name="socket", required=True, metavar="PATH", help="the Unix socket to listen on"),
        Option(
            name="base-url",
            required=True,
            metavar="URL",
            help="the Jupyter server's base URL, such as /user/a/",
        ),
    ),
    faces=("cli",),
)
