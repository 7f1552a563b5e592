"""The endpoint: moto's server behind a gate that lets in nothing but requests signed with the owner's key.

Binds moto's classes to ours, makes the default VPC of the bridge's network, registers the images, and
serves ``/ppe-local/...`` (is it alive, stop, test hooks), signed too. The only importer of moto together
with ec2_*.py, and only in the daemon's process. Knows no containers.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

# Read by moto when it is imported: no images of other people's, and errors where AWS has errors.
os.environ.update(
    MOTO_EC2_LOAD_DEFAULT_AMIS="false",
    MOTO_ENABLE_AMI_VALIDATION="true",
    MOTO_ENABLE_KEYPAIR_VALIDATION="true",
    MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION="true",
)

import moto.ec2.urls
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models import instances as moto_instances
from moto.ec2.models.amis import Ami
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from . import REGION, image, sigv4
from .ec2_api import LocalCloudResponse
from .ec2_instances import ContainerInstance
from .reconciler import Reconciler

SERVICES = ("ec2", "sts", "ssm")
MAX_BODY = 1_000_000  # bytes; user data is at most 16 KB
Environ = dict[str, Any]
Start = Callable[..., Any]


class Endpoint:
    """The WSGI application. ``on_stop`` is called when a request asks the daemon to end."""

    def __init__(
        self, *, key: str, secret: str, cidr: IPv4Network, local_root: Path, reconciler: Reconciler,
        on_stop: Callable[[], None],
    ) -> None:  # fmt: skip
        self._key, self._secret, self._local_root, self._on_stop = key, secret, local_root, on_stop
        self._lock = threading.RLock()
        self._rootfs: dict[str, Path] = {}
        ContainerInstance.reconciler = LocalCloudResponse.reconciler = reconciler
        ContainerInstance.machine_images, ContainerInstance.lock = self._rootfs, self._lock
        moto_instances.Instance = ContainerInstance  # type: ignore[misc]  # where moto looks it up
        moto.ec2.urls.url_paths = {"{0}/": LocalCloudResponse.dispatch}
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._backend = _backend(cidr)
        self._register_images()

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """One request. What goes wrong here or in moto is an answer too, in the protocol's form."""
        try:
            return self._answer(environ, start)
        except Exception as exc:
            traceback.print_exc(file=sys.stderr)
            return _error(start, environ, 400, "InternalError", f"{type(exc).__name__}: {exc}")

    def _answer(self, environ: Environ, start: Start) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(min(length, MAX_BODY))
        request = sigv4.Request(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"],
            environ.get("QUERY_STRING", ""),
            _headers(environ),
            body,
        )
        now = datetime.now(timezone.utc)
        try:
            service = sigv4.verify(request, key=self._key, secret=self._secret, region=REGION, now=now)
        except sigv4.Refused as refused:
            return _error(start, environ, 403, refused.code, str(refused))
        if request.path.startswith("/ppe-local/"):
            return self._own(request.path.removeprefix("/ppe-local/"), body, start)
        if service not in SERVICES or request.path != "/":
            return _error(
                start, environ, 400, "InvalidAction", f"The local cloud does not have the service {service}"
            )
        environ["wsgi.input"] = io.BytesIO(body)
        if b"Action=DescribeImages" in body:
            with self._lock:
                self._register_images()  # one may have been built since
        return self._ask_moto(environ, start)

    def _ask_moto(self, environ: Environ, start: Start) -> Iterable[bytes]:
        head: list[Any] = []
        with self._lock:
            answer = b"".join(self._moto(environ, lambda *arguments: head.extend(arguments)))
        status, headers = head[0], head[1]
        kind = next((value for name, value in headers if name.lower() == "content-type"), "")
        if int(status.split()[0]) >= 400 and "html" in kind and not answer.lstrip().startswith(b"<?xml"):
            return _error(start, environ, 400, "InvalidAction", "The local cloud does not have this action")
        start(status, headers)
        return [answer]

    def _own(self, what: str, body: bytes, start: Start) -> Iterable[bytes]:
        """Requests of this package's own, about the local cloud itself."""
        answer: dict[str, Any] = {"pid": os.getpid()}
        with self._lock:
            if what == "status":
                self._register_images()
                states = [instance.state for instance in self._backend.all_instances()]
                answer["images"] = [ami.name for ami in self._backend.amis.values()]
                answer["instances"] = sum(state != "terminated" for state in states)
            elif what == "capacity":
                wish = json.loads(body)
                LocalCloudResponse.exhausted[wish.get("zone") or ""] = not wish["available"]
            elif what == "stop":
                self._on_stop()
            else:
                answer = {"error": f"there is no {what}"}
        start("404 Not Found" if "error" in answer else "200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]

    def _register_images(self) -> None:
        """Make the current image an AMI of the caller's own, and the earlier ones no longer."""
        built = image.find(self._local_root)
        if built is not None and built.ami_id not in self._backend.amis:
            for ami_id in [ami_id for ami_id in self._backend.amis if ami_id in self._rootfs]:
                del self._backend.amis[ami_id]
            self._rootfs[built.ami_id] = built.rootfs
            self._backend.amis[built.ami_id] = Ami(
                self._backend, built.ami_id, name=built.name, owner_id=DEFAULT_ACCOUNT_ID,
                description="Debian 12 with R, Open MPI and Rmpi", virtualization_type="hvm",
                architecture=image.architecture(), hypervisor="xen", root_device_type="ebs",
                root_device_name="/dev/xvda", region_name=f"{REGION}a", image_location=built.name,
                tags={"ppe:image": "node", "ppe:login-user": "admin", "ppe:base": "debian-12"},
            )  # fmt: skip


def _backend(cidr: IPv4Network) -> EC2Backend:
    """moto's records of the one account and region, their default VPC on the bridge's network."""
    create_vpc = EC2Backend.create_vpc

    def create_vpc_on_bridge(self: EC2Backend, cidr_block: str, *args: Any, **kwargs: Any) -> Any:
        block = str(cidr) if kwargs.get("is_default") else cidr_block
        return create_vpc(self, block, *args, **kwargs)

    EC2Backend.create_vpc = create_vpc_on_bridge  # type: ignore[method-assign, assignment]
    return ec2_backends[DEFAULT_ACCOUNT_ID][REGION]


def serve(endpoint: Endpoint) -> BaseWSGIServer:
    """A server on loopback, at a port that the system chooses; the caller runs serve_forever()."""
    return make_server("127.0.0.1", 0, endpoint, threaded=True, request_handler=_QuietHandler)


class _QuietHandler(WSGIRequestHandler):
    """Without a line on stderr for each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def _headers(environ: Environ) -> dict[str, str]:
    headers = {
        name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name[:5] == "HTTP_"
    }
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    headers["content-length"] = environ.get("CONTENT_LENGTH", "")
    return headers


def _error(start: Start, environ: Environ, status: int, code: str, message: str) -> Iterable[bytes]:
    """An error in the form of the protocol that the caller seems to speak."""
    reference = secrets.token_hex(16)
    if environ.get("HTTP_X_AMZ_TARGET"):
        kind, text = "application/x-amz-json-1.1", json.dumps({"__type": code, "message": message})
    else:
        error = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
        if "/sts/" in environ.get("HTTP_AUTHORIZATION", ""):
            text = f"<ErrorResponse>{error}<RequestId>{reference}</RequestId></ErrorResponse>"
        else:
            text = f"<Response><Errors>{error}</Errors><RequestID>{reference}</RequestID></Response>"
        kind, text = "text/xml", f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'
    start(f"{status} Error", [("Content-Type", kind), ("x-amzn-RequestId", reference)])
    return [text.encode()]
