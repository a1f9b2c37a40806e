"""Plain text tables: numbers to the right, the rest to the left, two spaces between."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from types import MappingProxyType
from typing import Any

import click

NARROWEST, WIDEST = 60, 120
"""Characters of a line, whatever the width of the terminal."""
_NARROWEST = 20
"""Minimum width of a column whose text wraps."""
_LOOKS: dict[str, dict[str, Any]] = {
    "good": {"fg": "green"},
    "odd": {"fg": "yellow"},
    "bad": {"fg": "red"},
    "none": {"dim": True},
}
"""How a terminal shows each tone."""


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    width: int | None = None,
    paint: Mapping[str, Callable[[str], str]] = MappingProxyType({}),
) -> str:
    """Lines of a table. Integers get thousands separators; None becomes a dash, a control character a
    space.

    Args:
        header: names of the columns.
        rows: values of each row, as many as there are columns.
        width: characters of a line; longer text wraps inside its column, and columns that do not fit follow
            below, beside the first column again.
        paint: adds colour to the cells of a column, by its name.
    """
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [
        bool(rows) and all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(header))
    ]
    parts = [list(range(len(header)))] if width is None else _parts(widths, right, width)
    paints = [paint.get(name, str) for name in header]
    return "\n\n".join("\n".join(_lines(cells, widths, right, part, paints)) for part in parts)


def _parts(widths: list[int], right: Sequence[bool], width: int) -> list[list[int]]:
    """Columns of each part of a table, so that a line of it fits; narrows columns of text."""
    if not right[0]:
        others = sum(wide + 2 for wide in widths[1:])
        widths[0] = min(widths[0], max(width // 2, width - others, _NARROWEST))
    parts, room = [[0]], width - widths[0]
    for i in range(1, len(widths)):
        last = i == len(widths) - 1
        least = min(widths[i], _NARROWEST) if last and not right[i] else widths[i]
        if least + 2 > room and len(parts[-1]) > 1:
            parts.append([0])
            room = width - widths[0]
        if not right[i]:
            widths[i] = min(widths[i], max(room - 2, _NARROWEST))
        parts[-1].append(i)
        room -= widths[i] + 2
    return parts


def _lines(
    cells: Sequence[Sequence[str]],
    widths: Sequence[int],
    right: Sequence[bool],
    columns: Sequence[int],
    paints: Sequence[Callable[[str], str]],
) -> Iterator[str]:
    """Lines of some columns of a table."""
    for number, row in enumerate(cells):
        texts = [[row[i]] if len(row[i]) <= widths[i] else wrapped(row[i], widths[i]) for i in columns]
        for line in zip_longest(*texts, fillvalue=""):
            padded = [
                paints[i](text.rjust(widths[i]) if right[i] else text.ljust(widths[i]))
                for i, text in zip(columns, line, strict=True)
            ]
            yield "  ".join(padded).rstrip()
        if not number:
            yield "  ".join("-" * widths[i] for i in columns)


def line_width() -> int:
    """Characters of a line: those of the terminal, within limits."""
    return min(max(shutil.get_terminal_size((WIDEST, 0)).columns, NARROWEST), WIDEST)


def painter(tones: Mapping[Any, str]) -> Callable[[str], str]:
    """A function that gives a word the colour of its tone (`good`, `odd`, `bad` or `none`), as pages do."""

    def paint(word: str) -> str:
        tone = tones.get(word.strip())
        return click.style(word, **_LOOKS[tone]) if tone else word

    return paint


def show(text: str) -> None:
    """Print text, without its colours if the reader is no terminal or `NO_COLOR` is set."""
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)


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
