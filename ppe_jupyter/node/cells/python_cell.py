"""Python cells: how their code is run, in any process; run as a file, it runs one in a process of its own.

    python_cell.py REPORT     code on standard input; why it failed goes to that descriptor

Standard library; imports nothing of the package, so that a cell finds none of it.
"""

from __future__ import annotations

import ast
import linecache
import os
import sys
import traceback
import types
from typing import Any

CELL = "<cell>"


def execute(code: str, *, module: types.ModuleType, name: str = CELL) -> str | None:
    """Run a cell in ``module``, show its last expression as a notebook would; why it failed, or None."""
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    names: dict[str, Any] = module.__dict__
    try:
        tree = ast.parse(code, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), names)  # noqa: S102  # that is what a cell is
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), names)  # noqa: S307
            if value is not None:
                print(repr(value))  # noqa: T201
    except SystemExit as exc:
        return None if exc.code in (None, 0) else f"SystemExit: {exc.code}"
    except BaseException as exc:
        frame = exc.__traceback__
        while frame is not None and not frame.tb_frame.f_code.co_filename.startswith("<cell"):
            frame = frame.tb_next
        if isinstance(exc, KeyboardInterrupt) and frame is not None:
            print(f"interrupted in line {frame.tb_lineno}", file=sys.stderr)  # noqa: T201
        else:
            traceback.print_exception(type(exc), exc, frame)
        return traceback.format_exception_only(type(exc), exc)[-1].strip()
    return None


def cells_module() -> types.ModuleType:
    """Make of this process one that runs cells: the module to run them in, with lines going out as they are printed."""
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.path[0] = ""  # this folder's modules are not the cells'
    # A real module, so that what cells define can be pickled, and found by other processes.
    sys.modules["__main__"] = module = types.ModuleType("__main__")
    return module


def main() -> None:
    """Run the one cell."""
    report = int(sys.argv.pop())
    os.set_inheritable(report, False)
    code = sys.stdin.buffer.read().decode()
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    failure = execute(code, module=cells_module())
    if failure is not None:
        os.write(report, failure.encode(errors="replace")[: os.pathconf(report, "PC_PIPE_BUF")])
        sys.exit(1)


if __name__ == "__main__":
    main()
