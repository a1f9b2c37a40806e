"""Choose the fields of an HDF5 layout, and read their values from one episode.

    robomimic   one file; an episode is a group of `data`
      data/demo_0/obs/agentview_image     uint8 [T, H, W, 3]
      data/demo_0/obs/robot0_eef_pos      float [T, 3], and other observations: the state
      data/demo_0/actions                 float [T, A]
      data/demo_0/rewards                 float [T]
      mask/train                          names of demos: the source's own splits
    ALOHA       one file per episode
      observations/images/cam_high        uint8 [T, H, W, 3]; or encoded images, one per row
      observations/qpos, qvel, effort     float [T, 14]: the state
      action                              float [T, 14]

A field is named by its path inside the episode, whose beginning may be left out. In any other layout the
options name the fields.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from oxcart.compile.images import MAX_PIXELS, ImageError, image_size
from oxcart.compile.sources.base import Floats
from oxcart.compile.sources.hdf5.files import UnfitError, as_text, check_stored, describe, find
from oxcart.compile.sources.parts import part_slice, split_part
from oxcart.shards.choices import did_you_mean
from oxcart.shards.errors import ConfigError

OBSERVATIONS = ("obs/", "observations/")
"""Where observations are: in the layouts of robomimic and of ALOHA."""
IMAGES = "observations/images/"
"""Where ALOHA has its cameras, which may be encoded."""
PREFIXES = ("", *OBSERVATIONS, IMAGES)
"""Beginnings of a path that may be left out, in order of preference."""
ACTIONS, REWARD = ("actions", "action"), "rewards"
"""Usual names of the action and the reward."""
FILE = "file"
"""Field that stands for the name of an episode's file."""
BLOCK = 32 << 20
"""Bytes of frames that are read at a time, at least one chunk of the file."""

_SHOWN = 8
"""Datasets that a message names."""


@dataclass(frozen=True, kw_only=True)
class NumberField:
    """A field, or a part of one, that is concatenated to the action or the state."""

    path: str
    """Path inside the episode."""
    width: int
    """Values per step that the field has."""
    part: tuple[int, int] | None = None
    """First value of a step that is taken, and the one after the last; None takes all."""

    @property
    def name(self) -> str:
        """Path and part, such as `action[0:7]`."""
        return self.path + (f"[{self.part[0]}:{self.part[1]}]" if self.part else "")

    @property
    def size(self) -> int:
        """Values per step that are taken."""
        return self.part[1] - self.part[0] if self.part else self.width

    def values(self, episode: h5py.Group) -> Floats:
        """Values [T, size] of an episode; those beyond float32 become infinite.

        Raises:
            UnfitError: the episode has no such field, or one of another width.
        """
        dataset = need(episode, self.path)
        if _width(dataset) != self.width:
            raise UnfitError(f"{self.path} is {describe(dataset)}, expected {self.width} numbers per step")
        check_stored(dataset, self.path)
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.asarray(dataset[()]).astype(np.float32).reshape(len(dataset), self.width)
        start, stop = self.part or (0, self.width)
        return values[:, start:stop]


def is_camera(dataset: h5py.Dataset) -> bool:
    """Whether a dataset may hold the images of a camera: frames, or encoded images, one per row."""
    shape: tuple[int, ...] = dataset.shape or ()
    kind = dataset.dtype
    if kind == np.uint8:
        return (len(shape) == 4 and shape[3] == 3) or len(shape) == 2
    return len(shape) == 1 and (kind.kind == "S" or h5py.check_vlen_dtype(kind) == np.uint8)


def default_cameras(there: Mapping[str, h5py.Dataset]) -> list[str]:
    """Paths of the cameras in the layouts that are known; elsewhere short rows of bytes may be anything."""
    return [
        path
        for path, dataset in there.items()
        if is_camera(dataset) and path.startswith(IMAGES if dataset.ndim < 4 else OBSERVATIONS)
    ]


