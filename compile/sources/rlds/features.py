"""Select features of an RLDS dataset: from the names that people write to the values of a record.

A name is a path such as `steps/observation/state`, whose beginning may be left out (`state`). A feature of
numbers may be sliced: `action[:7]` is the first seven values of each step, in the order in which they are
stored. The slice stays part of the name, so a manifest says where its values came from.

Two ways of storing differ from the plain one. A tensor of numbers may be stored as bytes, perhaps compressed
(TFDS calls this the tensor's encoding); it is unpacked here, one step at a time. Images may be a tensor of
pixels instead of image files; each becomes a PNG, so that all later code sees encoded images. This
costs one encoding per frame, and other datasets nothing.
"""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from tensorflow_datasets.core import features as tfds_features

from oxcart.compile.catalog import Entry
from oxcart.compile.sources.base import Camera, Floats, SourceConfig, clean
from oxcart.compile.sources.cameras import with_roles
from oxcart.compile.sources.parts import part_slice, split_part
from oxcart.compile.sources.rlds.directory import FEATURES, TfdsDirectory
from oxcart.manifests.columns import Column, unnamed
from oxcart.shards.choices import did_you_mean
from oxcart.shards.errors import ConfigError, SourceError

DEFAULTS = {"action": "steps/action", "state": "steps/observation/state"}
"""Features that hold the action and the state in datasets that are not in the catalog."""

REWARD, TERMINAL = "steps/reward", "steps/is_terminal"
"""Features that hold the reward of a step and whether it is terminal, by the rules of RLDS."""
PREFIXES = ("", "steps/", "steps/observation/", "episode_metadata/")
"""Prefixes of a feature's path that may be left out, in order of preference."""

_WHOLE = 1 << 24
"""Largest number up to which float32 holds every whole number."""


@dataclass(frozen=True, kw_only=True)
class ImageFeature:
    """A feature of steps from which a camera can be read."""

    size: tuple[int | None, int | None]
    """Height and width in pixels; None if they differ between episodes."""
    pixels: Tensor | None
    """The tensor that holds the pixels; None if the feature holds image files."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A feature of numbers with one fixed shape per step."""

    path: str
    shape: tuple[int, ...]
    """Shape of one step."""
    dtype: np.dtype[Any]
    packed: str | None
    """`bytes` or `zlib` if a record holds one byte string per step; None if it holds the numbers."""

    def values(self, found: Any) -> np.ndarray[Any, Any]:
        """Values [T, *shape] from what the parser found.

        Raises:
            ValueError: a step does not hold the declared number of values.
        """
        if self.packed is None:
            return np.asarray(found)
        size = math.prod(self.shape) * self.dtype.itemsize
        steps = b"".join([self._unpack(step, data, size) for step, data in enumerate(found)])
        return np.frombuffer(steps, self.dtype.newbyteorder("<")).reshape(len(found), *self.shape)

    def _unpack(self, step: int, data: Any, size: int) -> bytes:
        if not isinstance(data, bytes):
            raise ValueError(f"{self.path} holds numbers where packed bytes are expected")
        complete = True
        if self.packed == "zlib":
            stream = zlib.decompressobj()
            try:
                data = stream.decompress(data, size + 1)  # no more, whatever the data claims
            except zlib.error as error:
                raise ValueError(f"{self.path} cannot be decompressed at step {step}: {error}") from error
            complete = stream.eof
        if len(data) != size or not complete:
            raise ValueError(f"{self.path} holds other than {size} bytes at step {step}")
        return bytes(data)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A feature, or a slice of one, that is concatenated to the action or the state."""

    tensor: Tensor
    part: slice | None
    """Slice of a step's values, in the order in which they are stored; None takes all."""

    @property
    def name(self) -> str:
        """Path and part, e.g. `steps/action[0:7]`."""
        return self.tensor.path + (f"[{self.part.start}:{self.part.stop}]" if self.part else "")

    @property
    def width(self) -> int:
        """Values per step."""
        return self.part.stop - self.part.start if self.part else math.prod(self.tensor.shape)

    def values(self, found: Any) -> Floats:
        """Values [T, width] from what the parser found; values beyond float32 become infinite."""
        with np.errstate(over="ignore"):
            return self._as_stored(found).astype(np.float32)

    def inexact(self, found: Any) -> dict[str, int | float]:
        """Column -> its first value that float32 changes to another whole number.

        Such values are beyond 2^24: time stamps, identifiers. Lost decimals do not count, as nobody expects
        float32 to hold those of float64.
        """
        dtype = self.tensor.dtype
        if dtype != np.float64 and (dtype.kind in "bf" or dtype.itemsize < 4):
            return {}
        stored, start = self._as_stored(found), self.part.start if self.part else 0
        lost: dict[str, int | float] = {}
        for row, column in np.argwhere(np.abs(stored.astype(np.float64)) > _WHOLE).tolist():
            name = f"{self.tensor.path}[{start + column}:{start + column + 1}]"
            value = stored[row, column].item()
            if name not in lost and math.isfinite(value) and as_float32(value) != value:
                lost[name] = value
        return lost

    def _as_stored(self, found: Any) -> np.ndarray[Any, Any]:
        values = self.tensor.values(found)
        flat = values.reshape(len(values), -1 if len(values) else self.width)
        return flat[:, self.part] if self.part and len(values) else flat


