"""ppe.lapply and its relatives on three nodes of two slots each: lapply()'s answer, whatever happens on the way."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from conftest import INSTANCE_TYPE
from localcloud_nodes import pull_the_plug
from test_mpi import SLOTS, Evaluation

import ppe_jupyter as ppe
from ppe_jupyter import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager
    from ppe_jupyter.remote.sessions.session import RemoteR

# Draws, and differs from task to task in how long it takes.
DRAW = "function(i) { Sys.sleep((i %% 3) / 100); c(i, rnorm(2), sample(10, 1)) }"


def printed(session: RemoteR, code: str) -> str:
    """What an evaluation prints."""
    told: list[str] = []
    session.eval(code, on_output=lambda output: told.append(getattr(output, "text", "")))
    return "".join(told)


def workers(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cluster.ssh().run("cat ~/.ppe/run/slaves.json").stdout)
    return found


@pytest.fixture(scope="module")
def workers_end(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.r().eval("mpi.close.Rslaves()")


@pytest.fixture
def tasks(r: RemoteR, workers_end: None) -> RemoteR:
    """The session with Rmpi's workers, which the tests leave to each other."""
    r.eval("library(Rmpi); if (!is.null(snow::getMPIcluster())) snow::stopCluster(snow::getMPIcluster())")
    r.eval("if (mpi.comm.size(1) < 2) mpi.spawn.Rslaves(quiet = TRUE)")
    return r


