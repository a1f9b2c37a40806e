"""The split rule: a small YAML file that says which episodes are held out. `assign` applies it.

    by: environment           # what must never be in two splits
    salt: oxcart              # another salt, another draw
    val: 0.1                  # a share of the episodes, or a list of names, or none
    test: none
    val_seen: none            # recording sessions (else episodes) of train's environments
    train: []                 # names that stay in train
    aliases:                  # one place: its other names
      toykitchen1:
        - datacol1_toykitchen1

A rule with lists of names is frozen: nothing that it lists ever moves. The lists are long on purpose, sorted
and one name per line, so that a diff shows every environment that changed sides. A rule holds its names in
canonical order, and normalised where they are instructions, so rules that list the same are equal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from oxcart.shards.choices import did_you_mean, one_of
from oxcart.shards.errors import ConfigError

SPLITS = ("train", "val", "test", "val_seen")
"""All splits. `val_seen` holds held-out episodes from train's environments."""

BY = ("environment", "instruction", "dataset", "episode", "source")
"""Values of `by`: what a rule can split by."""

HeldOut: TypeAlias = float | tuple[str, ...] | None
"""What is held out: a share of the episodes, a list of names, or None for nothing."""

MAX_DEPTH = 8
"""Maximum nesting of collections in the file of a rule; a rule needs three levels."""

