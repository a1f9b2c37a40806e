"""Engines that run tasks: local processes or a Ray cluster. Several machines can also share the parts.

run = engine("processes")
for index, result in run(write_shard, job, shards, workers=8, report=report): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from oxcart.compile.engines import processes, ray
from oxcart.compile.engines.processes import Item
from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError

PROCESSES, RAY = "processes", "ray"
ENGINES = (PROCESSES, RAY)

Run = Callable[..., Iterator[tuple[int, Any]]]
"""A function with the parameters of `oxcart.compile.engines.processes.run`."""


@dataclass(frozen=True)
class Part:
    """One of `count` equal parts of some work, counted from 0: `2/8` is the third of eight.

    Part.parse("2/8").of(shards)    # every eighth, starting with the third
    """

    number: int
    """Number of this part, from 0."""
    count: int
    """Number of all parts."""

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise ConfigError(
                f"--part: expected 0/{self.count} to {self.count - 1}/{self.count}, got {self}"
                if self.count > 0
                else f"--part: expected I/N such as 0/8, the first of eight; got {self}"
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Part:
        """Parse a part such as `0/8`."""
        number, slash, count = text.partition("/")
        if not slash or not number.strip().isdecimal() or not count.strip().isdecimal():
            raise ConfigError(f"--part: expected I/N such as 0/8, the first of eight; got {text!r}")
        return cls(int(number), int(count))

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every `count`-th item, starting with the `number`-th."""
        return items[self.number :: self.count]


def engine(name: str, address: str | None = None) -> Run:
    """The function that runs tasks on an engine.

    Args:
        name: `processes` of this machine, or `ray`.
        address: address of a Ray cluster; None starts one on this machine.

    Raises:
        ConfigError: there is no such engine, or an address is given without `ray`.
    """
    one_of("engine", name, ENGINES)
    if name == RAY:
        return partial(ray.run, address=address)
    if address is not None:
        raise ConfigError(
            f"--ray-address: expected with --engine ray, got {address!r} without; add it or leave this out"
        )
    return processes.run
