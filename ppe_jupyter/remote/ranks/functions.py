"""Functions of a notebook as bytes for the cluster's ranks: with all that they use, by cloudpickle.

Bytecode is another one in each minor version of Python; to such nodes functions go as their source, one by one, which
is compiled there (node/ranks/functions.py). Knows nothing of ranks.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import pickle
import random
import sys
import textwrap
import types
import zlib
from collections.abc import Iterator
from typing import Any

import cloudpickle
import numpy as np

from ...errors import UsageError
from ...node.ranks.functions import Source, class_of, code_of, function_of
from ...node.ranks.values import PROTOCOL, reduced

_NO_SOURCE = (
    "{} has no source here, which nodes with another version of Python need: define it in a cell or a file"
)
_GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
_REPEATS = (
    "{} takes a random generator along, whose copies would draw the same numbers on each rank: give the function a"
    " parameter rng, which gets one for each task"
)
PLAIN = (int, float, str, bytes, bool, type(None))


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # untyped
    """Functions as bytecode."""

    what = ""  # that no random generator may be part of

    def reducer_override(self, value: Any) -> Any:
        if self.what and isinstance(value, _GENERATORS):
            raise UsageError(_REPEATS.format(self.what))
        found = reduced(value)
        return super().reducer_override(value) if found is NotImplemented else found


class _SourcePickler(_Pickler):
    """Functions as their source; classes too whose methods have none, as those that dataclasses make."""

    def reducer_override(self, value: Any) -> Any:
        found = super().reducer_override(value)
        if isinstance(value, types.FunctionType) and isinstance(found, tuple):
            return (function_of, (tuple(source_of(value)), *found[1][1:]), *found[2:])
        if isinstance(value, type) and isinstance(found, tuple):
            try:
                for each in vars(value).values():
                    if isinstance(each, types.FunctionType):
                        source_of(each)
            except UsageError:
                return class_of, _class_source(value)
        return found


class _MarkPickler(_Pickler):
    """What functions and classes are, without what is another one in each process. Nothing reads it."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, PROTOCOL)
        self._seen: dict[int, int] = {}

    def reducer_override(self, value: Any) -> Any:
        found = super().reducer_override(value)
        if not isinstance(value, (types.FunctionType, type)) or not isinstance(found, tuple):
            return found
        if (number := self._seen.setdefault(id(value), len(self._seen))) < len(self._seen) - 1:
            return str, (f"that of number {number}",)
        if isinstance(value, type):
            return str, (value.__qualname__,), {name: found[2][0][name] for name in sorted(found[2][0])}
        try:
            text: Any = source_of(value).text
        except UsageError:
            text = value.__code__.co_code, value.__code__.co_consts
        state = {
            name: found[2][1][name]
            for name in ("__defaults__", "__kwdefaults__", "__closure__", "__globals__")
        }
        return str, (text,), state


def cloudpickle_source() -> tuple[str, bytes]:
    """Its version, and its source, compressed."""
    return cloudpickle.__version__, zlib.compress(inspect.getsource(cloudpickle.cloudpickle).encode())


def dumped(value: Any, what: str, *, source: bool, shared: bool = False) -> bytes:
    """The pickle; functions in it as ``source``; ``shared`` if each rank gets a copy. Raises UsageError."""
    if type(value) is tuple and all(type(each) in PLAIN for each in value):
        return pickle.dumps(value, PROTOCOL)
    file = io.BytesIO()
    try:
        pickler = (_SourcePickler if source else _Pickler)(file, PROTOCOL)
        pickler.what = what if shared else ""
        pickler.dump(value)
    except UsageError:
        raise
    except Exception as exc:  # whatever a class of the user's raises
        raise UsageError(f"{what} cannot be sent to the ranks: {exc}") from exc
    return file.getvalue()


def fingerprint(value: Any) -> str:
    """The same for the same source, data and variables in another process; sets of text apart."""
    for fast in (True, False):  # without a memo: equal parts may be one object, or not
        file = io.BytesIO()
        pickler = _MarkPickler(file)
        pickler.fast = fast
        try:
            pickler.dump(value)
            break
        except (RecursionError, ValueError, pickle.PicklingError):  # it contains itself
            continue
    return hashlib.sha256(file.getvalue()).hexdigest()


def source_of(function: types.FunctionType) -> Source:
    """Its own source, checked to be what it was made of. Raises UsageError."""
    code = function.__code__
    try:
        lines, _ = inspect.findsource(code)
        tree = ast.parse("".join(lines))
    except (OSError, SyntaxError):
        raise UsageError(_NO_SOURCE.format(function.__qualname__)) from None
    for node, owner in _functions(tree, ""):
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
        if first == code.co_firstlineno:
            if not isinstance(node, ast.Lambda):
                node.decorator_list = []  # they have been applied
            source = Source(ast.unparse(node), code.co_name, owner, code.co_freevars)
            try:
                statement = ast.Expr(node) if isinstance(node, ast.Lambda) else node
                # Not of the text: where lines end makes a difference to bytecode.
                if _same(code_of(source, [ast.copy_location(statement, node)]), code):
                    return source
            except (SyntaxError, ValueError):
                continue
    raise UsageError(
        f"the source of {function.__qualname__} has changed since it was defined, and nodes with another version of"
        " Python need it: run its cell again"
    )


def _class_source(value: type) -> tuple[str, str, dict[str, Any]]:
    """Its source, its name, and the variables that it uses. Raises UsageError."""
    try:
        lines, first = inspect.findsource(value)
        text = textwrap.dedent("".join(inspect.getblock(lines[first:])))
        used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    except (OSError, SyntaxError):
        raise UsageError(_NO_SOURCE.format(value.__qualname__)) from None
    around = vars(sys.modules[value.__module__])
    return (
        text,
        value.__name__,
        {name: around[name] for name in sorted(used - {value.__name__}) if name in around},
    )


Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def _functions(tree: ast.AST, owner: str) -> Iterator[tuple[Function, str]]:
    """All functions in it, each with the name of the class around it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield node, owner
        inner = node.name if isinstance(node, ast.ClassDef) else "" if isinstance(node, Function) else owner
        yield from _functions(node, inner)


def _same(mine: types.CodeType, theirs: types.CodeType) -> bool:
    names = ("co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars")
    if any(getattr(mine, name) != getattr(theirs, name) for name in names):
        return False
    if len(mine.co_consts) != len(theirs.co_consts):
        return False
    return all(
        _same(a, b) if isinstance(a, types.CodeType) and isinstance(b, types.CodeType) else repr(a) == repr(b)
        for a, b in zip(mine.co_consts, theirs.co_consts, strict=True)
    )
