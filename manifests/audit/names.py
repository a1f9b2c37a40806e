"""Are the environments of train and of the held-out splits different places, judged by their names?

A name in both splits fails. Names that merely look like one place are suspicious: names that are equal but
for case, white space, `_` and `-`, that are one typo apart, or that share a word that identifies a room, a
robot or a camera. Numbers are taken literally: `toykitchen1` and `toykitchen2` are two places. This check
sees only names; the place check compares images.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from oxcart.manifests.alike import aliases, alike, folded
from oxcart.manifests.audit.episodes import HELD, Audited, names_by_side
from oxcart.manifests.audit.records import unknown
from oxcart.manifests.audit.result import Check, Criterion, count, some

EQUAL = "equal but for case, white space, _ and -"
CRITERION = Criterion("environments", "Names of environments, train against held out")

MOST_PAIRS = 4_000_000
"""Maximum number of pairs of names compared letter by letter; beyond it, only folded names are compared."""
_BLOCK = 256
"""Letters compared at a time."""
_TELLING = re.compile(r"^(room|robot|cam|camera|lab|bldg|building|site|arm|station|house|scene)\w*$")


def check_environments(datasets: Sequence[Audited]) -> Check:
    """Check that no environment, or two with similar names, is in train and in val or test."""
    sides: dict[str, dict[tuple[str, str], tuple[str, str]]] = {"train": {}, "held": {}}
    for split, names in names_by_side(datasets, "environment").items():
        side = "train" if split == "train" else "held" if split in HELD else None
        if side:
            for family, name in names:
                sides[side][family, name] = _place(datasets, family, name)
    train, held = sides["train"], sides["held"]
    if not held:
        return CRITERION.unchecked("no episode of val or test has a known environment")
    if not train:
        return CRITERION.unchecked("no episode of train has a known environment")
    places = set(train.values())
    shared = sorted(name for name, place in held.items() if place in places)
    if shared:
        rows = [
            {"dataset": family, "environment": name, "in": "train and held out"} for family, name in shared
        ]
        text = some([name for _, name in shared])
        return CRITERION.failed(f"{count(len(shared), 'environment')} in train and held out: {text}", rows)
    found = look_alikes(sorted(held), sorted(train))
    nameless = sum(unknown(dataset, "train") for dataset in datasets)
    has = "has" if nameless == 1 else "have"
    note = f"; {count(nameless, 'episode')} of train {has} no known environment" if nameless else ""
    if found:
        text = some([f"{row['held out']} and {row['train']} ({row['why']})" for row in found], 2)
        return CRITERION.suspicious(f"names that may be one place: {text}{_joins(found)}{note}", found)
    return CRITERION.passed(f"{len(held):,} held out, {len(train):,} in train, no name in both{note}")


def _joins(rows: Sequence[dict[str, Any]]) -> str:
    """The line of a split rule that joins those names of a dataset that differ only in spelling."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row["why"] == EQUAL and row["of"] == row["of train"]:
            names.setdefault(row["of"], []).extend((row["held out"], row["train"]))
    places = [place for same in names.values() for place in alike(same)]
    return f"; to join them in a split rule: {aliases(places)}" if places else ""


def look_alikes(held: Sequence[tuple[str, str]], train: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Pairs of names (dataset, environment) that may mean one place, each with the reason."""
    names = {name: _Name.of(*name) for name in (*held, *train)}
    often = Counter(token for name in names.values() for token in name.tokens)
    # A word that most names have, such as the building that all share, tells nothing.
    limit = max(2, len(names) // 3)
    telling = {t for t, n in often.items() if n <= limit and (_numbered(t) or _TELLING.match(t))}
    letters = len(held) * len(train) <= MOST_PAIRS
    by_form: dict[str, list[tuple[str, str]]] = {}
    for one in train:
        by_form.setdefault(names[one].form, []).append(one)
    found = []
    for one in held:
        for other in train if letters else by_form.get(names[one].form, []):
            why = _why(names[one], names[other], telling)
            if why:
                found.append(
                    {"held out": one[1], "of": one[0], "train": other[1], "of train": other[0], "why": why}
                )
    return found


def distance(one: str, other: str, most: int) -> int:
    """Number of letters to insert, delete, replace or swap to turn one name into the other.

    Damerau's distance with adjacent swaps. Distances above `most`, which should be small, give `most + 1`.
    """
    return next((steps for steps in range(most + 1) if _within(one, other, steps)), most + 1)


def _within(one: str, other: str, steps: int, i: int = 0, j: int = 0) -> bool:
    """Whether so many steps lead from one to the other, from their letters `i` and `j` on.

    Letters that agree never need a step, so only where they differ is there a choice, and time is that of
    comparing them once for each way to choose.
    """
    if abs((len(one) - i) - (len(other) - j)) > steps:
        return False
    while i < len(one) and one[i : i + _BLOCK] == other[j : j + _BLOCK]:
        i, j = i + _BLOCK, j + _BLOCK
    while i < len(one) and j < len(other) and one[i] == other[j]:
        i, j = i + 1, j + 1
    if i >= len(one) and j >= len(other):
        return True
    if not steps:
        return False
    swapped = len(one) > i + 1 and one[i : i + 2] == other[j : j + 2][::-1]
    ways = [(1, 1), (1, 0), (0, 1), *([(2, 2)] if swapped else [])]
    return any(
        _within(one, other, steps - 1, i + down, j + right)
        for down, right in ways
        if i + down <= len(one) and j + right <= len(other)
    )


class _Name(NamedTuple):
    """A name with the forms in which it is compared."""

    text: str
    form: str
    """The folded name, by `oxcart.manifests.alike.folded`."""
    letters: str
    numbers: list[str]
    tokens: set[str]

    @classmethod
    def of(cls, family: str, text: str) -> _Name:
        form = folded(text)
        words = {word for word in re.split(r"[\W_]+", unicodedata.normalize("NFKC", text).casefold()) if word}
        letters = form.replace(" ", "")
        return cls(text, form, letters, re.findall(r"\d+", letters), words)


def _why(one: _Name, other: _Name, telling: set[str]) -> str | None:
    if one.form == other.form:
        return EQUAL if one.text != other.text else "the same name in two datasets"
    shortest = min(len(one.letters), len(other.letters))
    most = 1 if shortest < 12 else 2
    if (
        one.numbers == other.numbers
        and shortest > 4
        and one.letters != other.letters
        and distance(one.letters, other.letters, most) <= most
    ):
        return "nearly the same letters"
    if shared := one.tokens & other.tokens & telling:
        return f"both say {', '.join(sorted(shared))}"
    return None


def _place(datasets: Sequence[Audited], family: str, name: str) -> tuple[str, str]:
    for dataset in datasets:
        if dataset.family == family and name in dataset.aliases:
            return dataset.environment(name)
    return family, name


def _numbered(token: str) -> bool:
    return any(letter.isdigit() for letter in token) and any(letter.isalpha() for letter in token)
