"""`datasets` of Hugging Face, where a field has one type, reads shards of all codecs and of several datasets.

It takes the types from the first few episodes and holds all others to them. Nothing of ours reads here.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from once import Once
from oxcart.compile.sample.videos import write_info, write_video
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.transcode import TranscodeConfig, execute, prepare
from oxcart.manifests.split import SplitRule
from rlds_builder import write_dataset
from sample_compile import SHARD_SIZE, Compiled, compiled
from toy_rlds import FEATURES, episode
from video_sources import compile_videos, scenes

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def made(six_episodes: Compiled, once: Once) -> dict[str, Path]:
    """Name -> dataset: `raw`, `zstd`, `jpeg` of kitchens, `bare` that says next to nothing, and `videos`."""
    found: dict[str, Path] = once("typed", lambda folder: make(six_episodes.out, folder))
    return found


def make(kitchens: Path, folder: Path) -> dict[str, Path]:
    for codec in ("zstd", "jpeg"):
        out = str(folder / codec)
        config = TranscodeConfig(
            dataset=str(kitchens), out=out, codec=codec, shard_size=SHARD_SIZE, workers=1
        )
        execute(prepare(config))
    toy = write_dataset(folder / "toy", FEATURES, [episode(seed) for seed in range(7)])
    said = SourceConfig(url=str(toy), cameras=("image",), action=(), state=(), instruction=())
    compiled(toy, folder / "bare", source=said, rule=SplitRule(val=None))
    film = folder / "films" / "a [id000000001].mp4"
    film.parent.mkdir()
    write_video(film, scenes("a", 24, 36))
    write_info(film, "id000000001", "Tea", "Ann", None)
    compile_videos(folder / "films", folder / "videos", rule=SplitRule(val=None))
    return {"raw": kitchens, **{name: folder / name for name in ("zstd", "jpeg", "bare", "videos")}}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)  # else it counts what is loaded, over the net
    datasets.disable_progress_bars()


def shards(*roots: Path) -> list[str]:
    return [str(path) for root in roots for path in sorted(root.glob("shards/*.tar"))]


def load(cache: Path, *roots: Path, **options: Any) -> Any:
    files = {"train": shards(*roots)}
    return datasets.load_dataset("webdataset", data_files=files, cache_dir=str(cache), **options)["train"]


def untarred(*roots: Path) -> dict[str, Members]:
    """Key -> suffix -> bytes, in the order of the shards."""
    found: dict[str, Members] = {}
    for path in shards(*roots):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                found.setdefault(key, {})[suffix] = file.read()
    return found


def assert_read(rows: Any, expected: dict[str, Members]) -> None:
    """The rows hold all members, or None where an episode lacks a column."""
    assert [row["__key__"] for row in rows] == list(expected)
    for row, members in zip(rows, expected.values(), strict=True):
        assert row["json"] == json.loads(members["json"])
        for suffix in row.keys() - {"json", "__key__", "__url__"}:
            data = members.get(suffix)
            if data is None or not suffix.endswith(".npy"):
                assert row[suffix] == data
                continue
            array = np.load(io.BytesIO(data), allow_pickle=False)
            np.testing.assert_array_equal(np.array(row[suffix], array.dtype), array, strict=True)


@pytest.mark.parametrize("codec", ["raw", "zstd", "jpeg"])
def test_every_codec_is_read(made: dict[str, Path], tmp_path: Path, codec: str) -> None:
    expected = untarred(made[codec])
    rows = load(tmp_path, made[codec])
    assert set(rows.features) == {"__key__", "__url__", *next(iter(expected.values()))}
    assert_read(rows, expected)


def test_metadata_has_the_same_types_whatever_is_known(made: dict[str, Path], tmp_path: Path) -> None:
    said = {name: next(iter(load(tmp_path, root, streaming=True)))["json"] for name, root in made.items()}
    assert [said[name]["control_rate"] for name in ("raw", "bare")] == [10.0, 0.0]
    assert [said[name]["instruction"] == "" for name in ("raw", "bare")] == [False, True]
    assert [said[name]["attribution"]["title"] for name in ("raw", "videos")] == ["", "Tea"]
    types = {name: load(tmp_path, root, streaming=True).features["json"] for name, root in made.items()}
    assert types["raw"] == types["bare"] == types["videos"]
    assert "null" not in str(types["raw"])


@pytest.mark.parametrize("names", [("raw", "bare"), ("bare", "raw"), ("bare", "videos", "jpeg")])
def test_shards_of_several_datasets_are_read_together(
    made: dict[str, Path], tmp_path: Path, names: tuple[str, ...]
) -> None:
    roots = [made[name] for name in names]
    assert_read(load(tmp_path, *roots), untarred(*roots))


@pytest.mark.parametrize("streaming", [False, True])
def test_columns_that_only_some_datasets_have_are_read_if_they_are_named(
    made: dict[str, Path], tmp_path: Path, streaming: bool
) -> None:
    roots = [made[name] for name in ("videos", "bare", "raw")]
    columns = datasets.Features()
    for root in roots:
        columns.update(load(tmp_path, root, streaming=True).features)
    expected = untarred(*roots)
    rows = list(load(tmp_path, *roots, features=columns, streaming=streaming))
    assert_read(rows, expected)
    assert rows[0].keys() == {suffix for members in expected.values() for suffix in members} | {
        "__key__",
        "__url__",
    }
