"""The magics in a real kernel, on the launched cluster, as nbclient and Run All see them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from notebook_kernel import Kernel, one_message

from ppe_jupyter.remote.sessions.session import RemoteR

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager

SLOW_IMPORTS = ("boto3", "botocore", "paramiko", "pandas", "numpy", "rpy2", "ipywidgets", "tqdm")


def test_loading_imports_nothing_slow() -> None:
    code = (
        "import sys; from IPython.core.interactiveshell import InteractiveShell as S; s = S.instance();"
        f"before = set(sys.modules); s.run_line_magic('load_ext', 'ppe_jupyter');"
        f"print({{n.split('.')[0] for n in set(sys.modules) - before}} & set({SLOW_IMPORTS}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_public_names() -> None:
    import ppe_jupyter as ppe

    assert {"Manager", "ClusterSpec", "Cluster", "RemoteR", "RemoteRError"} <= set(dir(ppe))
    assert ppe.RemoteR is RemoteR
    with pytest.raises(AttributeError, match="Managers"):
        _ = ppe.Managers


def test_help(bare_kernel: Kernel) -> None:
    assert "--nodes N" in bare_kernel.cell("%ppe_launch --help").stdout
    assert "%ppe_terminate" in bare_kernel.cell("%ppe --help").stdout
    documented = bare_kernel.cell("get_ipython().object_inspect_text('%remote_r')")
    assert "--output A,B" in (documented.result or "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%ppe la", {"launch "}),
        ("%ppe_launch --no", {"--nodes", "--no-wait", "--no-encryption"}),
        ("x = %ppe launch --cloud ", {"local", "aws"}),
        ("%%remote_r --ti", {"--timeout"}),
        ("print(1)  # %", None),
    ],
)
def test_completion(bare_kernel: Kernel, line: str, expected: set[str] | None) -> None:
    found = bare_kernel.completions(line)
    assert found == expected if expected else "--nodes" not in found


def test_a_mistake_is_one_message_and_fails_the_cell(bare_kernel: Kernel) -> None:
    assert "did you mean launch?" in one_message(bare_kernel.cell("%ppe lunch"))
    assert "did you mean --nodes?" in one_message(bare_kernel.cell("%ppe_launch --ndoes 3"))
    caught = bare_kernel.cell(
        "import ppe_jupyter.errors as e\ntry:\n    %ppe_launch --nodes x\nexcept e.UsageError: print('ok')"
    )
    assert caught.stdout == "ok\n"


def test_unload(bare_kernel: Kernel) -> None:
    bare_kernel.cell("%unload_ext ppe_jupyter")
    assert bare_kernel.cell("%ppe_list").stderr.startswith("UsageError: Line magic function")
    bare_kernel.cell("%load_ext ppe_jupyter")


def test_overview_and_status(kernel: Kernel, cluster: Cluster) -> None:
    for verb in ("%ppe", "%ppe_list"):
        shown = kernel.cell(verb)
        assert shown.stdout == "local cloud: free\n" and shown.data("text/html")
        assert cluster.name in (shown.result or "") and "running" in (shown.result or "")
    shown = kernel.cell(f"nodes = %ppe_status {cluster.name}\nnodes")
    status = shown.data("text/plain")[0]
    assert status.startswith("pays      local cloud: free") and "3 nodes · 6 slots" in status
    assert re.search(r"parks the cluster at .*, in \d|at work: ", status), status
    assert all(node.private_ip in (shown.result or "") for node in cluster.nodes)


def test_connect_and_disconnect(kernel: Kernel, cluster: Cluster) -> None:
    assert f"connected to {cluster.name}" in kernel.cell("%ppe_connect").stdout
    assert "✓" in (kernel.cell("%ppe").result or "")
    assert f"disconnected from {cluster.name}" in kernel.cell("%ppe_disconnect").stdout
    again = kernel.cell("%ppe_disconnect")
    assert again.stdout == "not connected\n" and again.error is None
    assert "nowhere" in one_message(kernel.cell("%ppe_connect nowhere"))


def test_launching_the_same_again_connects_in_one_line(kernel: Kernel, cluster: Cluster) -> None:
    again = kernel.cell(f"%ppe_launch {cluster.name} --nodes 3 --type {cluster.master.instance_type}")
    assert again.error is None and f"connected to {cluster.name}" in again.stdout
    other = kernel.cell(f"%ppe_launch {cluster.name} --nodes 2 --type {cluster.master.instance_type}")
    assert "nodes: 3, not 2" in one_message(other)


def test_a_cell_prints_as_the_console_does(kernel: Kernel) -> None:
    shown = kernel.cell("%%remote_r\nx <- c(a = 1, b = 2)\nx\ninvisible(3)\nmessage('mind')\ncat('é\\n')")
    assert shown.stdout == "a b \n1 2 \né\n"
    assert shown.stderr == "mind\n"


def test_a_line_returns_its_value(kernel: Kernel) -> None:
    assert kernel.cell("%remote_r x <- c(1, 4); mean(x)").result == "2.5"
    assert kernel.cell("%remote_r mean(x);").result is None
    assert kernel.cell("%remote_r -n mean(x)").result is None
    assert kernel.cell("%remote_r NULL").result is None
    kernel.cell("y = %remote_r 'a  {x}  $x'")
    assert kernel.cell("y").result == "'a  {x}  $x'"


def test_variables_go_in_and_come_out(kernel: Kernel) -> None:
    kernel.cell("a, b = 2, [1.5, 2.5]")
    kernel.cell("%%remote_r -i a,b -o total -o my.mean\ntotal <- a * sum(b)\nmy.mean <- mean(b)")
    assert kernel.cell("total, my_mean").result == "(8.0, 2.0)"
    kernel.cell("%remote_r -i a -o twice twice <- 2 * a")
    assert kernel.cell("twice").result == "4.0"
    kernel.cell("import pandas as pd; df = pd.DataFrame({'n': [1.0, 2.0], 's': ['x', 'y']})\n%remote_push df")
    kernel.cell("%remote_r df$n <- df$n * 10;\n%remote_pull df")
    assert kernel.cell("df.n.tolist()").result == "[10.0, 20.0]"
    assert "no Python variable 'nothing'" in one_message(kernel.cell("%remote_push nothing"))
    assert "nothing" in one_message(kernel.cell("%remote_pull nothing"))


def test_variables_of_a_function_go_in(kernel: Kernel) -> None:
    kernel.cell("def double(z):\n    return get_ipython().run_line_magic('remote_r', '-i z 2 * z')")
    inside = "def f():\n    local = 21\n    out = %remote_r -i local 2 * local\n    return out\nf()"
    assert kernel.cell(inside).result == "42.0"


def test_plots_are_shown_and_kept(kernel: Kernel) -> None:
    shown = kernel.cell("%%remote_r -w 3 -h 2 -u in -r 100\nplot(1:3)\nplot(3:1)")
    first, second = shown.data("image/svg+xml")
    assert 'width="300" height="200" viewBox="0 0 216 144"' in first
    # Of a page with both, each keeps its own letters.
    assert not set(re.findall(r' id="(.*?)"', first)) & set(re.findall(r' id="(.*?)"', second))
    assert set(re.findall(r'"#(.*?)"', first)) <= set(re.findall(r' id="(.*?)"', first))


def test_an_error_in_r_is_rs_own_text(kernel: Kernel) -> None:
    failed = kernel.cell("%%remote_r\nf <- function(x) stop('no good: ', x)\ng <- function() f(1)\ng()")
    assert one_message(failed).startswith("Error in f(1) : no good: 1\n(line 2 of the cell; calls: g -> f)")
    assert failed.error.ename == "RemoteRError"
    traceback = one_message(kernel.cell("%tb"))
    assert "g()" in traceback and "f(1)" in traceback
    assert kernel.cell("%remote_r exists('g')").result == "True"


def test_a_syntax_error_says_where(kernel: Kernel) -> None:
    failed = one_message(kernel.cell("%%remote_r\nx <- 1\ny <- (2 +\n"))
    assert "3" in failed and "y <-" in failed


def test_the_stop_button_ends_the_evaluation_and_keeps_the_session(kernel: Kernel) -> None:
    stopped = kernel.cell(
        "%%remote_r\nkept <- 7\ncat('begun\\n')\nrepeat {}", when_printed=("begun", kernel.interrupt)
    )
    assert len(one_message(stopped).splitlines()) == 1
    assert stopped.error.ename == "RemoteInterrupted"
    assert kernel.cell("%remote_r kept").result == "7.0"


def test_a_timeout_interrupts(kernel: Kernel) -> None:
    failed = kernel.cell("%%remote_r --timeout 0.5\nSys.sleep(600)")
    assert failed.error.ename == "RemoteInterrupted"
    one_message(failed)
    assert kernel.cell("%remote_r 1 + 1").result == "2.0"


def test_another_client_interrupts(kernel: Kernel, cluster: Cluster) -> None:
    from ppe_jupyter.manager import Manager

    other = Manager().cluster(cluster.name)
    stopped = kernel.cell(
        "%%remote_r\ncat('begun\\n')\nSys.sleep(600)", when_printed=("begun", lambda: other.r().interrupt())
    )
    other.close()
    assert stopped.error.ename == "RemoteInterrupted"


def test_python_runs_on_the_master_and_on_ranks(kernel: Kernel, cluster: Cluster) -> None:
    shown = kernel.cell("%%remote_py\nimport socket\nprint(socket.gethostname())")
    assert shown.stdout.strip().split(".")[0] == cluster.master.private_dns.split(".")[0]
    code = "from mpi4py import MPI\nprint(MPI.COMM_WORLD.Get_size())"
    assert kernel.cell(f"%%remote_py --ranks 2\n{code}").stdout.count("2") >= 2
    assert kernel.cell(f"%%remote_py --ranks\n{code}").stdout.count("6") >= 6
    failed = kernel.cell("%%remote_py --ranks 3\nfrom mpi4py import MPI\n1 / (MPI.COMM_WORLD.rank - 1)")
    assert failed.error.ename == "RankFailed"
    assert "1" in one_message(failed)


def test_shell_runs_on_the_master_and_on_all_nodes(kernel: Kernel, cluster: Cluster) -> None:
    assert kernel.cell("%%remote_sh\necho $((6 * 7)) {x}").stdout == "42 {x}\n"
    assert kernel.cell("%remote_sh echo $((6 * 7))").stdout == "42\n"
    everywhere = kernel.cell("%%remote_sh --all\nhostname -I").stdout
    assert all(node.private_ip in everywhere for node in cluster.nodes)
    assert kernel.cell("%%remote_sh\nexit 3").error.ename == "RemoteCommandFailed"


def test_ssh(kernel: Kernel, cluster: Cluster) -> None:
    assert cluster.master.address in (kernel.cell("%ppe_ssh").result or "")
    assert cluster.nodes[1].private_ip in kernel.cell("%ppe_ssh --node 1 hostname -I").stdout
    failed = one_message(kernel.cell("%ppe_ssh --node 1 exit 3"))
    assert failed == f"node 1 ({cluster.nodes[1].private_ip}): exit status 3"


def test_nobody_to_ask_is_an_error_with_the_price(bare_kernel: Kernel) -> None:
    """nbclient, like papermill, cannot answer; the stand-in for AWS is test_cli's."""
    bare_kernel.cell(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_cli import Paid; from ppe_jupyter.frontends.desk import Desk\n"
        "paid, manager = Paid(), Desk.manager\n"
        "Desk.manager = lambda *_: paid"
    )
    refused = bare_kernel.cell("%ppe_launch lab")
    assert refused.data("text/plain")[0].startswith("pays     AWS account 123456789012")
    assert "$1.23 an hour" in one_message(refused) and "--yes" in one_message(refused)
    assert bare_kernel.cell("%ppe launch lab --yes --no-wait\npaid.done").result == "['launch']"
    bare_kernel.cell("Desk.manager = manager")


