#!/usr/bin/env python3
"""A stand-in for RStudio Server's rserver and rsession, by its name; copied to a node as such. Standard library only.

It does what is public of the real one, so far as a proxy can notice:

- options and their meaning: rstudio/rstudio, src/cpp/server/include/server/ServerOptions.gen.hpp; unknown ones end it.
- which address it has for the browser, absolute redirects: src/cpp/core/http/Request.cpp (proxiedUri; rootPath: the
  header X-RStudio-Root-Path before --www-root-path) and Response.cpp (setMovedTemporarily; gzip if asked for).
- cookies signed with the key of --secure-cookie-key-file, which must have 32 characters: SecureCookie.cpp.
- the data folder becomes writable for everybody: jupyterhub/jupyter-rsession-proxy issue 172.
- rsession is started from --rsession-path as in server/session/ServerSessionManager.cpp, and talked to over a Unix
  socket; /rpc/…, /events/get_events (a POST that waits up to 50 s), /upload, WebSockets below /p/.

What /etc/fake-rserver says changes it: "old" knows neither --www-root-path nor --www-socket, "dead" ends at its start.
"""

import base64
import contextlib
import gzip
import hashlib
import hmac
import http.client
import http.server
import json
import os
import queue
import secrets
import shutil
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

OPTIONS = [
    "auth-none", "www-frame-origin", "www-verify-user-agent", "secure-cookie-key-file", "server-user",
    "server-daemonize", "www-root-path", "server-data-dir", "database-config-file", "www-socket", "www-port",
    "www-address", "www-thread-pool-size", "rsession-which-r", "rsession-path",
]  # fmt: skip
WAIT_SECONDS = 50.0
ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PAGE = """<!doctype html><title>RStudio</title><h1>RStudio</h1>
<p id="user"></p><pre id="console"></pre><p id="socket"></p>
<script>
async function rpc(method, params) {
  const answer = await fetch('rpc/' + method, {method: 'POST', body: JSON.stringify({params})});
  return (await answer.json()).result;
}
async function main() {
  const session = await rpc('client_init', []);
  document.getElementById('user').textContent = session.user + ' in ' + session.folder;
  const address = new URL('p/4711/terminal', location.href); address.protocol = 'ws:';
  const terminal = new WebSocket(address);
  terminal.onmessage = message => document.getElementById('socket').textContent = message.data;
  terminal.onopen = () => terminal.send('typed into the terminal');
  await rpc('console_input', ['cat(R.version$language, 6 * 7, "\\n")']);
  for (;;) {
    const answer = await fetch('events/get_events', {method: 'POST', body: '{}'});
    for (const event of (await answer.json()).result) document.getElementById('console').textContent += event.text;
  }
}
main();
</script>"""


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "browser"

    def log_message(self, *words):
        pass

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, body, status=200, headers=(), kind="application/json"):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, 1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


# --- rserver