class TestAnswers:
    def test_random_numbers_are_the_same_on_any_number_of_slots(self, tasks: RemoteR) -> None:
        tasks.eval(
            f"""
            f <- {DRAW}
            on_all <- ppe.lapply(1:25, f, seed = 7); slots <- ppe.last()$slots
            on_two <- ppe.lapply(1:25, f, seed = 7, slots = 2)
            here <- ppe.lapply(1:25, f, seed = 7, slots = 0)
            other <- ppe.lapply(1:25, f, seed = 8, slots = 0)
            """
        )
        assert tasks.eval("slots") == SLOTS
        assert tasks.eval("identical(on_all, here) && identical(on_two, here)")
        assert not tasks.eval("identical(other, here)")

    def test_the_sessions_own_numbers_go_on_in_a_defined_way(self, tasks: RemoteR) -> None:
        tasks.eval(
            """
            set.seed(3); a <- ppe.lapply(1:4, function(i) rnorm(1)); after_a <- runif(1)
            set.seed(3); b <- ppe.lapply(1:9, function(i) rnorm(1), slots = 0); after_b <- runif(1)
            set.seed(3); before <- .Random.seed; ppe.lapply(1:2, function(i) runif(9), seed = 1, slots = 0)
            kept <- identical(before, .Random.seed)
            """
        )
        assert tasks.eval("identical(a, b[1:4]) && after_a == after_b && kept")

    def test_answers_are_those_of_lapply_and_its_relatives(self, tasks: RemoteR) -> None:
        tasks.eval(
            """
            offset <- 10; plus <- function(x) x + offset
            local_offset <- local({ o <- 5; function(x, more) plus(x) + o + more })
            xs <- list(a = 1:3, b = NULL, c = letters, 4)
            same <- function(a, b) stopifnot(identical(a, b))
            same(ppe.lapply(xs, length), lapply(xs, length))
            same(ppe.lapply(xs, function(x) if (length(x) > 3) NULL else x), lapply(xs, function(x)
                 if (length(x) > 3) NULL else x))
            same(ppe.lapply(c(u = 1, v = 2), local_offset, more = 2), lapply(c(u = 1, v = 2), local_offset, more = 2))
            same(ppe.lapply(factor(c("x", "y")), as.character), lapply(factor(c("x", "y")), as.character))
            same(ppe.lapply(iris, class), lapply(iris, class))
            same(ppe.lapply(NULL, class), lapply(NULL, class))
            same(ppe.sapply(letters[1:3], nchar), sapply(letters[1:3], nchar))
            same(ppe.sapply(1:3, function(i) c(i, i^2)), sapply(1:3, function(i) c(i, i^2)))
            same(ppe.Map(function(x, y) x * y, c(a = 1, b = 2), 3:6), Map(function(x, y) x * y, c(a = 1, b = 2), 3:6))
            same(dim(ppe.replicate(5, rnorm(2), seed = 1)), c(2L, 5L))
            name <- "offset"; hidden <- function(i) get(name) + i
            same(ppe.lapply(1:2, hidden, export = "offset"), lapply(1:2, hidden))
            """
        )
        assert tasks.eval("ppe.sapply(1:2, function(f) sd(c(f, 2 * f)))[2]") == pytest.approx(2**0.5)

    def test_methods_that_a_cell_has_defined_are_found_on_workers(self, tasks: RemoteR) -> None:
        tasks.eval(
            """
            factor_of <- 3; mean.odd <- function(x, ...) factor_of * x$v
            odd <- lapply(1:6, function(v) structure(list(v = v), class = "odd"))
            setClass("Shape", representation(side = "numeric")); setClass("Square", contains = "Shape")
            setGeneric("area", function(shape) standardGeneric("area"))
            squared <- function(x) x^2
            setMethod("area", "Shape", function(shape) squared(shape@side))
            setMethod("length", "Shape", function(x) 4L)
            setMethod("summary", "Shape", function(object, ...) "a shape")
            shapes <- lapply(1:6, function(i) new("Square", side = i))
            look <- function(s) list(area(s), length(s), is(s, "Shape"), new("Square", side = 2)@side)
            stopifnot(identical(ppe.lapply(odd, mean), lapply(odd, mean)),
                      identical(ppe.lapply(shapes, look), lapply(shapes, look)),
                      identical(ppe.lapply(shapes, summary), lapply(shapes, summary)))
            there <- unlist(mpi.remote.exec(exists("mean.odd") || isClass("Shape") || existsMethod("length", "Shape")))
            """
        )
        assert not any(tasks.eval("there"))
        tasks.eval(
            "p <- '/tmp/s4.rds'; unlink(p); invisible(ppe.lapply(shapes, look, seed = 1, checkpoint = p))"
        )
        told = printed(tasks, "invisible(ppe.lapply(shapes, look, seed = 1, checkpoint = p))")
        assert "6 of 6 results are there already" in told
        tasks.eval("setMethod('length', 'Shape', function(x) 5L)")
        with pytest.raises(errors.RemoteRError, match="methods of its classes differ"):
            tasks.eval("ppe.lapply(shapes, look, seed = 1, checkpoint = p)")

    def test_reference_classes_and_registered_methods_are_found_on_workers(self, tasks: RemoteR) -> None:
        tasks.eval(
            """
            rate <- 3; twice <- function(x) 2 * x
            Account <- setRefClass("Account", fields = list(balance = "numeric"),
              methods = list(deposit = function(x) { balance <<- balance + rate * x; invisible(.self) }))
            Savings <- setRefClass("Savings", contains = "Account",
              methods = list(deposit = function(x) callSuper(twice(x))))
            Tile <- setRefClass("Tile", fields = list(side = "numeric", area = function() twice(side) * side / 2))
            setClass("Small", representation(x = "numeric"), validity = function(object)
              if (twice(object@x) > 3) "too big" else TRUE)
            .S3method("format", "money", function(x, ...) paste0("$", twice(unclass(x))))
            mine <- Savings$new(balance = 1)
            use <- function(i) list(mine$copy()$deposit(i)$balance, Tile$new(side = i)$area,
              format(structure(i, class = "money")), isTRUE(tryCatch(new("Small", x = i)@x, error = class) == 1))
            stopifnot(identical(ppe.lapply(1:6, use), lapply(1:6, use)))
            p <- "/tmp/ref.rds"; unlink(p); invisible(ppe.lapply(1:6, use, seed = 1, checkpoint = p))
            """
        )
        assert "6 of 6 results are there already" in printed(
            tasks, "invisible(ppe.lapply(1:6, use, seed = 1, checkpoint = p))"
        )
        tasks.eval("Account$methods(deposit = function(x) { balance <<- 0; invisible(.self) })")
        with pytest.raises(errors.RemoteRError, match="methods of its classes differ"):
            tasks.eval("ppe.lapply(1:6, use, seed = 1, checkpoint = p)")
        # Not those of the packages' hooks, nor this one any longer.
        tasks.eval(
            "rm('format.money', envir = baseenv()[['.__S3MethodsTable__.']]); requireNamespace('snow')"
        )
        assert tasks.eval("is.null(environment(ppe.lapply)$registered_here())")

    def test_options_are_those_of_the_session(self, tasks: RemoteR) -> None:
        tasks.eval("old <- options(ts.eps = 0.5, nobodys = 'own', warn = 2)")
        tasks.eval("used <- ppe.lapply(1:6, function(i) list(getOption('ts.eps'), getOption('nobodys')))")
        assert tasks.eval("identical(unique(used), list(list(0.5, 'own')))")
        for slots in ("NULL", "0"):
            with pytest.raises(errors.RemoteRError, match=r"task 2 of 3: .*converted from warning"):
                tasks.eval(f"ppe.lapply(1:3, function(i) log(1.5 - i), slots = {slots})")
        tasks.eval("options(old); left <- unlist(mpi.remote.exec(is.null(getOption('nobodys'))))")
        assert all(tasks.eval("left"))

    def test_a_package_that_is_attached_here_only_is_told_or_an_error(self, tasks: RemoteR) -> None:
        tasks.eval("attach(list(only_here = function(x) x), name = 'package:onlyhere')")
        told = printed(tasks, "same <- identical(ppe.lapply(1:6, abs), lapply(1:6, abs))")
        assert told.count("lack what is attached here") == 1
        assert "onlyhere" in told
        with pytest.raises(errors.RemoteRError, match="cannot take tasks: there is no package onlyhere"):
            tasks.eval("ppe.lapply(1:6, function(i) only_here(i))")
        tasks.eval("detach('package:onlyhere')")
        assert tasks.eval("same")

    def test_an_r_without_workers_says_so(self, cluster: Cluster) -> None:
        done = cluster.ssh().run("Rscript -e 'x <- ppe.lapply(1:2, identity)' 2>&1")
        assert b"this R has no workers" in done.stdout

    def test_workers_keep_what_was_theirs(self, tasks: RemoteR) -> None:
        tasks.eval(
            "theirs <- 1; mpi.bcast.Robj2slave(theirs); theirs <- 2; brief <- 3\n"
            "used <- unlist(ppe.lapply(1:6, function(i) theirs + brief))\n"
            "left <- unlist(mpi.remote.exec(theirs)); there <- unlist(mpi.remote.exec(exists('brief')))"
        )
        assert set(tasks.eval("used")) == {5}
        assert set(tasks.eval("left")) == {1}
        assert not any(tasks.eval("there"))

    def test_what_tasks_say_comes_with_their_number(self, tasks: RemoteR) -> None:
        task = (
            "function(i) { cat('out', i, '\\n'); message('told ', i); if (i > 2) warning('odd'); log(-1); i }"
        )
        for slots in ("NULL", "0"):
            told = printed(tasks, f"invisible(ppe.lapply(1:4, {task}, slots = {slots}))")
            assert all(f"[{i}] out {i}" in told and f"[{i}] told {i}" in told for i in range(1, 5)), told
            assert "tasks 3, 4: in FUN(x, ...): odd" in told
            assert "tasks 1, 2, 3, 4: in log(-1): NaNs produced" in told

    def test_errors_are_collected_or_end_it_with_the_number_of_their_task(self, tasks: RemoteR) -> None:
        tasks.eval(
            "f <- function(i) if (i %% 4 == 3) stop('no ', i) else i; g <- function(i) { Sys.sleep(.1); f(i) }"
        )
        told = printed(tasks, "some <- ppe.lapply(1:8, f, on_error = 'collect')")
        assert "tasks 3, 7 failed, the first with: no 3" in told
        assert list(tasks.eval("which(sapply(some, inherits, 'ppe_task_error'))")) == [3, 7]
        assert list(tasks.eval("unlist(some[-c(3, 7)])")) == [1, 2, 4, 5, 6, 8]
        with pytest.raises(errors.RemoteRError, match="task 3 of 99: no 3"):
            tasks.eval("ppe.lapply(1:99, g)")
        assert {1, 2} <= set(tasks.eval("ppe.last()$done"))
        assert tasks.eval("length(ppe.last()$done)") < 90
        assert list(tasks.eval("ppe.sapply(1:3, function(i) i)")) == [1, 2, 3]

    def test_an_error_ends_it_in_this_session_too(self, tasks: RemoteR) -> None:
        tasks.eval("n <- 0; f <- function(i) { n <<- n + 1; if (i == 2) stop('no'); i }")
        with pytest.raises(errors.RemoteRError, match="task 2 of 9999: no"):
            tasks.eval("ppe.lapply(1:9999, f, slots = 0)")
        assert tasks.eval("n") < 99

    def test_what_long_tasks_say_here_is_printed_as_they_go(self, tasks: RemoteR) -> None:
        slow = "function(i) { if (i == 3) Sys.sleep(0.6); cat('out', i); i }"
        tasks.eval("invisible(ppe.lapply(1:2, identity, slots = 0))")
        told = printed(tasks, f"invisible(ppe.lapply(1:9, {slow}, slots = 0)); cat('sinks', sink.number())")
        assert [line for line in told.splitlines() if line.startswith("[")] == [
            f"[{i}] out {i}" for i in range(1, 10)
        ]
        assert "sinks 0" in told

    def test_a_package_that_a_worker_lacks_is_named(self, tasks: RemoteR) -> None:
        with pytest.raises(errors.RemoteRError, match=r"the worker on .* cannot take tasks: .*nosuch"):
            tasks.eval("ppe.lapply(1:9, identity, packages = 'nosuch')")
        assert list(tasks.eval("ppe.sapply(1:3, identity)")) == [1, 2, 3]

    def test_the_session_leaves_its_core_to_the_workers(self, tasks: RemoteR) -> None:
        used = tasks.eval(
            "p <- proc.time(); x <- ppe.lapply(1:6, function(i) Sys.sleep(2)); as.numeric(proc.time() - p)"
        )
        assert used[2] > 1.9, "it has waited"
        assert used[0] + used[1] < 0.25 * used[2]

    def test_a_task_that_fails_is_tried_again(self, tasks: RemoteR) -> None:
        tasks.eval(
            "f <- function(i) { x <- rnorm(1); if (!exists('tried')) { tried <<- TRUE; stop('at first') }; x }"
        )
        with pytest.raises(errors.RemoteRError, match="at first"):
            tasks.eval("ppe.lapply(1:3, f, seed = 1)")
        tasks.eval("mpi.bcast.cmd(rm(list = 'tried')); again <- ppe.lapply(1:30, f, seed = 1, retries = 6)")
        assert tasks.eval("identical(again, ppe.lapply(1:30, function(i) rnorm(1), seed = 1))")

    def test_a_brief_call_leaves_no_message_to_those_after_it(self, tasks: RemoteR) -> None:
        tasks.eval("x <- ppe.lapply(1, identity); y <- mpi.remote.exec(1)")
        assert not tasks.eval("mpi.iprobe(mpi.any.source(), mpi.any.tag(), 1)")

    def test_help_is_there(self, r: RemoteR) -> None:
        told: list[str] = []
        r.run("?ppe.lapply", on_output=lambda output: told.append(getattr(output, "text", "")))
        assert "A file that keeps the results" in "".join(told)
        assert "A file that keeps the results" in r.help("ppe.sapply")["text/plain"]


