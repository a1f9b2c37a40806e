"""A server of ranges for bench/read.py, in a process of its own; on demand no faster than a line."""

from __future__ import annotations

import contextlib
import http.server
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PIECE = 64 << 10


@dataclass(frozen=True)
class Running:
    """A server."""

    url: str
    _sent: Any
    _asked: Any

    def sent(self) -> int:
        """Bytes of bodies so far."""
        return int(self._sent.value)

    def requests(self) -> int:
        """Number of requests so far."""
        return int(self._asked.value)


@contextlib.contextmanager
def serving(folder: Path, limit: int | None = None) -> Iterator[Running]:
    """Serve the files of a folder; `limit` is bytes per second, of all connections together."""
    context = multiprocessing.get_context("spawn")
    sent, asked, (mine, other) = context.Value("q", 0), context.Value("q", 0), context.Pipe()
    process = context.Process(target=_serve, args=(folder.resolve(), limit, sent, asked, other), daemon=True)
    process.start()
    try:
        yield Running(f"http://127.0.0.1:{mine.recv()}", sent, asked)
    finally:
        process.kill()
        process.join()


def _serve(folder: Path, limit: int | None, sent: Any, counted: Any, ready: Any) -> None:
    turn = threading.Lock()
    free_at = time.monotonic()

    def wait(size: int) -> None:
        """Until the line is free for so many bytes."""
        nonlocal free_at
        if limit is None:
            return
        with turn:
            now = time.monotonic()
            free_at = max(free_at, now - 0.02) + size / limit
            until = free_at
        time.sleep(max(0.0, until - now))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet."""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            with counted.get_lock():
                counted.value += 1
            path = folder / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            size = path.stat().st_size
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            start, end = (int(asked[1]), min(int(asked[2] or size) + 1, size)) if asked else (0, size)
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            self.wfile.flush()
            if self.command == "HEAD":
                return
            with open(path, "rb", buffering=0) as file:
                piece = PIECE if limit else 1 << 30
                while start < end:
                    length = min(piece, end - start)
                    wait(length)
                    done = os.sendfile(self.connection.fileno(), file.fileno(), start, length)
                    start += done
                    with sent.get_lock():
                        sent.value += done

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that has gone is no error."""

    server = Server(("127.0.0.1", 0), Handler)
    ready.send(server.server_port)
    server.serve_forever()
