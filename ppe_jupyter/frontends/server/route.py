"""A route of the server extension: what may be asked, and whether what was asked is that. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import UsageError

Json = Mapping[str, Any]


def never(answer: Any, given: Json) -> bool:
    """An answer that is not waited for."""
    return False


@dataclass(frozen=True, kw_only=True)
class Route:
    """``query`` and ``body`` are the fields that may be given, and of which type; ``needs`` those that must be.

    ``free``: the body's fields are the function's business, as ``fields``. ``changes`` returns what to subscribe with
    to be told of changes, or None; ``known`` whether the client knows an answer already, and waits for another.
    """

    method: str
    path: str
    answer: Callable[..., Any]
    query: Mapping[str, type] | None = None
    body: Mapping[str, type] | None = None
    needs: tuple[str, ...] = ()
    free: bool = False
    status: int = 200
    changes: Callable[..., Any] | None = None
    known: Callable[[Any, Json], bool] = never

    def checked(self, query: Mapping[str, str], body: Json) -> dict[str, Any]:
        """What was given, as keywords. Raises UsageError."""
        given = {key: _read(key, value, _known(key, self.query)) for key, value in query.items()}
        if self.free:
            return {**given, "fields": body}
        for key, value in body.items():
            kind = _known(key, self.body)
            if value is not None and type(value) is not kind:
                raise UsageError(f"{key} = {value!r} is not of type {kind.__name__}")
            given[key] = value
        if missing := [key for key in self.needs if not given.get(key)]:
            raise UsageError(f"{' and '.join(missing)} must be given")
        return given


def _known(key: str, kinds: Mapping[str, type] | None) -> type:
    if key not in (kinds or {}):
        raise UsageError(f"there is no field {key!r} here; there are: {', '.join(kinds or ()) or 'none'}")
    assert kinds is not None
    return kinds[key]


def _read(key: str, text: str, kind: type) -> Any:
    """A value of a query."""
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text]
        if kind is int and not text.isdecimal():
            raise ValueError
        value = kind(text)
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError
        return value
    except (ValueError, KeyError):
        raise UsageError(f"{key} = {text!r} is not of type {kind.__name__}") from None