class TestCheckpoints:
    def test_a_run_goes_on_where_it_was(self, tasks: RemoteR) -> None:
        tasks.eval(
            "unlink(c('/tmp/c.rds', '/tmp/go')); f <- function(i) { if (i == 5) stop('not yet'); rnorm(1) }"
        )
        tasks.eval(
            "try(ppe.lapply(1:8, f, seed = 2, checkpoint = '/tmp/c.rds', on_error = 'collect'), silent = TRUE)"
        )
        told = printed(
            tasks, "one <- ppe.lapply(1:8, f, seed = 2, checkpoint = '/tmp/c.rds', on_error = 'collect')"
        )
        assert "7 of 8 results are there already" in told
        assert tasks.eval("identical(one[-5], ppe.lapply(1:8, function(i) rnorm(1), seed = 2)[-5])")

    @pytest.mark.parametrize(
        ("call", "what"),
        [
            ("ppe.lapply(2:9, f, seed = 2, checkpoint = p)", "X differ"),
            ("ppe.lapply(1:8, function(i) 1, seed = 2, checkpoint = p)", "FUN, what FUN uses differ"),
            ("ppe.lapply(1:8, f, seed = 3, checkpoint = p)", "seed differ"),
            ("{k <- 2; ppe.lapply(1:8, f, seed = 2, checkpoint = p)}", "what FUN uses differ"),
        ],
    )
    def test_that_of_another_call_is_refused(self, tasks: RemoteR, call: str, what: str) -> None:
        tasks.eval("p <- '/tmp/d.rds'; unlink(p); k <- 1; f <- function(i) i + k")
        tasks.eval("invisible(ppe.lapply(1:8, f, seed = 2, checkpoint = p, slots = 0))")
        with pytest.raises(errors.RemoteRError, match=what):
            tasks.eval(call)

    @pytest.mark.parametrize(
        "call",
        [
            "ppe.Map(function(a, b) a {} b, 2:4, 5:7, seed = 1, checkpoint = p, slots = 0)",
            "local({{ f <- function(i) i {} 2; local(ppe.lapply(2:4, function(i) f(i), seed = 1, checkpoint = p,"
            " slots = 0)) }})",
        ],
    )
    def test_a_function_that_the_function_was_defined_with_is_looked_at(
        self, tasks: RemoteR, call: str
    ) -> None:
        tasks.eval("p <- '/tmp/e.rds'; unlink(p)")
        tasks.eval(f"invisible({call.format('+')})")
        with pytest.raises(errors.RemoteRError, match="FUN differ"):
            tasks.eval(call.format("*"))
        assert "3 of 3 results are there already" in printed(tasks, f"invisible({call.format('+')})")

    def test_a_function_in_a_list_is_the_same_when_r_has_compiled_it(self, tasks: RemoteR) -> None:
        tasks.eval("p <- '/tmp/h.rds'; unlink(p); by <- list(f = function(i) i + 1)")
        call = "invisible(ppe.lapply(1:3, function(i, by) by$f(i), by = by, seed = 1, checkpoint = p, slots = 0))"
        tasks.eval(call)
        tasks.eval("for (i in 1:5) by$f(i)")
        assert "3 of 3 results are there already" in printed(tasks, call)

    def test_the_same_numbers_are_the_same_however_r_keeps_them(self, tasks: RemoteR) -> None:
        tasks.eval("p <- '/tmp/g.rds'; unlink(p); x <- 1:3; x[2] <- 2L")
        tasks.eval("invisible(ppe.lapply(1:3, identity, seed = 1, checkpoint = p, slots = 0))")
        told = printed(tasks, "invisible(ppe.lapply(x, identity, seed = 1, checkpoint = p, slots = 0))")
        assert "3 of 3 results are there already" in told


