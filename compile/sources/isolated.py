"""Call a function in a process of its own, which outlives the call and may die of it.

A decoder that meets a file made to break it can take its process down, and no `except` sees that. So what
decodes an unknown file for the first time runs beside the process that counts on the result: if it dies,
that is an answer too. The price is one more process and half a second to start it, once for each worker.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from oxcart.shards.errors import OxcartError


class DiedError(Exception):
    """The process died during a call: says of what."""


class Isolated:
    """A process that calls what it is told to; it is started by the first call, and again after it died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: BaseProcess | None = None
        self._calls: Connection | None = None
        self._alive: Connection | None = None

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function(*arguments)` returns or raises there; the function must be importable by name.

        Raises:
            DiedError: the process did not survive it.
        """
        with self._lock:
            try:
                kind, value = self._ask(function, arguments)
            except BaseException:
                self._end()  # whatever it still answers is of no use to the next call
                raise
        if kind == "raised":
            raise value
        return value

    def _ask(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, Any]:
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._calls is not None
        try:
            self._calls.send((function, arguments))
            answer: tuple[str, Any] = self._calls.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            code = self._process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise DiedError(how) from error
        return answer

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        for connection in (self._calls, self._alive):
            if connection is not None:
                connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._calls = self._alive = None

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._calls, theirs = spawn.Pipe()
        watched, self._alive = spawn.Pipe(duplex=False)
        self._process = spawn.Process(target=_serve, args=(theirs, watched), daemon=True)
        self._process.start()
        theirs.close()
        watched.close()


def _serve(calls: Connection, alive: Connection) -> None:
    """Call what comes until nobody is there any more."""
    threading.Thread(target=_watch, args=(alive,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked is interrupted, and ends this
    while True:
        try:
            function, arguments = calls.recv()
        except (EOFError, OSError):
            return
        try:
            answer = "returned", function(*arguments)
        except OxcartError as error:
            answer = "raised", error
        except Exception as error:  # noqa: BLE001  its traceback stays here, its text goes over
            answer = "raised", RuntimeError(f"{type(error).__name__}: {error}")
        calls.send(answer)


def _watch(alive: Connection) -> None:
    """End at once when the process that asks is gone."""
    with contextlib.suppress(EOFError, OSError):
        alive.recv()
    os._exit(1)
