"""The features of an RLDS dataset that are wanted: from names that people write to the values of a record.

A name is a path such as `steps/observation/state`, whose beginning may be left out (`state`). A feature of
numbers may be cut: `action[:7]` is the first seven values of a step, in the order in which they are stored.
The cut is part of the name from then on, so a manifest says where its values came from.

Two ways of storing differ from the plain one. A tensor of numbers may be bytes, perhaps compressed (TFDS
calls it the tensor's encoding); it is unpacked here, one step at a time. Images may be a tensor of pixels
instead of image files; each becomes a PNG, so that whatever follows sees encoded images alone. That costs a
dataset of such pixels an encoding a frame, and no other dataset anything.
"""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from tensorflow_datasets.core import features as tfds_features

from oxcart.compile.sources.base import Camera, Floats, clean
from oxcart.compile.sources.rlds.directory import FEATURES, TfdsDirectory
from oxcart.shards.choices import did_you_mean
from oxcart.shards.errors import ConfigError, SourceError

DEFAULTS = {"action": "steps/action", "state": "steps/observation/state"}
"""Features that hold action and state in datasets that the catalog does not know."""

PREFIXES = ("", "steps/", "steps/observation/", "episode_metadata/")
"""What may be left out of a feature's path, in order of preference."""

_WHOLE = 1 << 24
"""Up to here float32 holds every whole number."""
_PART = re.compile(r"(?P<name>.+)\[(?P<start>-?\d{1,9})?:(?P<stop>-?\d{1,9})?\]", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class ImageFeature:
    """A feature of steps that a camera can be read from."""

    size: tuple[int | None, int | None]
    """Height and width, None where every episode has its own."""
    pixels: Tensor | None
    """How its pixels are stored, where they are a tensor and no image files."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Numbers of a fixed shape a step."""

    path: str
    shape: tuple[int, ...]
    """Of one step."""
    dtype: np.dtype[Any]
    packed: str | None
    """`bytes` or `zlib` where a record holds one byte string a step, None where it holds the numbers."""

    def values(self, found: Any) -> np.ndarray[Any, Any]:
        """[T, *shape] from what the parser found.

        Raises:
            ValueError: a step does not hold that many values.
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
                data = stream.decompress(data, size + 1)  # not more, whatever it claims
            except zlib.error as error:
                raise ValueError(f"{self.path} cannot be decompressed at step {step}: {error}") from error
            complete = stream.eof
        if len(data) != size or not complete:
            raise ValueError(f"{self.path} holds other than {size} bytes at step {step}")
        return bytes(data)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A feature, or a part of one, that goes into the action or the state."""

    tensor: Tensor
    part: slice | None
    """Which of the values of a step, as they lie one after another; None is all."""

    @property
    def name(self) -> str:
        """Path and part, e.g. `steps/action[0:7]`."""
        return self.tensor.path + (f"[{self.part.start}:{self.part.stop}]" if self.part else "")

    @property
    def width(self) -> int:
        """Values a step."""
        return self.part.stop - self.part.start if self.part else math.prod(self.tensor.shape)

    def values(self, found: Any) -> Floats:
        """[T, width] from what the parser found; what is beyond float32 becomes infinite."""
        with np.errstate(over="ignore"):
            return self._as_stored(found).astype(np.float32)

    def inexact(self, found: Any) -> dict[str, int | float]:
        """Column -> the first of its values that float32 takes for another whole number.

        Those are beyond 2^24: a time stamp, an identifier. That float32 holds fewer decimals than float64 is
        no surprise to anybody.
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
    """What float32 makes of a number."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def image_features(directory: TfdsDirectory) -> dict[str, ImageFeature]:
    """Path -> every feature of steps that holds colour or grey pictures; image files first."""
    found: dict[str, ImageFeature] = {}
    tensors: dict[str, ImageFeature] = {}
    for path, feature in directory.leaves.items():
        if not path.startswith("steps/") or feature.np_dtype != np.uint8:
            continue
        if isinstance(feature, tfds_features.Image) and feature.shape[2] in (1, 3, None):
            found[path] = ImageFeature(size=(feature.shape[0], feature.shape[1]), pixels=None)
        elif type(feature) is tfds_features.Tensor and len(feature.shape) == 3 and feature.shape[2] in (1, 3):
            pixels = _tensor(directory, path)
            if pixels is not None:
                tensors[path] = ImageFeature(size=(feature.shape[0], feature.shape[1]), pixels=pixels)
    return {**found, **tensors}


def choose_cameras(
    directory: TfdsDirectory,
    features: Mapping[str, ImageFeature],
    wanted: tuple[str, ...] | None,
    known: tuple[str, ...] | None,
) -> tuple[Camera, ...]:
    """The cameras of `pictures` that are asked for; else the catalog's primary one; else the first by name.

    Raises:
        ConfigError: there is no such camera, or two of one name.
        SourceError: there is no camera at all.
    """
    short = {path.removeprefix("steps/").removeprefix("observation/"): path for path in features}
    if not short:
        others = "".join(f"; {path}: {reason}" for path, reason in directory.unreadable.items())
        raise SourceError(f"no camera: no feature of steps holds uint8 images{others}", file=FEATURES)
    files = [name for name, path in short.items() if features[path].pixels is None]
    chosen = []
    for name in dict.fromkeys(wanted or (known or tuple(sorted(files or short)))[:1]):
        path = short.get(name) or next(
            (prefix + name for prefix in PREFIXES if prefix + name in features), None
        )
        if path is None:
            _refuse_unreadable(directory, "camera", name)
            raise ConfigError(_no_such(f"camera {name!r}", name, short))
        chosen.append(
            Camera(name=clean(path.removeprefix("steps/").removeprefix("observation/")), field=path)
        )
    names = [camera.name for camera in chosen]
    for name in names:
        if names.count(name) > 1 or name in ("action", "state"):
            raise ConfigError(
                f"camera {name!r}: the name is taken; two members of one episode would be called so"
            )
    return tuple(chosen)


def choose_numbers(
    directory: TfdsDirectory, option: str, fields: tuple[str, ...] | None
) -> tuple[Numbers, ...]:
    """Features to concatenate. A field that is a dictionary stands for its numbers, in order of name.

    Raises:
        ConfigError: there is no such feature or part of it, or not the same count of numbers a step.
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
            chosen.append(Numbers(tensor=tensor, part=part and _slice(option, field, part, tensor)))
    return tuple(chosen)


def resolve(directory: TfdsDirectory, option: str, field: str) -> str:
    """The path of a feature whose prefix may be left out.

    Raises:
        ConfigError: there is no such feature, or it cannot be read.
    """
    for prefix in PREFIXES:
        if prefix + field in directory.specs:
            return prefix + field
    _refuse_unreadable(directory, option, field)
    raise ConfigError(_no_such(f"{option} {field!r}", field, directory.specs))


def is_there(directory: TfdsDirectory, field: str) -> bool:
    """Whether there is a feature of this name, be it one, or in one, that cannot be read."""
    paths = [prefix + field for prefix in PREFIXES]
    if any(path in directory.specs for path in paths):
        return True
    return any(f"{path}/".startswith(f"{other}/") for path in paths for other in directory.unreadable)


def described(directory: TfdsDirectory, path: str) -> str:
    """What a feature is, such as `Image uint8 [256, 256, 3]`; the shape is that of one step."""
    leaf, spec = directory.leaves.get(path), directory.specs[path]
    if leaf is None or not isinstance(leaf.shape, tuple):  # one of several that a feature is stored as
        kind, dtype, shape = "a part of a feature,", spec.np_dtype, shape_of(directory, path)
    else:
        kind, dtype, shape = type(leaf).__name__, leaf.np_dtype, leaf.shape
    name = "string" if dtype == np.object_ else np.dtype(dtype).name
    sides = ", ".join("any" if side is None else str(side) for side in shape)
    return f"{kind} {name}{f' [{sides}]' if shape else ''}"


def shape_of(directory: TfdsDirectory, path: str) -> tuple[int | None, ...]:
    """The shape of a feature as a record stores it, of one step where it is one of steps."""
    shape: tuple[int | None, ...] = tuple(directory.specs[path].shape)
    return shape[1:] if path.startswith("steps/") else shape


def as_png(frames: Iterable[np.ndarray[Any, Any]]) -> list[bytes]:
    """A PNG file, not compressed, of every frame [H, W, 3 or 1] uint8."""
    files = []
    for frame in frames:
        buffer = io.BytesIO()
        picture = Image.fromarray(np.ascontiguousarray(frame[:, :, 0] if frame.shape[2] == 1 else frame))
        picture.save(buffer, "PNG", compress_level=0)
        files.append(buffer.getvalue())
    return files


def _paths(directory: TfdsDirectory, option: str, field: str) -> tuple[list[str], re.Match[str] | None]:
    """Paths that a field stands for, and the part of each; a feature of the whole name comes first."""
    part = _PART.fullmatch(field)
    if part and not any(prefix + field in directory.specs for prefix in PREFIXES):
        return [resolve(directory, option, part["name"])], part
    for prefix in PREFIXES:
        if prefix + field in directory.specs:
            return [prefix + field], None
        inside = [path for path in sorted(directory.specs) if path.startswith(f"{prefix}{field}/")]
        if inside or any(path.startswith(f"{prefix}{field}/") for path in directory.unreadable):
            _refuse_unreadable(directory, option, prefix + field)
            return [path for path in inside if _is_number(_dtype(directory, path))] or inside, None
    return [resolve(directory, option, field)], None


def _slice(option: str, field: str, part: re.Match[str], tensor: Tensor) -> slice:
    """The part with both ends counted from the beginning."""
    width = math.prod(tensor.shape)
    start = int(part["start"] or 0)
    stop = int(part["stop"] or width)
    start, stop = (end + width if end < 0 else end for end in (start, stop))
    if not 0 <= start < stop <= width:
        raise ConfigError(f"{option} {field!r}: expected a part of {width} values, such as [0:1]")
    return slice(start, stop)


def _tensor(directory: TfdsDirectory, path: str) -> Tensor | None:
    """The feature as numbers of one fixed shape a step; None where it is not."""
    packed = packing(directory, path)
    shape = directory.leaves[path].shape if packed else directory.specs[path].shape[1:]
    dtype = _dtype(directory, path)
    if not path.startswith("steps/") or not _is_number(dtype) or not all(shape):
        return None
    return Tensor(path=path, shape=tuple(shape), dtype=np.dtype(dtype), packed=packed)


def _unfit(directory: TfdsDirectory, path: str) -> str:
    if not _is_number(_dtype(directory, path)):
        expected = "numbers"
    elif not path.startswith("steps/"):
        expected = "a feature of steps"
    else:
        expected = "one fixed shape a step that is not empty"
    return f"expected {expected}, the source has {described(directory, path)}"


def _refuse_unreadable(directory: TfdsDirectory, option: str, field: str) -> None:
    """Refuse a field that is, holds, or is held by, a feature that cannot be read."""
    for prefix in PREFIXES:
        for path, reason in directory.unreadable.items():
            inner, outer = f"{prefix}{field}/", f"{path}/"
            if inner.startswith(outer) or outer.startswith(inner):
                raise ConfigError(f"{option} {path!r}: {reason}; pass --{option} with other features")


def packing(directory: TfdsDirectory, path: str) -> str | None:
    """The encoding of a tensor that is stored as bytes; None where it is not."""
    feature = directory.leaves.get(path)
    if feature is None or type(feature) not in (tfds_features.Tensor, tfds_features.Scalar):
        return None
    encoding = feature.to_json_content().encoding
    return str(encoding) if encoding in ("bytes", "zlib") else None


def _dtype(directory: TfdsDirectory, path: str) -> Any:
    return (directory.leaves if packing(directory, path) else directory.specs)[path].np_dtype


def _is_number(dtype: Any) -> bool:
    return np.dtype(dtype).kind in "biuf"


def _no_such(what: str, name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    return f"{what}: no such feature; there are {', '.join(sorted(known))}{did_you_mean(name, known)}"
