"""From an audit to a split rule in which every confirmed pair shares a split.

Groups are environments wherever they are known, whatever the dataset was split by before: episodes of one
environment are what leaks. The groups of a confirmed pair are joined, as aliases, so that every later
compile keeps them together. A joined group goes to train; where that would leave val empty, the smallest
that may is held out whole. What is not part of a pair stays where it is. An episode of unknown environment
cannot be held out, so what it is paired with goes to train.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from oxcart.manifests.audit.report import check_format
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SplitRule, connected, places
from oxcart.manifests.tables import EPISODES
from oxcart.shards.errors import ConfigError

_OTHER = "other dataset"


def read_report(path: Path) -> dict[str, Any]:
    """The JSON of an audit.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--report {path}: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:
        raise ConfigError(f"--report {path}: not JSON: {error}") from None
    return check_format(value, f"--report {path}")


def confirmed_pairs(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Pairs of episodes across splits that leak: exact duplicates, and scores beyond the threshold.

    Raises:
        ConfigError: the report lists fewer pairs than it confirmed, or lacks what it should have.
    """
    try:
        limit = report["threshold"]["value"] if report["threshold"] else None
        near = [pair for pair in report["pairs"] if limit is not None and pair["score"] > limit]
        if len(near) < report["confirmed"]:
            raise ConfigError(
                f"--report: {report['confirmed']} pairs are confirmed and {len(near)} of them listed; "
                "audit with a smaller --sample, repair, and audit again"
            )
        return [*near, *report["duplicates"]]
    except (KeyError, TypeError) as error:
        raise ConfigError(f"--report: {error} is missing or not what an audit writes; audit again") from None


def repair(url: str, report: dict[str, Any]) -> tuple[SplitRule, int]:
    """The rule, and how many pairs it joins.

    Args:
        url: of the dataset that is to be compiled anew.
        report: the audit's JSON.

    Raises:
        ConfigError: the report is of other data, or no rule can keep a group held out.
    """
    dataset = Dataset.open(url)
    table = dataset.table(EPISODES, columns=["key", "split", "environment"])
    rows = {row["key"]: row for row in table.to_pylist()}
    fingerprints = {one["fingerprint"]: one["url"] for one in report.get("datasets", [])}
    if dataset.manifest.fingerprint not in fingerprints:
        raise ConfigError(f"--report: is not an audit of {url}, whose fingerprint it does not name; audit it")
    mine = fingerprints[dataset.manifest.fingerprint]
    pairs = confirmed_pairs(report)
    old = dataset.manifest.config.get("split") or {}
    by = "environment" if any(row["environment"] for row in rows.values()) else "episode"
    if by == "environment" and old.get("by") == "environment":
        name_of = places(SplitRule(val=None, aliases=old.get("aliases") or {}))
        aliases = {name: tuple(others) for name, others in (old.get("aliases") or {}).items()}
    else:
        name_of, aliases = {}, {}

    def group(side: str, pair: dict[str, Any]) -> str | None:
        """Name of the group of one side of a pair, None where it is of another dataset."""
        if pair[f"{side}_dataset"] != mine:
            return None
        row = rows[pair[f"{side}_episode"]]
        name: str = row["key"] if by == "episode" else row["environment"] or ""
        return name_of.get(name, name)

    split_of, size = _groups(rows.values(), by, name_of)
    ties: list[tuple[str, ...]] = [(name,) for name in sorted(size)]
    train_only = {""}
    for pair in pairs:
        own = [name for name in (group("held", pair), group("train", pair)) if name is not None]
        ties.append(tuple(own))
        if len(own) == 1:
            # The other dataset stays as it is, and this one follows it.
            train_only |= set(own)
    members = _components([tie for tie in ties if tie])
    touched = {name for pair in pairs for name in (group("held", pair), group("train", pair)) if name}
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
        val=tuple(sorted(name for name in lists["val"] if name)),
        test=tuple(sorted(name for name in lists["test"] if name)) or None,
        train=tuple(sorted(name for name in lists["train"] if name)),
        aliases=_joined(members, aliases) if by == "environment" else {},
    )
    return rule, len(pairs)


def _groups(
    rows: Iterable[dict[str, Any]], by: str, name_of: dict[str, str]
) -> tuple[dict[str, str], Counter[str]]:
    """The split of each group, the one of most of its episodes, and its size; "" is unknown."""
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
    """Names that are tied, directly or by a chain; each once, sorted."""
    found: dict[int, set[str]] = {}
    for root, names in zip(connected(ties), ties, strict=True):
        found.setdefault(root, set()).update(names)
    return sorted(sorted(names) for names in found.values())


def _hold_out(
    lists: dict[str, list[str]], movable: list[list[str]], size: Counter[str], pairs: list[dict[str, Any]]
) -> None:
    """Something for val: joined groups, the smallest first, to a tenth of the episodes or one group."""
    if not movable or len(lists["train"]) <= min(map(len, movable)):
        raise ConfigError(
            f"{len(pairs)} confirmed pairs tie all groups that could be held out: no split of this dataset "
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
    """The alias table with each component as one place."""
    table = dict(aliases)
    for names in members:
        known = [name for name in names if name]
        if len(known) > 1:
            others = set(known[1:])
            for name in known:
                others |= set(table.pop(name, ()))
            table[known[0]] = tuple(sorted(others - {known[0]}))
    return table
