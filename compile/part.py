"""A part of some work, for machines that share it out among themselves: `2/8` is the third of eight.

Part.parse("2/8").of(shards)    # every eighth, from the third on
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from oxcart.shards.errors import ConfigError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """One of `count` parts of some work, from 0."""

    number: int
    count: int

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
        """From `0/8`."""
        number, slash, count = text.partition("/")
        if not slash or not number.strip().isdecimal() or not count.strip().isdecimal():
            raise ConfigError(f"--part: expected I/N such as 0/8, the first of eight; got {text!r}")
        return cls(int(number), int(count))

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items of this part: every `count`-th."""
        return items[self.number :: self.count]
