"""A cache that several processes share: what one of them removes, the others notice."""

from __future__ import annotations

import shutil
from pathlib import Path

from xxhash import xxh3_64_intdigest

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
