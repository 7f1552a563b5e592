"""The panel: widgets without a browser, against the local cloud's endpoint; who sets values and clicks is a user."""

from __future__ import annotations

import html
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from cloud_client import Cloud
from localcloud_nodes import until
from many_clusters import many_clusters
from test_overview import NOW, node, pictured

from ppe_jupyter import errors
from ppe_jupyter.cloud.records import ClusterState, Progress
from ppe_jupyter.frontends import typed
from ppe_jupyter.frontends.panel import display, master, options, session, volumes, words
from ppe_jupyter.frontends.panel.panel import Panel
from ppe_jupyter.frontends.panel.presence import GONE_TICKS, Presence
from ppe_jupyter.frontends.panel.worker import Worker
from ppe_jupyter.localcloud import hooks
from ppe_jupyter.overview import deeds, pictures, poller
from ppe_jupyter.overview.operations import Operations
from ppe_jupyter.verbs import find

if TYPE_CHECKING:
    from notebook_kernel import Kernel

    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.overview.pictures import Overview
    from ppe_jupyter.settings import Settings

NASTY = "<script>alert(1)</script>"


def every(widget: Any) -> Iterator[Any]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from every(child)


def shown(widget: Any) -> str:
    """The text of what is displayed."""
    if widget.layout.display == "none":
        return ""
    own = str(getattr(widget, "description", "") or "")
    if type(widget).__name__ == "HTML":
        own = html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", widget.value, flags=re.DOTALL))
    return " ".join([own, *(shown(each) for each in getattr(widget, "children", ()))])


def labelled(panel: Panel, label: str) -> Any:
    """The button or field that a user would find under that label."""
    found = [
        each
        for each in every(panel.widget)
        if (getattr(each, "description", "") or "").startswith(label)
        or (getattr(each, "description", "") or "").endswith(f" {label}")
    ]
    return found[0] if found else None


def press(panel: Panel, label: str) -> None:
    until(lambda: labelled(panel, label) is not None and not labelled(panel, label).disabled)
    labelled(panel, label).click()


def tab(panel: Panel, title: str) -> None:
    tabs = next(each for each in every(panel.widget) if type(each).__name__ == "Tab")
    tabs.selected_index = tabs.titles.index(title)


@pytest.fixture
def panels(local_cloud: Endpoint) -> Iterator[Callable[[], Panel]]:
    """Makes panels, and closes them."""
    made: list[Panel] = []

    def make() -> Panel:
        made.append(Panel())
        return made[-1]

    yield make
    for each in made:
        each.close()


def overview(*clusters: Any, **changes: Any) -> Overview:
    about: dict[str, Any] = {"version": "1", "whose": "account 1", "up": True, "at": NOW}
    from ppe_jupyter.settings import Settings

    return pictures.overview(Settings(), clusters, [], **(about | changes))


# -- what is shown ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(ClusterState))
def test_a_state_is_a_word_and_a_shape_not_only_a_colour(state: ClusterState) -> None:
    text = re.sub(r"<[^>]+>", "", words.row(pictured(state=state), free=False))
    assert str(state) in text
    assert text.strip()[0] in "●▲■○◐"


def test_nothing_of_others_is_taken_for_html() -> None:
    nasty = pictured(
        name=NASTY,
        owner=NASTY,
        nodes=(node(0, reason=NASTY, private_dns=NASTY, zone=NASTY, instance_type=NASTY),),
    )
    seen = overview(nasty, whose=NASTY, problem=pictures.problem(errors.CloudError(NASTY)))
    plan = {
        "rows": [(NASTY, NASTY)],
        "losses": [(NASTY, NASTY)],
        "problems": [{"grade": "error", "text": NASTY}],
    }
    for shown in (
        words.row(nasty, free=True),
        master.nodes(nasty, None),
        words.heading(seen),
        words.last_picture(seen),
        words.review(plan),  # type: ignore[arg-type]
    ):
        assert "<script" not in shown
        assert "&lt;script" in shown


def test_a_problem_is_one_line_and_the_rest_unfolds() -> None:
    said = words.problem(pictures.problem(errors.CloudError("first\nsecond\nthird")))
    summary = re.search(r"<summary>(.*)</summary>", said)
    assert summary is not None
    assert "first" in summary[1] and "second" not in summary[1]
    assert "third" in said


