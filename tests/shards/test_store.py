"""A store shows whole objects or none, and explains every failure in one line."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.store import WORK, Store


def files(root: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def one_line(error: pytest.ExceptionInfo[StoreError]) -> str:
    """The message, which must be one line."""
    text = str(error.value)
    assert len(text.splitlines()) == 1
    return text


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "root")


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5000])
def test_what_is_put_is_read(store: Store, data: bytes) -> None:
    store.put("a/b/c.bin", data)
    assert store.read("a/b/c.bin") == data
    assert store.size("a/b/c.bin") == len(data)
    assert store.exists("a/b/c.bin")
    assert files(store.root) == {"a/b/c.bin": data}


def test_put_replaces(store: Store) -> None:
    store.put("x", b"long before")
    store.put("x", b"now")
    assert files(store.root) == {"x": b"now"}


def test_the_writer_takes_pieces_of_any_buffer(store: Store) -> None:
    with store.writer("x") as file:
        assert file.write(b"ab") == 2
        assert file.write(memoryview(b"cdef")[1:3]) == 2
        assert file.write(memoryview(bytes(16)).cast("I")) == 16
        assert file.write(b"") == 0
    assert store.read("x") == b"abde" + bytes(16)


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
@pytest.mark.parametrize("there", [False, True])
def test_an_exception_in_the_writer_leaves_what_was_there_before(
    store: Store, error: BaseException, there: bool
) -> None:
    if there:
        store.put("x", b"before")
    before = files(store.root)

    def fail_within() -> None:
        with store.writer("x") as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        fail_within()
    assert files(store.root) == before
    assert store.list() == (["x"] if there else [])


def test_nobody_sees_an_object_before_it_is_whole(store: Store) -> None:
    store.put("x", b"before")
    with store.writer("x") as file:
        file.write(b"half")
        assert store.read("x") == b"before"
        assert store.list() == ["x"]
        assert [name.startswith(f"{WORK}/x.") for name in store.list(WORK)] == [True]
        file.write(b" and half")
    assert store.read("x") == b"half and half"


def test_two_writers_of_one_name_do_not_mix(store: Store) -> None:
    with store.writer("x") as one, store.writer("x") as two:
        one.write(b"1" * 1000)
        two.write(b"2" * 1000)
        one.write(b"1" * 1000)
    assert store.read("x") in (b"1" * 2000, b"2" * 1000)
    assert store.list(WORK) == []


def test_create_does_not_replace(store: Store) -> None:
    assert store.create("a/x", b"first") is True
    assert store.create("a/x", b"second") is False
    assert files(store.root) == {"a/x": b"first"}


def test_one_of_many_racers_creates(store: Store) -> None:
    for turn in range(20):
        racers, won = 8, []
        barrier = threading.Barrier(racers)

        def race(number: int, name: str, barrier: threading.Barrier, won: list[int]) -> None:
            barrier.wait()
            if store.create(name, b"%d" % number * 1000):
                won.append(number)

        threads = [
            threading.Thread(target=race, args=(n, f"claim-{turn}", barrier, won)) for n in range(racers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.read(f"claim-{turn}") == b"%d" % won[0] * 1000
    assert store.list(WORK) == []


def test_a_range_is_exact(store: Store) -> None:
    data = os.urandom(1000)
    store.put("x", data)
    for offset, length in [(0, 1000), (0, 0), (1000, 0), (999, 1), (17, 400)]:
        assert store.read_range("x", offset, length) == data[offset : offset + length]


@pytest.mark.parametrize(("offset", "length"), [(0, 1001), (999, 2), (1000, 1), (5000, 1), (0, 1 << 50)])
def test_a_range_past_the_end_is_an_error_that_says_where_it_ends(
    store: Store, offset: int, length: int
) -> None:
    store.put("x", bytes(1000))
    with pytest.raises(StoreError, match=r"/x: read: ends at byte 1000, before ") as caught:
        store.read_range("x", offset, length)
    one_line(caught)


def test_a_missing_object_is_an_error_for_those_who_need_it(store: Store) -> None:
    for what in (store.read, store.size, lambda name: store.read_range(name, 0, 1)):
        with pytest.raises(StoreError, match=r"root/none: .*: No such file or directory") as caught:
            what("none")
        one_line(caught)
    assert not store.exists("none")
    store.delete("none")
    store.delete_folder("none")


def test_a_directory_is_no_object(store: Store) -> None:
    store.put("folder/x", b"")
    assert not store.exists("folder")
    with pytest.raises(StoreError, match="folder: read: Is a directory"):
        store.read("folder")
    with pytest.raises(StoreError, match="folder: read: Is a directory"):
        store.read_range("folder", 0, 1)
    with pytest.raises(StoreError, match=r"root/folder: write: Is a directory") as caught:
        store.put("folder", b"")
    one_line(caught)
    assert store.create("folder", b"") is False
    assert files(store.root) == {"folder/x": b""}


@pytest.mark.parametrize("name", ["x/y", "x/y/z"])
def test_a_file_where_a_directory_is_expected_is_an_error(store: Store, name: str) -> None:
    store.put("x", b"file")
    assert not store.exists(name)
    for write in (lambda: store.put(name, b""), lambda: store.create(name, b"")):
        with pytest.raises(StoreError, match=r"root/x.*: (write|create): ") as caught:
            write()
        one_line(caught)
    assert files(store.root) == {"x": b"file"}


def test_a_root_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"file")
    with pytest.raises(StoreError, match=r"root.*: write: ") as caught:
        Store(tmp_path / "root").put("x", b"")
    one_line(caught)
    assert not Store(tmp_path / "root").exists("x")


def test_a_name_that_no_file_system_takes_is_an_error(store: Store) -> None:
    store.put("x", b"")
    name = "x" * 300
    for what in (store.exists, store.size, store.read, lambda name: store.put(name, b"")):
        with pytest.raises(StoreError, match="File name too long") as caught:
            what(name)
        one_line(caught)


@pytest.mark.parametrize("url", ["s3://bucket/x", "gs://b", "https://host/x", "file:///tmp", "az://c/x"])
def test_a_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected a directory") as caught:
        Store(url)
    assert url in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_list_is_sorted_and_without_work_in_progress(store: Store) -> None:
    names = ["b", "a/z", "a/b/c", "a.b", "A", "a-b"]
    for name in [*names, f"{WORK}/rows/1", f"{WORK}x", f"a/{WORK}/y"]:
        store.put(name, b"")
    assert store.list() == sorted([*names, f"{WORK}x", f"a/{WORK}/y"])
    assert store.list("a") == [f"a/{WORK}/y", "a/b/c", "a/z"]
    assert store.list(WORK) == [f"{WORK}/rows/1"]
    assert store.list("none") == []


def test_the_list_of_a_root_that_is_not_there_is_empty(store: Store) -> None:
    assert store.list() == []
    assert not store.root.exists()


def test_reading_makes_nothing(store: Store) -> None:
    store.root.mkdir()
    store.exists("x")
    store.list()
    with pytest.raises(StoreError):
        store.read("x")
    assert list(store.root.iterdir()) == []


def test_a_folder_is_deleted_with_all_in_it(store: Store) -> None:
    store.put("a/b/c", b"")
    store.put("ab", b"")
    store.delete_folder("a")
    assert store.list() == ["ab"]
    store.delete("ab")
    assert store.list() == []


def run_limited(root: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process in which no file can grow beyond 64 KiB: a disk that is full."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))

    start = (
        "import signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from oxcart.shards.store import Store\n"
        f"store = Store({str(root)!r})\n"
    )
    return subprocess.run(
        [sys.executable, "-c", start + code], preexec_fn=limit, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("call", ["put", "create"])
def test_a_full_disk_is_an_error_and_leaves_nothing(store: Store, call: str) -> None:
    store.put("before", b"here")
    code = f"try: store.{call}('a/x', bytes(100_000))\nexcept Exception as e: print(type(e).__name__, e)"
    done = run_limited(store.root, code)
    operation = {"put": "write", "create": "create"}[call]
    assert done.stdout == f"StoreError {store.root}/a/x: {operation}: File too large\n", done.stderr
    assert files(store.root) == {"before": b"here"}


def test_a_disk_that_fills_up_within_a_piece_takes_the_part_that_fits_for_no_success(store: Store) -> None:
    code = (
        "try:\n"
        "    with store.writer('x') as file:\n"
        "        file.write(bytes(60_000)); file.write(bytes(10_000)); print('written')\n"
        "except Exception as e: print(type(e).__name__)"
    )
    assert run_limited(store.root, code).stdout == "StoreError\n"
    assert files(store.root) == {}
