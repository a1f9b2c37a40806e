"""A census is the same for any number of workers, survives its file, and knows when it is out of date."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from oxcart.compile import census as census_module
from oxcart.compile.census import Census, check, load, take
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import EnvironmentRule, SourceConfig, census_schema
from oxcart.manifests.tables import table_bytes
from oxcart.shards.errors import ConfigError, CorruptError, OxcartError, SourceError
from rlds_builder import Image, Tensor, Text, jpeg, noisy_frame, png, record, write_dataset, write_file

FEATURES = {
    "steps": {
        "observation": {"wrist": Image(shape=(8, 8, 3)), "image": Image(shape=(None, None, 3))},
        "action": Tensor(shape=(2,), dtype=np.float32),
        "language_instruction": Text(),
    },
    "place": Text(),
}


def episode(seed: int, steps: int = 2) -> dict[str, Any]:
    return {
        "steps": [
            {
                "observation": {
                    "wrist": png(noisy_frame(seed, 8, 8)),
                    "image": jpeg(noisy_frame(seed + t, 10 + seed, 12)),
                },
                "action": [seed, t],
                "language_instruction": f"do {seed}",
            }
            for t in range(steps)
        ],
        "place": f"lab{seed % 2}",
    }


def ignore(count: int, size: int) -> None:
    pass


def taken(root: Path, **options: Any) -> Census:
    return take(SourceConfig(url=str(root), **options), workers=1, report=ignore)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    some = [episode(i) for i in range(5)] + [episode(9, 1)]
    return write_dataset(tmp_path, FEATURES, {"train": some, "val": [episode(7)]}, files=3)


def fails(kind: type[OxcartError], call: Any) -> str:
    """The one line of an error."""
    with pytest.raises(kind) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_rows_are_in_the_order_of_the_source_and_the_rejected_stand_apart(root: Path) -> None:
    census = taken(root)
    keys = census.table["key"].to_pylist()
    assert keys == sorted(keys, key=lambda key: ("val" in key, key))
    assert census.table.num_rows == 7
    assert census.usable.num_rows == 6
    assert census.rejected["rejected"].to_pylist() == ["has 1 steps; at least 2 are needed"]
    assert census.table.schema.equals(census_schema(("image",)))


def test_any_number_of_workers_gives_the_same_bytes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census_module, "WORKER_BYTES", 1)
    config = SourceConfig(url=str(root), cameras=("wrist", "image"))
    one, three = (take(config, workers=workers, report=ignore) for workers in (1, 3))
    assert one == three
    assert one.to_bytes() == three.to_bytes()


def test_a_small_source_starts_no_worker(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def run(*what: object, workers: int, report: object) -> Iterator[tuple[int, Any]]:
        seen.append(workers)
        return iter(())

    for size, workers in ((1 << 30, 1), (sum(f.stat().st_size for f in root.iterdir()), 2), (1, 8)):
        monkeypatch.setattr(census_module, "WORKER_BYTES", size)
        fails(SourceError, lambda: take(SourceConfig(url=str(root)), workers=8, report=ignore, run=run))
        assert seen.pop() == workers


def test_progress_counts_every_episode_and_byte(root: Path) -> None:
    seen: list[tuple[int, int]] = []
    census = take(
        SourceConfig(url=str(root)), workers=1, report=lambda count, size: seen.append((count, size))
    )
    assert seen[-1] == (7, sum(census.table["source_length"].to_pylist()))
    assert seen == sorted(seen)


@pytest.mark.parametrize("cameras", [("image",), ("image", "wrist"), ("wrist", "image")], ids=str)
def test_a_census_is_read_back_whole_with_its_cameras_in_order(root: Path, cameras: tuple[str, ...]) -> None:
    census = taken(root, cameras=cameras)
    again = census_module.read(census.to_bytes(), "c.parquet")
    assert list(again.source["cameras"]) == list(cameras)
    assert json.dumps(dict(again.source)) == json.dumps(dict(census.source))
    assert again.sizes == census.sizes
    assert again.table.equals(census.table)
    assert census_module.read(again.to_bytes(), "c.parquet").table.equals(census.table)


def test_a_row_that_was_read_back_reads_its_episode(root: Path) -> None:
    config = SourceConfig(url=str(root))
    source = open_source(config)
    again = census_module.read(taken(root).to_bytes(), "c.parquet")
    for row in again.usable.to_pylist():
        assert source.read(row).texts == tuple(row["instructions"])
        assert len(source.read(row).images["image"]) == row["steps"]


def test_a_saved_census_is_loaded_and_checked(root: Path, tmp_path: Path, monkeypatch: Any) -> None:
    census, source = taken(root), open_source(SourceConfig(url=str(root)))
    (tmp_path / "c.parquet").write_bytes(census.to_bytes())
    assert load(str(tmp_path / "c.parquet"), source).table.equals(census.table)
    monkeypatch.chdir(tmp_path)
    assert load("c.parquet", source).table.equals(census.table)
    assert "No such file" in fails(OxcartError, lambda: load("none.parquet", source))
    assert "No such file" in fails(OxcartError, lambda: load("/none.parquet", source))


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({}, {"cameras": ("wrist",)}),
        ({"cameras": ("wrist", "image")}, {"cameras": ("image", "wrist")}),
        ({}, {"action": ()}),
        ({}, {"instruction": ("place",)}),
        ({}, {"source_splits": ("train",)}),
        ({}, {"environment": EnvironmentRule.parse("place")}),
        ({"environment": EnvironmentRule.parse("place")}, {"environment": EnvironmentRule.parse("place~.")}),
    ],
    ids=str,
)
def test_a_census_with_other_options_is_refused(
    root: Path, then: dict[str, Any], now: dict[str, Any]
) -> None:
    source = open_source(SourceConfig(url=str(root), **now))
    census = taken(root, **then)
    assert "take it again with the same options" in fails(ConfigError, lambda: check(census, source))
    check(census, open_source(SourceConfig(url=str(root), **then)))


def test_a_file_that_changed_its_size_since_is_named(root: Path) -> None:
    census = taken(root)
    file = root / "toy_dataset-train.tfrecord-00001-of-00003"
    write_file(file, [record(FEATURES, episode(i, 3)) for i in range(2)])
    source = open_source(SourceConfig(url=str(root)))
    assert fails(SourceError, lambda: check(census, source)).startswith(f"{file.name}: has changed since")


def test_a_source_without_episodes_is_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, FEATURES, {"train": []})
    assert fails(SourceError, lambda: taken(root)) == f"{root}: holds no episode"


def test_a_source_all_of_whose_episodes_are_rejected_has_a_census(tmp_path: Path) -> None:
    census = taken(write_dataset(tmp_path, FEATURES, [b"\0", episode(0, 0)]))
    assert (census.usable.num_rows, census.rejected.num_rows) == (0, 2)
    assert census_module.read(census.to_bytes(), "c").table.equals(census.table)


def test_two_episodes_of_one_key_are_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, FEATURES, {"a.b": [episode(0)], "a_b": [episode(1)]})
    message = fails(ConfigError, lambda: taken(root))
    assert "toy_dataset-a_b-00000-000000" in message
    assert taken(root, source_splits=("a.b",)).table.num_rows == 1


def test_an_error_of_a_file_comes_from_another_process_with_its_place(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census_module, "WORKER_BYTES", 1)
    file = root / "toy_dataset-train.tfrecord-00001-of-00003"
    write_file(file, [record(FEATURES, episode(i)) for i in range(9)])
    config = SourceConfig(url=str(root))
    message = fails(SourceError, lambda: take(config, workers=2, report=ignore))
    assert message == f"{file.name}: holds more than the 2 records that dataset_info.json says"


def table(metadata: Any = None, **columns: Any) -> bytes:
    """A Parquet file with the census metadata."""
    made = pa.table(columns or {"key": ["a"]})
    return table_bytes(made.replace_schema_metadata({b"oxcart.census": metadata} if metadata else None))


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        "{",
        "5",
        "[]",
        "{}",
        '{"source": {}}',
        '{"source": []}',
        '{"source": {"cameras": 5}, "sizes": {}}',
        '{"source": {"cameras": {}}}',
        '{"source": {"cameras": {}}, "sizes": 5}',
        '{"source": {"cameras": {}}, "sizes": {}}',
    ],
)
def test_a_table_that_is_no_census_is_refused(metadata: str | None) -> None:
    assert "census c.parquet: " in fails(
        ConfigError, lambda: census_module.read(table(metadata), "c.parquet")
    )


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet", bytes(1000), b"PAR1" + bytes(100) + b"PAR1"])
def test_bytes_that_are_no_table_are_corrupt(data: bytes) -> None:
    assert "c.parquet: not a readable" in fails(CorruptError, lambda: census_module.read(data, "c.parquet"))


def test_a_census_with_other_columns_is_of_another_version(root: Path) -> None:
    census = taken(root)
    for other in (census.table.drop_columns(["steps"]), census.table.append_column("x", [[1] * 7])):
        data = dataclasses.replace(census, table=other).to_bytes()
        assert "taken by another version of oxcart" in fails(
            ConfigError, lambda data=data: census_module.read(data, "c")
        )
