"""Known facts about each dataset: one YAML file per dataset, named exactly as in its `dataset_info.json`.

    about: ...          # one line: who does what where
    version: 1.0.0      # the version whose features the entry describes
    cameras: [image_0]  # the primary first; a camera may have slashes in its name
    roles: {image_0: primary, hand: wrist}    # or secondary; a dataset need not have a camera of each role
    channels: {hand: bgr}                     # order in which the images hold their colours, if it is not rgb
    instruction: [...]  # features, in order of preference; `steps/` and `observation/` may be left out
    action: [...]       # features or parts of them (`action[:7]`), concatenated in this order
    state: [...]        # the same; empty if there is none
    columns:            # a feature, named without a part -> its values, from the first on
      action:
        - {names: [dx, dy, dz], kind: delta, unit: m, frame: base}    # see manifests/columns.py
        - {names: [gripper], kind: gripper_absolute}
    success: episode_metadata/success             # a flag of the episode; or with a text that a regex tells:
    success: {field: file_path, pattern: /success/}
    no_action: [last]   # or first: steps of every episode whose action means nothing, by its builder
    control_rate:
      hz: 5.0
      verified: true    # the dataset's own documentation or recorder says so
      source: ...       # one line: where the rate is said
    environment:        # where an episode's environment is recorded
      field: episode_metadata/file_path
      patterns: [...]   # regular expressions with groups `environment` and `session`; the first match counts
      optional: true    # some copies lack the field; their environments are unknown
      known: declared   # or inferred
    environment: {whole: peg_station, known: inferred}    # or: all of it was recorded in one place
    aliases:            # one environment -> its other names
      toykitchen1: [datacol1_toykitchen1]
    licence: CC-BY-4.0  # of the data; an SPDX licence expression, or a URL
    citation: ...       # one line: the URL of a paper or a page, or a reference in words
    ports:              # LeRobot datasets that were converted from it
      repos: [lerobot/x]                     # their repo ids
      cameras: {primary: image_0}            # a camera of the ports -> that of the dataset, if names differ
      rgb: [lerobot/x]                       # ports whose converter made RGB of what `channels` says is BGR
      columns: {action: [...], observation.state: [...]}    # as above, of what converters make of them
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

from oxcart.compile.sources.base import EnvironmentRule, SuccessRule, clean
from oxcart.manifests.columns import Column, check_distinct
from oxcart.manifests.licence import check_licence
from oxcart.manifests.roles import CHANNELS, ROLES
from oxcart.manifests.schema import ENDS
from oxcart.shards.choices import did_you_mean, one_of
from oxcart.shards.errors import ConfigError

KNOWN = ("declared", "inferred")
_LISTS = ("cameras", "instruction", "action", "state", "no_action", "notes")
_COLUMNS = ("names", "kind", "unit", "frame")
_PORTS = ("repos", "cameras", "rgb", "columns")
_RULE = ("field", "whole", "optional", "patterns", "known")
_GROUPS = ("environment", "session")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PART = re.compile(r"(?P<feature>.+)\[(?P<start>\d*):(?P<stop>\d*)\]")


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The LeRobot datasets that were converted from a dataset."""

    repos: tuple[str, ...] = ()
    """Their repo ids."""
    cameras: Mapping[str, str] = field(default_factory=dict)
    """Camera of the ports -> camera of the dataset, where their names differ."""
    rgb: tuple[str, ...] = ()
    """Ports whose converter has made RGB of cameras that hold BGR."""
    columns: Mapping[str, tuple[Column, ...]] = field(default_factory=dict)
    """Feature of the ports -> its values, with those named `pad...` that only some converters write."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The known facts about one dataset; any of them may be missing."""

    about: str = ""
    """One line on what the dataset is."""
    version: str | None = None
    """Version whose features the entry describes."""
    cameras: tuple[str, ...] | None = None
    """Cameras, the primary first."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Camera -> one of `ROLES`; each role is at most one camera's."""
    channels: Mapping[str, str] = field(default_factory=dict)
    """Camera -> one of `CHANNELS`; a camera that is not listed holds RGB."""
    instruction: tuple[str, ...] | None = None
    """Features with instructions, in order of preference."""
    action: tuple[str, ...] | None = None
    """Features, or parts of them, that are concatenated to the action; empty for none."""
    state: tuple[str, ...] | None = None
    """Features, or parts of them, that are concatenated to the state; empty for none."""
    columns: Mapping[str, tuple[Column, ...]] = field(default_factory=dict)
    """Feature of `action` or `state` -> its values, from the first on; of `feature[:7]`, the first seven."""
    success: SuccessRule | None = None
    """Where the source says whether an episode succeeded."""
    no_action: tuple[str, ...] = ()
    """Steps of every episode, of `ENDS`, whose action means nothing."""
    control_rate: dict[str, Any] | None = None
    """`hz`; `verified`: whether the dataset's own documentation or recorder states it; `source`: where it is
    said."""
    environment: EnvironmentRule | None = None
    """Where the environment is recorded."""
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Environment -> its other names."""
    licence: str | None = None
    """Licence of the data: an SPDX expression or a URL."""
    citation: str | None = None
    """What to cite: a URL, or a reference in words; one line."""
    ports: Ports = field(default_factory=Ports)
    """LeRobot datasets that were converted from it."""
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


@cache
def ported(repo_id: str) -> str | None:
    """The name of the dataset of which a LeRobot dataset is a port; None if it is not known to be one."""
    folder = resources.files(__name__)
    # YAML takes 5 ms a file: only files that hold the text are parsed.
    held = (name for name in names() if repo_id in (folder / f"{name}.yaml").read_text("utf-8"))
    return next((name for name in held if repo_id in lookup(name).ports.repos), None)


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
    if not _is_line(value.get("about")):
        raise ConfigError(f"about: expected one line of text, got {value.get('about')!r}")
    if not _is_line(value.get("version", "-")):
        raise ConfigError(f"version: expected text such as 1.0.0, got {value['version']!r}; quote it")
    if not _is_line(value.get("citation", "-")):
        raise ConfigError(f"citation: expected one line of text, got {value['citation']!r}")
    lists = {key: _texts(key, value[key]) for key in _LISTS if key in value}
    cameras = [clean(camera) for camera in lists.get("cameras", ("-",))]
    if not cameras or len(set(cameras)) != len(cameras):
        raise ConfigError(f"cameras: expected names that differ as members of an episode, got {cameras}")
    for end in lists.get("no_action", ()):
        one_of("no_action", end, ENDS)
    return Entry(
        about=value["about"],
        version=value.get("version"),
        roles=_roles(value.get("roles", {}), lists.get("cameras", ())),
        channels=_per_camera("channels", value.get("channels", {}), lists.get("cameras", ()), CHANNELS),
        columns=_columns(value.get("columns", {}), lists.get("action", ()), lists.get("state", ())),
        success=_success(value["success"]) if "success" in value else None,
        control_rate=_control_rate(value["control_rate"]) if "control_rate" in value else None,
        environment=_environment(value["environment"]) if "environment" in value else None,
        aliases=_aliases(value.get("aliases", {})),
        licence=_licence(value["licence"]) if "licence" in value else None,
        citation=value.get("citation"),
        ports=_ports(value["ports"], lists.get("cameras", ())) if "ports" in value else Ports(),
        **lists,
    )


def _roles(value: Any, cameras: tuple[str, ...]) -> dict[str, str]:
    roles = _per_camera("roles", value, cameras, ROLES)
    if len(set(roles.values())) != len(roles):
        raise ConfigError(f"roles: expected a role of its own for each camera, got {value}")
    if "primary" in roles.values() and roles.get(cameras[0]) != "primary":
        raise ConfigError(f"roles: the first camera is the primary one; {cameras[0]} is first")
    return roles


def _per_camera(key: str, value: Any, cameras: tuple[str, ...], allowed: tuple[str, ...]) -> dict[str, str]:
    """A table from cameras to a word each."""
    _check_keys(key, value, cameras)
    for camera, word in value.items():
        one_of(f"{key}: {camera}", word, allowed)
    return dict(value)


def _columns(value: Any, action: tuple[str, ...], state: tuple[str, ...]) -> dict[str, tuple[Column, ...]]:
    _check_keys("columns", value, [parted(field)[0] for field in (*action, *state)])
    table = {feature: _feature_columns(f"columns: {feature}", groups) for feature, groups in value.items()}
    for key, picks in (("action", action), ("state", state)):
        picked: list[Column] = []
        for feature, part in map(parted, picks):
            columns = table.get(feature, ())
            if columns and (part.stop or 0) > len(columns):
                raise ConfigError(f"columns: {feature}: expected {part.stop} or more, got {len(columns)}")
            picked += columns[part]
        check_distinct(picked, key)
    return table


def parted(field: str) -> tuple[str, slice]:
    """Feature and part of a pick such as `action[:7]`."""
    match = _PART.fullmatch(field)
    if not match:
        return field, slice(None)
    start, stop = (int(end) if end else None for end in match.group("start", "stop"))
    return match["feature"], slice(start, stop)


def _feature_columns(key: str, groups: Any) -> tuple[Column, ...]:
    if not isinstance(groups, list) or not groups:
        raise ConfigError(f"{key}: expected a list of columns that have names and a kind, got {groups!r}")
    columns: list[Column] = []
    for group in groups:
        _check_keys(key, group, _COLUMNS)
        for about in ("unit", "frame"):
            if about in group and not _is_text(group[about]):
                raise ConfigError(f"{key}: {about}: expected text, got {group[about]!r}")
        names = _texts(f"{key}: names", group.get("names"))
        columns += [
            Column(name=name, kind=group.get("kind"), unit=group.get("unit"), frame=group.get("frame"))
            for name in names
        ]
    check_distinct(columns, key)
    return tuple(columns)


def _success(value: Any) -> SuccessRule:
    if _is_text(value):
        return SuccessRule(field=value)
    _check_keys("success", value, ("field", "pattern"))
    for key in ("field", "pattern"):
        if not _is_text(value.get(key)):
            raise ConfigError(f"success: {key}: expected text, got {value.get(key)!r}")
    return SuccessRule(**value)


def _control_rate(value: Any) -> dict[str, Any]:
    _check_keys("control_rate", value, ["hz", "verified", "source"])
    hz, verified, source = (value.get(key) for key in ("hz", "verified", "source"))
    if type(hz) is not float or not 0 < hz < 1000 or type(verified) is not bool or not _is_line(source):
        raise ConfigError(
            "control_rate: expected hz like 5.0, verified true or false, and a source of one line; "
            f"got {value}"
        )
    return {"hz": hz, "verified": verified, "source": source}


def _ports(value: Any, cameras: tuple[str, ...]) -> Ports:
    _check_keys("ports", value, _PORTS)
    repos, rgb = (_texts(f"ports: {key}", value.get(key, [])) for key in ("repos", "rgb"))
    for repo in repos:
        if not _REPO.fullmatch(repo):
            raise ConfigError(f"ports: repos: expected repo ids such as lerobot/viola, got {repo!r}")
    for repo in rgb:
        one_of("ports: rgb", repo, repos)
    renamed = value.get("cameras", {})
    if not isinstance(renamed, dict) or not all(map(_is_text, renamed)):
        raise ConfigError(f"ports: cameras: expected names of ports and of the dataset, got {renamed!r}")
    for camera in renamed.values():
        one_of("ports: cameras", camera, cameras)
    features = value.get("columns", {})
    _check_keys("ports: columns", features, ("action", "observation.state"))
    columns = {name: _feature_columns(f"ports: columns: {name}", one) for name, one in features.items()}
    return Ports(repos=repos, cameras=dict(renamed), rgb=rgb, columns=columns)


def _licence(value: Any) -> str:
    if not _is_text(value):
        raise ConfigError(f"licence: expected text such as CC-BY-4.0, got {value!r}")
    return check_licence(value)


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
        raise ConfigError(f"{what}: expected keys such as {next(iter(allowed), 'none')}, got {value!r}")
    for key in value:
        if key not in allowed:
            hint = did_you_mean(str(key), allowed)
            raise ConfigError(f"{what}: unknown key {key!r}; expected {', '.join(allowed) or 'none'}{hint}")


def _texts(key: str, value: Any) -> tuple[str, ...]:
    """A list of distinct texts, as a tuple."""
    if not isinstance(value, list) or not all(map(_is_text, value)) or len(set(value)) != len(value):
        raise ConfigError(f"{key}: expected a list of texts that differ, got {value!r}")
    return tuple(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() == value != ""


def _is_line(value: Any) -> bool:
    return _is_text(value) and len(value.splitlines()) == 1
