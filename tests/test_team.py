"""Cells on MPI ranks that keep their variables: frames, parts and lines without I/O, the rest on a launched cluster."""

from __future__ import annotations

import _thread
import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from conftest import INSTANCE_TYPE
from hypothesis import given
from hypothesis import strategies as st
from localcloud_nodes import pull_the_plug
from test_cells import Shown, end, text

import ppe_jupyter as ppe
from ppe_jupyter import errors
from ppe_jupyter.node.ranks import values as team_values
from ppe_jupyter.node.ranks.frames import Frame, Frames, Kind, pack
from ppe_jupyter.remote.ranks.team import Language, Streamed, TeamCell, joined, split
from ppe_jupyter.ssh import Channel

if TYPE_CHECKING:
    from notebook_kernel import Kernel

    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager
    from ppe_jupyter.remote.sessions.session import RemoteR

LANGUAGES: tuple[Language, ...] = ("python", "r")


# --- Without a cluster


@given(
    st.lists(st.tuples(st.integers(-1, 9), st.sampled_from(Kind), st.binary(max_size=99))),
    st.lists(st.integers(0, 999)),
)
def test_frames_survive_any_split(messages: list[tuple[int, Kind, bytes]], cuts: list[int]) -> None:
    stream = b"".join(pack(*message) for message in messages)
    frames = Frames()
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    found = [frame for start, stop in pairwise(bounds) for frame in frames.feed(stream[start:stop])]
    assert found == [Frame(*message) for message in messages]


@given(st.integers(0, 40), st.integers(1, 9))
def test_parts_are_those_of_numpy(length: int, count: int) -> None:
    value = np.arange(length)
    for mine, theirs in zip(split(value, count, "x"), np.array_split(value, count), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(joined(split(value, count, "x")), value)


def test_what_has_no_first_axis_is_not_scattered() -> None:
    for value in ({"a": 1}, 3, {1, 2}, np.array(5)):
        with pytest.raises(errors.UsageError, match="x cannot be scattered"):
            split(value, 2, "x")


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6.0).reshape(2, 3),
        np.array(["a", None, 1], dtype=object),
        np.array([("x", 1)], dtype=[("name", "U3"), ("n", "i4")]),
        np.datetime64("2020-01-02"),
        pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": pd.Categorical(["u", "v"])}, index=[5, 7]),
        pd.Series([1.5, np.nan], name="s"),
        {"deep": [np.float64(3), np.str_("s"), (datetime.date(2020, 1, 2), {1})]},
    ],
)
def test_values_come_back_and_name_nothing_of_the_inside_of_numpy_or_pandas(value: Any) -> None:
    data = team_values.dump(value)
    found = team_values.load(data)
    if isinstance(value, (pd.DataFrame, pd.Series)):
        (
            pd.testing.assert_frame_equal
            if isinstance(value, pd.DataFrame)
            else pd.testing.assert_series_equal
        )(found, value)
    else:
        np.testing.assert_equal(found, value)
    assert b"_core" not in data and b"internals" not in data


def test_a_longdouble_comes_back() -> None:
    value = np.longdouble(1) / 3
    assert team_values.load(team_values.dump(value)) == value


def test_streamed_lines_are_whole_and_name_their_rank() -> None:
    streamed = Streamed()
    said = [streamed.feed(event) for event in (text(1, "a"), text(0, "b\nc"), text(1, "d\n"), end(0))]
    assert [each.text for texts in said for each in texts] == ["[0] b\n", "[1] ad\n", "[0] c\n"]
    assert list(streamed.rest()) == []


# --- On a cluster


def run(cluster: Cluster, code: str, language: Language = "python", **options: Any) -> str:
    """What two or ``ranks`` ranks printed, without headings."""
    shown = Shown()
    how = {key: options.pop(key) for key in ("fresh", "streamed", "timeout") if key in options}
    cell = TeamCell(code=code, language=language, **{"ranks": 2, **options})
    cluster.run_ranks(cell, on_output=shown, **how)
    return "".join(line + "\n" for line in shown.text.splitlines() if not line.startswith("──"))