def default_numbers(what: str, there: Mapping[str, h5py.Dataset]) -> tuple[str, ...]:
    """Usual fields of the action, the state or the reward, as far as they are there."""
    if what == "action":
        return tuple(path for path in ACTIONS if path in there)[:1]
    if what == "reward":
        return (REWARD,) if REWARD in there and _width(there[REWARD]) == 1 else ()
    return tuple(
        path
        for path, dataset in there.items()
        if path.startswith(OBSERVATIONS) and path.count("/") == 1 and dataset.ndim <= 2 and _width(dataset)
    )


def choose_numbers(
    what: str, names: Iterable[str] | None, there: Mapping[str, h5py.Dataset]
) -> tuple[NumberField, ...]:
    """The fields that are concatenated to the action, the state or the reward.

    Args:
        what: `action`, `state` or `reward`.
        names: names of fields, or of parts such as `action[:7]`; None is the usual ones.
        there: the datasets of an episode.

    Raises:
        ConfigError: there is no such field or part, or its steps do not all hold equally many numbers.
    """
    chosen = []
    for name in default_numbers(what, there) if names is None else names:
        part = split_part(name) if resolve(name, there) is None else None
        path = resolve(part["name"] if part else name, there)
        if path is None:
            raise ConfigError(no_such(what, name, there))
        width = _width(there[path])
        if not width:
            raise ConfigError(
                f"--{what} {name}: expected numbers for each step, the file has {describe(there[path])}; "
                f"pass --{what} with another field, or none"
            )
        taken = part_slice(f"--{what}", name, part, width) if part else None
        chosen.append(NumberField(path=path, width=width, part=taken and (taken.start, taken.stop)))
    if what == "reward" and chosen and sum(one.size for one in chosen) != 1:
        raise ConfigError(f"--reward: expected one number per step, got {sum(one.size for one in chosen)}")
    return tuple(chosen)


def resolve(name: str, paths: Collection[str]) -> str | None:
    """The first of some paths that a name stands for; None if there is none."""
    return next((prefix + name for prefix in PREFIXES if prefix + name in paths), None)


def no_such(option: str, name: str, there: Mapping[str, h5py.Dataset]) -> str:
    """The message that an option names no field."""
    return f"--{option} {name}: no such field; the file has {shown(there)}{did_you_mean(name, there)}"


def shown(there: Mapping[str, h5py.Dataset]) -> str:
    """Some of the datasets of an episode, with types and shapes."""
    some = [f"{path} ({describe(dataset)})" for path, dataset in [*there.items()][:_SHOWN]]
    more = [f"{len(there) - _SHOWN} more"] if len(there) > _SHOWN else []
    return ", ".join([*some, *more]) or "no dataset"


