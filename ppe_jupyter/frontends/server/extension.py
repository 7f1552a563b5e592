"""The Jupyter server extension: REST under ``{base_url}ppe-jupyter/api/``, as ``routes`` has it.

Who may ask is Jupyter's own business: authentication, authorization (resource ``ppe_jupyter``; read or write), origin
and XSRF are as for the rest of the server. No call that may wait is made on the event loop. Nothing is asked of a cloud
unless a client asks. Every error is problem JSON (RFC 9457).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web

from ...errors import PpeError, UsageError

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

    from .route import Route

T = TypeVar("T")
Subscribe = Callable[[Callable[..., None]], Callable[[], object]]
ROOT = "ppe-jupyter/api"
THREADS, QUEUE = 8, 256  # calls at a time, and those that may wait for them
POLL_SECONDS = 25.0  # less than what proxies commonly allow a silent request
LARGEST_BODY = 64 * 1024
PASSED_OVER = {
    "token",
    "_",
    "no_track_activity",
}  # of a query: Jupyter's, and what keeps browsers from caching


class Busy(PpeError):
    """More is asked than can be answered soon."""


class Calls:
    """Runs what may wait in threads, a bounded number of them."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="ppe-api")
        self._waiting = 0

    async def __call__(self, call: Callable[[], T]) -> T:
        """Its result. Raises what it raises, and Busy."""
        if self._waiting >= THREADS + QUEUE:
            raise Busy("too much is asked of this server at once; try again in a minute")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        finally:
            self._waiting -= 1


class Handler(APIHandler):
    """One address; ``routes`` has what answers each method there."""

    auth_resource = "ppe_jupyter"

    def initialize(self, routes: Mapping[str, Route], calls: Calls) -> None:
        """As tornado calls it."""
        self._routes, self._calls = routes, calls
        self._gone = asyncio.Event()

    @property
    def _track_activity(self) -> bool:  # type: ignore[override]
        """A view that only looks must not keep an idle server from being ended."""
        return self.request.method != "GET"

    @web.authenticated
    @authorized
    async def get(self, *names: str) -> None:
        """Look."""
        await self._answer(names)

    @web.authenticated
    @authorized
    async def post(self, *names: str) -> None:
        """Plan, begin, interrupt."""
        await self._answer(names)

    @web.authenticated
    @authorized
    async def patch(self, *names: str) -> None:
        """Change."""
        await self._answer(names)

    @web.authenticated
    @authorized
    async def delete(self, *names: str) -> None:
        """Stop, detach."""
        await self._answer(names)

    def on_connection_close(self) -> None:
        """The client has gone: a long poll ends."""
        self._gone.set()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Whatever refuses a request, as problem JSON."""
        error = kwargs.get("exc_info", (None, None))[1]
        said = error.log_message if isinstance(error, web.HTTPError) else None
        self._refuse(status_code, self._reason, said or self._reason)

    async def _answer(self, names: tuple[str, ...]) -> None:
        route = self._routes.get(self.request.method or "")
        if route is None:
            raise web.HTTPError(HTTPStatus.METHOD_NOT_ALLOWED if self._routes else HTTPStatus.NOT_FOUND)
        try:
            given = route.checked(self._query(), self._body())
            answer = await self._asked(route, partial(route.answer, *names, **given), names, given)
        except (PpeError, TimeoutError) as exc:
            from ...overview.problems import problem

            told = problem(exc)
            status = HTTPStatus.SERVICE_UNAVAILABLE if isinstance(exc, Busy) else told["status"]
            self._refuse(status, told["title"], told["detail"])
        else:
            if not self._gone.is_set():
                self.set_status(route.status)
                self.finish(json.dumps(answer, allow_nan=False))

    async def _asked(
        self, route: Route, ask: Callable[[], Any], names: tuple[str, ...], given: Mapping[str, Any]
    ) -> Any:
        """The answer; if it is what the client knows already, the one after the next change, or after a while."""
        subscribe = await self._calls(partial(route.changes, *names, **given)) if route.changes else None
        if subscribe is None:
            return await self._calls(ask)
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def tell(*_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the server is ending
                loop.call_soon_threadsafe(changed.set)

        end = subscribe(tell)
        try:
            answer = await self._calls(ask)
            until = loop.time() + POLL_SECONDS
            while route.known(answer, given) and not self._gone.is_set() and loop.time() < until:
                await self._either(changed, until - loop.time())
                changed.clear()
                answer = await self._calls(ask)
            return answer
        finally:
            end()

    async def _either(self, changed: asyncio.Event, seconds: float) -> None:
        """Return when something has changed, the client has gone, or the time is over."""
        waits = [asyncio.ensure_future(event.wait()) for event in (changed, self._gone)]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()

    def _query(self) -> dict[str, str]:
        return {
            key: self.get_query_argument(key)
            for key in self.request.query_arguments
            if key not in PASSED_OVER
        }

    def _body(self) -> dict[str, Any]:
        """The object that was sent; {} for nothing. Raises UsageError."""
        if len(self.request.body) > LARGEST_BODY:
            raise UsageError(f"more than {LARGEST_BODY} bytes")
        if not self.request.body:
            return {}
        try:
            body = json.loads(self.request.body, parse_constant=_refused)
        except (ValueError, RecursionError) as exc:
            raise UsageError(f"this is not JSON: {exc}") from None
        if not isinstance(body, dict):
            raise UsageError("this is not a JSON object")
        return body

    def _refuse(self, status: int, title: str, detail: str) -> None:
        self.set_status(status)
        told = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        self.finish(json.dumps(told), set_content_type="application/problem+json")


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def load(app: ServerApp) -> None:
    """Add the addresses to the server."""
    from .downloads import TICKET, Download
    from .routes import ROUTES
    from .uploads import ADDRESS, Upload

    base = url_path_join(app.web_app.settings["base_url"], ROOT)
    # Who watches is not kept waiting by a master that does not answer.
    calls, watching = Calls(), Calls()
    handlers: list[Any] = [(url_path_join(base, "downloads", TICKET), Download)]
    for path in [*dict.fromkeys(route.path for route in ROUTES), ".*"]:
        routes = {route.method: route for route in ROUTES if route.path == path}
        watched = any(route.changes for route in routes.values())
        options = {"routes": routes, "calls": watching if watched else calls}
        handlers.append((url_path_join(base, path), Handler, options))
    uploads = [(url_path_join(app.web_app.settings["base_url"], ADDRESS), Upload)]
    app.web_app.add_handlers(".*$", handlers)  # type: ignore[no-untyped-call]
    rules = app.web_app.default_router.rules
    others = list(rules)
    app.web_app.add_handlers(".*$", uploads)  # type: ignore[no-untyped-call]
    (ours,) = (rule for rule in rules if rule not in others)
    rules[:] = [ours, *others]  # before the proxy, which has all of that address
