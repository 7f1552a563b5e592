"""The same seed, the same answer: a bootstrap of a Cox model, whatever happens to it on the way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from conftest import INSTANCE_TYPE
from localcloud_nodes import pull_the_plug
from test_evaluator import Seen
from test_line_faults import RESET
from test_mpi import Evaluation
from test_sessions import cut_off, port_of

import ppe_jupyter as ppe
from ppe_jupyter import errors

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager
    from ppe_jupyter.remote.sessions.session import RemoteR

pytestmark = pytest.mark.slow

COX = """
library(survival)
patients <- na.omit(lung[, c("time", "status", "sex", "age")])
fit <- function(i) {
  if (i > 60) file.create("/tmp/begun")
  Sys.sleep(pause)
  coef(coxph(Surv(time, status) ~ sex + age, data = patients[sample(nrow(patients), replace = TRUE), ]))
}
pause <- 0
serial <- ppe.lapply(1:400, fit, seed = 1994, slots = 0)
pause <- 0.05
invisible(ppe.lapply(1:6, identity))
"""
CALL = "x <- ppe.lapply(1:400, fit, seed = 1994)"


@pytest.fixture(scope="module")
def nodes(manager: Manager) -> Iterator[Cluster]:
    """Three nodes of two slots each, one of which is lost in the end, and a session that knows the serial answer."""
    cluster = manager.launch(ppe.ClusterSpec(name="bootstrap", nodes=3, instance_type=INSTANCE_TYPE))
    try:
        cluster.r().eval(COX, on_output=lambda output: None)
        yield cluster
    finally:
        cluster.terminate()


@pytest.fixture
def session(nodes: Cluster) -> RemoteR:
    r = nodes.r()
    r.eval("x <- NULL; unlink(c('/tmp/begun', '/tmp/half.rds'))")
    return r


def same(r: RemoteR) -> bool:
    return bool(r.eval("identical(x, serial)"))


def in_the_middle(nodes: Cluster, r: RemoteR, code: str = CALL) -> Evaluation:
    """It has begun, and will not end at once."""
    return Evaluation(nodes, r, code, tells=True)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_on_some_nodes(session: RemoteR, count: int) -> None:
    where = "function(i) { Sys.sleep(0.1); Sys.info()[['nodename']] }"
    session.eval(f"x <- ppe.lapply(1:400, fit, seed = 1994, slots = {2 * count})")
    assert same(session)
    assert session.eval(f"length(unique(ppe.sapply(1:24, {where}, slots = {2 * count})))") == count


def test_stopped_and_gone_on_with(nodes: Cluster, session: RemoteR) -> None:
    code = CALL.replace(")", ", checkpoint = '/tmp/half.rds')")
    evaluation = in_the_middle(nodes, session, code)
    session.interrupt()
    assert isinstance(evaluation.failure(), errors.RemoteInterrupted)
    assert 0 < session.eval("length(ppe.last()$done)") < 400
    seen = Seen()
    session.eval(code, on_output=seen.append)
    assert "of 400 results are there already" in seen.text
    assert same(session)


def test_a_line_that_is_cut(nodes: Cluster, session: RemoteR) -> None:
    connect = nodes._account.clusters.connect
    own = ppe.RemoteR(connect(nodes.record), reconnect=lambda: connect(nodes.record), client="own.ipynb")
    own.eval("0", on_output=Seen().append)
    port = port_of(own)
    evaluation = in_the_middle(nodes, own)
    with cut_off(port, RESET):
        evaluation.end()
    own.close()
    own._connection.close()
    assert same(session)


def test_a_kernel_that_dies(nodes: Cluster, session: RemoteR) -> None:
    script = f"""
        import ppe_jupyter as ppe
        r = ppe.Manager().cluster({nodes.name!r}).r()
        r.run({CALL!r})
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.DEVNULL
    ) as process:
        nodes.ssh().run("until [ -e /tmp/begun ]; do sleep 0.02; done", timeout=60)
        process.send_signal(signal.SIGKILL)
    seen = Seen()
    session.jobs()[-1].watch(seen.append)
    assert " of 400 · " in seen.text, "the bar, for whoever comes later"
    assert same(session)


def test_in_the_background(session: RemoteR) -> None:
    job, seen = session.submit(CALL), Seen()
    job.watch(seen.append)
    assert " of 400 · " in seen.text, "the bar"
    assert same(session)


def test_a_worker_that_dies(nodes: Cluster, session: RemoteR) -> None:
    victim = json.loads(nodes.ssh().run("cat ~/.ppe/run/slaves.json").stdout)[3]
    evaluation = in_the_middle(nodes, session)
    nodes.ssh().run(f"ssh {victim['host']} kill -9 {victim['pid']}")
    evaluation.end()
    assert session.eval("ppe.last()$lost") == 4
    assert same(session)


def test_a_node_that_dies_and_the_one_in_its_place(nodes: Cluster, session: RemoteR) -> None:
    evaluation = in_the_middle(nodes, session)
    pull_the_plug(nodes.refresh().nodes[2].instance_id)
    evaluation.end()
    assert len(session.eval("ppe.last()$lost")) == 2
    assert same(session)
    nodes.retry("replace")
    assert slots_used(nodes) == 6
    nodes.resize(4)
    assert slots_used(nodes) == 8


def slots_used(nodes: Cluster) -> int:
    r = nodes.r()
    r.eval(CALL, on_output=lambda output: None)
    assert same(r)
    return int(r.eval("ppe.last()$slots"))