LONG = "function(i) { x <- rnorm(1); Sys.sleep(0.1); x }"


def test_the_stop_button_keeps_what_was_finished(cluster: Cluster, tasks: RemoteR) -> None:
    tasks.eval(f"f <- {LONG}")
    tasks.eval("g <- function(i) { if (i > 12) file.create('/tmp/second'); f(i) }")
    pids = [worker["pid"] for worker in workers(cluster)]
    pid = tasks.eval("Sys.getpid()")
    evaluation = Evaluation(cluster, tasks, "x <- ppe.lapply(1:3000, g, seed = 1)")
    # Pressed again while the workers are told.
    presses = f"for i in 1 2 3; do kill -INT {pid}; sleep 0.015; done"
    cluster.ssh().run(f"until [ -e /tmp/second ]; do sleep 0.02; done; {presses}; rm /tmp/second", timeout=30)
    tasks.interrupt()
    assert isinstance(evaluation.failure(), errors.RemoteInterrupted)
    tasks.eval("known <- ppe.last(); same <- ppe.lapply(1:3000, function(i) rnorm(1), seed = 1)")
    assert 0 < tasks.eval("length(known$done)") < 3000
    assert tasks.eval("identical(known$values[known$done], same[known$done])")
    assert [worker["pid"] for worker in workers(cluster)] == pids, "the workers are the same"


