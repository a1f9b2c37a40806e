"""Work that ranks share, so that none waits for one that has failed.

If one rank failed alone, the others would wait in their next exchange until it times out. So shared work goes
through these functions: a failure is exchanged in place of the result, and raised on every rank.

Objects are exchanged by gloo, on the CPU, also where models and gradients are on GPUs. A rank whose process
dies is noticed by the others in their next exchange, at the latest when its time-out has passed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
from torch import distributed

from oxcart.shards.errors import ConfigError, OxcartError

T = TypeVar("T")

TIMEOUT_S = 1800
"""Seconds that a rank waits for the others, unless a configuration says otherwise."""


class Ranks(Protocol):
    """The processes that share work, and which of them this is; an `Accelerator` is one."""

    @property
    def num_processes(self) -> int: ...
    @property
    def process_index(self) -> int: ...
    @property
    def is_main_process(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Member:
    """The `Ranks` of a command that trains nothing; by default this process alone."""

    process_index: int = 0
    num_processes: int = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this rank writes and reports."""
        return self.process_index == 0


ALONE = Member()
"""One process."""


def join(*, gpu: bool, timeout_s: float = TIMEOUT_S) -> Member:
    """Meet the other ranks of `torchrun`, and take the GPU of this one; without torchrun there are none.

    Args:
        gpu: whether tensors of GPUs will be exchanged.
        timeout_s: how long a rank waits for another before both end, in seconds.

    Raises:
        ConfigError: the environment variables that describe the ranks are wrong, or a rank does not come.
    """
    try:
        if int(os.environ.get("WORLD_SIZE") or 1) < 2:
            return ALONE
        if gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if not distributed.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
            distributed.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"environment: ranks cannot meet: {type(error).__name__}: {reason}") from error
    return Member(process_index=distributed.get_rank(), num_processes=distributed.get_world_size())


def gathered(work: Callable[[], list[tuple[int, Any]]], ranks: Ranks) -> list[tuple[int, Any]]:
    """Gather the numbered parts of shared work from all ranks, in order; the list is the same on every rank.

    Args:
        work: makes the parts of this rank.
        ranks: the processes.

    Raises:
        OxcartError: the work of some rank raised it; it is raised on every rank.
    """
    if ranks.num_processes == 1:
        return sorted(work(), key=lambda part: part[0])
    parts: list[tuple[int, Any]] = []
    failure: Exception | None = None
    try:
        parts = work()
    except (OxcartError, OSError) as error:
        failure = error
    every: list[Any] = [None] * ranks.num_processes
    distributed.all_gather_object(every, (parts, failure))
    for _, failed in every:
        if failed is not None:
            raise failed
    return sorted((part for parts, _ in every for part in parts), key=lambda part: part[0])


def together(work: Callable[[], T], ranks: Ranks) -> T:
    """Run work on every rank, and return this rank's result.

    Args:
        work: makes the result of this rank.
        ranks: the processes.

    Raises:
        OxcartError: the work of some rank raised it; it is raised on every rank.
    """
    made: list[T] = []

    def make() -> list[tuple[int, Any]]:
        made.append(work())
        return []

    gathered(make, ranks)
    return made[0]


def on_main(work: Callable[[], Any], ranks: Ranks) -> Any:
    """Run work in only the main process, and return its result; None on other ranks.

    Args:
        work: makes the result.
        ranks: the processes.

    Raises:
        OxcartError: the work raised it; it is raised on every rank.
    """
    if ranks.num_processes == 1:
        return work()
    found, failure = None, None
    if ranks.is_main_process:
        try:
            found = work()
        except (OxcartError, OSError) as error:
            failure = error
    told = [failure]
    distributed.broadcast_object_list(told)
    if told[0] is not None:
        raise told[0]
    return found
