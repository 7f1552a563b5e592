"""The panel in a real lab: launch, look, connect, interrupt and terminate while a cell runs; and what stays of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import editors, notebook
from cloud_client import Cloud
from localcloud_nodes import until
from nbconvert import HTMLExporter
from test_sidebar import SLEEP, run

import ppe_jupyter as ppe
from ppe_jupyter.cloud import tags

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.manager import Manager
    from ppe_jupyter.settings import Settings

expect = pytest.importorskip("playwright.sync_api").expect
CELL = "%load_ext ppe_jupyter\n%ppe_panel"
COUNTS = """%%remote_r
bar <- txtProgressBar(style = 3)
for (part in 1:60) { setTxtProgressBar(bar, part / 60); Sys.sleep(1) }"""
# Beside the panel: whether it watches, into a file.
WATCHED = """import threading, time, pathlib
from ppe_jupyter.frontends.panel import display as panel_display
panel = panel_display.show()

def tell():
    while True:
        pathlib.Path("watching").write_text(str(panel.watching))
        time.sleep(0.2)

threading.Thread(target=tell, daemon=True).start()"""
# Playwright's pages are always in front.
VISIBILITY = """state => {
  Object.defineProperty(document, "visibilityState", {configurable: true, get: () => state});
  document.dispatchEvent(new Event("visibilitychange"));
}"""
# What a screen reader would have no words for.
NAMELESS = """panel => [...panel.querySelectorAll("button, input, select, textarea, [role=tab]")].filter(
  each => !((each.tagName !== "SELECT" && each.innerText.trim()) || each.ariaLabel || each.title
    || [...(each.labels ?? [])].some(label => label.innerText.trim()))).map(each => each.outerHTML)"""
A_WHILE = 120_000  # milliseconds: nodes boot


def open_panel(page: Page, lab: Callable[[str], str], folder: Path, cell: str = CELL) -> None:
    (folder / "notebooks" / "panel.ipynb").write_text(json.dumps(notebook([cell])))
    page.goto(lab("lab/tree/panel.ipynb"))
    page.get_by_role("button", name="| Idle").wait_for()
    editors(page).first.click()
    page.keyboard.press("Control+Enter")


def fill_form(panel: Locator, name: str) -> None:
    """A new cluster of two m5.large."""
    panel.get_by_role("tab", name="New cluster").click()
    panel.get_by_label("Name", exact=True).fill(name)
    panel.get_by_label("Filter", exact=True).fill("m5.large")
    panel.get_by_role("radio", name="m5.large", exact=True).check()


@pytest.mark.slow
def test_from_the_form_to_the_end_by_clicks(
    lab: Callable[[str], str], page: Page, manager: Manager, tmp_path: Path
) -> None:
    page.set_viewport_size({"width": 1400, "height": 1000})
    open_panel(page, lab, tmp_path)
    panel = page.locator(".ppe-panel").first
    fill_form(panel, "Clicks 1")
    expect(panel).to_contain_text("name 'Clicks 1' is not small letters")
    panel.get_by_label("Name", exact=True).fill("clicks")
    assert panel.evaluate(NAMELESS) == []
    panel.get_by_role("button", name="Launch clicks").click()
    row = panel.locator(".ppe-row", has_text="clicks")
    expect(row).to_contain_text("2 of 2 nodes ready", timeout=A_WHILE)
    expect(row).to_contain_text("● running")
    expect(row).to_be_in_viewport()  # the form was longer
    row.locator("button.ppe-opener").click()
    expect(row).to_contain_text("Nodes")
    expect(row).to_contain_text("● idle")
    row.get_by_role("button", name="Connect").click()
    expect(panel).to_contain_text("connected: %%remote_r runs on clicks")

    sleeping = run(page, SLEEP)
    expect(sleeping.locator(".jp-InputPrompt")).to_have_text("[*]:")
    expect(row).to_contain_text("busy")  # it is live while a cell runs
    row.get_by_role("button", name="Interrupt R").and_(row.locator(".ppe-server-action")).click()
    page.locator(".jp-Dialog").get_by_role("button", name="Interrupt").click()
    expect(sleeping).to_contain_text("interrupted")

    expect(run(page, "import time; time.sleep(600)").locator(".jp-InputPrompt")).to_have_text("[*]:")
    row.get_by_role("button", name="Terminate").and_(row.locator(".ppe-server-action")).click()
    review = page.locator(".jp-Dialog", has_text="Terminate clicks?")
    review.get_by_role("button", name="Terminate clicks").click()
    expect(row).to_have_count(0)
    assert "clicks" not in [each.name for each in manager.clusters()]


@pytest.mark.slow
def test_a_page_whose_kernel_knows_no_panel_shows_its_last_picture(
    lab: Callable[[str], str], page: Page, tmp_path: Path
) -> None:
    open_panel(page, lab, tmp_path)
    expect(page.locator(".ppe-panel").first).to_contain_text("local cloud: free")
    expect(page.locator(".ppe-last")).to_contain_text("Clusters at")  # the update came
    expect(page.locator(".ppe-last")).to_be_hidden()
    page.keyboard.press("Control+s")
    saved = tmp_path / "notebooks" / "panel.ipynb"
    until(lambda: "Clusters at" in saved.read_text())
    page.get_by_role("menuitem", name="Kernel").click()
    page.get_by_text("Shut Down Kernel", exact=True).click()
    page.reload()
    expect(page.locator(".ppe-last")).to_be_visible()
    expect(page.locator(".jp-OutputArea", has_text="Error displaying widget")).to_be_hidden()
    expect(page.locator(".ppe-last")).to_contain_text("local cloud: free")

    exported = saved.with_suffix(".html")
    exported.write_text(HTMLExporter().from_filename(str(saved))[0])
    page.route(re.compile("^http"), lambda route: route.abort())  # no network: no scripts of widgets
    page.goto(exported.as_uri())
    expect(page.locator(".ppe-last")).to_be_visible()
    expect(page.locator(".ppe-last")).to_contain_text("local cloud: free")


@pytest.mark.slow
def test_a_hidden_panel_does_not_poll(lab: Callable[[str], str], page: Page, tmp_path: Path) -> None:
    told = tmp_path / "notebooks" / "watching"
    open_panel(page, lab, tmp_path, WATCHED)
    page.locator(".ppe-panel").first.wait_for()
    until(lambda: told.exists() and told.read_text() == "True")
    page.keyboard.press("Control+Shift+l")  # a launcher, in front of it
    expect(page.locator(".ppe-panel").first).to_be_hidden()
    until(lambda: told.read_text() == "False")
    page.get_by_role("tab", name="panel.ipynb").click()
    until(lambda: told.read_text() == "True")
    page.evaluate(VISIBILITY, "hidden")
    until(lambda: told.read_text() == "False")
    page.evaluate(VISIBILITY, "visible")
    until(lambda: told.read_text() == "True")


@pytest.mark.slow
def test_each_action_is_a_form_a_magic_and_a_click(
    lab: Callable[[str], str],
    page: Page,
    manager: Manager,
    local_cloud: Endpoint,
    settings: Settings,
    tmp_path: Path,
) -> None:
    page.set_viewport_size({"width": 1400, "height": 1000})
    cluster = manager.launch(ppe.ClusterSpec(name="acts", nodes=1, instance_type="m5.large"))
    volume = manager.create_volume(gb=1, zone=cluster.nodes[0].zone)
    try:
        open_panel(page, lab, tmp_path)
        panel = page.locator(".ppe-panel").first
        panel.get_by_role("button", name="▸ acts").press("Enter")
        volumes(panel, volume, cluster)
        changes(panel, cluster)
        mending(panel, cluster, Cloud(local_cloud, settings))
        progress(page, panel)
        panel.locator(".ppe-row", has_text="acts").get_by_role("button", name="Terminate…").click()
        panel.get_by_role("button", name="Terminate acts: gone for good").click()
        expect(panel.locator(".ppe-row", has_text="acts")).to_have_count(0)
        left_behind(panel, Cloud(local_cloud, settings))
    finally:
        if "acts" in [each.name for each in manager.clusters()]:
            cluster.terminate()
        manager.delete_volume(volume)


def done(panel: Locator, button: str, said: str) -> None:
    """Press it, and wait until the operation has ended well."""
    panel.get_by_role("button", name=re.compile(f"^{button}")).click()
    expect(panel).to_contain_text(re.compile(rf"✓ done\s+{said}"), timeout=A_WHILE)


def volumes(panel: Locator, volume: str, cluster: Cluster) -> None:
    row = panel.locator(".ppe-row", has_text="acts")
    row.get_by_role("button", name="Volumes…").click()
    row.get_by_label("Mount at").fill("/data")
    row.get_by_label("Format").select_option("ext4 if empty")
    magic = f"%ppe_attach_volume {volume} 0 --mount /data --format ext4 --cluster acts"
    expect(row.get_by_role("textbox", name="As magic")).to_have_value(magic)
    done(panel, "Attach", "attach volume acts")
    expect(row).to_contain_text(f"{volume}1● attached0/data")
    assert cluster.ssh().run("findmnt -no FSTYPE /data").stdout.strip() == b"ext4"
    row.get_by_role("button", name="Volumes…").click()
    done(panel, "Detach", "detach volume acts")
    expect(row).not_to_contain_text(volume)


def changes(panel: Locator, cluster: Cluster) -> None:
    row = panel.locator(".ppe-row", has_text="acts")
    row.get_by_role("button", name="Limits…").click()
    row.get_by_label("Idle").fill("off")
    row.get_by_label("Budget $").fill("5")
    expect(row.get_by_role("textbox", name="As magic")).to_have_value("%ppe_limit acts --idle off --budget 5")
    done(panel, "Set limits of acts", "limit acts")
    expect(row).to_contain_text("of $5.00 so far")
    spec = cluster.refresh().record.spec
    assert spec is not None and not spec.idle_hours
    row.get_by_role("button", name="Resize…").click()
    row.get_by_role("spinbutton", name="Nodes").fill("2")
    expect(row.get_by_role("textbox", name="As magic")).to_have_value("%ppe_resize acts --nodes 2")
    done(panel, "Resize acts", "resize acts")
    expect(row).to_contain_text("2 of 2 nodes ready")
    row.get_by_role("button", name="Reboot…").click()
    row.get_by_label("Node", exact=True).select_option("1 (worker)")
    expect(row.get_by_role("textbox", name="As magic")).to_have_value("%ppe_reboot acts --node 1")
    done(panel, "Reboot acts", "reboot acts")
    row.get_by_role("button", name="Park…").click()
    done(panel, "Park acts", "park acts")
    expect(row).to_contain_text("■ parked")
    row.get_by_role("button", name="Start…").click()
    done(panel, "Start acts", "start acts")
    expect(row).to_contain_text("2 of 2 nodes ready")


def mending(panel: Locator, cluster: Cluster, cloud: Cloud) -> None:
    row = panel.locator(".ppe-row", has_text="acts")
    cloud.ec2().terminate_instances([cluster.refresh().nodes[1].instance_id])
    expect(row).to_contain_text("▲ degraded")
    row.get_by_role("button", name="Mend…").click()
    row.get_by_label("Lost nodes").select_option("go on without them")
    expect(row.get_by_role("textbox", name="As magic")).to_have_value("%ppe_retry acts --drop")
    done(panel, "Mend acts", "retry acts")
    expect(row).to_contain_text("1 of 1 node ready")


def progress(page: Page, panel: Locator) -> None:
    """How far a job says it is, while its cell runs."""
    panel.get_by_role("button", name="Connect").click()
    expect(panel).to_contain_text("connected: %%remote_r runs on acts")
    cell = run(page, COUNTS)
    expect(panel.locator(".ppe-glance")).to_contain_text(re.compile(r"jobs\s*1 since .*, \d+ %"))
    panel.get_by_role("button", name="Interrupt R").and_(panel.locator(".ppe-server-action")).click()
    page.locator(".jp-Dialog").get_by_role("button", name="Interrupt").click()
    expect(cell).to_contain_text("interrupted")


def left_behind(panel: Locator, cloud: Cloud) -> None:
    """A placement group that no launch needs any more."""
    context = cloud.context()
    about = tags.for_everything(
        ppe.ClusterSpec(name="left"),
        name="left",
        owner=context.owner(),
        launch="left",
        busy_until=datetime.now(timezone.utc) - timedelta(hours=1),
    )
    label = [{"Key": key, "Value": value} for key, value in about.items()]
    context.ec2._ec2.create_placement_group(
        GroupName="ppe-left",
        Strategy="cluster",
        TagSpecifications=[{"ResourceType": "placement-group", "Tags": label}],
    )
    panel.get_by_role("tab", name="Left behind").click()
    panel.get_by_role("button", name="Look for it").click()
    choose = panel.get_by_label("To remove")
    choose.select_option(label=choose.locator("option", has_text="ppe-left").inner_text())
    panel.get_by_role("button", name="Remove the chosen for good").click()
    expect(panel).to_contain_text(re.compile(r"✓ done\s+cleanup"))
    left = context.ec2._ec2.describe_placement_groups()["PlacementGroups"]
    assert "ppe-left" not in [each["GroupName"] for each in left]