@pytest.mark.slow
@pytest.mark.parametrize("busy", ["Sys.sleep(99)", "repeat solve(matrix(rnorm(810000), 900))"])
def test_the_stop_button_ends_a_call_within_two_seconds(cluster: Cluster, tasks: RemoteR, busy: str) -> None:
    tasks.eval(
        f"f <- function(i) {{ if (i > 12) {{ file.create('/tmp/late'); {busy} }}; i }}; unlink('/tmp/late')"
    )

    def stopped() -> float:
        evaluation = Evaluation(cluster, tasks, "x <- ppe.lapply(1:24, f)")
        cluster.ssh().run("until [ -e /tmp/late ]; do sleep 0.02; done; rm /tmp/late", timeout=60)
        pressed = time.monotonic()
        tasks.interrupt()
        assert isinstance(evaluation.failure(), errors.RemoteInterrupted)
        return time.monotonic() - pressed

    # A machine that has other work to do may take longer now and then.
    assert any(stopped() < 2 for _ in range(5))
    assert set(tasks.eval("ppe.last()$done")) == {*range(1, 13)}


@pytest.mark.slow
def test_an_answer_that_the_word_of_a_lost_worker_cuts_short_is_asked_for_again(tasks: RemoteR) -> None:
    tasks.eval(
        """
        ours <- environment(ppe.lapply); real <- ours$receive; word <- file.path(Sys.getenv("PPE_RUN"), "lost")
        unlink(paste0(word, "-ranks")); cut <- 0
        ours$receive <- function(run) {
          # A worker on another node, in the middle of a large answer.
          if (!cut && Rmpi::mpi.get.sourcetag()[1] > 2 && Rmpi::mpi.get.count(4L) > 1e6) {
            cut <<- Rmpi::mpi.get.sourcetag()[1]
            writeLines("another one was lost", word)
            Sys.sleep(0.2)
          }
          real(run)
        }
        x <- tryCatch(ppe.lapply(1:12, function(i) rep(i, 1e6)), finally = ours$receive <- real)
        """
    )
    assert tasks.eval("cut > 0 && !file.exists(word)")
    assert tasks.eval("identical(x, lapply(1:12, function(i) rep(i, 1e6)))")
    assert list(tasks.eval("ppe.sapply(1:12, function(i) i)")) == list(range(1, 13))
    assert tasks.eval("ppe.last()$slots") == SLOTS - 1, "it may still answer to what it was asked"
    tasks.eval("mpi.close.Rslaves()")


