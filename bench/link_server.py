"""A server of ranges for bench/read.py, in a process of its own; on demand no faster than a line."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import socketserver
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

PIECE = 64 << 10


@dataclass(frozen=True)
class Running:
    """A server."""

    url: str
    _process: psutil.Process
    _sent: Any
    _asked: Any

    def sent(self) -> int:
        """Bytes of bodies so far."""
        return int(self._sent.value)

    def cpu_s(self) -> float:
        """Seconds of processors that it has taken so far."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

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
        yield Running(f"http://127.0.0.1:{mine.recv()}", psutil.Process(process.pid), sent, asked)
    finally:
        process.kill()
        process.join()


def _serve(folder: Path, limit: int | None, sent: Any, counted: Any, ready: Any) -> None:

    @cache
    def opened(path: Path) -> int:
        if not path.is_file():
            raise FileNotFoundError(path)
        return os.open(path, os.O_RDONLY)

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

    class Handler(socketserver.StreamRequestHandler):
        """Answers GET and HEAD in a few dozen microseconds: `http.server` takes 250 of the reader's cores."""

        disable_nagle_algorithm = True

        def handle(self) -> None:
            while line := self.rfile.readline():
                method, path, _ = line.decode().split(" ")
                asked = None
                while header := self.rfile.readline().strip():
                    asked = asked or re.fullmatch(rb"range: *bytes=(\d+)-(\d*)", header.lower())
                with counted.get_lock():
                    counted.value += 1
                self._answer(folder / path.lstrip("/"), asked, method == "GET")

        def _answer(self, path: Path, asked: re.Match[bytes] | None, whole: bool) -> None:
            try:
                file = opened(path)
            except OSError:
                self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                return
            size = os.fstat(file).st_size
            start, end = (int(asked[1]), min(int(asked[2] or size) + 1, size)) if asked else (0, size)
            head = "HTTP/1.1 206 Partial Content\r\n" if asked else "HTTP/1.1 200 OK\r\n"
            if asked:
                head += f"Content-Range: bytes {start}-{end - 1}/{size}\r\n"
            self.wfile.write(f"{head}Content-Length: {end - start}\r\n\r\n".encode())
            piece = PIECE if limit else 1 << 30
            while whole and start < end:
                length = min(piece, end - start)
                wait(length)
                done = os.sendfile(self.connection.fileno(), file, start, length)
                start += done
                with sent.get_lock():
                    sent.value += done

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that has gone is no error."""

    server = Server(("127.0.0.1", 0), Handler)
    ready.send(server.server_address[1])
    server.serve_forever()
