"""The endpoint: moto's server and a few fakes behind a gate that lets in nothing but the owner's signed requests.

Binds moto's classes to ours, makes the default VPC on the bridge's network, meets every call with the faults that
tests injected, and serves ``/ppe-local/...`` (is it alive, stop, test hooks), signed too. The only importer of
moto together with ec2_*.py, and only in the daemon's process. Knows no containers.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import secrets
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

# Read by moto when it is imported: no images of other people's, and errors where AWS has errors.
os.environ.update(
    MOTO_EC2_LOAD_DEFAULT_AMIS="false",
    MOTO_ENABLE_AMI_VALIDATION="true",
    MOTO_ENABLE_KEYPAIR_VALIDATION="true",
    MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION="true",
)

import moto.ec2.urls
from moto.ec2.models import instances as moto_instances
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from . import REGION, sigv4
from .controls import Controls
from .ec2 import account
from .ec2.api import LocalCloudResponse
from .ec2.instances import ContainerInstance
from .ec2.registry import ImageRegistry
from .ec2.spot import mark
from .faults import Fault, Faults
from .machines.reconciler import Reconciler
from .services import FakeRefusal, fakes

SERVICES = ("ec2", "sts", "ssm", "iam")  # of moto's
MAX_BODY = 1_000_000  # bytes; user data is at most 16 KB
ZONE_PARAMETERS = ("Placement.AvailabilityZone", "AvailabilityZone")
SUBNET_PARAMETERS = ("SubnetId", "NetworkInterface.1.SubnetId")
Environ = dict[str, Any]
Start = Callable[..., Any]
Answer = tuple[int, list[tuple[str, str]], bytes]


class Endpoint:
    """The WSGI application. ``on_stop`` is called when a request asks the daemon to end."""

    def __init__(
        self, *, key: str, secret: str, cidr: IPv4Network, local_root: Path, reconciler: Reconciler,
        on_stop: Callable[[], None],
    ) -> None:  # fmt: skip
        self._key, self._secret, self._on_stop = key, secret, on_stop
        self._lock = threading.RLock()
        self._faults, self._controls = Faults(), Controls()
        rootfs: dict[str, Path] = {}
        ContainerInstance.reconciler = LocalCloudResponse.reconciler = reconciler
        ContainerInstance.machine_images, ContainerInstance.lock = rootfs, self._lock
        LocalCloudResponse.controls = self._controls
        moto_instances.Instance = ContainerInstance  # type: ignore[misc]  # where moto looks it up
        moto.ec2.urls.url_paths = {"{0}/": LocalCloudResponse.dispatch}
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._backend = account.open_account(cidr)
        self._images = ImageRegistry(self._backend, local_root, rootfs)
        self._images.refresh()
        self._fakes = fakes(self._controls, self._images.parameters)

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """One request. What goes wrong here or in moto is an answer too, in the protocol's form."""
        try:
            status, headers, body = self._answer(environ)
        except ConnectionAbortedError:
            _hang_up(environ)
            return []
        except Exception as exc:
            traceback.print_exc(file=sys.stderr)
            status, headers, body = _error(environ, 400, "InternalError", f"{type(exc).__name__}: {exc}")
        start(f"{status} {'OK' if status == 200 else 'Error'}", headers)
        return [body]

    def _answer(self, environ: Environ) -> Answer:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(min(length, MAX_BODY))
        method, path, query = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", "")
        request = sigv4.Request(method, path, query, _headers(environ), body)
        now = datetime.now(timezone.utc)
        try:
            service = sigv4.verify(request, key=self._key, secret=self._secret, region=REGION, now=now)
        except sigv4.Refused as refused:
            return _error(environ, 403, refused.code, str(refused))
        if path.startswith("/ppe-local/"):
            return self._own(path.removeprefix("/ppe-local/"), json.loads(body or b"{}"))
        if path != "/":
            return _error(environ, 400, "InvalidAction", f"The local cloud does not have {path}")
        environ["wsgi.input"] = io.BytesIO(body)
        action, zone = self._action(environ, body)
        fault = self._faults.meet(action, zone=zone)
        if fault is None:
            return self._serve(service, action, environ, body)
        return self._fail(fault, service, environ, body)

    def _fail(self, fault: Fault, service: str, environ: Environ, body: bytes) -> Answer:
        """What the fault makes of the call."""
        plain = not (fault.code or fault.drop)
        if not fault.after:
            time.sleep(fault.hang)
        answer = self._serve(service, fault.action, environ, body) if fault.after or plain else None
        if fault.after:
            time.sleep(fault.hang)
        if fault.drop:
            raise ConnectionAbortedError
        if answer is not None and plain:
            return answer
        return _error(environ, fault.status, fault.code, fault.message or f"{fault.code} (injected)")

    def _serve(self, service: str, action: str, environ: Environ, body: bytes) -> Answer:
        """The answer of a fake, or else of moto."""
        with self._lock:
            if (service, action) in self._fakes:
                try:
                    made = self._fakes[service, action](json.loads(body))
                except FakeRefusal as refused:
                    return _error(environ, refused.status, refused.code, str(refused))
                if made is not None:
                    kind = environ.get("CONTENT_TYPE", "application/x-amz-json-1.1")
                    return 200, [("Content-Type", kind)], json.dumps(made).encode()
            if service not in SERVICES:
                message = f"The local cloud does not have {action} of the service {service}"
                return _error(environ, 400, "InvalidAction", message)
            if action == "DescribeImages":
                self._images.refresh()  # one may have been built since
            return self._ask_moto(environ)

    def _ask_moto(self, environ: Environ) -> Answer:
        head: list[Any] = []
        body = b"".join(self._moto(environ, lambda *arguments: head.extend(arguments)))
        status, headers = int(head[0].split()[0]), head[1]
        kind = next((value for name, value in headers if name.lower() == "content-type"), "")
        if status >= 400 and "html" in kind and not body.lstrip().startswith(b"<?xml"):
            return _error(environ, 400, "InvalidAction", "The local cloud does not have this action")
        return status, headers, body

    def _action(self, environ: Environ, body: bytes) -> tuple[str, str | None]:
        """What is asked for, and in which zone if it says."""
        if target := environ.get("HTTP_X_AMZ_TARGET"):
            return str(target).rpartition(".")[2], None
        form = {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
        zone = next((form[name] for name in ZONE_PARAMETERS if name in form), None)
        subnet = next((form[name] for name in SUBNET_PARAMETERS if name in form), None)
        if subnet and not zone:
            with self._lock:
                zones = {each.id: each.availability_zone for each in self._backend.describe_subnets()}
            zone = zones.get(subnet)
        return form.get("Action", ""), zone

    def _own(self, what: str, wish: dict[str, Any]) -> Answer:
        """Requests of this package's own: about the local cloud itself, and tests' hooks."""
        with self._lock:
            answer = self._commands(what, wish)
        status = 404 if "error" in answer else 200
        return status, [("Content-Type", "application/json")], json.dumps(answer).encode()

    def _commands(self, what: str, wish: dict[str, Any]) -> dict[str, Any]:
        done: dict[str, Any] = {"pid": os.getpid()}
        match what:
            case "status":
                states = [instance.state for instance in self._backend.all_instances()]
                alive = sum(state != "terminated" for state in states)
                return {**done, "images": self._images.built(), "instances": alive}
            case "stop":
                self._on_stop()
            case "inject":
                self._faults.inject(*(Fault(**each) for each in wish["faults"]))
            case "clear-faults":
                self._faults.clear()
            case "calls":
                return {**done, "calls": self._faults.calls()}
            case "reset":
                self._faults.clear()
                self._faults.forget_calls()
                self._controls.reset()
                account.forget_terminated(self._backend)
                ContainerInstance.containerless = False
            case "capacity":
                self._controls.set_capacity(wish["zone"], tuple(wish["markets"]), wish["code"])
            case "set":
                self._controls.switch(**wish)
            case "containerless":
                ContainerInstance.containerless = wish["containerless"]
            case "interrupt" | "impair":
                return self._trouble(what, wish) or done
            case _:
                return {"error": f"there is no {what}"}
        return done

    def _trouble(self, what: str, wish: dict[str, Any]) -> dict[str, Any] | None:
        """Trouble for one instance."""
        instance: Any = self._backend.get_instance_by_id(wish["instance_id"])
        if instance is None:
            return {"error": f"there is no instance {wish['instance_id']}"}
        if what == "impair":
            change = self._controls.impaired.add if wish["impaired"] else self._controls.impaired.discard
            change(instance.id)
        elif not mark(instance):
            return {"error": f"{instance.id} is no spot instance"}
        else:
            instance.interrupt(wish["seconds"])
        return None


def serve(endpoint: Endpoint) -> BaseWSGIServer:
    """A server on loopback, at a port that the system chooses; the caller runs serve_forever()."""
    return make_server("127.0.0.1", 0, endpoint, threaded=True, request_handler=_QuietHandler)


class _QuietHandler(WSGIRequestHandler):
    """Without a line on stderr for each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def _hang_up(environ: Environ) -> None:
    """Close the connection as a cut line does, without an answer."""
    with contextlib.suppress(OSError):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)


def _headers(environ: Environ) -> dict[str, str]:
    headers = {
        name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name[:5] == "HTTP_"
    }
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    headers["content-length"] = environ.get("CONTENT_LENGTH", "")
    return headers


def _error(environ: Environ, status: int, code: str, message: str) -> Answer:
    """An error in the form of the protocol that the caller seems to speak."""
    reference = secrets.token_hex(16)
    if environ.get("HTTP_X_AMZ_TARGET"):
        kind = "application/x-amz-json-1.1"
        text = json.dumps({"__type": code, "message": message, "Message": message})
    else:
        error = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
        if re.search("/(sts|iam)/", environ.get("HTTP_AUTHORIZATION", "")):
            text = f"<ErrorResponse>{error}<RequestId>{reference}</RequestId></ErrorResponse>"
        else:
            text = f"<Response><Errors>{error}</Errors><RequestID>{reference}</RequestID></Response>"
        kind, text = "text/xml", f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'
    return status, [("Content-Type", kind), ("x-amzn-RequestId", reference)], text.encode()
