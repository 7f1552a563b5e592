"""What a cluster's master says, as HTML: nodes and their load, R, jobs, ranks, volumes, watchdog, events. Pure."""

from __future__ import annotations

from ...overview.details import Details
from ...overview.pictures import ClusterPicture
from .words import escaped, moment, state, table, until


def nodes(cluster: ClusterPicture, details: Details | None) -> str:
    """The nodes, with their load if the master has told it."""
    loads = {each["index"]: each for each in (details["loads"] if details else ())}
    rows = []
    for each in cluster["nodes"]:
        load = loads.get(each["index"])
        waits = each["state"] == "running" and not each["up"]
        rows.append(
            (
                each["index"],
                escaped(each["role"]) + (" (spot)" if each["spot"] else ""),
                state("configuring" if waits else each["state"])
                + (f" {escaped(each['reason'])}" if each["reason"] else ""),
                f"{100 * load['cpu']:.0f} %" if load else "",
                f"{load['memory_used_gb']:.1f} of {load['memory_gb']:.0f} GB" if load else "",
                escaped(each["private_dns"] or each["private_ip"]),
                escaped(each["public_dns"] or each["public_ip"]),
                escaped(each["zone"]),
                moment(each["launched"]),
            )
        )
    columns = ("#node", "role", "state", "#CPU", "#memory", "private name", "public name", "zone", "launched")
    return table("Nodes", columns, rows)


def session(details: Details) -> str:
    """What R does, who holds it, what it takes."""
    told = details["session"]
    if told is None:
        return '<span class="ppe-calm">R has not been started</span>'
    held = f"{told['objects']} objects" if told["objects"] is not None else "objects unknown while it is busy"
    facts = [
        f"{'●' if told['state'] == 'idle' else '◐'} <b>{escaped(told['state'])}</b> since {moment(told['since'])}",
        f"held by {escaped(told['holder'])}" if told["holder"] else "nobody holds it",
        f"{told['memory_mb']:.0f} MB" if told["memory_mb"] is not None else "memory unknown",
        held,
    ]
    if told["unsaved"]:
        facts.append('<span class="ppe-moving">▲ holds what was never pulled</span>')
    code = f"<div><code>{escaped(told['code'].splitlines()[0][:200])}</code></div>" if told["code"] else ""
    return f'<div class="ppe-fact-line">{"".join(f"<span>{each}</span>" for each in facts)}</div>{code}'


def ranks(details: Details) -> str:
    """MPI ranks."""
    rows = [
        (
            escaped(each["job"]),
            each["rank"],
            "?" if each["node"] is None else each["node"],
            each["pid"],
            "" if each["cpu"] is None else f"{each['cpu']:.0f} %",
            "" if each["memory_mb"] is None else f"{each['memory_mb']:.0f} MB",
            escaped(each["call"]),
        )
        for each in details["ranks"]
    ]
    columns = ("job", "#rank", "#node", "#pid", "#CPU", "#memory", "does")
    return table("MPI ranks", columns, rows) if rows else ""


def jobs(details: Details) -> str:
    """R's longer evaluations, the newest first."""
    rows = [
        (
            each["id"],
            state(each["state"]),
            percent(each["percent"]),
            moment(each["since"]),
            f"<code>{escaped(each['title'][:80])}</code>",
        )
        for each in details["jobs"][:8]
    ]
    return table("Jobs", ("#job", "state", "#progress", "since", "code"), rows) if rows else ""


def percent(done: float | None) -> str:
    """A bar and a number."""
    return (
        ""
        if done is None
        else f'<progress value="{done}" max="100" aria-hidden="true"></progress> {done:g} %'
    )


def volumes(details: Details) -> str:
    """EBS volumes on the cluster's nodes."""
    rows = [
        (escaped(each["id"]), each["gb"], state(each["state"]), each["node"], escaped(each["mounted"] or ""))
        for each in details["volumes"]
    ]
    return table("Volumes", ("volume", "#GB", "state", "#node", "mounted at"), rows) if rows else ""


def watchdog(details: Details) -> str:
    """When and why the cluster ends by itself."""
    lines = details["watchdog"]["lines"]
    if acts_at := details["watchdog"]["acts_at"]:
        verb = {"park": "parks", "terminate": "terminates"}.get(details["watchdog"]["action"] or "", "ends")
        lines = [f"{verb} the cluster at {moment(acts_at)}, in {until(acts_at)}", *lines]
    said = "".join(f"<div>{escaped(each)}</div>" for each in lines)
    return f'<div class="ppe-caption">Watchdog</div>{said}' if said else ""


def events(details: Details) -> str:
    """What happened, the newest first."""
    marks = {"error": "✗ ", "warning": "▲ "}
    lines = [
        f"<li>{moment(each['at'])} {marks.get(each['level'], '')}{escaped(each['text'])}</li>"
        for each in details["events"][:30]
    ]
    if not lines:
        return ""
    return f"<details><summary>Events ({len(lines)})</summary><ul>{''.join(lines)}</ul></details>"
