"""The verbs on what outlives a cluster: images, volumes, costs and what was left behind."""

from __future__ import annotations

from .options import CLOUD, CLUSTER, DRY_RUN, EVERYONE, FORCE, TAG, YES, Option, Verb, count, month

VOLUME = Option(name="volume", nargs="1", values="volume", help="its id")

IMAGES = Verb(
    name="images",
    help="machine images: their software, and which fit a type",
    options=(
        Option(name="type", dest="instance_type", values="type", help="mark those that do not fit this type"),
        *CLOUD,
    ),
)
BAKE = Verb(
    name="bake",
    help="make an image of a configured node; later launches need not install anything",
    options=(Option(name="name", nargs="?", help="its name; generated if not given"), CLUSTER, YES, *CLOUD),
)
DELETE_IMAGE = Verb(
    name="delete_image",
    help="delete an image of yours and its snapshot",
    options=(Option(name="image", nargs="1", values="image", help="its name or id"), YES, *CLOUD),
)
VOLUMES = Verb(name="volumes", help="EBS volumes: state, zone, size, attachments", options=CLOUD)
CREATE_VOLUME = Verb(
    name="create_volume",
    help="make an EBS volume, which outlives clusters",
    options=(
        Option(name="gb", kind=count, required=True, metavar="GB", help="its size"),
        Option(name="zone", required=True, help="availability zone; that of the clusters that are to use it"),
        TAG,
        YES,
        *CLOUD,
    ),
)
DELETE_VOLUME = Verb(
    name="delete_volume",
    help="delete an EBS volume with all that is on it",
    options=(VOLUME, YES, *CLOUD),
)
ATTACH_VOLUME = Verb(
    name="attach_volume",
    help="attach an EBS volume to a node, and mount it",
    options=(
        VOLUME,
        Option(name="node", nargs="?", help="its number in the status, or instance id; else the master"),
        Option(name="mount", metavar="DIR", help="where; else it is attached only"),
        Option(name="format", choices=("ext4", "xfs"), help="make a file system if there is none"),
        CLUSTER,
        YES,
        *CLOUD,
    ),
)
DETACH_VOLUME = Verb(
    name="detach_volume",
    help="unmount an EBS volume and detach it",
    options=(
        VOLUME,
        FORCE,
        CLUSTER,
        YES,
        *CLOUD,
    ),
)
COSTS = Verb(
    name="costs",
    help="what clusters, volumes and images have cost, from the local ledger",
    detail="The ledger knows what this machine did. Cost Explorer knows the account; each look costs $0.01.",
    options=(
        Option(name="month", kind=month, metavar="YYYY-MM", help="of this month; else of all"),
        Option(name="by", metavar="cluster|owner|TAG", help="summed by this"),
        Option(name="explorer", flag=True, help="ask AWS Cost Explorer"),
        *CLOUD,
    ),
)
CLEANUP = Verb(
    name="cleanup",
    help="remove everything of yours that no living cluster uses",
    detail="Old data volumes are listed too; --yes leaves them, with what is on them.",
    options=(
        DRY_RUN,
        Option(name="images", flag=True, help="images and snapshots too"),
        EVERYONE,
        FORCE,
        Option(name="all-regions", flag=True, help="in all regions"),
        YES,
        *CLOUD,
    ),
)
