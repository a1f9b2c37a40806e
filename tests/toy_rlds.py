"""A toy RLDS dataset and how to read it as a source: its rows, its episodes, or why there are none.

root = write_dataset(tmp_path, FEATURES, [episode(0), episode(1, steps=5)])
rows = census(open_rlds(root, cameras=("image",)))
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxcart.compile.sources.base import CensusRow, SourceConfig, SourceEpisode
from oxcart.compile.sources.rlds.source import RldsSource
from oxcart.shards.errors import OxcartError
from rlds_builder import Image, Tensor, Text, jpeg, noisy_frame


def vector(width: int, kind: Any = np.float32) -> Any:
    return Tensor(shape=(width,), dtype=kind)


FEATURES = {
    "steps": {
        "observation": {"image": Image(shape=(None, None, 3)), "state": vector(2)},
        "action": vector(3),
        "language_instruction": Text(),
        "is_last": np.bool_,
    },
    "episode_metadata": {"file_path": Text()},
}


def episode(seed: int = 0, steps: int = 3, **changes: Any) -> dict[str, Any]:
    """An episode of FEATURES; `changes` replace values of every step by path, or call them with the step."""
    values = {
        "steps": [
            {
                "observation": {"image": jpeg(noisy_frame(100 * seed + t)), "state": [seed, t]},
                "action": [seed, t, t / 2],
                "language_instruction": f"do {seed}",
                "is_last": t == steps - 1,
            }
            for t in range(steps)
        ],
        "episode_metadata": {"file_path": f"/data/kitchen{seed}/{seed:04d}/out.npy"},
    }
    for name, value in changes.items():
        for t, step in enumerate(values["steps"]):
            inner = step["observation"] if name in step["observation"] else step
            inner[name] = value(t) if callable(value) else value
    return values


def open_rlds(root: Path, **options: Any) -> RldsSource:
    return RldsSource(SourceConfig(url=str(root), **options))


def census(source: RldsSource) -> list[CensusRow]:
    rows = [row for file in source.files() for row in source.census(file)]
    for row in rows:
        assert row.rejected is None or len(row.rejected.splitlines()) == 1, row.rejected
    return rows


def read(source: RldsSource, row: CensusRow) -> SourceEpisode:
    return source.read(dataclasses.asdict(row))


def only(root: Path, **options: Any) -> tuple[CensusRow, SourceEpisode]:
    """Row and episode of a source of one good episode."""
    source = open_rlds(root, **options)
    (row,) = census(source)
    assert row.rejected is None
    return row, read(source, row)


def rejected(root: Path, **options: Any) -> str:
    """Why the one episode of a source is rejected."""
    (row,) = census(open_rlds(root, **options))
    assert row.rejected is not None
    return row.rejected


def fails(kind: type[OxcartError], root: Path, **options: Any) -> str:
    """The one line with which a source cannot be opened."""
    with pytest.raises(kind) as caught:
        open_rlds(root, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def changed(features: Mapping[str, Any], **steps: Any) -> dict[str, Any]:
    """Features with other ones under steps; None leaves one out."""
    inner = {k: v for k, v in {**features["steps"], **steps}.items() if v is not None}
    return {**features, "steps": inner}


def packed(values: Any, encoding: str, kind: Any = np.uint8) -> bytes:
    """A tensor as TFDS stores it under that encoding."""
    data = np.asarray(values, kind).tobytes()
    return zlib.compress(data) if encoding == "zlib" else data
