"""The file of one recorded episode: a plain tar whose members are those of a compiled episode.

    mine-000003.action.npy      float32 [T, A]
    mine-000003.state.npy       float32 [T, S]
    mine-000003.reward.npy      float32 [T, 1]
    mine-000003.image_0.tzst    the frames of a camera; the extension is that of the codec
    mine-000003.json            metadata, as in a compiled dataset, with `success` and the sizes of the chunks

Everything is derived from the arguments of one call, so equal calls give equal bytes. Chunks are independent,
so a pool of threads encodes runs of them at the same time, and a camera is written while the next is encoded.
The metadata come last, since only then are the sizes known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import zstandard
from xxhash import xxh3_64, xxh3_64_hexdigest

from oxcart.compile.images import MAX_PIXELS, ImageError, image_size
from oxcart.compile.sources.base import Floats, Images
from oxcart.compile.sources.recordings.description import (
    Description,
    make_key,
    number_and_digest,
)
from oxcart.manifests.canonical import canonical_json, read_json
from oxcart.manifests.episode import METADATA_BYTES, members
from oxcart.manifests.metadata import instructions_of, make_metadata
from oxcart.shards.codec import CHUNK_FRAMES, EXTENSIONS, Encoded, Encoding, decode, encode, npy_header
from oxcart.shards.errors import CorruptError
from oxcart.shards.tar import END, TarWriter

Frames = npt.NDArray[np.uint8]

INSTRUCTION = "instruction"
"""Name of the field that holds the instructions."""
RUN = 16 * CHUNK_FRAMES
"""Frames that a thread encodes at a time: whole chunks."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One episode as it was recorded; checked, so that all parts have the same steps."""

    frames: Mapping[str, Frames]
    """Camera -> frames [T, H, W, 3] uint8."""
    arrays: Mapping[str, Floats]
    """`action`, `state`, `reward`, as far as there are -> float32 [T, A]."""
    instructions: tuple[tuple[int, str], ...] = ()
    """(step at which it begins, text), one per change of the text."""
    environment: str | None = None
    """The place where the episode was recorded, if it is known."""
    session: str | None = None
    """The recording session, if it is known."""
    success: bool | None = None
    """Whether the episode succeeded, if it is known."""

    @property
    def steps(self) -> int:
        """Number of steps: T."""
        return len(next(iter(self.frames.values())))


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One episode as its file holds it; frames are still encoded."""

    shapes: Mapping[str, tuple[int, int, int, int]]
    """Camera -> shape of its frames, [T, H, W, 3]."""
    chunks: Mapping[str, list[memoryview]]
    """Camera -> its chunks."""
    chunk_frames: Mapping[str, int]
    """Camera -> frames per chunk; the last chunk may hold fewer."""
    arrays: Mapping[str, Floats]
    """`action`, `state`, `reward`, as far as there are -> float32 [T, A]."""
    instructions: Mapping[str, list[tuple[int, str]]]
    """Field -> (step at which the text begins, text) of each text."""
    environment: str | None
    session: str | None
    success: bool | None
    encoding: Encoding
    """How the frames are stored."""

    @property
    def steps(self) -> int:
        """Number of steps: T."""
        return next(iter(self.shapes.values()))[0]

    def images(self, camera: str) -> Images:
        """Frames [T, H, W, 3] uint8 of a camera; with codec `jpeg`, its JPEGs.

        Raises:
            CorruptError: a chunk cannot be decoded.
        """
        codec, chunks, shape = self.encoding.codec, self.chunks[camera], self.shapes[camera]
        if codec == "jpeg":
            return chunks
        if codec == "raw":
            return np.frombuffer(chunks[0], np.uint8).reshape(shape)
        frames = np.empty(shape, np.uint8)
        decode(codec, chunks, self.chunk_frames[camera], frames)
        return frames


def write_episode(
    file: BinaryIO, key: str, episode: Recorded, description: Description, pool: Executor
) -> str:
    """Write the file of an episode, and return the xxh3-64 digest of its bytes, in hex.

    Raises:
        ConfigError: a tar cannot hold a name (100 characters) or the frames of a camera (8 GiB).
    """
    encoding = description.encoding
    begun = {name: _begin(frames, encoding, pool) for name, frames in episode.frames.items()}
    tar = TarWriter(file, xxh3_64)
    for name, array in episode.arrays.items():
        tar.add(f"{key}.{name}.npy", [npy_header(array.shape, array.dtype), np.ascontiguousarray(array).data])
    chunks = []
    for name, parts in begun.items():
        encoded = _joined(parts)
        tar.add(f"{key}.{name}.{EXTENSIONS[encoding.codec]}", [encoded.header, *encoded.chunks])
        chunks.append({"member": name, "frames": CHUNK_FRAMES, "sizes": encoded.sizes()})
    known = {
        "key": key,
        "dataset": description.name,
        "environment": episode.environment,
        "environment_known": "unknown" if episode.environment is None else "declared",
        "session": episode.session,
        "instruction": episode.instructions[0][1] if episode.instructions else None,
        "control_rate": description.control_rate,
        "steps": episode.steps,
    }
    shapes = {name: one.shape for part in (episode.arrays, episode.frames) for name, one in part.items()}
    metadata = make_metadata(known, {INSTRUCTION: episode.instructions}, shapes)
    told = {**metadata, "success": episode.success, "chunks": chunks}
    tar.add(f"{key}.json", [canonical_json(told)])
    return tar.finish()


def _begin(frames: Frames, encoding: Encoding, pool: Executor) -> Iterator[Encoded]:
    """Have the pool encode the frames of a camera, and return the parts, in order."""
    if encoding.codec == "raw":  # no work to share, and one header for all
        return iter([encode(frames, encoding)])
    runs = [frames[first : first + RUN] for first in range(0, len(frames), RUN)]
    return pool.map(encode, runs, [encoding] * len(runs))


def _joined(parts: Iterator[Encoded]) -> Encoded:
    each = list(parts)
    return each[0] if len(each) == 1 else Encoded(chunks=[chunk for part in each for chunk in part.chunks])


def parse_episode(data: bytes, name: str, description: Description) -> Stored:
    """The episode in the bytes of the file `name`.

    Raises:
        CorruptError: the bytes do not match the digest in the name, or are not the file of such an episode.
    """
    number, digest = number_and_digest(name)
    if xxh3_64_hexdigest(data) != digest:
        raise CorruptError("does not match the digest in its name, so it is damaged or cut short")
    if data[-len(END) :] != END:
        raise CorruptError("has no end")
    key = make_key(description.name, number)
    found = members(data[: -len(END)], key)
    return check_members({name: view for name, (_, view) in found.items()}, description)


def check_members(found: Mapping[str, memoryview], description: Description) -> Stored:
    """The episode in the members of its file, by their names without the key.

    Raises:
        CorruptError: they are not those of such an episode.
    """
    try:
        return _parse(found, description)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, ImageError) as error:
        raise CorruptError(f"is not an episode of these recordings: {error!r}"[:300]) from error


def _parse(found: Mapping[str, memoryview], description: Description) -> Stored:
    encoding = description.encoding
    if len(found["json"]) > METADATA_BYTES:
        raise ValueError(f"json has {len(found['json'])} bytes, expected at most {METADATA_BYTES}")
    metadata = read_json(bytes(found["json"]))
    steps = metadata["steps"]
    if type(steps) is not int or steps < 2:
        raise ValueError(f"expected at least 2 steps, got {steps!r}")
    shapes = {one["member"]: tuple(one["shape"]) for one in metadata["shapes"]}
    told = {one["member"]: one for one in metadata["chunks"]}
    arrays = {}
    for name, columns in description.columns.items():
        if columns:
            values = _after_header(found[f"{name}.npy"], (steps, len(columns)), np.dtype(np.float32))
            arrays[name] = np.frombuffer(values, np.float32).reshape(steps, len(columns))
            if not np.isfinite(arrays[name]).all():
                raise ValueError(f"{name} is NaN or infinite")
    cameras, chunks = {}, {}
    for name in description.cameras:
        cameras[name] = _frame_shape(name, shapes[name], steps)
        member = found[f"{name}.{EXTENSIONS[encoding.codec]}"]
        chunks[name] = list(_chunks(member, told[name], cameras[name], encoding.codec))
    environment, session, success = (metadata[name] for name in ("environment", "session", "success"))
    if not isinstance(environment, str) or not isinstance(session, str) or success not in (None, True, False):
        raise ValueError("environment, session, success: expected two texts, and true, false or null")
    instructions = instructions_of(metadata)
    begins = [step for step, _ in instructions.get(INSTRUCTION, [])]
    if {*instructions} - {INSTRUCTION} or begins != sorted({*begins}) or not {*begins} <= {*range(steps)}:
        raise ValueError(f"expected instructions of field {INSTRUCTION} in the order of their steps")
    return Stored(
        shapes=cameras,
        chunks=chunks,
        chunk_frames={name: told[name]["frames"] for name in chunks},
        arrays=arrays,
        instructions=instructions,
        environment=environment or None,
        session=session or None,
        success=success,
        encoding=encoding,
    )


def _frame_shape(camera: str, shape: tuple[Any, ...], steps: int) -> tuple[int, int, int, int]:
    whole = len(shape) == 4 and all(type(side) is int and side > 0 for side in shape)
    if not whole or shape[0] != steps or shape[3] != 3 or shape[1] * shape[2] > MAX_PIXELS:
        raise ValueError(f"camera {camera}: expected frames [{steps}, H, W, 3], got {str(list(shape))[:60]}")
    return shape


def _chunks(
    member: memoryview, told: Mapping[str, Any], shape: tuple[int, int, int, int], codec: str
) -> Iterator[memoryview]:
    """The chunks of a camera, whose sizes are checked before memory is taken for their frames."""
    steps, height, width, _ = shape
    if codec == "raw":
        yield _after_header(member, shape, np.dtype(np.uint8))
        return
    count, sizes = told["frames"], told["sizes"]
    if type(count) is not int or count < 1 or (codec == "jpeg" and count > 1):
        raise ValueError(f"chunks: expected a number of frames, got {str(count)[:60]}")
    if not isinstance(sizes, list) or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError("chunks: expected the size of each")
    if len(sizes) != -(-steps // count) or sum(sizes) != len(member):
        raise ValueError(f"chunks: {len(sizes)} of {sum(sizes)} bytes do not fit {steps} steps")
    at = 0
    for i, size in enumerate(sizes):
        chunk = member[at : at + size]
        at += size
        if codec == "zstd":
            wanted = min(count, steps - i * count) * height * width * 3
            if _content_size(chunk) != wanted:
                raise ValueError(f"chunk {i} does not hold frames of {height}x{width} pixels")
        elif i == 0 and image_size(chunk) != (height, width):
            raise ValueError(f"its first JPEG does not have {height}x{width} pixels")
        yield chunk


def _content_size(chunk: memoryview) -> int:
    try:
        return zstandard.frame_content_size(chunk)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def _after_header(member: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> memoryview:
    """The values of an `.npy` member that must have this shape and type."""
    header = npy_header(shape, dtype)
    if member[: len(header)] != header or len(member) != len(header) + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"expected an array {list(shape)} of {dtype}, got another")
    return member[len(header) :]
