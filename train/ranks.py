"""Work that ranks share, so that none waits for one that has failed.

If one rank failed alone, the others would wait in their next exchange until it times out. So shared work goes
through these functions: a failure is exchanged in place of the result, and raised on every rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from oxcart.shards.errors import OxcartError

T = TypeVar("T")


def gathered(work: Callable[[], list[tuple[int, Any]]], accelerator: Accelerator) -> list[tuple[int, Any]]:
    """Gather the numbered parts of shared work from all ranks, in order; the list is the same on every rank.

    Args:
        work: makes the parts of this rank.
        accelerator: of this rank.

    Raises:
        OxcartError: the work of some rank raised it; it is raised on every rank.
    """
    if accelerator.num_processes == 1:
        return sorted(work(), key=lambda part: part[0])
    parts: list[tuple[int, Any]] = []
    failure: Exception | None = None
    try:
        parts = work()
    except (OxcartError, OSError) as error:
        failure = error
    every = gather_object([(parts, failure)])
    for _, failed in every:
        if failed is not None:
            raise failed
    return sorted((part for parts, _ in every for part in parts), key=lambda part: part[0])


def together(work: Callable[[], T], accelerator: Accelerator) -> T:
    """Run work on every rank, and return this rank's result.

    Args:
        work: makes the result of this rank.
        accelerator: of this rank.

    Raises:
        OxcartError: the work of some rank raised it; it is raised on every rank.
    """
    made: list[T] = []

    def make() -> list[tuple[int, Any]]:
        made.append(work())
        return []

    gathered(make, accelerator)
    return made[0]


def on_main(work: Callable[[], Any], accelerator: Accelerator) -> Any:
    """Run work in only the main process, and return its result; None on other ranks.

    Args:
        work: makes the result.
        accelerator: of this rank.

    Raises:
        OxcartError: the work raised it; it is raised on every rank.
    """
    if accelerator.num_processes == 1:
        return work()
    found, failure = None, None
    if accelerator.is_main_process:
        try:
            found = work()
        except (OxcartError, OSError) as error:
            failure = error
    (failure,) = broadcast_object_list([failure])
    if failure is not None:
        raise failure
    return found
