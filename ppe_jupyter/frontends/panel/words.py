"""Words of the panel: pictures as text and HTML. Pure; knows neither widgets nor the cloud.

A state is always a word beside its shape, so that colour alone says nothing. Colours are JupyterLab's own variables.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone

from ...overview.details import Details
from ...overview.pictures import ClusterPicture, OperationPicture, Overview, PlanPicture, Problem
from ..tables import Sheet, counted, dollars, local_time, span

SHAPES = {
    "running": ("●", "good"),
    "done": ("✓", "good"),
    "attached": ("●", "good"),
    "degraded": ("▲", "bad"),
    "failed": ("✗", "bad"),
    "lost": ("✗", "bad"),
    "parked": ("■", "calm"),
    "stopped": ("■", "calm"),
    "terminated": ("○", "calm"),
    "cancelled": ("○", "calm"),
    "interrupted": ("○", "calm"),
}
MOVING = ("◐", "moving")
GRADES = {"error": "✗", "warning": "▲", "info": "ℹ"}
LATELY_SECONDS = 600.0  # since an operation has ended
UNANSWERED = "the cloud had not answered yet"
LIVES = "the panel lives while the notebook has a kernel: <code>%ppe_panel</code>"
MOST_LETTERS = 160  # of a problem's line


def escaped(text: object) -> str:
    """Text within HTML."""
    return html.escape(str(text))


def state(word: str) -> str:
    """A state as shape and word."""
    shape, look = SHAPES.get(word, MOVING)
    return f'<span class="ppe-{look}"><span aria-hidden="true">{shape}</span> {escaped(word)}</span>'


def moment(time: str | None) -> str:
    """A picture's time as the time of day here."""
    return local_time(datetime.fromisoformat(time.replace("Z", "+00:00"))) if time else "?"


def since(time: str | None) -> str:
    """How long ago that was."""
    if not time:
        return "?"
    return span(datetime.now(timezone.utc) - datetime.fromisoformat(time.replace("Z", "+00:00")))


def until(time: str) -> str:
    """How long that is from now."""
    return span(datetime.fromisoformat(time.replace("Z", "+00:00")) - datetime.now(timezone.utc))


