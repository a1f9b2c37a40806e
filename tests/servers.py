"""Servers on the loopback address that fail on demand: a web server of a folder, and an S3 of moto.

    with web(folder) as server:
        server.faults.add("500", times=2, name="x")
        Store(server.url).read("x")

A fault applies to the next `times` requests that match its method and path. `requests` holds every request,
including failed ones. A stalled request ends when the server does, or after `LONGEST_S`.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LONGEST_S = 20
BUCKET = "bucket"

REASONS = {
    "400": "400 Bad Request",
    "302": "302 Found",
    "403": "403 Forbidden",
    "404": "404 Not Found",
    "405": "405 Method Not Allowed",
    "429": "429 Too Many Requests",
    "500": "500 Internal Server Error",
    "501": "501 Not Implemented",
    "503": "503 Service Unavailable",
}


@dataclass
class Fault:
    """A fault that the server applies to some requests."""

    what: str
    """A status of `REASONS`; `stall` sends nothing, `drop` closes the connection, `cut` sends half of the
    body, `flip` turns a bit of it, `shift` sends another range, `whole` no range at all, `sizeless` not how
    long the body is, and `lost` does what is asked and answers with an error."""
    times: int
    method: str | None
    name: str
    """Text that must occur in the path and query."""
    headers: dict[str, str]


@dataclass
class Faults:
    """The faults of one server, and the requests that it received."""

    waiting: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method, and path with query, of each request."""
    signed_by: list[str] = field(default_factory=list)
    """Access key of each request to S3; "" if it is unsigned."""
    every: Callable[[str, str], str] | None = None
    """Says of each request, by its method and by its path with the range that it asks for, what happens."""
    stalled: threading.Event = field(default_factory=threading.Event)
    """Set when a request stalls."""
    ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(
        self, what: str, times: int = 1, *, method: str | None = None, name: str = "", **headers: str
    ) -> None:
        """Let the next requests fail; `headers` with "_" for "-" go with a status."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        self.waiting.append(Fault(what, times, method, name, named))

    def take(self, method: str, path: str, asked: str = "") -> Fault | None:
        """Note a request, and return what is to happen to it."""
        with self._lock:
            self.requests.append((method, path))
            for fault in self.waiting:
                if fault.times and fault.method in (None, method) and fault.name in path:
                    fault.times -= 1
                    if fault.what == "stall":
                        self.stalled.set()
                    return fault
            what = self.every(method, path + asked) if self.every else ""
            if what == "stall":
                self.stalled.set()
        return Fault(what, 1, None, "", {}) if what else None

    def clear(self) -> None:
        """Forget all faults and requests."""
        with self._lock:
            self.waiting.clear()
            self.requests.clear()
            self.signed_by.clear()
            self.stalled.clear()


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    faults: Faults


@contextlib.contextmanager
def web(folder: Path) -> Iterator[Server]:
    """A web server that serves ranges of the files in a folder, and lists nothing."""
    faults = Faults()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet."""

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            fault = faults.take(self.command, self.path, self.headers.get("Range", ""))
            what = fault.what if fault else ""
            if what == "stall":
                faults.ended.wait(LONGEST_S)
                self.close_connection = True
                return
            path = folder / urllib.parse.unquote(self.path).lstrip("/")
            if fault is not None and what in REASONS:
                self.reply(int(what), b"no: " + what.encode(), fault.headers)
            elif not path.is_file():
                self.reply(404, b"nothing here")
            else:
                self.serve(path.read_bytes(), what)

        def serve(self, data: bytes, what: str) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if what == "sizeless":
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
                return
            if asked is None or what == "whole":
                self.reply(200, data, cut=what == "cut")
                return
            start, end = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
            if start >= len(data):
                self.reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            if what == "shift":
                start, end = start - 1, end - 1
            if what == "flip":
                data = data[:start] + bytes([data[start] ^ 1]) + data[start + 1 :]
            range_of = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
            self.reply(206, data[start:end], range_of, cut=what == "cut")

        def reply(
            self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = self.close_connection or cut

    class Quiet(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignore clients that have disconnected."""

    server = Quiet(("127.0.0.1", 0), Handler)
    with running(server, faults):
        yield Server(f"http://127.0.0.1:{server.server_port}", faults)


@contextlib.contextmanager
def s3() -> Iterator[Server]:
    """An S3 of one bucket that keeps its objects in memory; any credentials will do, but not none.

    Google's own dialect is close enough that a bearer token and its condition of a put are all that is put
    into S3's words. As S3 does, and moto does not, it refuses a body that is not the one that was signed.
    """
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from moto.s3.models import s3_backends
    from werkzeug.serving import WSGIRequestHandler, make_server

    faults = Faults()
    inner = DomainDispatcherApplication(create_backend_app)
    turn = threading.Lock()  # moto looks whether an object is there and then writes it, in two steps

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = urllib.parse.quote(environ["PATH_INFO"]) + "?" + environ["QUERY_STRING"]
        fault = faults.take(environ["REQUEST_METHOD"], path.rstrip("?"))
        signature = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        faults.signed_by.append(signature[1] if signature else "")
        what = fault.what if fault else ""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        sent = flipped(body) if what == "flip" else body
        environ["wsgi.input"] = io.BytesIO(sent)
        if what == "lost":
            with turn:
                list(inner(environ, lambda status, headers: None))
            what = "500"
        signed = environ.get("HTTP_X_AMZ_CONTENT_SHA256", "")
        mismatch = len(signed) == 64 and signed != hashlib.sha256(sent).hexdigest()
        if what in REASONS or mismatch:
            headers = fault.headers if fault else {}
            code = "XAmzContentSHA256Mismatch" if mismatch else headers.get("Code", "Injected")
            answer = f"<Error><Code>{code}</Code><Message>a secret</Message></Error>".encode()
            start_response(
                "400 Bad Request" if mismatch else REASONS[what],
                [*headers.items(), ("Content-Length", str(len(answer)))],
            )
            return [answer]
        if what in ("stall", "drop"):
            if what == "stall":
                faults.ended.wait(LONGEST_S)
            raise ConnectionResetError
        if environ.get("HTTP_AUTHORIZATION", "").startswith("Bearer "):
            environ["HTTP_AUTHORIZATION"] = (
                "AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/s3/aws4_request, "
                "SignedHeaders=host, Signature=0"
            )
            if environ.get("HTTP_X_GOOG_IF_GENERATION_MATCH") == "0":
                environ["HTTP_IF_NONE_MATCH"] = "*"
        with turn:
            found = b"".join(inner(environ, start_response))
        return halves(found) if what == "cut" else [flipped(found) if what == "flip" and not body else found]

    def halves(answer: bytes) -> Iterator[bytes]:
        yield answer[: len(answer) // 2]
        raise ConnectionResetError

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def connection_dropped(self, error: BaseException, environ: dict[str, Any] | None = None) -> None:
            self.close_connection = True

        def log(self, type: str, message: str, *args: Any) -> None:
            """Keep quiet."""

    s3_backends["123456789012"]["aws"].create_bucket(BUCKET, "us-east-1")
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Handler)
    server.daemon_threads = True
    with running(server, faults):
        yield Server(f"http://127.0.0.1:{server.server_port}", faults)


def flipped(data: bytes) -> bytes:
    """The data with one bit flipped, at a place determined by its digest."""
    if not data:
        return data
    place = int.from_bytes(hashlib.sha256(data).digest()[:8], "big") % (8 * len(data))
    changed = bytearray(data)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


@contextlib.contextmanager
def running(server: Any, faults: Faults) -> Iterator[None]:
    """Serve in a thread until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        faults.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
