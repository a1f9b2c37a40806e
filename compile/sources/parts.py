"""A part of a feature of numbers, written as `action[:7]`: the first seven values of each step."""

from __future__ import annotations

import re

from oxcart.shards.errors import ConfigError

_PART = re.compile(r"(?P<name>.+)\[(?P<start>-?\d{1,9})?:(?P<stop>-?\d{1,9})?\]", re.DOTALL)


def split_part(field: str) -> re.Match[str] | None:
    """The `name`, `start` and `stop` of a text that ends in a part; None if it does not."""
    return _PART.fullmatch(field)


def part_slice(option: str, field: str, part: re.Match[str], width: int) -> slice:
    """The part of a feature of `width` values, with both ends counted from the beginning.

    Raises:
        ConfigError: the part is empty or reaches beyond the values.
    """
    start = int(part["start"] or 0)
    stop = int(part["stop"] or width)
    start, stop = (end + width if end < 0 else end for end in (start, stop))
    if not 0 <= start < stop <= width:
        raise ConfigError(f"{option} {field!r}: expected a part of {width} values, such as [0:1]")
    return slice(start, stop)
