"""Run tasks that share nothing, in spawned processes.

The workers die with the process that started them, and immediately when it gives up: each watches a pipe
whose other end that process holds. A task must therefore be safe to kill at any moment and to run again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from oxcart.shards.errors import OxcartError

Advance = Callable[[int, int], None]
"""Called by a task with the items (episodes, frames) and bytes processed since its last call."""
Progress = Callable[[int, int], None]
"""Called with the items and bytes that all tasks together have processed so far."""

Item = TypeVar("Item")
Result = TypeVar("Result")

ATTEMPTS = 3
"""Maximum number of pools that one run starts: when a worker dies, a new pool does the remaining work."""

_TICK_S = 0.1


def default_workers() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    function: Callable[[Any, Item, Advance], Result],
    config: object,
    items: Sequence[Item],
    *,
    workers: int,
    report: Progress,
) -> Iterator[tuple[int, Result]]:
    """Yield (index, `function(config, item, advance)`) for every item, as they end.

    Args:
        function: importable by name; with one worker it runs in the current process.
        config: first argument of every call; the same for all items.
        items: second argument of each call.
        workers: upper limit of processes.
        report: called about ten times a second.

    Raises:
        OxcartError: a task raised it, or workers died `ATTEMPTS` times.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        done = [0, 0]

        def advance(count: int, size: int) -> None:
            done[0] += count
            done[1] += size
            report(done[0], done[1])

        for index, item in enumerate(items):
            yield index, function(config, item, advance)
        return
    context = multiprocessing.get_context("spawn")
    left = dict(enumerate(items))
    shared = context.RawArray("q", 2 * len(items))  # a task writes its own two alone, so there is no lock
    for attempt in range(1, ATTEMPTS + 1):
        watched, held = context.Pipe(duplex=False)
        pool = ProcessPoolExecutor(
            workers, context, initializer=_begin, initargs=(function, config, shared, watched)
        )
        try:
            futures: dict[Future[Result], int] = {
                pool.submit(_work, index, item): index for index, item in left.items()
            }
            # A pool watches its newest process only once something happens after that process was started.
            # If it had died by then, holding the lock of the queue, all others would wait forever.
            pool.submit(os.getpid)
            while futures:
                ended, _ = wait(futures, timeout=_TICK_S, return_when=FIRST_COMPLETED)
                report(sum(shared[0::2]), sum(shared[1::2]))
                for future in ended:
                    index = futures.pop(future)
                    result = future.result()
                    del left[index]
                    yield index, result
        except BrokenProcessPool as error:
            if attempt == ATTEMPTS:
                raise OxcartError(
                    f"worker processes died {ATTEMPTS} times (out of memory?); try fewer --workers"
                ) from error
        finally:
            if left:
                held.close()
            pool.shutdown(wait=True, cancel_futures=True)
            held.close()
            watched.close()
        if not left:
            return


_state: tuple[Callable[..., Any], object, Any]


def _begin(function: Callable[..., Any], config: object, done: Any, watched: Connection) -> None:
    """Set up a worker process."""
    global _state
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, args=(watched,), daemon=True).start()
    _state = function, config, done


def _work(index: int, item: Any) -> Any:
    function, config, done = _state
    done[2 * index] = done[2 * index + 1] = 0  # counts of a worker that died on this task

    def advance(count: int, size: int) -> None:
        done[2 * index] += count
        done[2 * index + 1] += size

    return function(config, item, advance)


def _die_with_parent(watched: Connection) -> None:
    try:
        watched.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)