@pytest.mark.parametrize("verb", [*pictures.ACTIONS[ClusterState.DEGRADED], "resize", "start", "volumes"])
def test_each_action_has_a_magic_that_can_be_typed(verb: str) -> None:
    if verb == "rstudio":
        pytest.skip("a link with its own magic")
    line = options.usual_magic(verb, pictured())
    name, _, rest = line.removeprefix("%ppe_").partition(" ")
    assert typed.parse(find(name, face="magic"), rest, face="magic") is not None
    assert "demo" in rest


def test_the_last_picture_is_html_and_text() -> None:
    bundle = display.picture(overview(pictured()))
    assert set(bundle) == {"text/html", "text/plain"}
    assert all("demo" in each and "running" in each for each in bundle.values())


def owned(*, mine: bool, asked: list[Any], **can: Any) -> tuple[Any, Any]:
    """A panel whose clicks are done at once, their answers in ``asked``; and one's own cluster, or ann's."""
    held = SimpleNamespace(name="demo", record=SimpleNamespace(owner="ann@desk"), refresh=lambda: held, **can)
    watched: Any = SimpleNamespace(
        cluster=lambda name: held,
        manager=SimpleNamespace(mine=lambda record: mine),
        operations=Operations(),
    )

    def ask(key: str, act: Callable[[], Any], then: Callable[[Any], object]) -> None:
        asked.append(act())
        then(asked[-1])

    worker = SimpleNamespace(is_this=False, do=lambda act: act(), ask=ask)
    said = SimpleNamespace(poller=watched, worker=worker, say=asked.append)
    return said, {**pictured(), "mine": mine, "owner": "ann@desk"}


@pytest.mark.parametrize("mine", [True, False])
def test_a_volume_of_somebody_elses_cluster_needs_a_yes_that_says_so(mine: bool) -> None:
    asked: list[Any] = []
    panel, cluster = owned(mine=mine, asked=asked, detach_volume=lambda *_, **how: None)
    row = {"id": "vol-1", "cluster": "demo", "node": 0, "zone": cluster["zone"], "gb": 1}
    (form,) = volumes.forms(panel, cluster, [row], leave=lambda: None)  # type: ignore[arg-type]
    assert ("demo is not yours: ann@desk launched it" in shown(form)) is not mine
    next(each for each in every(form) if "Detach" in (getattr(each, "description", "") or "")).click()
    assert [each.verb for each in asked] == ["detach_volume"]
    if not mine:
        with pytest.raises(errors.NotYours, match="ann@desk"):
            deeds.detach(panel.poller, "demo", "vol-1")


@pytest.mark.parametrize("mine", [True, False])
@pytest.mark.parametrize("verb", ["interrupt", "restart"])
def test_r_of_somebody_elses_cluster_needs_a_yes_that_says_so(verb: str, mine: bool) -> None:
    done: list[Any] = []
    left: list[str] = []
    r = SimpleNamespace(
        interrupt=lambda step: done.append("interrupt"),
        restart=lambda: done.append("restart"),
        rest=lambda: None,
    )
    panel, cluster = owned(mine=mine, asked=[], r=lambda name: r)
    form = session.form(panel, verb, cluster, leave=lambda: left.append("form"))
    if mine and verb == "interrupt":  # the stop button
        assert form is None
    else:
        assert done == []
        assert ("demo is not yours: ann@desk launched it" in shown(form)) is not mine
        label = f"{verb.capitalize()} R{'' if mine else ' nevertheless'}"
        next(each for each in every(form) if getattr(each, "description", "") == label).click()
    assert (done, left) == ([verb], ["form"])
    if not mine:
        with pytest.raises(errors.NotYours, match="ann@desk"):
            session.DEEDS[verb](panel.poller, "demo")


# -- the worker ---------------------------------------------------------------------------------------------


def test_only_the_last_answer_of_a_key_counts_and_failures_are_told() -> None:
    answers: list[object] = []
    go = threading.Event()
    worker = Worker(tick=lambda: None, seconds=60, failed=answers.append)

    def ask() -> None:
        worker.ask("key", lambda: go.wait(10) and "first", answers.append)
        worker.ask("key", lambda: "second", answers.append)
        worker.ask("key", lambda: "third", answers.append)
        worker.ask("other", lambda: [][0], answers.append)

    worker.do(ask)
    until(lambda: len(answers) == 1)
    go.set()
    until(lambda: len(answers) == 2)
    worker.close()
    until(lambda: not worker.alive)
    assert isinstance(answers[0], IndexError)
    assert answers[1] == "third"


def says(presence: Any, view: str, seen: bool) -> None:
    """What a page tells."""
    presence.widget._handle_msg(
        {"content": {"data": {"method": "custom", "content": {"view": view, "seen": seen}}}, "buffers": []}
    )