def test_python_ranks_keep_their_variables_until_they_are_fresh(cluster: Cluster) -> None:
    run(cluster, "from mpi4py import MPI\nworld = MPI.COMM_WORLD\nx = 10 * world.rank", fresh=True)
    assert run(cluster, "print(x, world.allreduce(x))") == "0 10\n10 10\n"
    assert run(cluster, "x + 1", streamed=True) in ("[0] 1\n[1] 11\n", "[1] 11\n[0] 1\n")
    with pytest.raises(errors.RankFailed, match="NameError"):
        run(cluster, "x", fresh=True)


def test_the_watchdog_can_see_a_cell_whose_client_may_be_gone(cluster: Cluster) -> None:
    code = (
        "import os, pathlib\nmarks = pathlib.Path.home().glob('.ppe/run/*.busy')\n"
        "print([m.stem for m in marks if os.path.exists(f'/proc/{m.stem}')])"
    )
    one, two = run(cluster, code).splitlines()
    assert one == two and one.count("'") == 2
    cluster.run_shell(f"test ! -e ~/.ppe/run/{one[2:-2]}.busy", on_output=lambda output: None)


def test_r_ranks_keep_their_variables_and_speak_mpi(cluster: Cluster) -> None:
    run(cluster, "library(Rmpi); x <- 10 * mpi.comm.rank(0)", "r", fresh=True)
    assert run(cluster, "mpi.allreduce(x, type = 2, op = 'sum', comm = 0)", "r") == "[1] 10\n" * 2
    assert run(cluster, "x", "r") == "[1] 0\n[1] 10\n"
    with pytest.raises(
        errors.RankFailed, match=r"rank 1 on .* failed: Error in f\(x\) : too many; the ranks keep"
    ):
        run(cluster, "f <- function(x) if (x > 5) stop('too many')\nf(x)", "r")
    assert run(cluster, "x", "r") == "[1] 0\n[1] 10\n"


@pytest.mark.parametrize("language", LANGUAGES)
def test_values_are_sent_whole_or_in_parts_and_come_back_by_rank(
    cluster: Cluster, language: Language
) -> None:
    cell = TeamCell(
        code="y = sum(v) + len(s)" if language == "python" else "y <- sum(v) + nchar(s); d <- d[d$a > 0, ]",
        language=language,
        ranks=2,
        inputs={"s": "hü"},
        scattered={"v": np.arange(5.0), "d": pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})},
        outputs=["y", "d"],
    )
    first, second = cluster.run_ranks(cell, on_output=Shown())
    assert (first["y"], second["y"]) == (5, 9)
    assert (len(first["d"]), list(second["d"]["b"])) == (2, ["z"])
    assert list(joined([first["d"], second["d"]])["a"]) == [1, 2, 3]
    named = joined([pd.Series([1.0], index=["p7"]), pd.Series([2.0], index=["p2"])])
    assert list(named.index) == ["p7", "p2"], "what the values are of"
    assert list(joined([np.ma.array([1, 2], mask=[0, 1]), np.ma.array([3])]).mask) == [False, True, False]


