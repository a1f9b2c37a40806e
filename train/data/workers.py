"""Threads that make calls in the order of the requests, and never keep a process from ending.

Before Python 3.14 a thread that returns from a library while the interpreter is torn down may abort the
process. So when the process ends, no call is begun, and those in progress have a moment to finish; a call
that waits for a silent server is abandoned.
"""

from __future__ import annotations

import atexit
import queue
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from oxcart.shards.errors import ConfigError

Call = Callable[[], None]

THREADS = 1024
"""Maximum number of threads per loader."""
GRACE_S = 0.5
"""Seconds granted to calls in progress when the process ends."""

_ending = threading.Event()
_busy = 0
_idle = threading.Condition()


@atexit.register
def _end_of_process() -> None:
    _ending.set()
    with _idle:
        _idle.wait_for(lambda: not _busy, GRACE_S)


class CallGroup:
    """Calls that are waited for together; the first exception in any of them is raised.

    Args:
        calls: the calls, in any order and on any threads.
        then: a call for their end, made by the thread that ends the last of them.
    """

    def __init__(self, calls: Sequence[Call], then: Callable[[], Any] | None = None) -> None:
        self._calls, self._then = calls, then
        self._made: Any = None
        self._left = len(calls)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._cancelled = False
        if not calls:
            self._finish()

    def run(self, index: int) -> None:
        """Make one call, unless another one has already failed."""
        self._try(self._calls[index])
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            self._finish()

    def _finish(self) -> None:
        if self._then is not None:
            self._made = self._try(self._then)
        self._done.set()

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            if self._error is None and not self._cancelled and not _ending.is_set():
                return call()
        except BaseException as error:  # noqa: BLE001  raised again by `wait`
            with self._lock:
                self._error = self._error or error

    def wait(self) -> Any:
        """Wait until all calls are done, and return the result of `then`.

        Raises:
            BaseException: a call raised it.
        """
        while not self._done.wait(0.2):  # in short waits, so that Ctrl-C comes through
            pass
        if self._error is not None:
            raise self._error
        return self._made

    def cancel(self) -> None:
        """Skip the calls that have not begun."""
        self._cancelled = True


class Workers:
    """A pool of threads that end when it is closed or garbage-collected.

    Raises:
        ConfigError: this machine does not allow the process so many threads.
    """

    def __init__(self, count: int) -> None:
        torch.get_num_threads()  # fixes this thread's number, which else would follow that of `_work`
        self._queue: queue.SimpleQueue[tuple[CallGroup, int] | None] = queue.SimpleQueue()
        for i in range(count):
            try:
                threading.Thread(target=_work, args=(self._queue,), daemon=True, name=f"oxcart-{i}").start()
            except RuntimeError as error:
                _end(self._queue, i)
                raise ConfigError(f"threads: expected at most {i}, got {count}: {error}") from error
        self.close = weakref.finalize(self, _end, self._queue, count)
        self.close.atexit = False

    def start(self, calls: Sequence[Call], then: Callable[[], Any] | None = None) -> CallGroup:
        """Let the threads make the calls, and then one more, without waiting for them."""
        group = CallGroup(calls, then)
        for i in range(len(calls)):
            self._queue.put((group, i))
        return group


def _work(calls: queue.SimpleQueue[tuple[CallGroup, int] | None]) -> None:
    global _busy
    torch.set_num_threads(1)  # of this thread: each would begin as many of its own as there are cores
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
