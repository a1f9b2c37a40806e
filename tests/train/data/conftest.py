"""Compiled datasets for the loader's tests, one of each codec, and what their frames are by other means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import pytest

from by_hand import Frames, members_by_hand
from once import Once
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sources.base import SourceConfig
from oxcart.shards.codec import Encoding
from sample_compile import compiled

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


@pytest.fixture(scope="session")
def by_hand(datasets: Mapping[str, Path]) -> Mapping[str, Mapping[str, Frames]]:
    """Codec -> key -> frames."""
    return {
        codec: {key: members["image_0"] for key, members in members_by_hand(datasets[codec]).items()}
        for codec in ("raw", "zstd", "jpeg")
    }
