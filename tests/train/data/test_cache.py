"""A cache that processes share: what one of them removes, the others notice; strangers plant nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from xxhash import xxh3_64_intdigest

from oxcart.shards.directory import Directory
from oxcart.shards.errors import ConfigError
from oxcart.train.data.cache import FOLDER, Cache

SIZE = 1 << 20
DATA = memoryview(bytes(range(256)) * (SIZE // 256))
DIGEST = xxh3_64_intdigest(DATA)


def name(i: int) -> str:
    return f"{i:064x}"


def has(cache: Cache, i: int) -> bool:
    return cache.read(name(i), 0, memoryview(bytearray(SIZE)), DIGEST)


def names(folder: Path) -> set[str]:
    return {path.stem for path in (folder / FOLDER).iterdir()}


def test_a_file_that_another_process_removed_is_begun_anew(tmp_path: Path) -> None:
    one, other = Cache(tmp_path, 4 * SIZE), Cache(tmp_path, 4 * SIZE)
    one.write(name(0), 0, DATA)
    assert has(one, 0)
    assert has(other, 0)
    for i in range(1, 8):
        other.write(name(i), 0, DATA)
    assert name(0) not in names(tmp_path)
    for _ in range(2):
        one.write(name(0), 0, DATA)
    assert name(0) in names(tmp_path), "bytes in a removed file take space that nobody counts"


def test_what_any_process_uses_stays(tmp_path: Path) -> None:
    reader, writer = Cache(tmp_path, 4 * SIZE), Cache(tmp_path, 4 * SIZE)
    reader.write(name(0), 0, DATA)
    for i in range(1, 20):
        assert has(reader, 0)
        writer.write(name(i), 0, DATA)
    assert name(0) in names(tmp_path)
    assert len(names(tmp_path)) <= 5


def test_a_folder_that_somebody_removed_is_no_error(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 4 * SIZE)
    cache.write(name(0), 0, DATA)
    shutil.rmtree(tmp_path / FOLDER)
    assert has(cache, 0)
    assert not has(cache, 1)
    cache.write(name(1), 0, DATA)


def test_a_table_is_kept_whole_though_the_system_moves_less_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write, data = os.pread, os.pwrite, bytes(range(256)) * 10
    monkeypatch.setattr(os, "pread", lambda file, size, at: read(file, min(size, 1000), at))
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: write(file, data[:1000], at))
    (tmp_path / "table").write_bytes(data)
    store, digest = Directory(str(tmp_path)), blake3(data).hexdigest()
    cache = Cache(tmp_path, 4 * SIZE)
    assert cache.read_whole(store, "table", digest) == data
    (tmp_path / "table").unlink()
    assert cache.read_whole(store, "table", digest) == data


def symlink(path: Path, target: Path) -> None:
    path.symlink_to(target)


def hard_link(path: Path, target: Path) -> None:
    os.link(target, path)


def fifo(path: Path, target: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("plant", [symlink, hard_link, fifo])
def test_what_is_planted_in_the_folder_is_neither_read_nor_written(
    tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    target = tmp_path / "target"
    target.write_bytes(DATA)
    (tmp_path / FOLDER).mkdir()
    plant(tmp_path / FOLDER / f"{name(0)}.part", target)
    cache = Cache(tmp_path, 4 * SIZE)
    assert not has(cache, 0)
    cache.write(name(0), 0, memoryview(bytes(SIZE)))
    cache.write(name(0), 0, DATA)
    assert has(cache, 0)
    assert target.read_bytes() == DATA
    assert target.stat().st_nlink == 1


def test_a_planted_link_counts_and_goes_without_what_it_points_to(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(DATA)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / f"{name(0)}.part").symlink_to(target)
    os.utime(tmp_path / FOLDER / f"{name(0)}.part", (0, 0), follow_symlinks=False)
    cache = Cache(tmp_path, 2 * SIZE)
    for i in range(1, 8):
        cache.write(name(i), 0, DATA)
    assert name(0) not in names(tmp_path)
    assert target.read_bytes() == DATA


def test_a_folder_that_somebody_may_have_filled_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / FOLDER).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=rf"cache: \S+/{FOLDER} is a link, expected a folder; [^\n]+$"):
        Cache(tmp_path, SIZE)
    (tmp_path / FOLDER).unlink()
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER).chmod(0o777)
    with pytest.raises(ConfigError, match=rf"cache: \S+/{FOLDER} lets other users write [^\n]+$"):
        Cache(tmp_path, SIZE)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_dataset_is_no_place_for_a_cache(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b'{"format": "oxcart/2"}')
    for place in (tmp_path, tmp_path / "shards"):
        with pytest.raises(
            ConfigError, match=rf"^cache: '{place}/{FOLDER}' is inside the dataset '{tmp_path}', "
        ):
            Cache(place, SIZE)
    assert len(list(tmp_path.iterdir())) == 1
