"""The verbs on files: to the cluster, and from it."""

from __future__ import annotations

from .options import CLOUD, CLUSTER, Option, Verb

TO = Option(name="to", metavar="DEST", help="where to; then every path is a source")
NODE = Option(name="node", metavar="N", help="another node than the master: its number, or its instance id")
HERE = Option(
    name="session", metavar="NAME", help="relative paths on the master begin where this R session is"
)

UPLOAD = Verb(
    name="upload",
    help="send files and folders to where R is on the master",
    detail=(
        "The last of several paths is the destination: a folder, or the new name of a sole source; relative ones begin "
        "where R is. Patterns are expanded. What is there already, by size and time, is not sent again; what was "
        "cut is gone on with. Each file has its name when it is whole and its SHA-256 is right. A source "
        "s3://bucket/key (or folder/, or a pattern) the master fetches by itself, as its --instance-profile lets it."
    ),
    options=(
        Option(name="paths", nargs="*", values="path", help="files, folders, patterns, and the destination"),
        TO,
        NODE,
        Option(name="all", flag=True, help="to all nodes; it crosses your line once"),
        HERE,
        CLUSTER,
        *CLOUD,
    ),
)
DOWNLOAD = Verb(
    name="download",
    help="fetch files and folders from where R is on the master",
    detail=(
        "As upload; patterns are expanded on the node. To s3://bucket/folder/ the master sends by itself, as its "
        "--instance-profile lets it."
    ),
    options=(
        Option(name="paths", nargs="*", help="files, folders, patterns there, and the destination here"),
        TO,
        NODE,
        HERE,
        CLUSTER,
        *CLOUD,
    ),
)