class Server(Handler):
    def root(self):
        path = self.headers.get("X-RStudio-Root-Path") or options["www-root-path"]
        return "/" + path.strip("/")

    def proxied(self, path):
        host = self.headers.get("X-Forwarded-Host") or self.headers["Host"]
        return f"{self.headers.get('X-Forwarded-Proto', 'http')}://{host}{self.root()}{path}"

    def cookie(self, value):
        return f"{value}|{hmac.new(key, value.encode(), 'sha256').hexdigest()}"

    def signed_in(self):
        cookies = self.headers.get("Cookie", "").split("; ")
        return f"user-id={self.cookie(options['server-user'])}" in cookies

    def redirect(self, path, headers=()):
        where = self.proxied(path)
        self.answer(b"", 302, [("Location", where), *headers], "text/html")

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self.web_socket(path)
        elif path == "/auth-sign-in":
            cookie = f"user-id={self.cookie(options['server-user'])}; Path={self.root()}; HttpOnly"
            token = f"rs-csrf-token={secrets.token_hex(8)}; Path=/"
            self.redirect("/", [("Set-Cookie", cookie), ("Set-Cookie", token)])
        elif not self.signed_in():
            self.redirect("/auth-sign-in?appUri=" + urllib.parse.quote(self.path))
        elif path == "/":
            self.answer(PAGE.encode(), headers=[("X-Frame-Options", "SAMEORIGIN")], kind="text/html")
        elif path == "/file":
            self.answer(b"0123456789abcdef" * (int(query) // 16), kind="application/octet-stream")
        elif path == "/export":
            self.export(int(query))
        elif path == "/headers":
            self.answer(
                {"root": self.root(), "proxied": self.proxied("/"), "cookie": self.headers.get("Cookie")}
            )
        else:
            self.answer(f"{self.path} not found".encode(), 404, kind="text/html")

    def export(self, size):
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Disposition", "attachment; filename*=UTF-8''big.bin")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        block = bytes(range(256)) * 4096
        for at in range(0, size, len(block)):
            part = block[: size - at]
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    do_HEAD = do_GET

    def do_POST(self):
        body = self.body()
        if not self.signed_in():
            self.answer({"error": {"code": 2, "message": "not signed in"}}, 401)
        elif self.path == "/upload":
            self.answer({"size": len(body), "sha256": hashlib.sha256(body).hexdigest()})
        elif self.path.startswith(("/rpc/", "/events/")):
            if self.path == "/rpc/client_init":
                start_session()
            status, answer = ask_session(self.path, body)
            self.answer(answer, status)
        else:
            self.answer(b"", 404)

    def web_socket(self, path):
        digest = hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + ACCEPT).digest()
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade")):
            self.send_header(name, value)
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.end_headers()
        self.close_connection = True
        send_frame(self.wfile, 1, f"{self.root()}{path}".encode())
        while (message := read_frame(self.rfile)) is not None:
            kind, data = message
            if kind == 8:
                send_frame(self.wfile, 8, data)
                return
            send_frame(self.wfile, 10 if kind == 9 else kind, data)


def read_frame(stream):
    """Kind and bytes of a client's frame; None at the end. Fragments are not put together: clients send none here."""
    head = stream.read(2)
    if len(head) < 2:
        return None
    size = head[1] & 127
    if size > 125:
        size = struct.unpack(">H" if size == 126 else ">Q", stream.read(2 if size == 126 else 8))[0]
    mask = stream.read(4)
    data = stream.read(size)
    masked = int.from_bytes(data, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return head[0] & 15, masked.to_bytes(size, "big")


def send_frame(stream, kind, data):
    size = bytes([len(data)]) if len(data) < 126 else struct.pack(">BQ", 127, len(data))
    stream.write(bytes([0x80 | kind]) + size + data)
    stream.flush()


starting = threading.Lock()


def session_socket():
    return Path(options["server-data-dir"], "rstudio-rsession", options["server-user"] + "-d")


def start_session():
    with starting:
        if answers():
            return
        session_socket().unlink(missing_ok=True)
        program = options.get("rsession-path", str(Path(__file__).with_name("rsession")))
        words = [
            "-u",
            options["server-user"],
            f"--session-root-path={options['www-root-path']}",
            "--launcher-token",
            "1",
        ]
        # The environment of the real one's sessions is rserver's own with R's and this.
        environment = {**os.environ, "RS_SESSION_TMP_DIR": str(session_socket().parent)}
        subprocess.Popen([program, *words], env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 30
        while not answers() and time.monotonic() < deadline:
            time.sleep(0.05)


def answers():
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(session_socket()))
        except OSError:
            return False
        return True


def ask_session(path, body):
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(str(session_socket()))
        connection.request("POST", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError as error:
        return 503, json.dumps({"error": {"message": str(error)}}).encode()
    finally:
        connection.close()


# --- rsession


events = queue.Queue()


class Session(Handler):
    def do_POST(self):
        body = self.body()
        if self.path == "/rpc/client_init":
            about = {
                "user": os.environ["USER"],
                "folder": str(Path.cwd()),
                "pid": os.getpid(),
                "arguments": sys.argv[1:],
            }
            self.answer({"result": about})
        elif self.path == "/rpc/console_input":
            threading.Thread(target=run_r, args=(json.loads(body)["params"][0],)).start()
            self.answer({"result": None})
        elif self.path == "/events/get_events":
            found = []
            with contextlib.suppress(queue.Empty):
                found.append(events.get(timeout=WAIT_SECONDS))
            self.answer({"result": found})
        else:
            self.answer({"error": {"message": "no such method"}}, 404)


def run_r(code):
    """In a new R, which has this one's place among the ranks; the real one is R itself."""
    done = subprocess.run(
        ["R", "--no-echo", "--no-save", "--no-restore", "-e", code], capture_output=True, text=True
    )
    events.put({"type": "console_output", "text": done.stdout + done.stderr})


def serve(path, handler):
    path.unlink(missing_ok=True)
    with UnixServer(str(path), handler) as server:
        server.serve_forever()


def rsession():
    folder = Path(os.environ["RS_SESSION_TMP_DIR"])
    serve(folder / (sys.argv[sys.argv.index("-u") + 1] + "-d"), Session)


def rserver():
    manner = Path("/etc/fake-rserver").read_text().strip() if Path("/etc/fake-rserver").exists() else ""
    known = [name for name in OPTIONS if manner != "old" or name not in ("www-root-path", "www-socket")]
    if sys.argv[1:] == ["--help"]:
        print("command-line options:", *(f"  --{name} arg" for name in known), sep="\n")
        return
    for word in sys.argv[1:]:
        name, _, value = word.removeprefix("--").partition("=")
        if name not in known:
            sys.exit(f"unrecognised option '{word}'")
        options[name] = value
    if manner == "dead":
        said = "ERROR system error 13 (Permission denied) [path: /var/lib/rstudio-server/session-rpc-key]"
        sys.exit(
            said if os.environ.get("RS_LOGGER_TYPE") == "stderr" else 1
        )  # else in syslog (rocker-org/ml issue 42)
    global key
    key = Path(options["secure-cookie-key-file"]).read_bytes().strip()
    if len(key) < 32:
        sys.exit("ERROR secure-cookie-key specified is not strong enough!")
    if options["server-user"] != os.environ["USER"]:
        sys.exit("ERROR cannot become another user")
    if "provider=sqlite" not in Path(options["database-config-file"]).read_text():
        sys.exit("ERROR no database")
    os.umask(0o022)
    for folder in (Path(options["server-data-dir"]), session_socket().parent):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o1777)
    serve(Path(options["www-socket"]), Server)


options = {}
key = b""
if __name__ == "__main__":
    if not shutil.which("R"):
        sys.exit("no R")
    rsession() if Path(sys.argv[0]).name == "rsession" else rserver()