def test_values_go_between_the_r_session_and_its_ranks(cluster: Cluster, r: RemoteR) -> None:
    r.eval("fit <- lm(dist ~ speed, cars); n <- 3L; long <- seq_len(1e6) / 2; invisible(NULL)")
    code = "library(Rmpi); y <- list(coef(fit)[[2]], n * mpi.comm.rank(0), quote(a + b)); back <- rev(long)"
    run(cluster, code, "r", from_r=["fit", "n", "long"], to_r=["y", "back"])
    assert r.eval("identical(back, list(rev(long), rev(long)))")
    r.eval("rm(long, back)")
    assert r.eval("identical(lapply(y, `[[`, 1L), rep(list(coef(fit)[[2]]), 2))")
    assert r.eval("identical(y[[2]][-1], list(3L, quote(a + b)))")
    assert list(r.eval("ls(all.names = TRUE)")) == ["fit", "n", "y"]
    assert r.eval("length(list.files('/dev/shm', 'ppe-team'))") == 0
    with pytest.raises(errors.RemoteRError, match="object 'nobody' not found"):
        run(cluster, "1", "r", from_r=["nobody"])
    assert list(r.eval("ls(all.names = TRUE)")) == ["fit", "n", "y"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_parts_of_the_sessions_values_are_those_of_numpy(
    cluster: Cluster, r: RemoteR, language: Language
) -> None:
    r.eval("v <- 1:7; d <- data.frame(a = 1:3, b = c('x', 'ü', NA)); m <- matrix(1:6, 3); invisible(NULL)")
    code = "v, d, m = v.sum(), d['b'], m[:, 1].sum()" if language == "python" else "v <- sum(v); d <- d$b"
    cell = TeamCell(
        code=code + ("" if language == "python" else "; m <- sum(m[, 2])"),
        language=language,
        ranks=2,
        scattered_r=["v", "d", "m"],
        outputs=["v", "m"],
        to_r=["d"],
    )
    found = cluster.run_ranks(cell, on_output=Shown())
    assert [(each["v"], each["m"]) for each in found] == [(10, 9), (18, 6)]
    assert r.eval("identical(unlist(d), c('x', 'ü', NA))")
    with pytest.raises(errors.RemoteRError, match="f cannot be scattered: what is of class function"):
        r.eval("f <- sum; invisible(NULL)")
        run(cluster, "1", language, scattered_r=["f"])
    assert r.eval("length(list.files('/dev/shm', 'ppe-team'))") == 0


def test_plain_values_go_between_the_r_session_and_ranks_of_python(cluster: Cluster, r: RemoteR) -> None:
    r.eval(
        "x <- c(1.5, NA, 3); d <- iris; s <- list(a = 'ü', n = 1:3); long <- seq_len(1e6) / 2; invisible(NULL)"
    )
    code = (
        "import numpy as np\n"
        "means = d.groupby('Species')['Sepal.Length'].mean()\n"
        "y = {'a': s['a'] * 2, 'n': s['n'] + 1, 'missing': int(np.isnan(x).sum())}\n"
        "back = long[::-1]"
    )
    run(cluster, code, from_r=["x", "d", "s", "long"], to_r=["means", "y", "d", "back"])
    assert r.eval("identical(back, list(rev(long), rev(long)))")
    assert r.eval("isTRUE(all.equal(means[[2]], c(tapply(iris$Sepal.Length, iris$Species, mean))))")
    assert r.eval("identical(y[[1]], list(a = 'üü', n = 2:4, missing = 1L))")
    assert r.eval("identical(d[[1]], iris)")


def test_what_is_not_plain_is_refused_with_its_type_and_the_ranks_stay(cluster: Cluster, r: RemoteR) -> None:
    r.eval("fit <- lm(dist ~ speed, cars); invisible(NULL)")
    run(cluster, "kept = 3")
    with pytest.raises(
        errors.RankFailed, match="fit of R's session cannot be had here: an R object of class lm"
    ):
        run(cluster, "1", from_r=["fit"])
    with pytest.raises(
        errors.RankFailed, match=r"odd cannot go to R's session: .* type set; bring it back with"
    ):
        run(cluster, "odd = {1}", to_r=["odd"])
    with pytest.raises(errors.RankFailed, match="there is no variable 'nobody'"):
        run(cluster, "1", to_r=["nobody"])
    assert run(cluster, "kept") == "3\n3\n"


def test_a_value_for_r_that_cannot_be_kept_is_a_failure(cluster: Cluster, r: RemoteR) -> None:
    code = "y <- 1; unlink(Sys.glob('/dev/shm/ppe-team-*'), recursive = TRUE)"
    with pytest.raises(errors.RankFailed, match=r"its value for R could not be kept.*keep their variables"):
        run(cluster, code, "r", to_r=["y"])
    assert run(cluster, "y", "r") == "[1] 1\n" * 2


def test_an_output_that_cannot_be_pickled_is_a_failure(cluster: Cluster) -> None:
    run(cluster, "class Shut:\n    def __reduce__(self):\n        raise OSError('shut')\nx = Shut()")
    with pytest.raises(
        errors.RankFailed, match=r"x cannot be brought back: OSError\('shut'\); the ranks keep"
    ):
        run(cluster, "", outputs=["x"])


def test_the_stop_button_in_the_middle_of_a_transfer_runs_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Channel.send_all

    def half(channel: Channel, data: bytes) -> None:
        if len(data) < 10**6:
            return whole(channel, data)
        whole(channel, data[: 10**5])
        raise KeyboardInterrupt

    monkeypatch.setattr(Channel, "send_all", half)
    with pytest.raises(errors.RemoteInterrupted, match="the transfer was interrupted"):
        run(cluster, "print('ran')", inputs={"x": bytes(10**6)})
    assert run(cluster, "print(1)") == "1\n1\n"


@pytest.mark.slow
def test_what_a_cell_has_started_may_print_without_end(cluster: Cluster) -> None:
    run(cluster, "import subprocess\nyes = subprocess.Popen(['yes'])", timeout=30)
    run(cluster, "yes.kill()", timeout=30)
    assert run(cluster, "yes.wait()", timeout=30).endswith("-9\n")


@pytest.mark.slow
def test_a_keeper_that_crashes_is_told_of(cluster: Cluster) -> None:
    with pytest.raises(errors.RemoteError, match="the ranks' keeper has ended: "):
        run(
            cluster,
            "import os; os.system(\"pkill -9 -f '[n]ode team python 2'\"); import time; time.sleep(99)",
        )
    assert run(cluster, "print(1)").endswith("they were lost]\n1\n1\n")


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_megabyte_and_more_crosses(cluster: Cluster, language: Language) -> None:
    value = np.random.default_rng(1).normal(size=2_000_000)
    cell = TeamCell(code="", language=language, ranks=2, scattered={"v": value}, outputs=["v"])
    parts = [found["v"] for found in cluster.run_ranks(cell, on_output=Shown())]
    np.testing.assert_array_equal(np.concatenate(parts), value)


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "import time\nprint('begun')\ntime.sleep(4321)"),
        ("python", "import os\nprint('begun')\nos.system('sleep 4321')"),
        ("r", "cat('begun\\n'); repeat {}"),
    ],
)
def test_the_stop_button_reaches_every_rank_and_leaves_the_variables(
    cluster: Cluster, language: Language, code: str
) -> None:
    run(cluster, "x = 3", language)
    pressed: list[str] = []

    def press(printed: str) -> None:
        if printed.endswith("begun\n") and not pressed:
            pressed.append(printed)
            _thread.interrupt_main()

    with pytest.raises(errors.RemoteInterrupted, match="keep their variables"):
        cluster.run_ranks(TeamCell(code=code, language=language, ranks=2), on_output=Shown(press))
    assert "3" in run(cluster, "x", language)


