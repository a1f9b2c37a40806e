"""Find names that may mean one place: names equal but for case, Unicode form, white space, `_` and `-`.

`Kitchen` and `kitchen`, `toy_kitchen` and `toy kitchen`, and `café` in its two Unicode forms (one letter, or
a letter and an accent) are alike. Every other symbol is significant: `C`, `C#` and `C++` are three places,
and `10%` is not `10`. So are numbers: `lab 1 1` is not `lab 11`, and `lab -1` has a sign. Similar names may
still mean two places, so nothing is joined here; messages offer the line of a split rule that joins them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable

from oxcart.manifests.split import scalar

SHOWN = 5
"""Maximum number of places whose names are listed in one line."""

_GAP = re.compile(r"(?:(?!(?<!\S)-\d)[\s_-])+")
"""White space, `_` and `-`, except a `-` that is a sign: at the start of a word, before a digit."""


def folded(name: str) -> str:
    """The form that alike names share, never empty. A gap between two digits is kept as one space."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    # Nobody sees a zero-width space or a soft hyphen.
    seen = "".join(one for one in text if unicodedata.category(one) != "Cf")
    return _GAP.sub(_joined, seen) or text


def _joined(gap: re.Match[str]) -> str:
    before, behind = gap.string[: gap.start()][-1:], gap.string[gap.end() :][:1]
    return " " if before.isdigit() and behind.isdigit() else ""


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Sorted names of each place that has several names, in order."""
    found: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        found.setdefault(folded(name), []).append(name)
    return sorted(tuple(same) for same in found.values() if len(same) > 1)


def said_alike(places: Collection[tuple[str, ...]]) -> str:
    """One line that names the places and says how to join them."""
    return (
        "environments whose names differ in case, Unicode form, white space, _ or - alone are split apart; "
        f"where they are one place, say so in a split rule: {aliases(places)}"
    )


def aliases(places: Collection[tuple[str, ...]]) -> str:
    """The line of a split rule that joins the names of each place, for the first few places at most."""
    rows = [(scalar(first), ", ".join(map(scalar, rest))) for first, *rest in list(places)[:SHOWN]]
    more = f" (and {len(places) - SHOWN} more places)" if len(places) > SHOWN else ""
    return "aliases: {" + ", ".join(f"{first}: [{rest}]" for first, rest in rows) + "}" + more