DEFAULT: Any = "default"
"""Placeholder for the share of val that suits `by`; the rule replaces it when it is created."""


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """The rule that says which episodes are held out.

    Raises:
        ConfigError: a value of the wrong type, a share outside [0, 1), a name or a place in two splits, or a
            combination that means nothing (a share by dataset, names by source).
    """

    by: str = "environment"
    """Unit that is never divided between splits, one of `BY`; `source` keeps the source's own splits."""
    salt: str = "oxcart"
    """Text that changes the order in which groups are drawn."""
    val: HeldOut = DEFAULT
    """Share of the episodes to hold out, or names of groups. `default` is 0.1; None by dataset or source."""
    test: HeldOut = None
    """Share or names of a second held-out split, drawn from the groups that val leaves."""
    val_seen: HeldOut = None
    """Share or names of sessions (episodes if there are none) to hold out of train's environments."""
    train: tuple[str, ...] = ()
    """Names of groups that stay in train."""
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Place -> its other names. Used by environment and by instruction, whose names people choose."""

    def __post_init__(self) -> None:
        one_of("by", self.by, BY)
        if not isinstance(self.salt, str):
            raise ConfigError(f"salt: expected text, got {self.salt!r}; quote it")
        if self.val == DEFAULT:
            object.__setattr__(self, "val", None if self.by in ("dataset", "source") else 0.1)
        for split in ("val", "test", "val_seen"):
            plain = split == "val_seen"
            object.__setattr__(self, split, _held_out(split, getattr(self, split), self.by, plain))
        object.__setattr__(self, "train", _names("train", self.train, self.by))
        object.__setattr__(self, "aliases", _aliases(self.aliases, self.by))
        _check_combination(self)
        _check_one_split_a_place(self)


def places(rule: SplitRule) -> dict[str, str]:
    """Each name in the alias table -> the name that stands for its place, the first in sorting order."""
    if rule.by not in ("environment", "instruction"):
        return {}
    return joined([(name, *others) for name, others in rule.aliases.items()])


def joined(rows: Sequence[Sequence[str]]) -> dict[str, str]:
    """Each name in rows of tied names -> the first in sorting order of all names that it is tied to."""
    names: dict[int, list[str]] = {}
    for root, row in zip(connected(rows), rows, strict=True):
        names.setdefault(root, []).extend(row)
    return {name: min(same) for same in names.values() for name in same}


def connected(keys: Iterable[Iterable[Hashable]]) -> list[int]:
    """The first item that each item is tied to. Items that share a key are tied, and ties are transitive."""
    parent: list[int] = []
    first: dict[Hashable, int] = {}
    for item, shared in enumerate(keys):
        parent.append(item)
        root = item
        for key in shared:
            other = first.setdefault(key, root)
            while parent[other] != other:
                parent[other] = parent[parent[other]]
                other = parent[other]
            if other < root:
                parent[root] = other
                root = other
            elif other > root:
                parent[other] = root
    # A parent comes before its children, so one pass in order reaches every root.
    for item, above in enumerate(parent):
        parent[item] = parent[above]
    return parent


class _Spaces(dict[int, str | int]):
    """Table for `str.translate`: punctuation, symbols, control and format characters become spaces."""

    def __missing__(self, code: int) -> str | int:
        self[code] = " " if unicodedata.category(chr(code))[0] in "PSCZ" else code
        return self[code]


_SPACES = _Spaces()
_ARTICLES = frozenset(("a", "an", "the"))


def normalise(instruction: str) -> str:
    """Reduce an instruction to its meaning: without case, punctuation, articles and extra white space.

    Unicode NFKC and casefold. Empty where nothing is left. Normalising twice changes nothing.
    """
    text = instruction
    if not text.isascii():
        # Folding can undo NFKC; the second round is stable.
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = text.casefold().translate(_SPACES).split()
    return " ".join([word for word in words if word not in _ARTICLES])


def read_rule(path: Path) -> SplitRule:
    """Read a rule from a YAML file. Missing keys take their defaults.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds a key that no rule has.
    """
    where = f"split rule {path}"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{where}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not UTF-8 text at byte {error.start}") from None
    try:
        _check_plain(text)
        node = yaml.compose(text, Loader=_Loader)
        values = _plain(node) if node else None
        if not isinstance(values, dict):
            raise ConfigError(f"expected keys such as `by: environment` and `val: 0.1`, got {values!r}")
        return SplitRule(**_typed(values))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{where}: {line}not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def write_rule(rule: SplitRule) -> str:
    """The rule as YAML that diffs well: every key in a fixed order, names sorted, one per line."""
    out = ["# oxcart split rule. val, test, val_seen: a share of the episodes, a list of names, or none."]
    for key in (f.name for f in fields(rule)):
        value = getattr(rule, key)
        if key == "aliases":
            out += [f"{key}:"] if value else [f"{key}: {{}}"]
            for name, others in value.items():
                out += [f"  {scalar(name)}:", *(f"    - {scalar(other)}" for other in others)]
        elif isinstance(value, tuple):
            out += [f"{key}:", *(f"  - {scalar(name)}" for name in value)] if value else [f"{key}: []"]
        elif isinstance(value, str):
            out.append(f"{key}: {scalar(value)}")
        else:
            out.append(f"{key}: {'none' if value is None else repr(value)}")
    return "\n".join(out) + "\n"


def _held_out(split: str, value: object, by: str, plain: bool) -> HeldOut:
    if value is None or value == "none":
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not 0 <= value < 1:
            raise ConfigError(
                f"{split}: expected a share of the episodes, from 0 to below 1; got {value!r}; a tenth is 0.1"
            )
        return float(value)
    if isinstance(value, (list, tuple)):
        return _names(split, value, "" if plain else by)
    hint = f"; one name is a list too: [{value}]" if isinstance(value, str) and value else ""
    raise ConfigError(
        f"{split}: expected a share of the episodes like 0.1, a list of names, or none; got {value!r}{hint}"
    )


def _names(key: str, value: object, by: str) -> tuple[str, ...]:
    """Unique names in canonical order; instructions are normalised."""
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{key}: expected a list of names, got {value!r}")
    names = set()
    for given in value:
        name = normalise(given) if by == "instruction" and isinstance(given, str) else given
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{key}: expected names that are text and not empty, got {given!r}")
        names.add(name)
    return tuple(sorted(names))


def _aliases(value: object, by: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"aliases: expected one place and its other names per line, got {value!r}")
    table: dict[str, set[str]] = {}
    for given, others in value.items():
        (name,) = _names("aliases", [given], by)
        # Two spellings of an instruction can be one place.
        table.setdefault(name, set()).update(_names(f"aliases: {given}", others, by))
    return {name: tuple(sorted(table[name] - {name})) for name in sorted(table)}


def _check_combination(rule: SplitRule) -> None:
    if rule.by == "source":
        for key in ("val", "test", "val_seen", "train"):
            if getattr(rule, key) not in (None, ()):
                raise ConfigError(
                    f"{key}: splitting by source keeps the source's own splits, got {getattr(rule, key)!r}; "
                    f"leave {key} out, or split by something else"
                )
    if rule.by == "dataset":
        for key in ("val", "test"):
            if isinstance(getattr(rule, key), float):
                raise ConfigError(
                    f"{key}: splitting by dataset holds out whole datasets, got {getattr(rule, key)}; "
                    "list names of datasets, or split by something else"
                )
        if rule.val_seen is not None:
            got = repr(rule.val_seen)
            raise ConfigError(
                f"val_seen: splitting by dataset holds out whole datasets, got {got}; leave val_seen out"
            )


def _check_one_split_a_place(rule: SplitRule) -> None:
    place = places(rule)
    listed: dict[str, tuple[str, str]] = {}
    for split, names in listed_names(rule).items():
        for name in names:
            other, before = listed.setdefault(place.get(name, name), (name, split))
            if before == split:
                continue
            if other == name:
                raise ConfigError(f"{name!r} is listed in {before} and in {split}; list it once")
            raise ConfigError(
                f"{other!r} is listed in {before} and {name!r} in {split}, but the alias table says they are "
                "one place; list both in one split"
            )


def listed_names(rule: SplitRule) -> dict[str, tuple[str, ...]]:
    """The names of groups that the rule lists, by split (train, val, test)."""
    named = {split: getattr(rule, split) for split in ("train", "val", "test")}
    return {split: names if isinstance(names, tuple) else () for split, names in named.items()}


# Takes every scalar for text: a session called 2021-09-01 is no date, a kitchen called 12 no number.
_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def _check_plain(text: str) -> None:
    """Refuse YAML features that no rule needs and that a hostile file could use to hang the reader."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if getattr(event, "anchor", None) is not None:
            raise ConfigError(f"line {_line(event)}: anchors and aliases of YAML are not allowed")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise ConfigError(f"line {_line(event)}: nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def _plain(node: yaml.Node) -> Any:
    """A YAML node as text, lists and dicts; a repeated key, which YAML itself allows, is an error."""
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    values: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value in values:
            problem = f"key {key.value!r} is given twice" if isinstance(key, yaml.ScalarNode) else "not a key"
            raise ConfigError(f"line {key.start_mark.line + 1}: {problem}")
        values[key.value] = _plain(value)
    return values


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a rule, with shares as numbers, after checking every key."""
    keys = [f.name for f in fields(SplitRule)]
    for key, value in values.items():
        if key not in keys:
            raise ConfigError(f"unknown key {key!r}; expected {', '.join(keys)}{did_you_mean(key, keys)}")
        if value == "" and key != "salt":
            raise ConfigError(f"{key}: is empty; give a value, or leave {key} out")
        if key in ("val", "test", "val_seen") and isinstance(value, str):
            try:
                values[key] = float(value)
            except ValueError:
                continue
    return values


_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*(?: [A-Za-z0-9_./-]+)*")
_MEANINGFUL = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "default"}


def scalar(text: str) -> str:
    """Text as a YAML scalar on one line: plain if every YAML reader takes it for that text, else quoted.

    If two Unicode forms of a text look the same, the decomposed one is written in ASCII.
    """
    if _PLAIN.fullmatch(text) and text.lower() not in _MEANINGFUL:
        return text
    composed = unicodedata.is_normalized("NFC", text)
    quoted: str = yaml.safe_dump(text, default_style='"', width=float("inf"), allow_unicode=composed)
    return quoted.removesuffix("\n")
