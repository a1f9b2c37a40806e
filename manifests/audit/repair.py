"""Turn an audit into a split rule under which every confirmed pair shares a split.

Groups are environments wherever these are known, whatever the dataset was split by before, because episodes
of one environment are what leaks. The groups of a confirmed pair are joined as aliases, so that every later
compile keeps them together. A joined group goes to train. If that would leave val empty, the smallest group
that qualifies is held out whole. Episodes outside any pair stay where they are. An episode of unknown
environment cannot be held out, so its partners go to train; it ties nothing together. Without a confirmed
pair the rule does not change. Nor does `val_seen`, unless a pair involves it: no grouping separates it from
train.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from oxcart.manifests.audit.result import check_format
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SplitRule, joined, places
from oxcart.manifests.tables import EPISODES, rows_of
from oxcart.shards.errors import ConfigError

_WHO = ("dataset", "episode", "split", "environment")


def read_report(path: Path, option: str = "--report") -> dict[str, Any]:
    """The JSON of an audit.

    Args:
        path: the file.
        option: the option that names it, for errors.

    Raises:
        ConfigError: the file cannot be read, or is not the JSON of an audit.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{option} {path}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{option} {path}: not JSON: {error}") from None
    return check_format(value, f"{option} {path}")


def group_pairs(pairs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first pair of a report for each two groups, which is all that a repair needs.

    An episode of unknown environment is a group of its own.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for pair in pairs:
        groups = tuple(
            (pair[f"{side}_dataset"], pair[f"{side}_environment"] or (pair[f"{side}_episode"],))
            for side in ("held", "train")
        )
        if groups not in found:
            names = [f"{side}_{what}" for side in ("held", "train") for what in _WHO]
            found[groups] = {name: pair[name] for name in names}
    return list(found.values())


def confirmed_pairs(report: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """Pairs of episodes across splits that leak: exact duplicates, and scores above the threshold.

    Returns:
        Pairs that tie together all groups that leak, and the number of confirmed pairs.

    Raises:
        ConfigError: the report lists fewer pairs than it confirmed.
        KeyError, TypeError: it lacks what it should have.
    """
    limit = report["threshold"]["value"] if report["threshold"] else None
    near = [pair for pair in report["pairs"] if limit is not None and pair["score"] > limit]
    number = max(len(near), report["confirmed"])
    if len(near) < number:
        near = report.get("group_pairs") or []
        if not near:
            raise ConfigError(
                f"--report: {number} pairs are confirmed and not all of them listed; "
                "audit with a smaller --sample, repair, and audit again"
            )
    return [*near, *report["duplicates"]], number + len(report["duplicates"])


def repair(url: str, report: dict[str, Any]) -> tuple[SplitRule, int]:
    """Make the repaired rule, and count the pairs that it joins.

    Args:
        url: directory or URL of the dataset that is to be compiled again.
        report: the audit's JSON.

    Raises:
        ConfigError: the report is of other data, or no rule can keep a group held out.
    """
    dataset = Dataset.open(url)
    table = dataset.table(EPISODES, columns=["key", "split", "environment"])
    rows = {row["key"]: row for row in rows_of(table)}
    old = dataset.manifest.config.get("split") or {}
    by = "environment" if any(row["environment"] for row in rows.values()) else "episode"
    if by == "environment" and old.get("by") == "environment":
        name_of = places(SplitRule(val=None, aliases=old.get("aliases") or {}))
        aliases = {name: tuple(others) for name, others in (old.get("aliases") or {}).items()}
    else:
        name_of, aliases = {}, {}

    try:
        sides, pairs, seen = _sides(url, dataset.manifest.fingerprint, report, rows)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"--report: {error} is missing or not what an audit writes; audit again") from None
    # The rule drew the first of the datasets; what came since was put beside it, and a new draw is another.
    drawn = not (dataset.manifest.config.get("parents") and by == old.get("by"))
    if not pairs and old and drawn:
        return SplitRule(**old), 0

    def group(row: dict[str, Any]) -> str:
        """Name of the episode's group; "" if it is unknown."""
        name: str = row["key"] if by == "episode" else row["environment"] or ""
        return name_of.get(name, name)

    split_of, size = _groups(rows.values(), by, name_of)
    ties: list[tuple[str, ...]] = [(name,) for name in sorted(size) if name]
    train_only = set()
    touched = set()
    for pair in sides:
        own = sorted({group(row) for row in pair if row is not None} - {""})
        touched |= set(own)
        if any(row is None or not group(row) for row in pair):
            # What is of another dataset or of unknown environment stays as it is, and this one follows it.
            train_only |= set(own)
        if own:
            ties.append(tuple(own))
    members = _components(ties)
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    movable = []
    for names in members:
        if not touched.intersection(names):
            lists[split_of[names[0]]] += names
        elif len(names) == 1 and split_of[names[0]] == "train":
            lists["train"] += names
            if names[0] not in train_only:
                movable.append(names)
        else:
            lists["train"] += names
            if not train_only.intersection(names):
                movable.append(names)
    if not lists["val"]:
        _hold_out(lists, movable, size, pairs)
    rule = SplitRule(
        by=by,
        salt=old.get("salt", "oxcart"),
        val=tuple(sorted(lists["val"])),
        test=tuple(sorted(lists["test"])) or None,
        val_seen=None if seen else old.get("val_seen"),
        train=tuple(sorted(lists["train"])),
        aliases=_joined(members, aliases) if by == "environment" else {},
    )
    return rule, pairs


def _sides(
    url: str, fingerprint: str, report: dict[str, Any], rows: dict[str, dict[str, Any]]
) -> tuple[list[list[dict[str, Any] | None]], int, bool]:
    """Rows of each pair's episodes (None in another dataset), number of pairs, and whether val_seen has one.

    Raises:
        ConfigError: the report is of other data.
        KeyError, TypeError, AttributeError, ValueError: it is not what an audit writes.
    """
    url_of = {one["fingerprint"]: one["url"] for one in report["datasets"]}
    if fingerprint not in url_of:
        raise ConfigError(f"--report: is not an audit of {url}, whose fingerprint it does not name; audit it")
    pairs, number = confirmed_pairs(report)
    found = [
        [
            rows[pair[f"{side}_episode"]] if pair[f"{side}_dataset"] == url_of[fingerprint] else None
            for side in ("held", "train")
        ]
        for pair in pairs
    ]
    # A pair of which neither side is of this dataset says nothing of it.
    mine = [pair for pair in found if any(row is not None for row in pair)]
    return (
        mine,
        number if mine else 0,
        any(row and row["split"] == "val_seen" for pair in mine for row in pair),
    )


def _groups(
    rows: Iterable[dict[str, Any]], by: str, name_of: dict[str, str]
) -> tuple[dict[str, str], Counter[str]]:
    """Split of each group, by the majority of its episodes, and its size; group "" is unknown."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        name = row["key"] if by == "episode" else row["environment"] or ""
        split = row["split"] if row["split"] in ("val", "test") else "train"
        counts.setdefault(name_of.get(name, name), Counter())[split] += 1
    # Some in train, all in train: the rest would leak.
    split_of = {
        name: "train" if found["train"] else found.most_common(1)[0][0] for name, found in counts.items()
    }
    return split_of, Counter({name: sum(found.values()) for name, found in counts.items()})


def _components(ties: list[tuple[str, ...]]) -> list[list[str]]:
    """Sorted names of each connected component: names tied directly or through others."""
    found: dict[str, list[str]] = {}
    for name, first in sorted(joined(ties).items()):
        found.setdefault(first, []).append(name)
    return list(found.values())


def _hold_out(lists: dict[str, list[str]], movable: list[list[str]], size: Counter[str], pairs: int) -> None:
    """Groups for val: joined groups, smallest first, up to a tenth of the episodes or one group."""
    if not movable or len(lists["train"]) <= min(map(len, movable)):
        raise ConfigError(
            f"{pairs} confirmed pairs tie all groups that could be held out: no split of this dataset "
            "by environment is free of leaks; hold out another dataset"
        )
    room = sum(size.values()) * 0.1
    held = 0
    for names in sorted(movable, key=lambda names: (sum(size[n] for n in names), names)):
        number = sum(size[name] for name in names)
        if held and held + number > room:
            break
        if len(lists["train"]) <= len(names):
            break
        held += number
        lists["val"] += names
        lists["train"] = [name for name in lists["train"] if name not in names]


def _joined(members: list[list[str]], aliases: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The alias table in which each component is one place."""
    table = dict(aliases)
    for names in members:
        if len(names) > 1:
            others = set(names[1:])
            for name in names:
                others |= set(table.pop(name, ()))
            table[names[0]] = tuple(sorted(others - {names[0]}))
    return table
