"""Do the next piece of work while the last one is being used: two ways of making items ahead of their use.

Both keep the order of the items, raise what making an item raised when its turn comes, and stop their threads
when the consumer stops. Threads suffice, because what takes time (reading, decoding, compressing, hashing)
releases the GIL.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


class _End(NamedTuple):
    error: BaseException | None


def ahead(items: Iterator[Item], depth: int) -> Generator[Item, None, None]:
    """Yield `items`, which a thread makes.

    When the consumer holds an item, `depth` more may be made and one may be in the making; so an item's
    memory may be used again for the item `depth + 2` places on. Depth 0 makes each when it is wanted, in the
    consumer's thread.
    """
    if depth == 0:
        yield from items
        return
    made: queue.Queue[Item | _End] = queue.Queue(depth)
    closed = threading.Event()

    def make() -> None:
        error = None
        try:
            for item in items:
                made.put(item)
                if closed.is_set():
                    break
        except BaseException as caught:  # noqa: BLE001 - the consumer raises it
            error = caught
        finally:
            if isinstance(items, Generator):
                items.close()
        made.put(_End(error))

    maker = threading.Thread(target=make, daemon=True)
    maker.start()
    try:
        while not isinstance(item := made.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        closed.set()
        while maker.is_alive():  # it may wait for room
            with contextlib.suppress(queue.Empty):
                made.get_nowait()
            maker.join(0.01)


def map_ahead(
    function: Callable[[Item], Made],
    items: Sequence[Item],
    costs: Sequence[int],
    *,
    budget: int,
    workers: int,
) -> Generator[Made, None, None]:
    """Yield `function(item)` for every item, made by `workers` threads.

    Args:
        function: what is done.
        items: what it is done to.
        costs: bytes that each result takes.
        budget: bytes that results made ahead may take together; the next one is made whatever it takes.
        workers: how many are made at a time.
    """
    with ThreadPoolExecutor(workers) as pool:
        coming: deque[tuple[Future[Made], int]] = deque()
        begun = held = 0
        try:
            while begun < len(items) or coming:
                while begun < len(items) and len(coming) <= workers:
                    if coming and held + costs[begun] > budget:
                        break
                    coming.append((pool.submit(function, items[begun]), costs[begun]))
                    held += costs[begun]
                    begun += 1
                future, cost = coming.popleft()
                result = future.result()
                held -= cost
                yield result
        finally:
            for future, _ in coming:
                future.cancel()
