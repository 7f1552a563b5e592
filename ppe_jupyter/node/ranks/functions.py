"""Functions and values between a notebook and ranks that run them: what other versions of Python can read too.

cloudpickle's pickles of functions have bytecode, which is another one in each minor version of Python. There a
function goes as its source (remote/ranks/functions.py), which is compiled here. cloudpickle itself is the notebook's.
"""

from __future__ import annotations

import ast
import io
import pickle
import sys
import types
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from .values import PROTOCOL, reduced

MAIN = "__main__"
# What this module is called where functions come from.
HOME = "ppe_jupyter.node.ranks.functions"


class Source(NamedTuple):
    """A function's own source, without decorators; ``owner`` is its class's name, or "".

    ``free`` are the names that it has from the functions around it.
    """

    text: str
    name: str
    owner: str
    free: tuple[str, ...]


def code_of(source: Source, body: list[ast.stmt] | None = None) -> types.CodeType:
    """The function's code, of its text or of ``body``. Raises ValueError if there is none of that name; SyntaxError."""
    body = ast.parse(source.text).body if body is None else body
    if source.owner:  # names with two underscores, and super()
        around = ast.ClassDef(name=source.owner, bases=[], keywords=[], body=body, decorator_list=[])
        if sys.version_info >= (3, 12):
            around.type_params = []
        body = [around]
    outer = ast.parse(f"def _({', '.join(name for name in source.free if name != '__class__')}): pass")
    assert isinstance(outer.body[0], ast.FunctionDef)
    # What is defined here is none of the variables of the functions around it.
    own = {source.owner or source.name} - {"", "<lambda>", *source.free}
    outer.body[0].body = [*([ast.Global(names=sorted(own))] if own else []), *body]
    found = _find(compile(ast.fix_missing_locations(outer), "<function>", "exec"), source.name)
    if found is None:
        raise ValueError(f"{source.name} is not in its source")
    return found


def _find(code: types.CodeType, name: str) -> types.CodeType | None:
    inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
    for each in inner:
        if each.co_name == name:
            return each
    for each in inner:
        if (found := _find(each, name)) is not None:
            return found
    return None


def function_of(
    source: Source, around: dict[str, Any], name: str, defaults: Any, closure: Sequence[Any] | None
) -> types.FunctionType:
    """The function, as cloudpickle makes one of its code."""
    code = code_of(Source(*source))
    if set(code.co_freevars) != set(source[3]):
        raise ValueError(f"{name} uses other variables of the functions around it here than where it is from")
    cells = dict(zip(source[3], closure or ()))  # Python 3.9
    around["__builtins__"] = __builtins__
    return types.FunctionType(code, around, name, defaults, tuple(cells[free] for free in code.co_freevars))


def class_of(text: str, name: str, around: dict[str, Any]) -> Any:
    """The class that the source makes with these variables. Raises what that does."""
    names = {**around, "__name__": MAIN}
    exec(compile(text, "<class>", "exec"), names)  # noqa: S102
    return names[name]


def use_cloudpickle(version: str, source: bytes) -> None:
    """Be able to read that version's pickles: those of one release name what others have elsewhere, or not at all."""
    try:
        import cloudpickle

        if cloudpickle.__version__ == version:
            return
    except ImportError:
        pass
    package, module = types.ModuleType("cloudpickle"), types.ModuleType("cloudpickle.cloudpickle")
    exec(compile(zlib.decompress(source), "cloudpickle.py", "exec"), module.__dict__)  # noqa: S102
    vars(package).update(vars(module), __name__="cloudpickle", __version__=version, cloudpickle=module)
    sys.modules.update({"cloudpickle": package, "cloudpickle.cloudpickle": module})


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return globals()[name] if module == HOME else super().find_class(module, name)


def load(data: bytes) -> Any:
    """The value. Raises what pickle and the classes of the value do."""
    return _Unpickler(io.BytesIO(data)).load()  # the cluster is the user's own


class _ByName(pickle.Pickler):
    """Classes of the notebook's go by their names: there they are."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type) and value.__module__ == MAIN and "." not in value.__qualname__:
            vars(sys.modules[MAIN]).setdefault(value.__qualname__, value)
        return reduced(value)


def dumped(value: Any) -> bytes:
    """The pickle of a result; with code in it only if it cannot be without. Raises what pickle does."""
    try:
        file = io.BytesIO()
        _ByName(file, PROTOCOL).dump(value)
        return file.getvalue()
    except Exception:
        import cloudpickle

        data: bytes = cloudpickle.dumps(value, PROTOCOL)
        return data