def as_float32(value: float) -> float:
    """A number as float32 holds it."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def image_features(directory: TfdsDirectory) -> dict[str, ImageFeature]:
    """Path -> feature, for every feature of steps that holds colour or grey images; image files first."""
    files: dict[str, ImageFeature] = {}
    tensors: dict[str, ImageFeature] = {}
    for path, feature in directory.leaves.items():
        if not path.startswith("steps/") or feature.np_dtype != np.uint8:
            continue
        if isinstance(feature, tfds_features.Image) and feature.shape[2] in (1, 3, None):
            files[path] = ImageFeature(size=(feature.shape[0], feature.shape[1]), pixels=None)
        elif type(feature) is tfds_features.Tensor and len(feature.shape) == 3 and feature.shape[2] in (1, 3):
            pixels = _tensor(directory, path)
            if pixels is not None:
                tensors[path] = ImageFeature(size=(feature.shape[0], feature.shape[1]), pixels=pixels)
    return files | tensors


def choose_cameras(
    directory: TfdsDirectory,
    features: Mapping[str, ImageFeature],
    config: SourceConfig,
    known: Entry,
) -> tuple[Camera, ...]:
    """The requested cameras; else the catalog's primary camera; else the first by name.

    Args:
        directory: the dataset's description of itself.
        features: every feature that a camera can be read from, from `image_features`.
        config: the cameras that are asked for, and what is said of them.
        known: what the catalog says.

    Raises:
        ConfigError: there is no such camera, or two cameras have one name or one role.
        SourceError: the dataset has no camera.
    """
    names = {path: path.removeprefix("steps/").removeprefix("observation/") for path in features}
    short = {name: path for path, name in names.items()}
    if not short:
        others = "".join(f"; {path}: {reason}" for path, reason in directory.unreadable.items())
        raise SourceError(f"no camera: no feature of steps holds uint8 images{others}", file=FEATURES)
    files = [name for name, path in short.items() if features[path].pixels is None]
    chosen = []
    for name in dict.fromkeys(config.cameras or (known.cameras or tuple(sorted(files or short)))[:1]):
        path = short.get(name) or _find(name, features)
        if path is None:
            _refuse_unreadable(directory, "camera", name)
            raise ConfigError(_no_such(f"camera {name!r}", name, short))
        chosen.append(Camera(name=clean(names[path]), field=path))
    return with_roles(chosen, config, known.roles, known.channels, _find)


def choose_numbers(
    directory: TfdsDirectory, option: str, fields: tuple[str, ...] | None
) -> tuple[Numbers, ...]:
    """Features to concatenate; a dictionary stands for its features of numbers, in order of name.

    Args:
        directory: the dataset's description of itself.
        option: `action` or `state`.
        fields: names of features; None is the usual feature, if the dataset has it.

    Raises:
        ConfigError: there is no such feature or part, or its steps do not all hold equally many numbers.
    """
    if fields is None:
        default = DEFAULTS[option]
        every = (*directory.specs, *directory.unreadable)
        fields = (default,) if any(f"{path}/".startswith(f"{default}/") for path in every) else ()
    chosen: list[Numbers] = []
    for field in fields:
        paths, part = _paths(directory, option, field)
        for path in paths:
            tensor = _tensor(directory, path)
            if tensor is None:
                remedy = f"pass --{option} with other features, or none"
                raise ConfigError(f"{option} {path!r}: {_unfit(directory, path)}; {remedy}")
            width = math.prod(tensor.shape)
            chosen.append(Numbers(tensor=tensor, part=part and part_slice(option, field, part, width)))
    return tuple(chosen)


def choose_reward(directory: TfdsDirectory, fields: tuple[str, ...] | None) -> tuple[Numbers, ...]:
    """The feature that holds the reward: the named one, else the usual one if it holds one number per step.

    Raises:
        ConfigError: there is no such feature, or it does not hold one number per step.
    """
    if fields is None:
        fields = (REWARD,) if REWARD in directory.specs and _is_flag(directory, REWARD) else ()
    chosen = choose_numbers(directory, "reward", fields)
    width = sum(one.width for one in chosen)
    if chosen and width != 1:
        raise ConfigError(
            f"reward: expected one number per step, got {width}; pass --reward with a part, such as "
            f"{chosen[0].tensor.path}[:1], or none"
        )
    return chosen


def choose_flag(directory: TfdsDirectory, option: str, field: str) -> str:
    """The path of a feature that holds one number, for the episode or for each step.

    Raises:
        ConfigError: there is no such feature, or it holds something else.
    """
    path = resolve(directory, option, field)
    if _is_flag(directory, path):
        return path
    raise ConfigError(
        f"{option} {path!r}: expected a flag, the source has {described(directory, path)}; "
        f"for a text, pass --{option} {field}~REGEX"
    )


def terminal(directory: TfdsDirectory) -> str | None:
    """The path of the feature that tells whether a step is terminal; None if there is none."""
    return TERMINAL if TERMINAL in directory.specs and _is_flag(directory, TERMINAL) else None


def last_flag(path: str, found: Any) -> bool | None:
    """Whether the last number of a feature is not 0; None if there is none, or it is NaN.

    Raises:
        ValueError: the record does not match its description.
    """
    values = np.asarray([] if found is None else found).reshape(-1)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{path} holds other than numbers")
    return bool(values[-1]) if values.size and not np.isnan(values[-1]) else None


def columns_of(
    numbers: Sequence[Numbers],
    known: Mapping[str, tuple[Column, ...]],
    before: tuple[Column, ...] = (),
) -> tuple[Column, ...]:
    """The columns of an action or a state: as the catalog describes them, else called after their feature.

    Args:
        numbers: features that are concatenated to it.
        known: feature -> columns of its values, from the catalog. Columns that are not as many as the values
            describe another version of the feature, and are not used.
        before: columns of an earlier compile, which come first if they are as many.
    """
    if len(before) == sum(one.width for one in numbers):
        return before
    found: list[Column] = []
    for one, columns in _catalogued(numbers, known):
        size, part = math.prod(one.tensor.shape), one.part or slice(None)
        if len(columns) != size:
            columns = unnamed(one.tensor.path.removeprefix("steps/").removeprefix("observation/"), size)
        found += columns[part]
    return tuple(found)


def unlike_catalog(
    option: str, numbers: Sequence[Numbers], known: Mapping[str, tuple[Column, ...]]
) -> list[str]:
    """A warning for each feature that has not as many values as the catalog has columns for it.

    Args:
        option: `action` or `state`.
        numbers: features that are concatenated to it.
        known: feature -> columns of its values, from the catalog.
    """
    sizes = {
        one.tensor.path: (len(columns), math.prod(one.tensor.shape))
        for one, columns in _catalogued(numbers, known)
    }
    return [
        f"{option} {path}: expected the {expected} values of the catalog, got {size}, so its columns have no "
        f"names and unknown kinds; pass --{option}-names and --{option}-kind"
        for path, (expected, size) in sizes.items()
        if expected not in (0, size)
    ]


def _catalogued(
    numbers: Sequence[Numbers], known: Mapping[str, tuple[Column, ...]]
) -> list[tuple[Numbers, tuple[Column, ...]]]:
    """Each feature with its columns in the catalog; with none if it has no columns there."""
    paths = {_find(name, [one.tensor.path for one in numbers]): columns for name, columns in known.items()}
    return [(one, paths.get(one.tensor.path, ())) for one in numbers]


def resolve(directory: TfdsDirectory, option: str, field: str) -> str:
    """The path of a feature, whose prefix may be left out of its name.

    Raises:
        ConfigError: there is no such feature, or it cannot be read.
    """
    if (path := _find(field, directory.specs)) is not None:
        return path
    _refuse_unreadable(directory, option, field)
    raise ConfigError(_no_such(f"{option} {field!r}", field, directory.specs))


def is_there(directory: TfdsDirectory, field: str) -> bool:
    """Whether there is a feature of this name, even if it or its parent cannot be read."""
    paths = [f"{prefix}{field}/" for prefix in PREFIXES]
    return _find(field, directory.specs) is not None or any(
        path.startswith(f"{other}/") for path in paths for other in directory.unreadable
    )


def described(directory: TfdsDirectory, path: str) -> str:
    """Class, dtype and shape per step of a feature, such as `Image uint8 [256, 256, 3]`."""
    leaf, spec = directory.leaves.get(path), directory.specs[path]
    if leaf is None or not isinstance(leaf.shape, tuple):  # one of several that a feature is stored as
        kind, dtype, shape = "a part of a feature,", spec.np_dtype, shape_of(directory, path)
    else:
        kind, dtype, shape = type(leaf).__name__, leaf.np_dtype, leaf.shape
    name = "string" if dtype == np.object_ else np.dtype(dtype).name
    sides = ", ".join("any" if side is None else str(side) for side in shape)
    return f"{kind} {name}{f' [{sides}]' if shape else ''}"


def shape_of(directory: TfdsDirectory, path: str) -> tuple[int | None, ...]:
    """The shape of a feature as a record stores it; of a feature of steps, that of one step."""
    shape: tuple[int | None, ...] = tuple(directory.specs[path].shape)
    return shape[1:] if path.startswith("steps/") else shape


def as_png(frames: Iterable[np.ndarray[Any, Any]]) -> list[bytes]:
    """An uncompressed PNG file per frame [H, W, 3 or 1] uint8."""
    files = []
    for frame in frames:
        buffer = io.BytesIO()
        pixels = np.ascontiguousarray(frame[:, :, 0] if frame.shape[2] == 1 else frame)
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
        files.append(buffer.getvalue())
    return files


def _find(field: str, paths: Collection[str]) -> str | None:
    """The first of some paths that a name stands for; None if there is none."""
    return next((prefix + field for prefix in PREFIXES if prefix + field in paths), None)


def _paths(directory: TfdsDirectory, option: str, field: str) -> tuple[list[str], re.Match[str] | None]:
    """Paths that a name stands for, and the part of each; a feature of the whole name comes first."""
    part = split_part(field)
    if part and _find(field, directory.specs) is None:
        return [resolve(directory, option, part["name"])], part
    for prefix in PREFIXES:
        if prefix + field in directory.specs:
            return [prefix + field], None
        inside = [path for path in sorted(directory.specs) if path.startswith(f"{prefix}{field}/")]
        if inside or any(path.startswith(f"{prefix}{field}/") for path in directory.unreadable):
            _refuse_unreadable(directory, option, prefix + field)
            return [path for path in inside if _is_number(_dtype(directory, path))] or inside, None
    return [resolve(directory, option, field)], None


def _tensor(directory: TfdsDirectory, path: str) -> Tensor | None:
    """A feature as numbers with one fixed shape per step; None if it is something else."""
    packed = packing(directory, path)
    shape = directory.leaves[path].shape if packed else directory.specs[path].shape[1:]
    dtype = _dtype(directory, path)
    if not path.startswith("steps/") or not _is_number(dtype) or not all(shape):
        return None
    return Tensor(path=path, shape=tuple(shape), dtype=np.dtype(dtype), packed=packed)


def _unfit(directory: TfdsDirectory, path: str) -> str:
    """Reason why a feature cannot be concatenated to an action or a state."""
    if not _is_number(_dtype(directory, path)):
        expected = "numbers"
    elif not path.startswith("steps/"):
        expected = "a feature of steps"
    else:
        expected = "one fixed shape per step that is not empty"
    return f"expected {expected}, the source has {described(directory, path)}"


def _refuse_unreadable(directory: TfdsDirectory, option: str, field: str) -> None:
    """Refuse a name whose feature cannot be read, holds one that cannot be read, or lies in one."""
    for prefix in PREFIXES:
        for path, reason in directory.unreadable.items():
            inner, outer = f"{prefix}{field}/", f"{path}/"
            if inner.startswith(outer) or outer.startswith(inner):
                raise ConfigError(f"{option} {path!r}: {reason}; pass --{option} with other features")


def packing(directory: TfdsDirectory, path: str) -> str | None:
    """The encoding of a tensor that is stored as bytes; None if the feature is stored otherwise."""
    feature = directory.leaves.get(path)
    if feature is None or type(feature) not in (tfds_features.Tensor, tfds_features.Scalar):
        return None
    encoding = feature.to_json_content().encoding
    return str(encoding) if encoding in ("bytes", "zlib") else None


def _dtype(directory: TfdsDirectory, path: str) -> Any:
    return (directory.leaves if packing(directory, path) else directory.specs)[path].np_dtype


def _is_flag(directory: TfdsDirectory, path: str) -> bool:
    """Whether a feature holds one plain number, for the episode or for each step."""
    shape = shape_of(directory, path)
    return shape in ((), (1,)) and not packing(directory, path) and _is_number(_dtype(directory, path))


def _is_number(dtype: Any) -> bool:
    return np.dtype(dtype).kind in "biuf"


def _no_such(what: str, name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    return f"{what}: no such feature; there are {', '.join(sorted(known))}{did_you_mean(name, known)}"
