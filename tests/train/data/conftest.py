"""Compiled datasets for the loader's tests, one of each codec, and what their frames are by other means."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
import zstandard
from PIL import Image

from once import Once
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sources.base import SourceConfig
from oxcart.shards.codec import Encoding
from sample_compile import compiled

Frames = npt.NDArray[np.uint8]

SAMPLE = RldsSampleConfig(kitchens=6, sessions=1, episodes=3, steps=9, size=32, files=2)
SHARD_SIZE = 60_000
"""Two episodes or three of nine steps of 32x32."""


@pytest.fixture(scope="session")
def kitchens(once: Once) -> Path:
    """A source of 18 episodes."""
    return Path(once("kitchens", lambda folder: write_rlds(folder, SAMPLE)))


@pytest.fixture(scope="session")
def datasets(kitchens: Path, once: Once) -> Mapping[str, Path]:
    """Codec -> a dataset of it; `small` is another one, raw, of fewer episodes of another camera."""
    found: Mapping[str, Path] = once("datasets", lambda folder: compile_all(kitchens, folder))
    return found


def compile_all(kitchens: Path, folder: Path) -> Mapping[str, Path]:
    source = SourceConfig(url=str(kitchens), cameras=("image_0",))
    for codec, chunk in (("raw", 1), ("zstd", 2), ("jpeg", 1)):
        with patch("oxcart.shards.codec.CHUNK_FRAMES", chunk):  # chunks of zstd may hold several frames
            compiled(
                kitchens,
                folder / codec,
                source=source,
                encoding=Encoding(codec=codec),
                shard_size=SHARD_SIZE,
            )
    few = write_rlds(
        folder / "few", RldsSampleConfig(kitchens=3, sessions=1, episodes=2, steps=7, size=32, files=1)
    )
    compiled(
        few, folder / "small", source=SourceConfig(url=str(few), cameras=("image_0",)), shard_size=30_000
    )
    return {path.name: path for path in folder.iterdir() if path.name != "few"}


def frames_by_hand(dataset: Path) -> dict[str, Frames]:
    """Key -> frames [T, H, W, 3] of every episode, by tarfile, NumPy, zstandard and Pillow alone."""
    found = {}
    for shard in sorted(dataset.glob("shards/*.tar")):
        shapes: dict[str, list[int]] = {}
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                data = tar.extractfile(member).read()  # type: ignore[union-attr]
                if extension == "json":
                    told = json.loads(data)["shapes"]
                    shapes[key] = next(one["shape"] for one in told if one["member"] == "image_0")
                elif extension == "image_0.npy":
                    found[key] = np.load(io.BytesIO(data))
                elif extension == "image_0.tzst":
                    found[key] = undo_differences(data, tuple(shapes[key]))
                elif extension == "image_0.mjpeg":
                    found[key] = split_jpegs(data)
    return found


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


@pytest.fixture(scope="session")
def by_hand(datasets: Mapping[str, Path]) -> Mapping[str, Mapping[str, Frames]]:
    """Codec -> key -> frames."""
    return {codec: frames_by_hand(datasets[codec]) for codec in ("raw", "zstd", "jpeg")}