def test_a_time_out_is_an_interrupt(cluster: Cluster) -> None:
    with pytest.raises(errors.RemoteInterrupted, match=r"no end within 0\.5 s; the ranks keep"):
        run(cluster, "import time; time.sleep(4321)", timeout=0.5)


def test_what_is_typed_in_a_notebook(kernel: Kernel) -> None:
    kernel.cell("import numpy as np; v = np.arange(4.0)")
    kernel.cell("%%remote_r --ranks 2 -i v:scatter -o s -o v:concat\ns <- sum(v)")
    assert kernel.cell("print(s, v)").stdout == "[1.0, 5.0] [0. 1. 2. 3.]\n"
    kernel.cell("%%remote_py --ranks 2\nz = 7")
    assert kernel.cell("%%remote_py --ranks 2\nz").stdout.count("7") >= 2
    kernel.cell("%remote_py --ranks 2 --fresh")
    assert "NameError" in kernel.cell("%%remote_py --ranks 2\nz").stderr
    kernel.cell("%remote_r n <- 1:4;")
    kernel.cell("%%remote_py --ranks 2 --from-r n:scatter --to-r total\ntotal = int(n.sum())")
    assert kernel.cell("%remote_r unlist(total)").result == "array([3, 7], dtype=int32)"


# --- Faults