@pytest.mark.slow
def test_a_worker_that_is_killed_has_its_tasks_done_elsewhere(cluster: Cluster, tasks: RemoteR) -> None:
    victim = workers(cluster)[3]
    kill = f"ssh {victim['host']} kill -9 {victim['pid']}"
    tasks.eval(f"f <- {LONG}; system('(sleep 1; {kill}) >/dev/null 2>&1 &')")
    told = printed(tasks, "x <- ppe.lapply(1:200, f, seed = 1); ranks <- length(ppe.last()$lost)")
    assert f"rank {victim['rank']} on {victim['host']} was lost" in told
    assert "elsewhere" in told
    assert " of 200 · " in told, "the bar"
    assert tasks.eval("ranks") == 1
    assert tasks.eval("identical(x, ppe.lapply(1:200, function(i) rnorm(1), seed = 1))")
    assert tasks.eval("ppe.last()$slots") == SLOTS, "another one was started in its place"


@pytest.mark.slow
def test_one_brief_task_that_ends_its_worker_is_the_one_that_fails(tasks: RemoteR) -> None:
    tasks.eval("f <- function(i) { if (i == 437) tools::pskill(Sys.getpid(), 9); Sys.sleep(0.001); i }")
    tasks.eval("x <- ppe.lapply(1:900, f, on_error = 'collect'); lost <- length(ppe.last()$lost)")
    assert tasks.eval("which(sapply(x, inherits, 'ppe_task_error'))") == 437
    assert tasks.eval("identical(x[-437], lapply((1:900)[-437], identity))")
    assert tasks.eval("lost") <= 4


