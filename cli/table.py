"""Plain text tables: numbers to the right, the rest to the left, two spaces between."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

_NARROWEST = 20
"""Minimum width of a column whose text wraps."""


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    width: int | None = None,
    paint: Callable[[str], str] = str,
) -> str:
    """Lines of a table. Integers get thousands separators; None becomes a dash, a control character a
    space.

    Args:
        header: names of the columns.
        rows: values of each row, as many as there are columns.
        width: characters of a line; text of the last column that is longer wraps inside its column.
        paint: adds colour to a cell of the first column.
    """
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [
        bool(rows) and all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(header))
    ]
    if width is not None and not right[-1]:
        room = width - sum(before + 2 for before in widths[:-1])
        widths[-1] = min(widths[-1], max(room, _NARROWEST))
    lines = []
    for *others, last in cells:
        for part in wrapped(last, widths[-1]):
            padded = [
                cell.rjust(wide) if to_right else cell.ljust(wide)
                for cell, wide, to_right in zip([*others, part], widths, right, strict=True)
            ]
            lines.append("  ".join([paint(padded[0]), *padded[1:]]).rstrip())
            others = [""] * len(others)
    lines.insert(1, "  ".join("-" * wide for wide in widths))
    return "\n".join(lines)


def wrapped(text: str, width: int, indent: str = "", *, break_words: bool = True) -> list[str]:
    """Lines of at most `width` characters, at least one; `indent` stands before all but the first.

    A longer word is broken, unless it is to be copied whole: then it has a line of its own.
    """
    lines = textwrap.wrap(
        plain(text),
        max(width, 1),
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=break_words,
    )
    return lines or [""]


def size(count: int) -> str:
    """A number of bytes in the largest fitting unit: `1.5 GiB`."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while round(value, 1) >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def plain(text: str) -> str:
    """Text as one line without control characters, which would break the line or reach the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return plain(str(value))
