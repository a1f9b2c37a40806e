"""Who does the work: processes of this machine, or a Ray cluster. Both are given the same tasks.

run = engine("processes")
for index, result in run(write_shard, job, shards, workers=8, report=report): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from oxcart.compile.engines import processes
from oxcart.shards.errors import ConfigError

PROCESSES, RAY = "processes", "ray"
ENGINES = (PROCESSES, RAY)

Run = Callable[..., Iterator[tuple[int, Any]]]
"""Called as `oxcart.compile.engines.processes.run` is."""


def engine(name: str, address: str | None = None) -> Run:
    """What runs tasks.

    Args:
        name: `processes` of this machine, or `ray`.
        address: of a Ray cluster; None starts one on this machine.

    Raises:
        ConfigError: there is no such engine, or only Ray has an address.
    """
    if name not in ENGINES:
        raise ConfigError(f"engine: expected one of {', '.join(ENGINES)}, got {name!r}")
    if name == RAY:
        from oxcart.compile.engines import ray

        return partial(ray.run, address=address)
    if address is not None:
        raise ConfigError(
            f"--ray-address: expected with --engine ray, got {address!r} without; add it or leave this out"
        )
    return processes.run
