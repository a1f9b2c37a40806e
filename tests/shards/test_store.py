"""Every kind of store keeps the same promises: whole objects or none, and failures in one line."""

from __future__ import annotations

import os
import pickle
import threading
import uuid
from pathlib import Path

import pytest

from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.store import WORK, Store
from servers import BUCKET, Server

ABSENT = {"directory": "No such file or directory", "s3": "no such object", "gs": "no such object"}


def files(store: Store) -> dict[str, bytes]:
    """Every object, work in progress included."""
    return {name: store.read(name) for name in [*store.list(), *store.list(WORK)]}


def one_line(error: pytest.ExceptionInfo[StoreError]) -> str:
    """The message, which must be one line."""
    text = str(error.value)
    assert len(text.splitlines()) == 1
    return text


@pytest.fixture(params=["directory", "s3", "gs"])
def kind(request: pytest.FixtureRequest) -> str:
    """Where the store is; Google's protocol is spoken with the S3 server."""
    name: str = request.param
    return name


@pytest.fixture
def store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if kind == "directory":
        return Store(tmp_path / "root")
    server: Server = request.getfixturevalue("bucket")
    if kind == "gs":
        request.getfixturevalue("monkeypatch").setenv("STORAGE_EMULATOR_HOST", server.url)
    return Store(f"{kind}://{BUCKET}/{uuid.uuid4().hex}/root")


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5000])
def test_what_is_put_is_read(store: Store, data: bytes) -> None:
    store.put("a/b/c.bin", data)
    assert store.read("a/b/c.bin") == data
    assert store.size("a/b/c.bin") == len(data)
    assert store.exists("a/b/c.bin")
    assert files(store) == {"a/b/c.bin": data}


def test_put_replaces(store: Store) -> None:
    store.put("x", b"long before")
    store.put("x", b"now")
    assert files(store) == {"x": b"now"}


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
    before = files(store)

    def fail_within() -> None:
        with store.writer("x") as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        fail_within()
    assert files(store) == before
    assert store.list() == (["x"] if there else [])


def test_create_does_not_replace(store: Store) -> None:
    assert store.create("a/x", b"first") is True
    assert store.create("a/x", b"second") is False
    assert files(store) == {"a/x": b"first"}


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


def test_a_missing_object_is_an_error_for_those_who_need_it(store: Store, kind: str) -> None:
    for what in (
        store.read,
        store.size,
        lambda name: store.read_range(name, 0, 1),
        lambda name: store.read_range(name, 0, 0),
    ):
        with pytest.raises(StoreError, match=rf"root/none: .*: {ABSENT[kind]}") as caught:
            what("none")
        one_line(caught)
    assert not store.exists("none")
    store.delete("none")
    store.delete_folder("none")


def test_the_list_is_sorted_and_without_work_in_progress(store: Store) -> None:
    names = ["b", "a/z", "a/b/c", "a.b", "A", "a-b"]
    for name in [*names, f"{WORK}/rows/1", f"{WORK}x", f"a/{WORK}/y"]:
        store.put(name, b"")
    assert store.list() == sorted([*names, f"{WORK}x", f"a/{WORK}/y"])
    assert store.list("a") == [f"a/{WORK}/y", "a/b/c", "a/z"]
    assert store.list(WORK) == [f"{WORK}/rows/1"]
    assert store.list("none") == []


def test_a_folder_is_deleted_with_all_in_it(store: Store) -> None:
    store.put("a/b/c", b"")
    store.put("ab", b"")
    store.delete_folder("a")
    assert store.list() == ["ab"]
    store.delete("ab")
    assert store.list() == []


def test_many_are_looked_up_at_once(store: Store) -> None:
    names = [f"a/{i}" for i in range(40)]
    for i, name in enumerate(names):
        store.put(name, bytes(i))
    store.put("b", b"12")
    assert store.sizes([*names, "b"]) == {name: i for i, name in enumerate(names)} | {"b": 2}
    assert store.sizes([]) == {}
    assert store.missing([*names, "b", "a/40", "none/x"]) == ["a/40", "none/x"]
    assert store.found([*names, "b", "a/40", "none/x"]) == store.sizes([*names, "b"])
    for wanted in ([*names, "a/40"], ["a/40"]):
        with pytest.raises(
            StoreError, match=r"root/a/40: stat: (no such object|No such file or directory)$"
        ) as caught:
            store.sizes(wanted)
        one_line(caught)


