"""What is damaged is found, named, and never handed out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from oxcart.shards.errors import ConfigError, CorruptError, OxcartError
from oxcart.train.data import Batch, Loader, Pairs
from sample_compile import rows_of

ALL = Pairs(frames=1, per_episode="all")


def read_all(path: Path, **options: bool) -> list[Batch]:
    return list(Loader(str(path), sample=ALL, batch_size=8, lanes=4, block=8, repeat=False, **options))


def first_frame(dataset: Path) -> tuple[Path, int, str]:
    """A shard of train, where its first frame begins, and the key of that episode."""
    row = next(row for row in rows_of(dataset) if row["split"] == "train")
    return dataset / "shards" / f"{row['shard']}.tar", row["image_0.offset"], row["key"]


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("codec", ["raw", "zstd", "jpeg"])
def test_a_flipped_bit_names_shard_key_and_chunk(
    datasets: Mapping[str, Path], tmp_path: Path, codec: str
) -> None:
    shutil.copytree(datasets[codec], tmp_path / "x")
    shard, offset, key = first_frame(tmp_path / "x")
    flip(shard, offset + 100)
    with pytest.raises(CorruptError) as caught:
        read_all(tmp_path / "x")
    assert str(caught.value) == f"{shard.stem}: {key}, camera image_0, chunk 0 does not match its digest"


def test_without_checks_a_flipped_bit_of_raw_goes_unseen(
    datasets: Mapping[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(datasets["raw"], tmp_path / "x")
    shard, offset, _ = first_frame(tmp_path / "x")
    flip(shard, offset + 100)
    damaged, whole = read_all(tmp_path / "x", check=False), read_all(datasets["raw"])
    differing = sum(int((a.frames != b.frames).sum()) for a, b in zip(damaged, whole, strict=True))
    assert differing in (1, 2)


@pytest.mark.parametrize("codec", ["zstd", "jpeg"])
def test_without_checks_what_cannot_be_decoded_is_still_an_error(
    datasets: Mapping[str, Path], tmp_path: Path, codec: str
) -> None:
    shutil.copytree(datasets[codec], tmp_path / "x")
    shard, offset, key = first_frame(tmp_path / "x")
    flip(shard, offset)
    with pytest.raises(CorruptError, match=f"{shard.stem}: {key}, camera image_0, chunk 0: codec {codec}"):
        read_all(tmp_path / "x", check=False)


def cut_shard(dataset: Path) -> None:
    shard, offset, _ = first_frame(dataset)
    with open(shard, "r+b") as file:
        file.truncate(offset + 10)


def remove_chunks(dataset: Path) -> None:
    first_frame(dataset)[0].with_suffix("").with_suffix(".chunks.parquet").unlink()


def change_chunks(dataset: Path) -> None:
    flip(first_frame(dataset)[0].with_suffix(".chunks.parquet"), 40)


def change_episodes(dataset: Path) -> None:
    flip(dataset / "episodes.parquet", 40)


def other_format(dataset: Path) -> None:
    manifest = json.loads((dataset / "manifest.json").read_text())
    manifest["format"] = "oxcart/9"
    (dataset / "manifest.json").write_text(json.dumps(manifest))


def no_manifest(dataset: Path) -> None:
    (dataset / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("damage", "kind", "said"),
    [
        (cut_shard, OxcartError, r"train-0000\d.tar: read: ends at byte \d+, before"),
        (remove_chunks, OxcartError, r"train-0000\d.chunks.parquet: read: No such file"),
        (change_chunks, CorruptError, r"chunks.parquet: does not match its digest"),
        (change_episodes, CorruptError, r"episodes.parquet: does not match its digest"),
        (other_format, ConfigError, r"format 'oxcart/9', expected 'oxcart/2'; use the oxcart"),
        (no_manifest, ConfigError, r"no manifest.json, so not a compiled dataset"),
    ],
)
def test_other_damage_is_one_clear_error(
    datasets: Mapping[str, Path],
    tmp_path: Path,
    damage: Callable[[Path], None],
    kind: type[Exception],
    said: str,
) -> None:
    shutil.copytree(datasets["raw"], tmp_path / "x")
    damage(tmp_path / "x")
    with pytest.raises(kind, match=said) as caught:
        read_all(tmp_path / "x")
    assert "\n" not in str(caught.value)
