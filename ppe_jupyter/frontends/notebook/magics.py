"""The magics: every verb as ``%ppe VERB`` and ``%ppe_VERB``, the remote cells, their help and Tab completion.

Imported by ``%load_ext``, so it imports nothing slow: verbs and cells are imported when the first one runs.
An error of ours is shown as its message alone, and the cell fails, so that Run All stops there.
"""

from __future__ import annotations

import re
import sys
import threading
from collections import ChainMap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)
from IPython.core.error import StdinNotImplementedError
from IPython.core.getipython import get_ipython
from IPython.core.magic import needs_local_scope, no_var_expand
from IPython.display import display
from IPython.utils.text import DollarFormatter

from ...errors import NothingToDo, PpeError, RemoteRError, UsageError
from ...node.wire.protocol import MAIN
from ...verbs import Verb, find, of
from .. import typed
from ..desk import Desk
from . import r_help

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ...cluster import Cluster
    from ...host import Host
    from ...manager import Manager
    from ...remote.sessions.session import RemoteR
    from ..progress import Display

# Of text; a terminal shows all.
CELL_LINES = 2000
RED, DIM, PLAIN = "\x1b[31m", "\x1b[2m", "\x1b[0m"


class Magics:
    """The verbs in one IPython shell, which remembers the connected cluster."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self._kernel = getattr(shell, "kernel", None)
        self._undo: Callable[[], None] = lambda: None
        self.desk = Desk(
            say=print,
            show=display,
            ask=self._ask,
            display=self._progress,
            notice=self._notice,
            keep=self.shell.push,
            line=self._line,
            lines=CELL_LINES if self._kernel is not None else None,
            sign="%ppe_",
        )

    def register(self) -> None:
        """Make the magics known to the shell."""
        register = self.shell.magics_manager.register_function
        register(self.ppe, "line", "ppe")
        for verb in of("magic").values():
            kind = "line_cell" if verb.cell else "line"
            register(self._magic(verb), kind, verb.magic)
        self.shell.Completer.custom_matchers.append(self._completions)
        if self._kernel is not None:
            self._undo = r_help.inspect_r(self._kernel, self._session)

    def unregister(self) -> None:
        """Take them back."""
        self.shell.Completer.custom_matchers.remove(self._completions)
        self._undo()
        for name in ("ppe", *(verb.magic for verb in of("magic").values())):
            for kind in ("line", "cell"):
                self.shell.magics_manager.magics[kind].pop(name, None)

    @no_var_expand
    def ppe(self, line: str) -> Any:
        """``%ppe VERB …`` does what ``%ppe_VERB …`` does; ``%ppe`` alone shows who pays and all clusters."""
        name, _, rest = line.strip().partition(" ")
        with self._readable():
            if not name:
                from ..actions import actions

                return actions.overview(self.desk)
            if name == "--help":
                print(typed.overall_help("magic"))
                return None
            verb = find(name, face="magic")
            if not verb.code:
                with suppress(Exception):  # as IPython does for other magics
                    rest = DollarFormatter().vformat(rest, [], self.shell.user_ns)
        return self._run(verb, rest)

    def _magic(self, verb: Verb) -> Callable[..., Any]:
        def magic(line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Any:
            return self._run(verb, line, cell, local_ns)

        magic.__name__ = magic.__qualname__ = verb.magic
        magic.__doc__ = verb.help
        # IPython asks for the whole when it is to be shown: to make it for all verbs would take longer than all else.
        magic.getdoc = partial(typed.help_text, verb, "magic")  # type: ignore[attr-defined]
        return needs_local_scope(no_var_expand(magic) if verb.code else magic)

    def _run(
        self, verb: Verb, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None
    ) -> Any:
        with self._readable():
            arguments = typed.parse(verb, line, face="magic")
            if arguments is None:
                print(typed.help_text(verb, "magic"))
                return None
            if verb.name.startswith("remote_"):
                from . import cells

                names = ChainMap(local_ns or {}, self.shell.user_ns)
                return cells.CELLS[verb.name](self.desk, arguments, cell, names, self.shell.push)
            from ..actions import actions

            return actions.ACTIONS[verb.name](self.desk, arguments)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except NothingToDo as nothing:
            print(nothing)
        except PpeError as error:
            # IPython asks the exception how to show itself; its type stays what a program would catch.
            render = partial(self._render, error, self.shell.execution_count)
            error._render_traceback_ = render  # type: ignore[attr-defined]
            raise
        except KeyboardInterrupt as stop:
            stop._render_traceback_ = lambda: [f"{RED}interrupted{PLAIN}"]  # type: ignore[attr-defined]
            raise

    def _render(self, error: PpeError, raised_at: int) -> list[str]:
        shown = [f"{RED}{line}{PLAIN}" for line in str(error).splitlines()]
        if isinstance(error, RemoteRError) and len(error.traceback) > 1:
            if self.shell.execution_count == raised_at:
                shown.append(f"{DIM}(%tb shows R's traceback){PLAIN}")
            else:
                shown += [f"{number}: {call}" for number, call in enumerate(error.traceback, 1)]
        return shown

    def _ask(self, question: str, instead: str) -> str:
        nobody = f"{question} There is nobody here to ask; add {instead}."
        return self._typed(f"{question} ", nobody).strip().lower()

    def _line(self) -> str:
        """R has printed its question, without a line end."""
        return self._typed(
            "", "R asks for a line of input, and there is nobody here to ask: it gets an empty one"
        )

    def _typed(self, question: str, nobody: str) -> str:
        if self._kernel is None and not sys.stdin.isatty():
            raise UsageError(nobody)
        try:
            return input(question)
        except (StdinNotImplementedError, EOFError):
            raise UsageError(nobody) from None

    def _session(self, cell: str) -> RemoteR | None:
        """The R session that a cell names, of the connected cluster. Who types must not wait: an idle line is
        attached for the next time."""
        cluster = self.desk.connected
        arguments = r_help.arguments_of(cell)
        if cluster is None or arguments is None or (arguments.cluster or cluster.name) != cluster.name:
            return None
        name = arguments.session or MAIN
        session = cluster.attached(name)
        if session is None:
            threading.Thread(
                target=self._attach, args=(cluster, name), daemon=True, name="ppe attach"
            ).start()
        return session

    @staticmethod
    def _attach(cluster: Cluster | Host, name: str) -> None:
        """Attach to that session; one that is only being named does not start."""
        with suppress(PpeError):
            if name == MAIN or name in {each["name"] for each in cluster.sessions()}:
                cluster.r(name)

    def _notice(self, level: str, text: str) -> None:
        """Also when no cell runs, and from any thread: a kernel puts it below the last cell."""
        from ..tables import Line

        display(Line(level, text))

    def _progress(self, title: str) -> Display:
        from .. import progress

        return progress.NotebookProgress(title) if self._kernel is not None else progress.terminal(title)

    @context_matcher()  # type: ignore[untyped-decorator]
    def _completions(self, context: CompletionContext) -> SimpleMatcherResult:
        lines = context.full_text.split("\n")[: context.cursor_line]
        code = r_help.code_before("\n".join([*lines, context.text_until_cursor]))
        if code is not None:
            word, known = r_help.completions(code, self._session(context.full_text))
            return self._matched(word, [SimpleCompletion(text=each) for each in known] or r_help.Nothing())
        found = re.search(r"(?:^|=)\s*(%{1,2}(?:ppe|remote_)\w*\s.*)$", context.text_until_cursor)
        before = found[1] if found else ""
        word = re.split(r"\s", before)[-1]
        known = typed.complete(before, face="magic", offers=self._offers()) if found else []
        return self._matched(word, [SimpleCompletion(text=each) for each in known if each.startswith(word)])

    @staticmethod
    def _matched(word: str, matching: Any) -> SimpleMatcherResult:
        return {
            "completions": matching,
            "matched_fragment": word,
            "suppress": bool(matching),
            "do_not_suppress": set(),
            "ordered": True,
        }

    def _offers(self) -> dict[str, Callable[[], list[str]]]:
        def variables() -> list[str]:
            return [name for name in self.shell.user_ns if not name.startswith("_")]

        return {**self.desk.offers(), "variable": variables}


_loaded: dict[InteractiveShell, Magics] = {}


def load(shell: InteractiveShell) -> None:
    """Register the magics in this shell; a second time changes nothing."""
    if shell not in _loaded:
        _loaded[shell] = Magics(shell)
        _loaded[shell].register()


def unload(shell: InteractiveShell) -> None:
    """Take the magics back."""
    if shell in _loaded:
        _loaded.pop(shell).unregister()


def show_manager(manager: Manager) -> None:
    """A Manager that is a cell's result is shown as the panel of its settings."""
    from ..panel import display as panel_display  # widgets are slow to import

    shell = get_ipython()
    try:
        panel_display.show(manager.settings, desk=_loaded[shell].desk if shell in _loaded else None)
    except PpeError as error:
        print(error)
