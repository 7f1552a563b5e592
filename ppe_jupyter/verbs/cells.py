"""The verbs of the remote cells: R, Python and shell on the cluster, and variables both ways."""

from __future__ import annotations

from dataclasses import replace

from .options import ALL_SLOTS, CLUSTER, LINES, SEQUEL, SESSION, TIMEOUT, YES, Option, Verb, ranks

RANKS = (
    Option(name="ranks", kind=ranks, bare=ALL_SLOTS, metavar="N|all", help="on N MPI ranks, or all slots"),
    Option(name="fresh", flag=True, help="with --ranks: on new ranks; without code: only end the old ones"),
    Option(name="stream", flag=True, help="with --ranks: show lines as they come, each behind its rank"),
)
WITH_R = (
    Option(
        name="from-r",
        repeat=True,
        metavar="A,B",
        help="with --ranks: of the R session's, to each rank, or A:scatter a part",
    ),
    Option(name="to-r", repeat=True, metavar="A,B", help="with --ranks: to R's session, lists by rank"),
)
KEPT = (
    "With --ranks the code runs as an MPI program on that many processes over the nodes, which keep their "
    "variables for the next cell on as many; -i x sends x to each, -i x:scatter a part of its first axis; "
    "-o y brings back a list by rank, -o y:concat one value."
)
INPUT = Option(
    name="input",
    short="i",
    repeat=True,
    values="variable",
    metavar="A,B",
    help="push first; also module.value, and name_in_r=name",
)
OUTPUT = Option(
    name="output", short="o", repeat=True, metavar="A,B", help="pull afterwards; a dot in a name becomes _"
)
NO_SIMPLIFY = Option(name="no-simplify", flag=True, help="vectors of length 1 stay arrays")

CELLS: tuple[Verb, ...] = (
    Verb(
        name="remote_r",
        help="run R in the master's session",
        detail=(
            "%%remote_r runs a cell and prints as R's console does; %remote_r returns the value of the last "
            "expression, unless -n is given or the line ends with a semicolon. The options are those of "
            f"rpy2's %%R. {KEPT} There library(Rmpi) or library(pbdMPI) is the code's own."
        ),
        options=(
            INPUT,
            OUTPUT,
            NO_SIMPLIFY,
            Option(name="noreturn", short="n", flag=True, help="return nothing"),
            Option(name="width", short="w", kind=float, help="width of plots"),
            Option(name="height", short="h", kind=float, help="height of plots"),
            Option(name="units", short="u", choices=("px", "in", "cm", "mm"), help="units of both"),
            Option(name="res", short="r", kind=int, help="pixels per inch"),
            Option(name="pointsize", short="p", kind=int, help="point size of plots' text"),
            Option(name="bg", short="b", help="background of plots"),
            Option(name="png", flag=True, help="plots as PNG, not SVG"),
            LINES,
            Option(
                name="converter",
                short="c",
                values="variable",
                help="an rpy2 converter for --input and --output",
            ),
            Option(
                name="display",
                short="d",
                values="variable",
                metavar="FUNCTION",
                help="call it with the cell's value, as rpy2's object, and the options",
            ),
            Option(
                name="type",
                choices=("cairo", "cairo-png", "Xlib", "quartz"),
                help="as of rpy2; plots are always cairo's",
            ),
            Option(name="noisolation", flag=True, help="as of rpy2; plots never need isolation"),
            Option(name="background", flag=True, help="return a job at once, and free the notebook"),
            *SEQUEL,
            YES,
            Option(
                name="watch",
                flag=True,
                help="while this waits for another's evaluation, show what that prints",
            ),
            Option(name="take-over", flag=True, help="interrupt another client's evaluation and go first"),
            RANKS[0],
            replace(RANKS[1], help=f"in a new R session, or, {RANKS[1].help}"),
            *RANKS[2:],
            *WITH_R,
            SESSION,
            CLUSTER,
            TIMEOUT,
        ),
        code="R code",
        cell=True,
        faces=("magic",),
    ),
    Verb(
        name="remote_py",
        help="run Python on the master, or on every MPI rank",
        detail=f"{KEPT} Values are pickled; those of --from-r and --to-r are plain vectors, lists and tables.",
        options=(
            *RANKS,
            replace(INPUT, help="with --ranks: send first"),
            replace(OUTPUT, help="with --ranks: bring back afterwards"),
            *WITH_R,
            SESSION,
            LINES,
            CLUSTER,
            TIMEOUT,
        ),
        code="Python code",
        cell=True,
        faces=("magic",),
    ),
    Verb(
        name="remote_sh",
        help="run shell commands on the master, or on every node",
        options=(Option(name="all", flag=True, help="on every node"), LINES, CLUSTER, TIMEOUT),
        code="commands",
        cell=True,
        faces=("magic",),
    ),
    Verb(
        name="remote_push",
        help="copy Python variables to R",
        options=(
            Option(
                name="names", nargs="*", values="variable", help="their names; name_in_r=name for another one"
            ),
            Option(
                name="from-r", flag=True, help="not from Python, but from this machine's R, as rpy2 runs it"
            ),
            Option(name="integer64", flag=True, help="integers beyond 2^31 as those of R's package bit64"),
            SESSION,
            CLUSTER,
        ),
        faces=("magic",),
    ),
    Verb(
        name="remote_pull",
        help="copy R variables to Python",
        options=(
            Option(name="names", nargs="*", help="their names"),
            Option(
                name="to-r",
                flag=True,
                help="not to Python, but to this machine's R, as rpy2 runs it",
            ),
            NO_SIMPLIFY,
            SESSION,
            CLUSTER,
        ),
        faces=("magic",),
    ),
    Verb(
        name="remote_interrupt",
        help="interrupt what the R session evaluates, whoever started it",
        detail="Where that ends nothing, the next step is offered in a line; an option takes its step at once.",
        options=(
            Option(name="workers", flag=True, help="interrupt R's MPI workers"),
            Option(name="restart", flag=True, help="save the workspace, restart R, load it again"),
            SESSION,
            CLUSTER,
        ),
        faces=("magic",),
    ),
    Verb(
        name="remote_ranks",
        help="every MPI rank of the cluster, and the MPI call it is in",
        options=(CLUSTER,),
        faces=("magic",),
    ),
    Verb(
        name="remote_kill",
        help="end an MPI rank",
        options=(
            Option(name="rank", nargs="1", kind=int, help="its number in the table of ranks"),
            Option(name="of", metavar="JOB", help="of which job; R if not given"),
            CLUSTER,
        ),
        faces=("magic",),
    ),
)
