"""Threads that do what they are told, first come first served; they never keep a process from ending.

Before Python 3.14 a thread that comes back from a library while the interpreter is torn down may abort the
process. So at its end no new call is begun, and those that are on their way have a moment to finish; one that
waits for a silent server is left waiting.
"""

from __future__ import annotations

import atexit
import queue
import sys
import threading
import weakref
from collections.abc import Callable, Sequence

from oxcart.shards.errors import ConfigError

Call = Callable[[], None]

THREADS = 1024
"""At most."""
GRACE_S = 0.5
"""What calls have at the end of the process."""

_ending = threading.Event()
_busy = 0
_idle = threading.Condition()


@atexit.register
def _end_of_process() -> None:
    _ending.set()
    with _idle:
        _idle.wait_for(lambda: not _busy, GRACE_S)


class CallGroup:
    """Calls that are done when all of them are; the first exception of any is that of the whole."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self._left = len(calls)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._cancelled = False
        if not calls:
            self._done.set()

    def run(self, index: int) -> None:
        """Do one call, unless the group has failed already."""
        try:
            if self._error is None and not self._cancelled and not _ending.is_set():
                self._calls[index]()
        except BaseException as error:  # noqa: BLE001  raised again by `wait`
            with self._lock:
                self._error = self._error or error
        with self._lock:
            self._left -= 1
            if not self._left:
                self._done.set()

    def wait(self) -> None:
        """Return when all is done.

        Raises:
            BaseException: what a call raised.
        """
        while not self._done.wait(0.2):  # in short waits, so that Ctrl-C comes through
            pass
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """Skip what has not begun."""
        self._cancelled = True


class Workers:
    """`count` threads; they end when this is closed or forgotten.

    Raises:
        ConfigError: this machine gives the process fewer.
    """

    def __init__(self, count: int) -> None:
        self._queue: queue.SimpleQueue[tuple[CallGroup, int] | None] = queue.SimpleQueue()
        for i in range(count):
            try:
                threading.Thread(target=_work, args=(self._queue,), daemon=True, name=f"oxcart-{i}").start()
            except RuntimeError as error:
                _end(self._queue, i)
                raise ConfigError(f"threads: expected at most {i}, got {count}: {error}") from error
        self.close = weakref.finalize(self, _end, self._queue, count)
        self.close.atexit = False

    def start(self, calls: Sequence[Call]) -> CallGroup:
        """Have the calls done; returns at once."""
        group = CallGroup(calls)
        for i in range(len(calls)):
            self._queue.put((group, i))
        return group


def _work(calls: queue.SimpleQueue[tuple[CallGroup, int] | None]) -> None:
    global _busy
    while (item := calls.get()) is not None:
        with _idle:
            _busy += 1
        try:
            item[0].run(item[1])
        finally:
            del (
                item
            )  # frees tensors, which must neither wait for the next call nor meet the end of the process
            with _idle:
                _busy -= 1
                if not _busy:
                    _idle.notify_all()


def _end(calls: queue.SimpleQueue[tuple[CallGroup, int] | None], count: int) -> None:
    if sys.is_finalizing():  # a thread that wakes while the interpreter is torn down aborts the process
        return
    for _ in range(count):
        calls.put(None)