def per_hour(usd: float | None) -> str:
    """A rate; without a price that is said."""
    return "price unknown" if usd is None else f"{dollars(usd)}/h"


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table with a caption; a column whose name begins with # is of numbers. Cells are HTML already."""
    sides = ['class="ppe-number"' if name.startswith("#") else "" for name in columns]
    head = "".join(
        f'<th scope="col" {side}>{escaped(name.lstrip("#"))}</th>'
        for name, side in zip(columns, sides, strict=True)
    )
    body = "".join(
        f"<tr>{''.join(f'<td {side}>{cell}</td>' for cell, side in zip(row, sides, strict=True))}</tr>"
        for row in rows
    )
    shown = f"<caption>{escaped(caption)}</caption>" if caption else ""
    name = f'role="region" aria-label="{escaped(caption)}"' if caption else ""
    return (
        f'<div class="ppe-wide" tabindex="0" {name}><table class="mathjax_ignore">{shown}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def problem(told: Problem) -> str:
    """One line, and the rest to unfold."""
    first = told["detail"].splitlines()[0]
    line = first if len(first) <= MOST_LETTERS else f"{first[: MOST_LETTERS - 1]}…"
    return (
        f'<details class="ppe-problem" role="alert"><summary><span class="ppe-bad">✗</span> {escaped(line)}</summary>'
        f"<pre>{escaped(told['title'])} ({told['status']})\n{escaped(told['detail'])}</pre></details>"
    )


def heading(seen: Overview) -> str:
    """Whose money it is, and how fresh what is shown is."""
    where = f" · {seen['region']}" if seen["region"] and seen["region"] not in seen["whose"] else ""
    said = [f"<b>{escaped(seen['whose'] or seen['cloud'])}</b>{escaped(where)}"]
    if not seen["up"]:
        said.append("the local cloud is down; a launch starts it")
    if seen["preparing"]:
        said.append(f'<span role="status">◐ {escaped(seen["preparing"])}</span>')
    if seen["problem"]:
        said.append(f'<span class="ppe-moving">▲ as of {moment(seen["at"])}</span>')
    line = " &nbsp;·&nbsp; ".join(said)
    return line + (problem(seen["problem"]) if seen["problem"] else "")


def glance(seen: Overview, focus: ClusterPicture | None, details: Details | None) -> str:
    """What matters most: money; of the cluster in focus, if there is one, its own, and what its master says."""
    budgets = [each["budget_usd"] for each in ([focus] if focus else seen["clusters"])]
    limits = [each for each in budgets if each is not None]
    spent = dollars(focus["usd_so_far"] if focus else seen["usd_so_far"])
    if limits and len(limits) == len(budgets):
        spent += f" of {dollars(sum(limits))}"
    on_ec2 = " on EC2" if seen["free"] else ""
    slots = sum(each["slots"] for each in seen["clusters"])
    rate = per_hour(focus["usd_per_hour"] if focus else seen["usd_per_hour"])
    if focus and len(seen["clusters"]) > 1:
        rate += f" (all: {per_hour(seen['usd_per_hour'])})"
    facts = [(f"cost now{on_ec2}", rate), (f"so far{on_ec2}", spent)]
    if focus is None or details is None or details["problem"]:
        facts.append(("slots", str(slots)))
        ends = [each["deadline"] for each in seen["clusters"] if each["deadline"]]
        facts += [("stops at", moment(min(ends)))] if ends else []
    else:
        facts += _focus(focus, details)
    cells = "".join(f"<div><dt>{escaped(what)}</dt><dd>{fact}</dd></div>" for what, fact in facts)
    return f'<dl class="ppe-glance">{cells}</dl>'


def _focus(focus: ClusterPicture, details: Details) -> list[tuple[str, str]]:
    watch, session = details["watchdog"], details["session"]
    until = watch["acts_at"] or focus["deadline"]
    ends = f"{moment(until)} ({watch['action'] or 'limit'})" if until else "no limit in sight"
    facts = [("stops at", escaped(ends)), ("slots busy", f"{details['slots_busy']} of {focus['slots']}")]
    if loads := [each for each in details["loads"] if each["memory_gb"]]:
        fullest = max(loads, key=lambda each: each["memory_used_gb"] / each["memory_gb"])
        share = 100 * fullest["memory_used_gb"] / fullest["memory_gb"]
        facts.append(("fullest memory", f"{share:.0f} % (node {fullest['index']})"))
    if session:
        facts.append(("R", f"{escaped(session['state'])} since {moment(session['since'])}"))
        unsaved = {True: "yes", False: "none", None: "R is busy"}[session["unsaved"]]
        facts.append(("unsaved work", unsaved))
    if running := [each for each in details["jobs"] if each["state"] in ("running", "queued")]:
        far = [f"{each['percent']:g} %" for each in running if each["percent"] is not None]
        facts.append(("jobs", f"{len(running)} since {moment(running[-1]['since'])}{', '.join(['', *far])}"))
    return facts


def foreign(cluster: ClusterPicture) -> str:
    """Whose it is, if it is somebody else's: for a question."""
    said = f"warning: {cluster['name']} is not yours: {cluster['owner']} launched it"
    return "" if cluster["mine"] else f'<div class="ppe-moving">{GRADES["warning"]} {escaped(said)}</div>'


def row(cluster: ClusterPicture, *, free: bool) -> str:
    """A cluster in the list."""
    spent = dollars(cluster["usd_so_far"])
    limit = f" of {dollars(cluster['budget_usd'])}" if cluster["budget_usd"] is not None else ""
    facts = [
        state(cluster["state"]),
        f"{cluster['nodes_up']} of {counted(cluster['nodes_wanted'], 'node')} ready",
        escaped(f"{cluster['type']} · {cluster['zone']}"),
        f"{since(cluster['launched'])} old",
        f"{'on EC2 ' if free else ''}{spent}{limit} so far, {per_hour(cluster['usd_per_hour'])}",
    ]
    if cluster["deadline"]:
        facts.append(f"ends in {until(cluster['deadline'])}, at {moment(cluster['deadline'])}")
    if not cluster["mine"]:
        facts.append(f"of {escaped(cluster['owner'].partition(' ')[0])}")
    spans = "".join(f"<span>{each}</span>" for each in facts)
    troubles = "".join(f'<div class="ppe-moving">▲ {escaped(each)}</div>' for each in cluster["troubles"])
    return f'<div class="ppe-fact-line">{spans}</div>{troubles}'


def operation(told: OperationPicture) -> str:
    """How far a launch or change is."""
    what = f"{told['verb'].replace('_', ' ')} {told['cluster']}".strip()
    if told["state"] != "running":
        said = f"{state(told['state'])} {escaped(what)} · {told['elapsed']:.0f} s"
        return f'<div role="status">{said}</div>' + (problem(told["problem"]) if told["problem"] else "")
    ready = f"{told['ready']} %" if told["unit"] == "%" else f"{told['ready']} of {told['total']} nodes"
    value = f'value="{told["ready"]}" max="{max(told["total"], 1)}"' if told["total"] else ""
    words = " · ".join(part for part in (told["phase"], told["message"]) if part)
    return (
        f'<div role="status"><b>{escaped(what)}</b> <progress {value} aria-label="{escaped(what)}"></progress> '
        f"{ready if told['total'] else ''} · {told['elapsed']:.0f} s · {escaped(words)}</div>"
    )


def ended_lately(told: OperationPicture) -> bool:
    """Whether it is still of interest."""
    began = datetime.fromisoformat(told["started"].replace("Z", "+00:00"))
    return (datetime.now(timezone.utc) - began).total_seconds() - told["elapsed"] < LATELY_SECONDS


def review(plan: PlanPicture) -> str:
    """A plan: what it does and costs, what is wrong with it, what would be lost."""
    rows = [(escaped(label), escaped(text)) for label, text in Sheet(plan["rows"]).lines()]
    rows += [(f'<b class="ppe-bad">{escaped(label)}</b>', escaped(text)) for label, text in plan["losses"]]
    body = "".join(
        f'<tr>{f"<th scope=row>{label}</th>" if label else "<td></td>"}<td class="ppe-long">{text}</td></tr>'
        for label, text in rows
    )
    looks = {"error": "bad", "warning": "moving", "info": "calm"}
    problems = "".join(
        f'<div class="ppe-{looks[grade]}">{GRADES[grade]} {grade}: {escaped(each["text"])}</div>'
        for each in plan["problems"]
        for grade in [each["grade"]]
    )
    return f'<table class="mathjax_ignore">{body}</table><div role="status">{problems}</div>'


def last_picture(seen: Overview) -> str:
    """What a page without a kernel shows."""
    rows = [
        (
            escaped(each["name"]),
            state(each["state"]),
            f"{each['nodes_up']} of {each['nodes_wanted']}",
            escaped(each["type"]),
            escaped(each["zone"]),
            dollars(each["usd_so_far"]),
            per_hour(each["usd_per_hour"]),
        )
        for each in seen["clusters"][:50]
    ]
    columns = ("cluster", "state", "#nodes", "type", "zone", "#EC2 $ so far", "#EC2 $/h")
    at = datetime.fromisoformat(seen["at"].replace("Z", "+00:00")).astimezone()  # read on another day
    said = f"Clusters at {at:%H:%M on %d %b %Y} · {seen['whose'] or seen['cloud']}"
    more = len(seen["clusters"]) - len(rows)
    rest = f"<p>… and {more} more</p>" if more > 0 else ""
    shown = table(said, columns, rows) if rows else f"<p>{escaped(said)}: none</p>"
    return f"{shown}{rest}<p><small>As it was last; {LIVES}</small></p>"


def plain(seen: Overview) -> str:
    """The same as lines of text, for terminals."""
    lines = [f"{seen['whose'] or seen['cloud']} · {counted(len(seen['clusters']), 'cluster')}"]
    for each in seen["clusters"]:
        nodes = f"{each['nodes_up']} of {counted(each['nodes_wanted'], 'node')}"
        rate = per_hour(each["usd_per_hour"])
        lines.append(f"{each['name']}: {each['state']} · {nodes} · {each['type']} · {rate}")
    if seen["problem"]:
        lines.append(seen["problem"]["detail"].splitlines()[0])
    return "\n".join(lines)
