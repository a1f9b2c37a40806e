"""Are the environments of train and of the held-out splits different places, judged by their names?

A name in both splits fails. Names that merely look like one place are suspicious: names that are alike by
`oxcart.manifests.alike`, that are one typo apart, or that share a word that identifies a place, a robot or a
camera. Numbers are taken literally: `toykitchen1` and `toykitchen2` are two places. This check sees only
names; the place check compares images.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from oxcart.manifests.alike import (
    BESIDE,
    SPELLING,
    alike,
    apart,
    folded,
    identifies,
    said_alike,
    words,
)
from oxcart.manifests.audit.episodes import HELD, Audited, names_by_side
from oxcart.manifests.audit.records import unknown
from oxcart.manifests.audit.result import Check, Criterion, count, some
from oxcart.manifests.split import connected

EQUAL = f"equal but for {SPELLING}"
BUT_FOR = f"equal but for {BESIDE}"
CRITERION = Criterion("environments", "Names of environments, train against held out")

MOST_PAIRS = 4_000_000
"""Maximum number of pairs of names compared letter by letter; beyond it, only alike names are found."""
_BLOCK = 256
"""Letters compared at a time."""

_Environment: TypeAlias = tuple[str, str]
"""Name of the dataset and of the environment."""


def check_environments(datasets: Sequence[Audited]) -> Check:
    """Check that no environment, or two with similar names, is in train and in val or test."""
    sides: dict[str, dict[_Environment, _Environment]] = {"train": {}, "held": {}}
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
    alikes = places_of([*held, *train])
    found = look_alikes(sorted(held), sorted(train), alikes)
    nameless = sum(unknown(dataset, "train") for dataset in datasets)
    has = "has" if nameless == 1 else "have"
    note = f"{count(nameless, 'episode')} of train {has} no known environment" if nameless else ""
    if found:
        ready = [row for row in found if _ready(row)]
        others = [f"{row['held out']} and {row['train']} ({row['why']})" for row in found if not _ready(row)]
        text = f"names that may be one place: {some(others, 2)}" if others else ""
        joins = said_alike(to_join(ready, alikes, train | held)) if ready else ""
        return CRITERION.suspicious("; ".join(filter(None, (text, note, joins))), found)
    passed = f"{len(held):,} held out, {len(train):,} in train, no name in both"
    return CRITERION.passed("; ".join(filter(None, (passed, note))))


def places_of(names: Iterable[_Environment]) -> dict[_Environment, tuple[str, ...]]:
    """All names of the place of each environment whose dataset has other names for it."""
    by_dataset: dict[str, list[str]] = {}
    for family, name in names:
        by_dataset.setdefault(family, []).append(name)
    return {
        (family, name): place for family, own in by_dataset.items() for place in alike(own) for name in place
    }


def look_alikes(
    held: Sequence[_Environment],
    train: Sequence[_Environment],
    places: Mapping[_Environment, tuple[str, ...]],
) -> list[dict[str, Any]]:
    """Pairs of names that may mean one place, each with the reason; `places` is from `places_of`."""
    names = {one: _Name.of(*one, places.get(one, ())) for one in (*held, *train)}
    often = Counter(token for name in names.values() for token in name.tokens)
    # A word that most names have, such as the building that all share, tells nothing.
    limit = max(2, len(names) // 3)
    telling = {token for token, n in often.items() if n <= limit and identifies(token)}
    letters = len(held) * len(train) <= MOST_PAIRS
    # One partner for each: every name of a place with every other could be far more than `MOST_PAIRS`.
    first: dict[Any, _Environment] = {}
    for one in train:
        for key in names[one].shared():
            first.setdefault(key, one)
    found = []
    for one in held:
        near = dict.fromkeys(first[key] for key in names[one].shared() if key in first)
        for other in train if letters else near:
            if why := _why(names[one], names[other], telling):
                found.append(
                    {"held out": one[1], "of": one[0], "train": other[1], "of train": other[0], "why": why}
                )
    return found


def _ready(row: Mapping[str, Any]) -> bool:
    """Whether a split rule can join the two names: they are alike, and of one dataset."""
    return row["why"] in (EQUAL, BUT_FOR) and row["of"] == row["of train"]


def to_join(
    rows: Sequence[dict[str, Any]],
    places: Mapping[_Environment, tuple[str, ...]],
    joined: Mapping[_Environment, _Environment],
) -> list[tuple[str, ...]]:
    """The names to join of every place of the rows, for a split rule that serves all datasets.

    Args:
        rows: pairs of names of one dataset, from `look_alikes`.
        places: all names of each environment's place, from `places_of`.
        joined: each environment -> the one that stands for it by the aliases of its dataset.
    """
    by_first: dict[_Environment, tuple[str, ...]] = {}
    for row in rows:
        names = places[row["of"], row["held out"]]
        by_first[row["of"], names[0]] = names
    found: list[tuple[str, ...]] = []
    for (family, _), names in by_first.items():
        found += apart([names], {name: joined[family, name] for name in names})
    merged: dict[int, dict[str, None]] = {}
    for root, names in zip(connected(found), found, strict=True):
        merged.setdefault(root, {}).update(dict.fromkeys(names))
    return [tuple(names) for names in merged.values()]


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
    place: _Environment | None
    """The first name of the place, if it has several names."""

    @classmethod
    def of(cls, family: str, text: str, names: tuple[str, ...]) -> _Name:
        """A name of a dataset; `names` are all names of its place, or none if it has one."""
        form = folded(text)
        tokens = {token for word in words(text) for token in re.findall(r"[^\W_]+", word)}
        letters = form.replace(" ", "")
        numbers = re.findall(r"\d+", letters)
        return cls(text, form, letters, numbers, tokens, (family, names[0]) if names else None)

    def shared(self) -> tuple[Any, ...]:
        """What alike names have in common, with names of other datasets and of their own."""
        return (self.form, self.place) if self.place else (self.form,)


def _why(one: _Name, other: _Name, telling: set[str]) -> str | None:
    if one.form == other.form:
        return EQUAL if one.text != other.text else "the same name in two datasets"
    if one.place and one.place == other.place:
        return BUT_FOR
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