def test_a_page_that_is_hidden_or_silent_is_noticed_and_welcomed_back() -> None:
    changes: list[bool] = []
    presence = Presence(lambda: changes.append(presence.present), do=lambda act: act())
    assert presence.present, "its view is about to come"
    says(presence, "one", True)
    says(presence, "two", True)
    says(presence, "one", False)
    assert presence.present and not changes
    for _ in range(GONE_TICKS + 1):
        presence.tick()
    assert changes == [False]
    says(presence, "two", True)
    says(presence, "two", False)
    assert changes == [False, True, False]


def test_silence_while_the_kernel_is_not_free_says_nothing() -> None:
    changes: list[bool] = []
    ended: list[Callable[[], None]] = []
    views = [1]
    presence = Presence(
        lambda: changes.append(presence.present),
        do=lambda act: act(),
        loop=SimpleNamespace(add_callback=ended.append),
        viewed=lambda: views[0],
    )
    for _ in range(3 * GONE_TICKS):
        presence.tick()
    assert presence.present and not changes

    says(presence, "one", True)
    says(presence, "one", False)
    assert presence.present, "it may have come back into sight, and cannot say so"
    views[0] = 0
    assert not presence.present
    views[0] = 1
    ended[-1]()
    presence.tick()
    assert changes == [False]


# -- against the cloud --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, *(pytest.param(count, marks=pytest.mark.slow) for count in (20, 200))])
def test_many_clusters_are_seen_filtered_and_followed(
    panels: Callable[[], Panel], local_cloud: Endpoint, settings: Settings, count: int
) -> None:
    with many_clusters(local_cloud, settings, count) as clusters:
        panel = panels()
        mine = [f"many-{number}" for number in range(count)]
        until(lambda: panel.seen and {each["name"] for each in panel.seen["clusters"]} >= set(mine))
        until(lambda: "many-" in shown(panel.widget))
        models = len(list(every(panel.widget)))
        assert models < 300, "a page of rows, however many clusters"
        if count > 20:
            panel.clusters._filter.value = f"many-{count - 1}"
            until(
                lambda: f"▸ many-{count - 1}" in shown(panel.widget) and "many-17 " not in shown(panel.widget)
            )
        panel.clusters._filter.value = f"many-{count - 1}"
        Cloud(local_cloud, settings).ec2().terminate_instances(clusters[f"many-{count - 1}"])
        press(panel, "Refresh")
        until(
            lambda: f"▸ many-{count - 1}" not in shown(panel.widget) or "shutting-down" in shown(panel.widget)
        )


def test_three_panels_ask_once_stay_in_step_and_stop_when_closed(
    panels: Callable[[], Panel], local_cloud: Endpoint, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "CALM_SECONDS", 0.2)
    monkeypatch.setattr(poller, "LINGER_SECONDS", 0.1)
    with many_clusters(local_cloud, settings, 3):
        three = [panels() for _ in range(3)]
        writers: set[str] = set()
        for each in three:
            for widget in every(each.widget):
                widget.observe(lambda change: writers.add(threading.current_thread().name))
        watched = three[0].poller
        assert all(each.poller is watched for each in three)
        reads: list[float] = []
        read = watched._read
        monkeypatch.setattr(watched, "_read", lambda: (reads.append(time.monotonic()), read()))
        until(lambda: reads)
        hooks.reset(local_cloud)
        hooks.set_containerless(local_cloud, True)
        before = len(reads)
        until(lambda: len(reads) >= before + 5)
        calls, counted = hooks.calls(local_cloud), len(reads)
        assert calls.count("DescribeInstances") <= counted - before + 1

        go = threading.Event()

        def work(report: Any, stop: threading.Event) -> None:
            report(Progress("mending", 1, 2, 0.0, "node 1"))
            go.wait(20)

        watched.operations.start("retry", "many-0", work)
        until(lambda: all("mending" in shown(each.widget) for each in three))
        go.set()
        until(lambda: all("done" in shown(each.widget) for each in three))

        assert writers == {"ppe-panel"}, "one thread writes"
        for each in three:
            each.close()
        until(lambda: watched._thread is None and not any(each.worker.alive for each in three))
        assert not watched._callbacks


def test_it_watches_while_it_is_seen(panels: Callable[[], Panel]) -> None:
    panel = panels()
    says(panel._presence, "a view", True)
    says(panel._presence, "a view", False)
    until(lambda: not panel.watching)
    says(panel._presence, "a view", True)
    until(lambda: panel.watching)


