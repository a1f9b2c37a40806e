"""Threads that make calls in the order of the requests, and never keep a process from ending.

Before Python 3.14 a thread that returns from a library while the interpreter is torn down may abort the
process. So when the process ends, no call is begun, and those in progress have a moment to finish; a call
that waits for a silent server is abandoned.

All loaders of a process share one pool, as a training with many datasets has a loader for each of their
splits. Ranks on one machine divide its cores, unless each is bound to its own.
"""

from __future__ import annotations

import atexit
import os
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
"""Maximum number of threads per process."""
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
        self._threads: list[threading.Thread] = []
        self.close = weakref.finalize(self, _end, self._queue, self._threads)
        self.close.atexit = False
        self.grow(count)

    def grow(self, count: int) -> None:
        """Have at least so many threads."""
        for i in range(len(self._threads), count):
            thread = threading.Thread(target=_work, args=(self._queue,), daemon=True, name=f"oxcart-{i}")
            try:
                thread.start()
            except RuntimeError as error:
                raise ConfigError(f"threads: expected at most {i}, got {count}: {error}") from error
            self._threads.append(thread)

    def start(self, calls: Sequence[Call], then: Callable[[], Any] | None = None) -> CallGroup:
        """Let the threads make the calls, and then one more, without waiting for them."""
        group = CallGroup(calls, then)
        for i in range(len(calls)):
            self._queue.put((group, i))
        return group


_pools: weakref.WeakValueDictionary[int, Workers] = weakref.WeakValueDictionary()
"""Process -> its pool, while a loader uses it; a forked process has none of the threads."""
_pools_lock = threading.Lock()


def process_workers(count: int) -> Workers:
    """The pool of this process, with at least so many threads."""
    with _pools_lock:
        pool = _pools.get(os.getpid()) or Workers(0)
        pool.grow(count)
        _pools[os.getpid()] = pool
    return pool


def local_ranks() -> int:
    """Ranks of this run on this machine."""
    said = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(said)) if said.isdecimal() else 1


def own_cores() -> int:
    """Cores of this machine for this rank, at least one."""
    cores, ranks = _cores(), local_ranks()
    return cores if _bound(cores, ranks) else max(1, cores // ranks)


def too_few_cores() -> str | None:
    """A warning if ranks, each of which reads by threads, share fewer cores of this machine; None if not."""
    cores, ranks = _cores(), local_ranks()
    if cores >= ranks or _bound(cores, ranks):
        return None
    return (
        f"{ranks} ranks share {cores} cores of this machine, so steps will wait for data; "
        "ask for more cores, such as sbatch --cpus-per-task, or for fewer ranks"
    )


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bound(cores: int, ranks: int) -> bool:
    """Whether the cores that a rank sees are its own, as where `srun` binds it: at most its share."""
    return cores <= (os.cpu_count() or 1) // ranks


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


def _end(calls: queue.SimpleQueue[tuple[CallGroup, int] | None], threads: list[threading.Thread]) -> None:
    if sys.is_finalizing():  # a thread that wakes while the interpreter is torn down aborts the process
        return
    for _ in threads:
        calls.put(None)
