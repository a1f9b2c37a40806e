"""Call functions in a process of their own, which stays for the next call and may crash without harm.

A malicious file can crash the process of its decoder, and no `except` catches that. So an
unknown file is decoded for the first time in another process; if that process dies, the file is bad.
The price is one more process per worker, which takes half a second to start. It is a fresh interpreter that
imports this module and not the script that was started, so scripts need no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from oxcart.shards.errors import OxcartError

_CODE = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve({calls}, {alive})"


class DiedError(Exception):
    """The process died during a call; the text says why."""


class Isolated:
    """A process that calls functions; the first call starts it, and so does the first after its death."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._calls: Connection | None = None
        self._alive: Connection | None = None

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function(*arguments)` in the process; the function must be importable by name.

        Raises:
            DiedError: the process did not survive the call.
            OxcartError: the process cannot be started, or the function raised this error.
            RuntimeError: the function raised another error.
        """
        with self._lock:
            try:
                if self._process is None:
                    self._start()
                assert self._calls is not None
                self._calls.send((function, arguments))
                kind, value = self._calls.recv()
            except (EOFError, OSError) as error:
                raise DiedError(self._cause()) from error
            except BaseException:
                self._end()  # or the next call would get the answer to this one
                raise
        if kind == "raised":
            raise value
        return value

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _start(self) -> None:
        self._calls, calls = Pipe()
        alive, self._alive = Pipe(duplex=False)
        pipes = {"calls": calls.fileno(), "alive": alive.fileno()}
        code = _CODE.format(path=sys.path, module=__name__, **pipes)
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.DEVNULL, pass_fds=tuple(pipes.values())
        )
        calls.close()
        alive.close()
        atexit.register(self.close)
        try:
            self._calls.recv()
        except (EOFError, OSError) as error:
            raise OxcartError(f"a process to decode in cannot be started: {self._cause()}") from error

    def _cause(self) -> str:
        """Wait for the process to end and return the cause of its death."""
        assert self._process is not None
        code = self._process.wait()
        self._end()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _end(self) -> None:
        for connection in (self._calls, self._alive):
            if connection is not None:
                connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            atexit.unregister(self.close)
        self._process = self._calls = self._alive = None


def serve(calls: int, alive: int) -> None:
    """Run the calls from the pipe `calls` until it closes; exit immediately when `alive` closes."""
    connection = Connection(calls)
    threading.Thread(target=_watch, args=(Connection(alive),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked is interrupted, and ends this one
    connection.send("ready")
    while True:
        try:
            function, arguments = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = "returned", function(*arguments)
        except OxcartError as error:
            answer = "raised", error
        except Exception as error:  # noqa: BLE001  the other process gets its text alone
            answer = "raised", RuntimeError(f"{type(error).__name__}: {error}")
        connection.send(answer)


def _watch(alive: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        alive.recv()
    os._exit(1)
