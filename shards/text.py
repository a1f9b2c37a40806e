"""Texts of others, such as instructions and names, where there is room for one short line."""

from __future__ import annotations


def cut(text: str, most: int) -> str:
    """The text on one line of at most `most` letters, without other white space than single spaces.

    Args:
        text: any text.
        most: maximum number of letters, of which the last one is "…" if the text had more.
    """
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
