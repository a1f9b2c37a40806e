"""Which features of a LeRobot dataset are read: from the names that people write to features.

The beginning of a name may be left out: `state` is `observation.state`, `top` is `observation.images.top`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from oxcart.compile.catalog import Entry
from oxcart.compile.sources.base import Camera, SourceConfig, clean
from oxcart.compile.sources.cameras import with_roles
from oxcart.compile.sources.lerobot.metadata import RobotDataset, RobotFeature
from oxcart.compile.sources.lerobot.ports import Port
from oxcart.compile.sources.parts import part_slice, split_part
from oxcart.manifests.columns import Column, unnamed
from oxcart.shards.choices import did_you_mean
from oxcart.shards.errors import ConfigError, SourceError

DEFAULTS = {"action": "action", "state": "observation.state", "reward": "next.reward"}
"""Array -> the feature that usually holds it."""
SUCCESS, TERMINAL = ("next.success", "success"), "next.done"
"""Features that tell whether an episode has succeeded, and whether its last step ends it."""
PREFIXES = ("", "observation.", "observation.images.", "next.")
"""Beginnings of a name that may be left out, in order of preference."""

_WRIST = re.compile("wrist|hand", re.IGNORECASE)
_NUMBERS = frozenset(
    (
        *("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64"),
    )
)


@dataclass(frozen=True, kw_only=True)
class RobotNumbers:
    """A feature of numbers, or a part of one, that is concatenated to an array."""

    field: str
    size: int
    """Values of a step of the feature."""
    part: slice | None
    """Those that are taken; None takes all."""

    @property
    def name(self) -> str:
        """Feature and part, such as `action[0:7]`."""
        return self.field + (f"[{self.part.start}:{self.part.stop}]" if self.part else "")

    @property
    def width(self) -> int:
        """Values per step."""
        return self.part.stop - self.part.start if self.part else self.size


def find(name: str, fields: Collection[str]) -> str | None:
    """The first of some features that a name stands for; None if there is none."""
    return next((prefix + name for prefix in PREFIXES if prefix + name in fields), None)


def depth_maps(dataset: RobotDataset) -> list[str]:
    """Features of images that hold depth, which no camera can be read from."""
    return [name for name, one in dataset.features.items() if _is_image(one) and _is_depth(one)]


def choose_cameras(dataset: RobotDataset, config: SourceConfig, known: Entry) -> tuple[Camera, ...]:
    """The requested cameras; else the catalog's primary one, the first that is not on a wrist, or the first.

    Raises:
        ConfigError: there is no such camera, or two cameras have one name or one role.
        SourceError: the dataset has no camera.
    """
    fields = [name for name, one in dataset.features.items() if _is_image(one) and not _is_depth(one)]
    if not fields:
        raise SourceError("no camera: no feature holds colour images or videos", file=dataset.files[0])
    names = {field: clean(re.sub(r"^observation\.(images\.)?", "", field)) for field in fields}
    scene = [field for field in fields if not _WRIST.search(names[field])]
    usual = [name for name in known.cameras or () if find(name, fields)] or scene or fields
    chosen = []
    for name in dict.fromkeys(config.cameras or usual[:1]):
        field = find(name, fields)
        if field is None:
            raise ConfigError(_no_such(f"camera {name!r}", name, fields))
        chosen.append(Camera(name=names[field], field=field))
    wrists = [field for field in fields if field not in scene]
    roles = {wrists[0]: "wrist"} if len(wrists) == 1 and scene else {}
    return with_roles(chosen, config, known.roles or roles, known.channels, find)


def choose_numbers(
    dataset: RobotDataset, option: str, fields: tuple[str, ...] | None
) -> tuple[RobotNumbers, ...]:
    """Features to concatenate to an array; None is the usual one, if the dataset has it.

    Raises:
        ConfigError: there is no such feature or part, or it does not hold numbers.
    """
    features = dataset.features
    if fields is None:
        fields = tuple(one for one in (DEFAULTS[option],) if one in features)
    chosen = []
    for text in fields:
        part = None if find(text, features) else split_part(text)
        name = find(part["name"] if part else text, features)
        if name is None:
            raise ConfigError(_no_such(f"{option} {text!r}", text, features))
        one = features[name]
        if one.dtype not in _NUMBERS or min(one.shape, default=1) < 1:
            raise ConfigError(
                f"{option} {name!r}: expected numbers, the source has {one.dtype} "
                f"{list(one.shape)}; pass --{option} with other features, or none"
            )
        size = math.prod(one.shape)
        chosen.append(RobotNumbers(field=name, size=size, part=part and part_slice(option, text, part, size)))
    width = sum(one.width for one in chosen)
    if option == "reward" and chosen and width != 1:
        raise ConfigError(f"reward: expected one number per step, got {width}; pass --reward with a part")
    return tuple(chosen)


def columns_of(
    dataset: RobotDataset, numbers: Sequence[RobotNumbers], port: Port | None, before: tuple[Column, ...]
) -> tuple[Column, ...]:
    """The columns of an array: as the catalog describes those of a port, else as the dataset names them.

    Args:
        dataset: the dataset.
        numbers: the features that are concatenated.
        port: what the catalog knows of it.
        before: columns of an earlier compile, which come first if they are as many.
    """
    if len(before) == sum(one.width for one in numbers):
        return before
    found: list[Column] = []
    for one in numbers:
        names = dataset.features[one.field].names
        columns = port.columns(one.field, one.size) if port else None
        if columns is None:
            columns = tuple(Column(name=name) for name in names) if names else unnamed(one.field, one.size)
        found += columns[one.part or slice(None)]
    return tuple(found)


def single_values(dataset: RobotDataset) -> dict[str, bool]:
    """Each column with one value per episode or per step -> whether it is of episodes."""
    of_episodes = dataset.episodes[0].columns if dataset.episodes else {}
    found = {name: True for name in of_episodes if _is_scalar(dataset, name)}
    of_steps = (name for name, one in dataset.features.items() if one.shape in ((), (1,)))
    return {**dict.fromkeys(of_steps, False), **found}


def choose_value(dataset: RobotDataset, option: str, name: str) -> tuple[str, bool]:
    """A column with one value per episode or per step, and whether it is of episodes.

    Raises:
        ConfigError: there is no such column, or its values are lists or images.
    """
    there = single_values(dataset)
    field = find(name, there)
    if field is None:
        raise ConfigError(
            f"{option} {name!r}: expected a column with one value per episode or step; there are "
            f"{', '.join(sorted(there))}{did_you_mean(name, there)}"
        )
    return field, there[field]


def _is_scalar(dataset: RobotDataset, column: str) -> bool:
    """Whether a column of the table of episodes holds single values, some of them at least."""
    values = (one.columns[column] for one in dataset.episodes)
    return isinstance(next((one for one in values if one is not None), None), str | int | float)


def _is_image(feature: RobotFeature) -> bool:
    return feature.dtype in ("video", "image")


def _is_depth(feature: RobotFeature) -> bool:
    return feature.depth or 3 not in feature.shape


def _no_such(what: str, name: str, known: Collection[str]) -> str:
    return f"{what}: no such feature; there are {', '.join(sorted(known))}{did_you_mean(name, known)}"