@pytest.mark.slow
@pytest.mark.parametrize(
    ("language", "wait", "fail"),
    [
        ("python", "from mpi4py import MPI\nif MPI.COMM_WORLD.rank < 5: MPI.COMM_WORLD.Barrier()", "\n[][0]"),
        ("r", "library(Rmpi); if (mpi.comm.rank(0) < 5) mpi.barrier(0)", "\nstop('here')"),
    ],
)
def test_ranks_that_wait_in_mpi_for_a_failed_one_are_ended_and_the_next_cell_runs(
    cluster: Cluster, language: Language, wait: str, fail: str
) -> None:
    with pytest.raises(
        errors.RankFailed, match=r"rank 5 on .*waited in MPI.* variables of all ranks are gone"
    ):
        run(cluster, wait + fail, language, ranks=6)
    assert run(cluster, "1", language, ranks=6).count("1") >= 6


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_rank_that_dies_ends_the_others_and_says_so(cluster: Cluster, language: Language) -> None:
    kill = "import os, time\nif int(os.environ['OMPI_COMM_WORLD_RANK']) == 4: os.kill(os.getpid(), 9)\ntime.sleep(99)"
    if language == "r":
        kill = "if (Sys.getenv('OMPI_COMM_WORLD_RANK') == 4) tools::pskill(Sys.getpid(), 9)\nSys.sleep(99)"
    with pytest.raises(errors.RankFailed, match=r"rank 4 on .*SIGKILL; the variables of all ranks are gone"):
        run(cluster, kill, language, ranks=6)


@pytest.mark.slow
def test_a_rank_that_dies_after_its_part_of_a_cell_is_no_end_of_it(cluster: Cluster) -> None:
    part = "import os, time\nif os.environ['OMPI_COMM_WORLD_RANK'] != '0': time.sleep(99)"
    kill = "import os\nif not os.fork(): time.sleep(1); os.kill(os.getppid(), 9); os._exit(0)"
    code = f"{part}\nelse:\n    " + kill.replace("\n", "\n    ")
    with pytest.raises(errors.RemoteError, match=r"it was ended by SIGKILL.*variables of all ranks are gone"):
        run(cluster, code, ranks=2)


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_node_lost_under_the_ranks_is_named_and_so_in_the_next_cell(
    manager: Manager, language: Language
) -> None:
    cluster = manager.launch(ppe.ClusterSpec(name="team-lost", nodes=2, instance_type=INSTANCE_TYPE))
    try:
        lost = cluster.nodes[1]
        pulled: list[str] = []

        def pull(printed: str) -> None:
            if "begun" in printed and not pulled:
                pulled.append(printed)
                pull_the_plug(lost.instance_id)

        begin = "print('begun', flush=True)\nimport time\ntime.sleep(99)"
        code = begin if language == "python" else "cat('begun\\n'); Sys.sleep(99)"
        cell = TeamCell(code=code, language=language, ranks=4)
        with pytest.raises(errors.RankFailed, match="variables of all ranks are gone") as caught:
            cluster.run_ranks(cell, on_output=Shown(pull), timeout=60)
        name = lost.private_dns.split(".")[0]
        assert name in str(caught.value)
        with pytest.raises(errors.RemoteCommandFailed, match=name):
            run(cluster, "1", language)
    finally:
        cluster.terminate()


@pytest.mark.slow
def test_ranks_that_died_between_cells_are_told_of(cluster: Cluster) -> None:
    run(cluster, "import os; pid = os.getpid()", ranks=6)
    cluster.ssh().run("pkill -9 -f '[n]ode team_rank python .*python-6' || true", check=False)
    shown = Shown()
    cell = TeamCell(code="print('new')", ranks=6)
    cluster.run_ranks(cell, on_output=shown)
    assert "these ranks are new, and have no variables" in shown.errors
    assert shown.text.count("new\n") == 6


@pytest.mark.slow
def test_ranks_that_wait_for_a_cell_use_no_processor(cluster: Cluster) -> None:
    cluster.map(abs, [1], progress=False)  # and those of maps
    run(cluster, "from mpi4py import MPI", ranks=6)
    ranks = [rank for rank in cluster.ranks() if "team_rank" in rank.program]
    assert len(ranks) == 12
    assert all(rank.call == "sleeps" for rank in ranks)
