"""Known facts about each dataset: one YAML file per dataset, named exactly as in its `dataset_info.json`.

    about: ...          # one line: who does what where
    version: 1.0.0      # the version whose features the entry describes
    cameras: [image_0]  # the primary first; a camera may have slashes in its name
    instruction: [...]  # features, in order of preference; `steps/` and `observation/` may be left out
    action: [...]       # features or parts of them (`action[:7]`), concatenated in this order
    state: [...]        # the same; empty if there is none
    control_rate: {hz: 5.0, verified: true}    # verified: the dataset's own documentation or recorder says so
    environment:        # where an episode's environment is recorded
      field: episode_metadata/file_path
      patterns: [...]   # regular expressions with groups `environment` and `session`; the first match counts
      optional: true    # some copies lack the field; their environments are unknown
      known: declared   # or inferred
    environment: {whole: peg_station, known: inferred}    # or: all of it was recorded in one place
    aliases:            # one environment -> its other names
      toykitchen1: [datacol1_toykitchen1]
    notes: [...]        # sentences shown to anyone who compiles the dataset

Everything but `about` may be left out; unknown facts are. A comment says where a fact was found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from typing import Any

import yaml

from oxcart.compile.sources.base import EnvironmentRule, clean
from oxcart.manifests.columns import Column
from oxcart.shards.choices import did_you_mean, one_of
from oxcart.shards.errors import ConfigError

KNOWN = ("declared", "inferred")
_LISTS = ("cameras", "instruction", "action", "state", "notes")
_RULE = ("field", "whole", "optional", "patterns", "known")
_GROUPS = ("environment", "session")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The known facts about one dataset; any of them may be missing."""

    about: str = ""
    """One line on what the dataset is."""
    version: str | None = None
    """Version whose features the entry describes."""
    cameras: tuple[str, ...] | None = None
    """Cameras, the primary first."""
    instruction: tuple[str, ...] | None = None
    """Features with instructions, in order of preference."""
    action: tuple[str, ...] | None = None
    """Features, or parts of them, that are concatenated to the action; empty for none."""
    state: tuple[str, ...] | None = None
    """Features, or parts of them, that are concatenated to the state; empty for none."""
    control_rate: dict[str, Any] | None = None
    """`hz`, and `verified`: whether the dataset's own documentation or recorder states it."""
    environment: EnvironmentRule | None = None
    """Where the environment is recorded."""
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Environment -> its other names."""
    columns: Mapping[str, tuple[Column, ...]] = field(default_factory=dict)
    no_action: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences shown to anyone who compiles the dataset."""


def names() -> list[str]:
    """Names of all datasets in the catalog, sorted."""
    here = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in here if file.name.endswith(".yaml"))


@cache
def lookup(name: str) -> Entry:
    """The entry of the dataset with exactly this name; an empty entry if there is none."""
    file = resources.files(__name__) / f"{name}.yaml"
    if clean(name) != name or not file.is_file():
        return Entry()
    return parse(name, file.read_text("utf-8"))


def parse(name: str, text: str) -> Entry:
    """Parse an entry from its YAML.

    Raises:
        ConfigError: the text is not YAML, or says something that an entry cannot say.
    """
    try:
        return _entry(yaml.load(text, _Loader))
    except yaml.YAMLError as error:
        raise ConfigError(f"catalog entry {name}: not YAML: {' '.join(str(error).split())}") from None
    except ConfigError as error:
        raise ConfigError(f"catalog entry {name}: {error}") from None


class _Loader(yaml.SafeLoader):
    """A YAML loader that refuses repeated keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        value: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(value) != len(node.value):
            raise ConfigError(f"line {node.start_mark.line + 1}: a key is given twice")
        return value


def _entry(value: Any) -> Entry:
    _check_keys("an entry", value, [one.name for one in fields(Entry)])
    about, version = value.get("about"), value.get("version")
    if not _is_text(about) or len(about.splitlines()) != 1:
        raise ConfigError(f"about: expected one line of text, got {about!r}")
    if version is not None and not _is_text(version):
        raise ConfigError(f"version: expected text such as 1.0.0, got {version!r}; quote it")
    lists = {key: _texts(key, value[key]) for key in _LISTS if key in value}
    cameras = [clean(camera) for camera in lists.get("cameras", ("-",))]
    if not cameras or len(set(cameras)) != len(cameras):
        raise ConfigError(f"cameras: expected names that differ as members of an episode, got {cameras}")
    return Entry(
        about=about,
        version=version,
        control_rate=_control_rate(value["control_rate"]) if "control_rate" in value else None,
        environment=_environment(value["environment"]) if "environment" in value else None,
        aliases=_aliases(value.get("aliases", {})),
        **lists,  # type: ignore[arg-type]
    )


def _control_rate(value: Any) -> dict[str, Any]:
    _check_keys("control_rate", value, ["hz", "verified"])
    hz, verified = value.get("hz"), value.get("verified")
    if type(hz) is not float or not 0 < hz < 1000 or type(verified) is not bool:
        raise ConfigError(f"control_rate: expected hz like 5.0 and verified true or false, got {value}")
    return {"hz": hz, "verified": verified}


def _environment(value: Any) -> EnvironmentRule:
    _check_keys("environment", value, _RULE)
    for key in ("field", "whole"):
        if key in value and not _is_text(value[key]):
            raise ConfigError(f"environment: {key}: expected text, got {value[key]!r}")
    patterns = _texts("environment: patterns", value.get("patterns", []))
    one_of("environment: known", value.get("known"), KNOWN)
    if type(value.get("optional", False)) is not bool:
        raise ConfigError(f"environment: optional: expected true or false, got {value['optional']!r}")
    if "whole" in value and (patterns or "optional" in value):
        raise ConfigError("environment: patterns and optional belong to a field; whole has none")
    rule = EnvironmentRule(**{**value, "patterns": patterns})
    for pattern in patterns:
        groups = re.compile(pattern).groupindex
        if "environment" not in groups or not set(groups) <= set(_GROUPS):
            raise ConfigError(
                f"environment pattern {pattern!r}: expected a group `environment` and perhaps `session`, "
                f"got {', '.join(groups) or 'none'}"
            )
    return rule


def _aliases(value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict) or not all(map(_is_text, value)):
        raise ConfigError(f"aliases: expected one environment and its other names per line, got {value!r}")
    table = {place: _texts(f"aliases: {place}", others) for place, others in value.items()}
    every = [*table, *(name for others in table.values() for name in others)]
    twice = sorted({name for name in every if every.count(name) > 1})
    if twice:
        raise ConfigError(f"aliases: {twice[0]!r} is listed twice; list each environment in one row")
    return table


def _check_keys(what: str, value: Any, allowed: Any) -> None:
    if not isinstance(value, dict):
        raise ConfigError(f"{what}: expected keys such as {allowed[0]}, got {value!r}")
    for key in value:
        if key not in allowed:
            hint = did_you_mean(str(key), allowed)
            raise ConfigError(f"{what}: unknown key {key!r}; expected {', '.join(allowed)}{hint}")


def _texts(key: str, value: Any) -> tuple[str, ...]:
    """A list of distinct texts, as a tuple."""
    if not isinstance(value, list) or not all(map(_is_text, value)) or len(set(value)) != len(value):
        raise ConfigError(f"{key}: expected a list of texts that differ, got {value!r}")
    return tuple(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() == value != ""
