"""Problems: an error as JSON, as RFC 9457 has it, with the HTTP status that it comes to. Pure."""

from __future__ import annotations

import re
from typing import TypedDict

from .. import errors


class Problem(TypedDict):
    """RFC 9457's problem details: ``status`` is HTTP's, ``detail`` what happened and what to do next."""

    type: str
    title: str
    status: int
    detail: str


# The first that an error is one of counts.
STATUS: tuple[tuple[type[Exception], int], ...] = (
    (errors.NoSuchCluster, 404),
    (errors.Forgotten, 404),
    (errors.Occupied, 409),
    (errors.NotYours, 409),
    (errors.NothingToDo, 409),
    (errors.UserError, 400),
    (errors.LocalCloudUnavailable, 503),
    (errors.CloudError, 502),
    (errors.RemoteInterrupted, 409),
    (errors.SshError, 503),
    (errors.RemoteError, 502),
    (TimeoutError, 503),
)


def problem(exc: BaseException) -> Problem:
    """An error as problem details; of one that is not ours only its class and text."""
    status = next((code for kind, code in STATUS if isinstance(exc, kind)), 500)
    title = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(exc).__name__).lower()
    if type(exc) is errors.CloudError and exc.operation and not exc.code:  # nobody answered: EC2 gave no code
        status = 503
    detail = str(exc) or type(exc).__name__
    return {"type": "about:blank", "title": title[:1].upper() + title[1:], "status": status, "detail": detail}
