"""What differs between two compiled datasets, or between two split rules: what moved, appeared and vanished.

Equal fingerprints mean the same episodes, splits and frames, and nothing else is compared then. Otherwise
episodes are matched by key and environments by name; an episode whose key stayed and whose digest did not
has changed. Rules are compared as what they list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from oxcart.manifests.canonical import differences
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SPLITS, SplitRule, listed_names, read_rule
from oxcart.manifests.tables import EPISODES, rows_of
from oxcart.shards.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Change:
    """An episode, environment or name whose split differs."""

    what: str
    """Kind of thing: `episode`, `environment`, or `name` for a name in a rule."""
    name: str
    """Key of the episode, or name of the environment or group."""
    before: str | None
    """Split in A; None if it is only in B."""
    after: str | None
    """Split in B; None if it is only in A."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The differences of B from A."""

    identical: bool
    """Whether the fingerprints, or the rules, are equal."""
    a: dict[str, Any]
    """Description of A: fingerprint and counts, or the path of the rule."""
    b: dict[str, Any]
    """Description of B: fingerprint and counts, or the path of the rule."""
    changes: tuple[Change, ...]
    """Changed environments (or names), then changed episodes, each sorted by name."""
    changed: tuple[str, ...]
    """Keys of episodes that are in the same split but have other bytes."""
    configuration: tuple[tuple[str, Any, Any], ...]
    """Settings that differ: name, A's value and B's value."""


def diff(a: str, b: str) -> Difference:
    """Compare two datasets or two rules.

    Raises:
        ConfigError: one of them is neither a dataset nor a rule, or they are of different kinds.
    """
    rules = [is_rule(one) for one in (a, b)]
    if all(rules):
        return _rules(a, b)
    if any(rules):
        rule, other = (a, b) if rules[0] else (b, a)
        raise ConfigError(
            f"diff: expected two datasets or two rules, got the rule {rule!r} and "
            f"{other!r}, which is not a rule; compare like with like"
        )
    return _datasets(a, b)


def is_rule(path: str) -> bool:
    """Whether a path is that of a split rule: a YAML file."""
    return Path(path).suffix.lower() in (".yaml", ".yml")


def _datasets(a: str, b: str) -> Difference:
    one, two = Dataset.open(a), Dataset.open(b)
    sides = [
        {
            "url": url,
            "fingerprint": opened.manifest.fingerprint,
            "splits": {split: count["episodes"] for split, count in opened.manifest.splits.items()},
            "counts": dict(opened.manifest.counts),
        }
        for url, opened in ((a, one), (b, two))
    ]
    if one.manifest.fingerprint == two.manifest.fingerprint:
        return Difference(identical=True, a=sides[0], b=sides[1], changes=(), changed=(), configuration=())
    tables = [
        {row["key"]: row for row in rows_of(opened.table(EPISODES, columns=_COLUMNS))}
        for opened in (one, two)
    ]
    places = [_environments(table) for table in tables]
    splits = [{key: row["split"] for key, row in table.items()} for table in tables]
    changed = [
        key
        for key, row in sorted(tables[0].items())
        if key in tables[1]
        and row["split"] == tables[1][key]["split"]
        and row["digest"] != tables[1][key]["digest"]
    ]
    settings = [
        {
            "config": opened.manifest.config,
            "pixels": opened.manifest.pixels,
            "cameras": {camera["name"]: camera for camera in opened.manifest.cameras},
        }
        for opened in (one, two)
    ]
    return Difference(
        identical=False,
        a=sides[0],
        b=sides[1],
        changes=(*_changes("environment", *places), *_changes("episode", *splits)),
        changed=tuple(changed),
        configuration=tuple(_sorted(*settings)),
    )


_COLUMNS = ["key", "split", "environment", "digest"]


def _rules(a: str, b: str) -> Difference:
    one, two = read_rule(Path(a)), read_rule(Path(b))
    names = [_listed(rule) for rule in (one, two)]
    settings = []
    for rule in (one, two):
        values = {key: value for key, value in asdict(rule).items() if not isinstance(value, tuple)}
        values["aliases"] = {name: list(others) for name, others in rule.aliases.items()}
        settings.append(values)
    return Difference(
        identical=one == two,
        a={"rule": a, "splits": dict(Counter(names[0].values()))},
        b={"rule": b, "splits": dict(Counter(names[1].values()))},
        changes=tuple(_changes("name", *names)),
        changed=(),
        configuration=tuple(_sorted(*settings)),
    )


def _listed(rule: SplitRule) -> dict[str, str]:
    found = {name: split for split, names in listed_names(rule).items() for name in names}
    seen = rule.val_seen if isinstance(rule.val_seen, tuple) else ()
    return found | dict.fromkeys(seen, "val_seen")


def _environments(table: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Environment -> the splits that contain it, in words."""
    found: dict[str, set[str]] = {}
    for row in table.values():
        found.setdefault(row["environment"] or "(unknown)", set()).add(row["split"])
    return {name: " and ".join(s for s in SPLITS if s in splits) for name, splits in found.items()}


def _changes(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    return [Change(what=what, name=name, before=a, after=b) for name, a, b in _sorted(before, after)]


def _sorted(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Changes, sorted by name."""
    return sorted(differences(before, after), key=itemgetter(0))
