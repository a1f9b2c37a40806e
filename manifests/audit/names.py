"""Are the environments of train and of what is held out other places, by their names?

A name in both splits fails. Names that merely look like one place are suspicious: equal but for case and
punctuation, one slip of the pen apart, or sharing a word that tells a room, a robot or a camera. Numbers
are taken at their word: `toykitchen1` and `toykitchen2` are two places. Names are all this looks at; the
place check compares pictures.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from oxcart.manifests.audit.episodes import HELD, Source, names_by_side
from oxcart.manifests.audit.result import Check, count, failed, passed, some, suspicious, unchecked

NAME, TITLE = "environments", "Environments of train are not those held out"

MOST_PAIRS = 4_000_000
"""Pairs of names that are compared letter by letter; beyond that only normalised names are."""
_TELLING = re.compile(r"^(room|robot|cam|camera|lab|bldg|building|site|arm|station|house|scene)\w*$")


def check_environments(sources: Sequence[Source]) -> Check:
    """Whether an environment, or two that look alike by name, stand in train and in val or test."""
    sides: dict[str, dict[tuple[str, str], tuple[str, str]]] = {"train": {}, "held": {}}
    for split, names in names_by_side(sources, "environment").items():
        side = "train" if split == "train" else "held" if split in HELD else None
        if side:
            for family, name in names:
                sides[side][family, name] = _place(sources, family, name)
    train, held = sides["train"], sides["held"]
    if not held:
        return unchecked(NAME, TITLE, "no episode of val or test has a known environment")
    if not train:
        return unchecked(NAME, TITLE, "no episode of train has a known environment")
    places = set(train.values())
    shared = sorted(name for name, place in held.items() if place in places)
    if shared:
        rows = [
            {"dataset": family, "environment": name, "in": "train and held out"} for family, name in shared
        ]
        text = some([name for _, name in shared])
        return failed(NAME, TITLE, f"{count(len(shared), 'environment')} in train and held out: {text}", rows)
    alike = look_alikes(sorted(held), sorted(train))
    unknown = _unknown(sources)
    note = f"; {count(unknown, 'episode')} of train has no known environment" if unknown == 1 else ""
    note = f"; {unknown:,} episodes of train have no known environment" if unknown > 1 else note
    if alike:
        text = some([f"{row['held out']} and {row['train']} ({row['why']})" for row in alike], 2)
        return suspicious(NAME, TITLE, f"names that may be one place: {text}{note}", alike)
    return passed(NAME, TITLE, f"{len(held):,} held out, {len(train):,} in train, no name in both{note}")


def look_alikes(held: Sequence[tuple[str, str]], train: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Pairs of names (dataset, environment) that may mean one place, and why."""
    tokens = {name: _tokens(name[1]) for name in (*held, *train)}
    often = Counter(token for words in tokens.values() for token in words)
    # A word that most names have, such as the building that all share, tells nothing.
    limit = max(2, len(tokens) // 3)
    telling = {t for t, n in often.items() if n <= limit and (_numbered(t) or _TELLING.match(t))}
    letters = len(held) * len(train) <= MOST_PAIRS
    by_normal: dict[str, list[tuple[str, str]]] = {}
    for name in train:
        by_normal.setdefault(_normal(name[1]), []).append(name)
    found = []
    for one in held:
        others = train if letters else by_normal.get(_normal(one[1]), [])
        for other in others:
            why = _why(one, other, tokens[one] & tokens[other] & telling)
            if why:
                found.append(
                    {"held out": one[1], "of": one[0], "train": other[1], "of train": other[0], "why": why}
                )
    return found


def distance(one: str, other: str, most: int) -> int:
    """Letters to insert, delete, replace or swap with a neighbour to get from one to the other.

    Damerau's distance with adjacent swaps; anything beyond `most` is `most + 1`.
    """
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        previous, row = row, [i]
        for j, wanted in enumerate(other, 1):
            step = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                step = min(step, before[j - 2] + 1)
            row.append(step)
        before = previous
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)


def _why(one: tuple[str, str], other: tuple[str, str], shared: set[str]) -> str | None:
    normal, wanted = _normal(one[1]), _normal(other[1])
    if normal == wanted:
        return "equal but for case and punctuation" if one[1] != other[1] else "the same name in two datasets"
    same_numbers = re.findall(r"\d+", normal) == re.findall(r"\d+", wanted)
    most = 1 if min(len(normal), len(wanted)) < 12 else 2
    if same_numbers and min(len(normal), len(wanted)) > 4 and distance(normal, wanted, most) <= most:
        return "nearly the same letters"
    if shared:
        return f"both say {', '.join(sorted(shared))}"
    return None


def _place(sources: Sequence[Source], family: str, name: str) -> tuple[str, str]:
    for source in sources:
        if source.family == family and name in source.aliases:
            return source.environment(name)
    return family, name


def _unknown(sources: Sequence[Source]) -> int:
    total = 0
    for source in sources:
        table = source.table
        names, splits = table["environment"], table["split"].to_pylist()
        total += sum(
            name is None and split == "train" for name, split in zip(names.to_pylist(), splits, strict=True)
        )
    return total


def _normal(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in text if letter.isalnum())


def _tokens(name: str) -> set[str]:
    return set(_words(unicodedata.normalize("NFKC", name).casefold()))


def _words(text: str) -> Iterable[str]:
    return (word for word in re.split(r"[\W_]+", text) if word)


def _numbered(token: str) -> bool:
    return any(letter.isdigit() for letter in token) and any(letter.isalpha() for letter in token)
