"""What is in the shards of a dataset, by tarfile, NumPy, zstandard and Pillow alone."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard
from PIL import Image

Frames = npt.NDArray[np.uint8]


def members_by_hand(dataset: Path) -> dict[str, dict[str, Any]]:
    """Key -> the episode's members: `json`, and the values of `action`, `state` and each camera."""
    found: dict[str, dict[str, Any]] = {}
    for shard in sorted(dataset.glob("shards/*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                name, _, form = extension.partition(".")
                data = tar.extractfile(member).read()  # type: ignore[union-attr]
                known = found.setdefault(key, {})
                known[name] = _decoded(data, form, name, known)
    return found


def _decoded(data: bytes, form: str, name: str, known: dict[str, Any]) -> Any:
    if form == "npy":
        return np.load(io.BytesIO(data))
    if form == "tzst":
        shapes = known["json"]["shapes"]
        return undo_differences(data, next(tuple(one["shape"]) for one in shapes if one["member"] == name))
    return split_jpegs(data) if form == "mjpeg" else json.loads(data)


def undo_differences(data: bytes, shape: tuple[int, ...]) -> Frames:
    """What docs/format.md says of codec zstd, pixel by pixel."""
    residuals = []
    stream = io.BytesIO(data)
    while stream.tell() < len(data):
        one = zstandard.ZstdDecompressor().decompressobj()
        residuals.append(one.decompress(data[stream.tell() :]))
        stream.seek(len(data) - len(one.unused_data))
    frames = np.concatenate([np.frombuffer(part, np.uint8) for part in residuals]).reshape(shape).copy()
    done = 0
    for part in residuals:
        number = len(part) // frames[0].nbytes
        for row in range(shape[1]):
            if row % 16:
                frames[done, row] += frames[done, row - 1]
        for i in range(done + 1, done + number):
            frames[i] += frames[i - 1]
        done += number
    return frames


def split_jpegs(data: bytes) -> Frames:
    """Frames of JPEGs that lie end to end; none of the sample holds a thumbnail."""
    parts = data.split(b"\xff\xd9")[:-1]
    return np.stack([np.asarray(Image.open(io.BytesIO(part + b"\xff\xd9"))) for part in parts])