def need(episode: h5py.Group, path: str) -> h5py.Dataset:
    """The dataset at a path of an episode.

    Raises:
        UnfitError: there is none.
    """
    found = find(episode, path)
    if not isinstance(found, h5py.Dataset):
        raise UnfitError(f"has no {path}")
    return found


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The images of one camera of one episode, in an open file."""

    dataset: h5py.Dataset
    path: str
    encoded: bool
    """Whether each step is an encoded image, not pixels."""
    size: tuple[int, int]
    """Height and width in pixels."""

    def __len__(self) -> int:
        return len(self.dataset)

    def blocks(self) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
        """(first step, frames [n, H, W, 3] uint8) of runs of frames that are not encoded."""
        steps, of_step = len(self), self.size[0] * self.size[1] * 3
        chunk = self.dataset.chunks[0] if self.dataset.chunks else 1
        count = max(1, BLOCK // (of_step * chunk)) * chunk
        for first in range(0, steps, count):
            yield first, self.dataset[first : first + count]

    def files(self) -> list[bytes]:
        """The encoded images, without the zeros that pad them."""
        return [_unpadded(row) for row in self.dataset[()]]


def pictures(episode: h5py.Group, path: str) -> Pictures:
    """The images of a camera; nothing but the first is read.

    Raises:
        UnfitError: there is no such field, or it holds no images.
    """
    dataset = need(episode, path)
    if not is_camera(dataset):
        raise UnfitError(f"{path} is {describe(dataset)}, expected uint8 [T, H, W, 3] or encoded images")
    check_stored(dataset, path)
    encoded = len(dataset.shape) != 4
    if not len(dataset):
        raise UnfitError(f"{path} holds no image")
    if encoded:
        try:
            size = image_size(_unpadded(dataset[0]))
        except ImageError as error:
            raise UnfitError(f"{path}: the image of step 0 {error}") from error
    else:
        size = dataset.shape[1], dataset.shape[2]
        if not 0 < math.prod(size) <= MAX_PIXELS:
            raise UnfitError(f"{path} declares {size[0]}x{size[1]} pixels; too large to be true")
    return Pictures(dataset=dataset, path=path, encoded=encoded, size=size)


def text_of(file: h5py.File, episode: str, name: str, field: str) -> str | None:
    """A text that belongs to an episode; None if there is none.

    Args:
        file: the open file.
        episode: path of the episode's group.
        name: name of the file, which the field `file` stands for.
        field: `file`; or the path of an attribute, or of a dataset of one value, in the episode's group or in
            one above it.

    Raises:
        UnfitError: the field holds something else.
    """
    if field == FILE:
        return name
    value = value_of(file, episode, field)
    return None if value is None else as_text(value, field)


def flag_of(file: h5py.File, episode: str, field: str) -> bool | None:
    """Whether the last number of a field is not 0; None if there is none, or it is NaN.

    Raises:
        UnfitError: the field holds something else, or several numbers per step.
    """
    value = value_of(file, episode, field)
    if value is None:
        return None
    values = np.asarray(value)
    if values.dtype.kind not in "biuf" or math.prod(values.shape[1:]) != 1:
        got = f"{values.dtype} {list(values.shape)}"
        raise UnfitError(f"--success {field}: expected one number, or one per step; got {got}")
    values = values.reshape(-1)
    return bool(values[-1]) if values.size and not np.isnan(values[-1]) else None


def value_of(file: h5py.File, episode: str, field: str) -> Any:
    """The value of an attribute or a dataset in the group of an episode, or else in one above it."""
    above, _, last = field.strip("/").rpartition("/")
    for holder in holders(episode):
        group = find(file, holder)
        node = find(group, above) if isinstance(group, h5py.Group) else None
        if node is None:
            continue
        if last in node.attrs:
            return node.attrs[last]
        inside = find(node, last) if isinstance(node, h5py.Group) else None
        if isinstance(inside, h5py.Dataset):
            check_stored(inside, field)
            return inside[()]
    return None


def holders(episode: str) -> list[str]:
    """Paths of the group of an episode and of those above it, innermost first."""
    parts = episode.split("/") if episode else []
    return ["/".join(parts[:count]) for count in range(len(parts), -1, -1)]


def texts_there(file: h5py.File, episode: str) -> list[str]:
    """Names of the attributes that may tell something of an episode."""
    found = [name for holder in holders(episode) for name in find(file, holder).attrs]
    return [FILE, *dict.fromkeys(found)]


def _width(dataset: h5py.Dataset) -> int:
    """Values per step of a dataset of numbers; 0 if it holds something else."""
    shape = dataset.shape or ()
    return math.prod(shape[1:]) if shape and dataset.dtype.kind in "biuf" else 0


def _unpadded(row: Sequence[int] | bytes | np.ndarray[Any, Any]) -> bytes:
    """An encoded image: neither a JPEG nor a PNG ends with a zero."""
    data = row if isinstance(row, bytes) else np.asarray(row, np.uint8).tobytes()
    return data.rstrip(b"\0")