def test_ranges_that_are_larger_than_a_request(store: Store) -> None:
    data = os.urandom(20 << 20)
    store.put("x", data)
    for offset, length in [(0, 20 << 20), (3 << 20, 9 << 20), (1, 17 << 20)]:
        assert store.read_range("x", offset, length) == data[offset : offset + length]
    assert store.read("x") == data
    with pytest.raises(StoreError, match=r"/x: read: ends at byte 20971520, before 20971521") as caught:
        store.read_range("x", 20, (20 << 20) - 19)
    one_line(caught)


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 9500])
def test_a_stream_is_the_object_in_blocks(store: Store, size: int) -> None:
    data = os.urandom(size)
    store.put("x", data)
    assert list(store.stream("x", 1000)) == [data[start : start + 1000] for start in range(0, size, 1000)]
    assert b"".join(store.stream("x", 1000, size)) == data
    with pytest.raises(StoreError, match=f"has changed from {size + 1} to {size} bytes|before"):
        list(store.stream("x", 1000, size + 1))
    stopped = store.stream("x", 1000)
    next(stopped, None)
    with pytest.raises(StoreError, match="root/none: "):
        list(store.stream("none"))


def test_many_are_deleted_at_once_whether_or_not_they_are_there(store: Store) -> None:
    for name in ("a", "b/c", "d"):
        store.put(name, b"")
    store.delete("none", "a", "b/c", "b/none")
    assert store.list() == ["d"]
    store.delete()


def test_a_large_object_is_seen_when_it_is_whole(store: Store) -> None:
    piece = os.urandom(9 << 20)
    with store.writer("x") as file:
        file.write(piece)
        assert not store.exists("x")
        file.write(piece)
        assert not store.exists("x")
        file.write(b"end")
    assert store.read("x") == piece + piece + b"end"


def test_a_store_travels_as_its_url(store: Store) -> None:
    store.put("x", b"data")
    again = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert again.url == store.url
    assert again.read("x") == b"data"
    assert repr(again) == f"Store({store.url!r})"


def test_whether_it_can_be_written_is_found_out_without_a_trace(store: Store, kind: str) -> None:
    store.check_writable()
    assert files(store) == {}
    assert (store.writable, store.listable, store.remote) == (True, True, kind != "directory")


def test_names_keep_their_letters(store: Store) -> None:
    names = ["a b/c+d.é", "x%20y", "plus+and&and=and@"]
    for name in names:
        store.put(name, name.encode())
    assert files(store) == {name: name.encode() for name in names}


def test_the_first_names_of_a_list(store: Store) -> None:
    for name in ("b", f"{WORK}/x", "a", "c"):
        store.put(name, b"")
    assert store.list(limit=2) == ["a", "b"]
    assert store.list(limit=9) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (
            "file:///tmp",
            "store 'file:///tmp': unknown scheme 'file'; expected a directory, so '/tmp'",
        ),
        (
            "hdfs://host/x",
            "store 'hdfs://host/x': unknown scheme 'hdfs'; expected a directory or "
            "gs://, s3://, az://, https://, http://, hf://",
        ),
        (
            "s3:/bucket/x",
            "store 's3:/bucket/x': a URL has two slashes; expected s3://bucket/x for a URL, "
            "./s3:/bucket/x for a directory",
        ),
        (
            "HTTPS:/host",
            "store 'HTTPS:/host': a URL has two slashes; expected HTTPS://host for a URL, "
            "./HTTPS:/host for a directory",
        ),
        ("", "store: expected a directory or URL, got ''"),
        ("s3://", "store 's3://': expected s3://bucket/path"),
        ("https:///x", "store 'https:///x': expected https://host/path"),
        (
            "https://me:hush@host/x",
            "store 'https://host/x': expected a URL without user, password, ? and #; "
            "credentials come from the environment",
        ),
        (
            "https://host/x?token=hush",
            "store 'https://host/x': expected a URL without user, password, ? and #; "
            "credentials come from the environment",
        ),
        (
            "az://container/x",
            "az://container: expected the storage account in AZURE_STORAGE_ACCOUNT_NAME or in "
            "AZURE_STORAGE_CONNECTION_STRING",
        ),
    ],
)
def test_a_url_that_is_none_is_refused(cloud: pytest.MonkeyPatch, url: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Store(url)
    assert str(caught.value) == says