def test_the_form_plans_as_one_types_and_says_what_is_wrong(panels: Callable[[], Panel]) -> None:
    panel = panels()
    tab(panel, "New cluster")
    until(lambda: "pays" in shown(panel.launch.widget))
    until(lambda: "us-east-1a" in [value for _, value in panel.launch.fields["zone"].options])
    panel.launch.fields["name"].value = "Not So"
    until(lambda: "'Not So' is not small letters" in shown(panel.launch.widget))
    launch = panel.launch._review
    assert launch is not None and launch.confirm.disabled
    panel.launch.fields["name"].value = "so"
    panel.launch.fields["nodes"].value = 3
    panel.launch.fields["idle_hours"].value = "90m"
    until(lambda: {"m5.large", "c7g.large"} < {each["name"] for each in panel.launch.types.types})
    panel.launch.types.value = "m5.large"
    until(lambda: "m5.large" in launch.magic.value)
    until(lambda: not launch.confirm.disabled)
    assert launch.magic.value == "%ppe_launch so --nodes 3 --type m5.large --idle 1.5"
    assert launch.confirm.description == "Launch so"
    image = panel.launch.fields["image"]
    assert any(not why for _, value, why in image.options if value)
    panel.launch.types.value = "c7g.large"
    until(lambda: any("arm64" in why for _, _, why in image.options))


def test_what_destroys_is_reviewed_and_confirmed(
    panels: Callable[[], Panel], local_cloud: Endpoint, settings: Settings
) -> None:
    with many_clusters(local_cloud, settings, 1, nodes=1):
        panel = panels()
        press(panel, "many-0")
        until(lambda: labelled(panel, "Copy as magic"))
        labelled(panel, "Copy as magic").value = True
        press(panel, "Terminate…")
        until(lambda: "%ppe_terminate many-0" in [getattr(each, "value", "") for each in every(panel.widget)])
        assert labelled(panel, "Terminate many-0") is None, "only copied"
        press(panel, "Terminate…")
        press(panel, "Terminate many-0: gone for good")
        until(lambda: "terminate many-0" in shown(panel.widget))
        until(lambda: panel.cluster("many-0") is None)


def test_settings_are_masked_and_saved(panels: Callable[[], Panel], settings: Settings) -> None:
    from ppe_jupyter import settings as file

    file.save("proxy", "http://ann:secret@proxy:3128")
    try:
        panel = panels()
        tab(panel, "Settings")
        until(lambda: labelled(panel, "proxy") is not None and "***" in labelled(panel, "proxy").value)
        assert not any("secret" in str(getattr(each, "value", "")) for each in every(panel.widget))
        labelled(panel, "max_nodes").value = "7"
        until(
            lambda: (
                '%ppe_config "max_nodes=7"' in [getattr(each, "value", "") for each in every(panel.widget)]
            )
        )
        press(panel, "Save")
        until(lambda: file.load().max_nodes == 7)
        assert file.load().proxy == "http://ann:secret@proxy:3128"
        until(lambda: panel.poller.settings.max_nodes == 7)
    finally:
        file.save("proxy", "")
        file.save("max_nodes", "")


def test_what_was_left_behind_is_looked_for_on_a_click(panels: Callable[[], Panel]) -> None:
    panel = panels()
    tab(panel, "Left behind")
    press(panel, "Look for it")
    until(lambda: "Nothing was left behind" in shown(panel.widget) or "Left behind" in shown(panel.widget))


@pytest.mark.parametrize("cell", ["%ppe_panel", "import ppe_jupyter as ppe\nppe.Manager()"])
def test_in_a_notebook_it_is_a_widget_and_a_picture(
    bare_kernel: Kernel, local_cloud: Endpoint, cell: str
) -> None:
    shown = bare_kernel.cell(cell)
    assert shown.error is None
    assert len(shown.data(display.WIDGET)) == 1
    (last,) = [each for each in shown.data("text/html") if "ppe-last" in each]
    assert "Clusters at" in last  # though no page has asked for it


def test_in_a_terminal_it_is_text(local_cloud: Endpoint) -> None:
    command = "import ppe_jupyter as ppe; ppe.Manager()\n%load_ext ppe_jupyter\n%ppe_panel"
    shell = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor"]
    done = subprocess.run(shell, input=command, capture_output=True, text=True, timeout=60)
    assert done.stdout.count("local cloud: free") == 2, done.stdout + done.stderr
