"""Read the next episodes while one is being decoded, where each read is a round trip to a server."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def map_ahead(
    function: Callable[[Item], Made],
    items: Sequence[Item],
    costs: Sequence[int],
    *,
    budget: int,
    workers: int,
) -> Generator[Made, None, None]:
    """Yield `function(item)` for every item in order, made by `workers` threads.

    What a call raises is raised when its turn comes; the threads end with the generator.

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