@pytest.mark.slow
def test_a_worker_that_was_lost_before_the_call_costs_no_result(cluster: Cluster, tasks: RemoteR) -> None:
    victim = workers(cluster)[4]
    pid = tasks.eval("Sys.getpid()")
    kill = f"ssh {victim['host']} kill -9 {victim['pid']}"
    told = printed(tasks, f"system('{kill}'); x <- ppe.lapply(1:30, function(i) rnorm(1), seed = 1)")
    assert f"rank {victim['rank']} on {victim['host']} was lost" in told
    assert tasks.eval("identical(x, ppe.lapply(1:30, function(i) rnorm(1), seed = 1, slots = 0))")
    assert tasks.eval("Sys.getpid()") == pid, "R was not restarted"


@pytest.mark.slow
def test_a_node_that_is_lost_has_its_tasks_done_elsewhere(manager: Manager) -> None:
    cluster = manager.launch(ppe.ClusterSpec(name="tasks-lost", nodes=2, instance_type=INSTANCE_TYPE))
    try:
        r = cluster.r()
        r.eval(f"f <- {LONG}; invisible(ppe.lapply(1:4, identity))")
        lost = cluster.refresh().nodes[1]
        started = "function(i) { if (i > 8) file.create('/tmp/begun'); f(i) }"
        evaluation = Evaluation(cluster, r, f"x <- ppe.lapply(1:300, {started}, seed = 1)", tells=True)
        pull_the_plug(lost.instance_id)
        evaluation.end()
        assert list(r.eval("ppe.last()$lost")) == [3, 4]
        assert r.eval("same <- identical(x, ppe.lapply(1:300, function(i) rnorm(1), seed = 1)); same")
        assert r.eval("ppe.last()$slots") == 2, "it goes on with those that are left"
        cluster.retry("replace")
        r = cluster.r()
        assert r.eval("y <- ppe.lapply(1:300, function(i) rnorm(1), seed = 1); identical(x, y)")
        assert r.eval("ppe.last()$slots") == 4
    finally:
        cluster.terminate()
