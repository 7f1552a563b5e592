"""The verbs on clusters: choose, launch, look, change, end."""

from __future__ import annotations

from dataclasses import replace

from .options import (
    CLOUD,
    CLUSTER,
    DRY_RUN,
    EVERYONE,
    FORCE,
    NAME,
    PACKAGES,
    TAG,
    YES,
    Option,
    Verb,
    count,
    hours,
    usd,
)

SORTS = ("price-per-core", "price", "spot", "cores", "gb", "network")  # the catalog's

CONFIG = Verb(
    name="config",
    help="show the settings, or set one",
    detail=(
        "Without arguments shows every setting, which account would pay and which credentials are used. Secrets "
        "are never shown. 'import FILE' converts a configuration file of cloudRmpi, and keeps it as FILE.cloudRmpi."
    ),
    options=(
        Option(name="setting", nargs="?", values="setting", help="KEY, or KEY=VALUE to set it, or import"),
        Option(name="value", nargs="?", help="the new value, or the file to import"),
    ),
)
TYPES = Verb(
    name="types",
    help="instance types: physical cores, memory, network, price",
    options=(
        Option(name="min-cores", kind=count, metavar="N", help="with so many physical cores at least"),
        Option(name="min-gb", kind=float, metavar="GB", help="with so much memory at least"),
        Option(name="cluster", flag=True, help="only those that a cluster placement group takes"),
        Option(name="arch", choices=("x86_64", "arm64"), help="of this architecture"),
        Option(name="max-price", kind=float, metavar="USD", help="for so much an hour at most"),
        Option(name="sort", choices=SORTS, help="the best of this first; else price-per-core"),
        Option(name="all", flag=True, help="also those of former generations"),
        *CLOUD,
    ),
)
BOUNDS = (
    Option(
        name="idle",
        dest="idle_hours",
        kind=hours,
        metavar="2h|90m|off",
        help="limit: so long without work",
    ),
    Option(name="max-hours", kind=hours, metavar="HOURS", help="limit: so long since launch or last start"),
    Option(name="budget", dest="budget_usd", kind=usd, metavar="USD", help="limit: so much spent"),
)
THEN = Option(name="then", choices=("park", "terminate"), help="what happens at a limit; else park")
# What of a launch says which cluster it is: run has it, too.
LAUNCHING = (
    Option(name="name", nargs="?", help="its name; generated if not given"),
    Option(name="nodes", kind=count, metavar="N", help="number of nodes, the master included"),
    Option(name="type", dest="instance_type", values="type", help="instance type of each node"),
    Option(name="slots", kind=count, metavar="N", help="ranks per node; else its physical cores"),
    Option(name="threads-per-core", kind=count, metavar="N", help="1 or 2; else 1 where it can be set"),
    Option(name="image", values="image", help="machine image, by id or by its name in images"),
    Option(name="login-user", metavar="USER", help="login user of an image that does not tell its own"),
    Option(name="zone", help="availability zone; else any that has the machines"),
    Option(name="subnet", metavar="SUBNET-ID", help="subnet; else the default VPC's"),
    Option(
        name="public",
        dest="public_addresses",
        choices=("all", "master", "none"),
        help="which nodes have a public address",
    ),
    Option(name="security-group", metavar="SG-ID", help="an existing one; else one of its own"),
    Option(name="from", dest="caller_cidr", metavar="CIDR", help="who may reach port 22; else you"),
    Option(name="key", dest="key_name", help="EC2 key pair; else yours is made and kept"),
    Option(name="placement", metavar="auto|off|NAME", help="placement group; NAME is an existing one"),
    Option(name="instance-profile", metavar="NAME", help="IAM instance profile, by name or ARN"),
    Option(name="efs", metavar="FS-ID", help="EFS file system for ~/shared; else a folder of the master's"),
    Option(name="spot", flag=True, help="workers on the spot market; an interruption ends MPI runs"),
    Option(
        name="spot-price",
        dest="spot_max_usd",
        kind=float,
        metavar="USD",
        help="for so much an hour and worker at most",
    ),
    Option(name="spot-fallback", flag=True, help="on-demand workers if there are no spot ones"),
    Option(name="root-gb", kind=count, metavar="GB", help="size of each node's root disk"),
    Option(name="root-type", choices=("gp3", "gp2"), help="type of the root disks"),
    Option(
        name="no-encryption",
        dest="encrypted",
        flag=True,
        sets=False,
        help="do not encrypt the root disks",
    ),
    Option(name="imdsv1", dest="imdsv2", flag=True, sets=False, help="allow instance metadata v1 too"),
    Option(
        name="volume",
        dest="volumes",
        repeat=True,
        values="volume",
        metavar="VOL[:/MOUNT]",
        help="attach this EBS volume to the master and mount it there; repeat it",
    ),
    TAG,
    *BOUNDS,
    *PACKAGES,
    Option(name="bootstrap", metavar="FILE", help="a script to run on each node at its first boot"),
    Option(name="rstudio", flag=True, help="install RStudio Server on the master, once it runs"),
    Option(name="spec", metavar="FILE", help="a file of --save; what is typed comes before it"),
    Option(name="locked", flag=True, help="with --spec: with the software of the lock beside it"),
)
LAUNCH = Verb(
    name="launch",
    help="launch a cluster",
    detail="Shows first who pays, what will be created and what it costs. Asks before it spends money.",
    options=(
        *LAUNCHING,
        THEN,
        Option(
            name="save",
            metavar="FILE",
            help="write the specification to this file (TOML), and, once it runs, its software to FILE.lock.toml",
        ),
        DRY_RUN,
        YES,
        # A command that ends takes the launch along: in a terminal there is nothing to return to.
        Option(name="no-wait", flag=True, help="return when the machines are asked for", faces=("magic",)),
        *CLOUD,
    ),
)
LIST = Verb(name="list", help="all clusters", options=CLOUD)
STATUS = Verb(
    name="status",
    help="one cluster: its state, cost, limits and nodes",
    options=(NAME, *CLOUD),
)
CONNECT = Verb(
    name="connect",
    help="choose the cluster, or any host behind SSH, of the remote cells",
    detail=(
        "A sole running cluster is used without it. user@host is any machine with R, Python 3.9 and sshd; "
        "~/.ssh/config, known_hosts and the SSH agent hold for it."
    ),
    options=(
        Option(name="name", nargs="?", values="target", help="the cluster, or user@host"),
        Option(name="key-file", metavar="FILE", help="a host's: this private key alone"),
        Option(
            name="fingerprint", metavar="SHA256:…", help="a host's: it is right, and is noted in known_hosts"
        ),
        *CLOUD,
    ),
    faces=("magic",),
)
DISCONNECT = Verb(
    name="disconnect",
    help="close the connection; what runs on the cluster goes on",
    options=(Option(name="end", flag=True, help="end a host's R session first"),),
    faces=("magic",),
)
SSH = Verb(
    name="ssh",
    help="the ssh command line, or run a command on a node",
    options=(
        CLUSTER,
        Option(name="node", metavar="N", help="its number in the status, or instance id; else the master"),
        *CLOUD,
    ),
    code="command",
)
SHARE = Verb(
    name="share",
    help="let a colleague into a cluster; alone it says who is let in",
    detail=(
        "The key is put on all nodes and on those that come later. The colleague's own credentials find the cluster; "
        "there the colleague is the same login user as you, and can do all that you can."
    ),
    options=(
        NAME,
        Option(name="key", dest="key_name", metavar="FILE.pub", help="the colleague's public key"),
        Option(
            name="revoke",
            metavar="WHO",
            help="let in no longer: a name or fingerprint of the list, or a file",
        ),
        YES,
        *CLOUD,
    ),
)
REBOOT = Verb(
    name="reboot",
    help="reboot all nodes, or one; waits until R answers again",
    options=(
        NAME,
        Option(name="node", metavar="N", help="only this one: its number in the status, or its instance id"),
        DRY_RUN,
        FORCE,
        YES,
        *CLOUD,
    ),
)
PARK = Verb(
    name="park",
    help="end the workers and stop the master, whose disk keeps everything",
    detail="The R session's workspace is saved first. A parked cluster costs its master's disk only.",
    options=(NAME, DRY_RUN, FORCE, YES, *CLOUD),
)
START = Verb(
    name="start",
    help="bring a parked cluster back, and its R workspace",
    options=(
        NAME,
        Option(name="nodes", kind=count, metavar="N", help="with so many nodes; else as many as it had"),
        DRY_RUN,
        FORCE,
        YES,
        *CLOUD,
    ),
)
RESIZE = Verb(
    name="resize",
    help="more nodes, or fewer",
    detail="R runs on; its workers see the new slots when they are spawned anew.",
    options=(
        NAME,
        Option(name="nodes", kind=count, required=True, metavar="N", help="how many, the master included"),
        DRY_RUN,
        FORCE,
        YES,
        *CLOUD,
    ),
)
RETRY = Verb(
    name="retry",
    help="mend a cluster: wait for a node that did not come up, replace or drop it",
    detail=(
        "Also finishes a launch that died half-way, and installs RStudio Server if it was wanted and is missing. "
        "Asks which of the three unless one is typed."
    ),
    options=(
        NAME,
        Option(name="wait", flag=True, help="look again, and configure what is there by now"),
        Option(name="replace", flag=True, help="end the lost nodes and launch others"),
        Option(name="drop", flag=True, help="go on without them"),
        DRY_RUN,
        replace(FORCE, help=f"{FORCE.help}; gives up the disk of a master that only does not answer"),
        YES,
        *CLOUD,
    ),
)
TERMINATE = Verb(
    name="terminate",
    help="end clusters for good, with all that was made for them",
    detail="Says first what would be lost; then you can pull R's variables, park the cluster or terminate it.",
    options=(
        Option(name="names", nargs="*", values="cluster", help="the clusters; else the one in use"),
        Option(name="all", flag=True, help="all of yours"),
        EVERYONE,
        YES,
        *CLOUD,
    ),
)
LIMIT = Verb(
    name="limit",
    help="change the limits of a running cluster",
    detail=(
        "Without limits to set shows what holds. --max-hours counts from the launch or last start, --budget all that "
        "was spent; 'off' removes a limit. Asks before it may cost or lose more."
    ),
    options=(NAME, *BOUNDS, THEN, YES, *CLOUD),
)
INSTALL = Verb(
    name="install",
    help="install Debian, R or Python packages on all nodes",
    detail=(
        "R packages come from Debian or, if it lacks them, from CRAN as it was when the nodes' R was current; Python "
        "packages go into the cluster's own environment. Nodes that come later get all of them too."
    ),
    options=(*(replace(each, many=True, metavar="PKG") for each in PACKAGES), CLUSTER, YES, *CLOUD),
)
SESSION_INFO = Verb(
    name="session_info",
    help="versions, packages, machines, seeds and cost, of every node; what differs is marked",
    options=(
        Option(name="text", flag=True, help="as text for a paper, with all R and Python packages"),
        Option(name="lock", metavar="FILE", help="write the software to this file, for launch --locked"),
        CLUSTER,
        *CLOUD,
    ),
)
PANEL = Verb(
    name="panel",
    help="clusters to look at and click: state, cost, nodes, R, launch, change, end",
    detail="It is live while the notebook has a kernel; afterwards its last picture stays.",
    options=CLOUD,
    faces=("magic",),
)
LOCAL = Verb(
    name="local",
    help="the local cloud: start it, see it, take it down",
    options=(Option(name="action", nargs="1", choices=("up", "status", "down"), help="what to do"), YES),
    faces=("cli",),
)
