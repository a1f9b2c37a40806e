"""Run tasks that share nothing, on a Ray cluster.

    for index, result in run(write_shard, job, shards, workers=64, report=report, address="auto"): ...

A task reads the source and writes its output by itself: only its result and its counts pass through Ray. When
a worker or a node is lost, Ray runs the task again, which every task must be safe against anyway.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from oxcart.compile.engines.processes import ATTEMPTS, Advance, Item, Progress, Result
from oxcart.shards.errors import ConfigError, OxcartError

TICK_S = 0.5
"""Seconds between two reports of progress."""
ANSWER_S = 10.0
"""Seconds within which a cluster must answer."""


def run(
    function: Callable[[Any, Item, Advance], Result],
    config: object,
    items: Sequence[Item],
    *,
    workers: int,
    report: Progress,
    address: str | None = None,
) -> Iterator[tuple[int, Result]]:
    """Yield (index, `function(config, item, advance)`) for every item, as they end.

    Args:
        function: importable by name, on every node.
        config: first argument of every call; the same for all items, and hashable.
        items: second argument of each call.
        workers: upper limit of tasks at a time; also the CPUs of a cluster that is started here.
        report: called twice a second.
        address: address of a cluster; None joins the cluster of this process, or starts one on this machine.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers at the address.
        OxcartError: a task raised it, or workers died `ATTEMPTS` times.
    """
    if not items:
        return
    ray = _connect(address, workers)
    task = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(_task)
    progress = ray.remote(num_cpus=0, max_restarts=-1)(_Counts).remote()
    shared = ray.put((function, config))
    waiting = list(enumerate(items))[::-1]
    running: dict[Any, int] = {}
    done: dict[int, tuple[int, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index, item = waiting.pop()
                running[task.remote(shared, progress, index, item)] = index
            ended, _ = ray.wait(list(running), timeout=TICK_S)
            told: dict[int, tuple[int, int]] = {}
            with contextlib.suppress(ray.exceptions.RayError):  # lost with its node: only counts are missing
                told = ray.get(progress.all.remote(), timeout=TICK_S)
            values = []
            for future in ended:
                index = running.pop(future)
                value, done[index] = _result(ray, future)
                values.append((index, value))
            counts = (told | done).values()
            report(sum(count for count, _ in counts), sum(size for _, size in counts))
            yield from values
    finally:
        for future in running:
            ray.cancel(future, force=True)
        ray.kill(progress)


def _connect(address: str | None, workers: int) -> Any:
    """The module `ray`, connected to a cluster."""
    try:
        import ray  # an extra
    except ImportError as error:
        raise ConfigError(
            "--engine ray: Ray is not installed: pip install -c constraints.txt '.[ray]'"
        ) from error
    if not ray.is_initialized():
        _check_answers(address)
        there: dict[str, Any] = {"address": address} if address else {"address": "local", "num_cpus": workers}
        try:
            ray.init(
                **there,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"--ray-address: no Ray cluster answers at {address}: {said}") from error
    return ray


def _check_answers(address: str | None) -> None:
    """Refuse a host and port that nothing listens on; Ray itself would wait ten minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--ray-address: no Ray cluster answers at {address}: {error}") from error


def _result(ray: Any, future: Any) -> tuple[Any, tuple[int, int]]:
    """Result and counts of a task; an error that the task raised is raised unchanged."""
    try:
        failure, value, counts = ray.get(future)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # a bug
    except ray.exceptions.RayError as error:
        first = str(error).strip().splitlines()[0]
        raise OxcartError(
            f"a Ray task was lost {ATTEMPTS} times (out of memory?): {first}; try fewer --workers"
        ) from error
    if failure is not None:
        raise failure
    return value, counts


class _Counts:
    """An actor that holds the current counts of each task."""

    def __init__(self) -> None:
        self._done: dict[int, tuple[int, int]] = {}

    def tell(self, index: int, count: int, size: int) -> None:
        self._done[index] = count, size

    def all(self) -> dict[int, tuple[int, int]]:
        return self._done


@lru_cache(maxsize=1)
def _kept(config: Any) -> Any:
    """The equal configuration of this worker's last task, which may hold an open source."""
    return config


def _task(shared: tuple[Callable[..., Any], Any], progress: Any, index: int, item: Any) -> tuple[Any, ...]:
    """The `OxcartError` that a task raised, or its result and its counts."""
    function, config = shared
    done, told = [0, 0], time.monotonic()

    def advance(count: int, size: int) -> None:
        nonlocal told
        done[0] += count
        done[1] += size
        if time.monotonic() - told > TICK_S:
            told = time.monotonic()
            progress.tell.remote(index, *done)

    progress.tell.remote(index, 0, 0)  # counts of a worker that died on this task
    try:
        value = function(_kept(config), item, advance)
    except OxcartError as error:
        return error, None, (0, 0)
    return None, value, (done[0], done[1])