def test_a_dry_run_stops_after_the_review(bare_kernel: Kernel, manager: Manager, cluster: Cluster) -> None:
    bare_kernel.cell("%ppe_disconnect")
    shown = bare_kernel.cell("%ppe_launch --dry-run --nodes 3 --type c7a.2xlarge")
    assert shown.error is None and shown.data("text/plain")[0].startswith("pays     local cloud: free")
    assert "$" in shown.data("text/html")[0]
    assert [each.name for each in manager.clusters()] == [cluster.name]


def test_a_notice_is_a_coloured_line_from_any_thread(bare_kernel: Kernel) -> None:
    """As a cluster's comes, by the thread that listens to it, also when no cell runs."""
    shown = bare_kernel.cell(
        "import threading; from argparse import Namespace; from ppe_jupyter.frontends.notebook import magics\n"
        "desk = next(iter(magics._loaded.values())).desk\n"
        "notice = Namespace(level='warning', text='will be parked <soon>', time=0.0)\n"
        "listener = threading.Thread(target=desk._noticed, args=('lab', notice)); listener.start(); listener.join()"
    )
    assert re.fullmatch(r"warning: \d\d:\d\d lab: will be parked <soon>", shown.data("text/plain")[0])
    assert "color:" in shown.data("text/html")[0] and "&lt;soon&gt;" in shown.data("text/html")[0]


def test_launch_and_terminate_leave_a_readable_notebook(bare_kernel: Kernel, local_cloud: object) -> None:
    launched = bare_kernel.cell("%ppe_launch brief --nodes 1 --type m5.large")
    assert launched.error is None, launched
    assert "connected to brief" in launched.stdout
    lines = [text for text in launched.data("text/plain") if "launching brief" in text]
    assert re.match(r"✓ launching brief: \d+ s \(", lines[0]), lines
    assert "widget-view" not in str(launched)
    bare_kernel.cell("%remote_r -n x <- c(1, 2)")
    asked = bare_kernel.cell("%ppe terminate brief")
    assert "in R, never pulled: x" in asked.data("text/plain")[0] and "--yes" in one_message(asked)
    assert "brief is terminated" in bare_kernel.answered("%ppe terminate brief", "pull")
    assert bare_kernel.cell("brief_objects['x'].tolist()").result == "[1.0, 2.0]"
    assert "brief" not in str(bare_kernel.cell("%ppe_list"))
