"""A directory as a store: temporary files, durability, and what a file system refuses."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.files import UNFINISHED
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
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def store(root: Path) -> Store:
    return Store(root)


def test_nobody_sees_an_object_before_it_is_whole(store: Store, root: Path) -> None:
    store.put("x", b"before")
    with store.writer("x") as file:
        file.write(b"half")
        assert store.read("x") == b"before"
        assert store.list() == ["x"]
        assert [fnmatch(name, f"{WORK}/{UNFINISHED}") for name in store.list(WORK)] == [True]
        file.write(b" and half")
    assert store.read("x") == b"half and half"


def test_two_writers_of_one_name_do_not_mix(store: Store, root: Path) -> None:
    with store.writer("x") as one, store.writer("x") as two:
        one.write(b"1" * 1000)
        two.write(b"2" * 1000)
        one.write(b"1" * 1000)
    assert store.read("x") in (b"1" * 2000, b"2" * 1000)
    assert store.list(WORK) == []


def test_a_directory_is_no_object(store: Store, root: Path) -> None:
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
    assert files(root) == {"folder/x": b""}


@pytest.mark.parametrize("name", ["x/y", "x/y/z"])
def test_a_file_where_a_directory_is_expected_is_an_error(store: Store, root: Path, name: str) -> None:
    store.put("x", b"file")
    assert not store.exists(name)
    for write in (lambda: store.put(name, b""), lambda: store.create(name, b"")):
        with pytest.raises(StoreError, match=r"root/x.*: (write|create): ") as caught:
            write()
        one_line(caught)
    assert files(root) == {"x": b"file"}


def test_a_root_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"file")
    with pytest.raises(StoreError, match=r"root.*: write: ") as caught:
        Store(tmp_path / "root").put("x", b"")
    one_line(caught)
    assert not Store(tmp_path / "root").exists("x")


def test_a_name_that_no_file_system_takes_is_an_error(store: Store, root: Path) -> None:
    store.put("x", b"")
    name = "x" * 300
    for what in (store.exists, store.size, store.read, lambda name: store.put(name, b"")):
        with pytest.raises(StoreError, match="File name too long") as caught:
            what(name)
        one_line(caught)


def test_the_list_of_a_root_that_is_not_there_is_empty(store: Store, root: Path) -> None:
    assert store.list() == []
    assert not root.exists()


def test_reading_makes_nothing(store: Store, root: Path) -> None:
    root.mkdir()
    store.exists("x")
    store.list()
    with pytest.raises(StoreError):
        store.read("x")
    assert list(root.iterdir()) == []


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
def test_a_full_disk_is_an_error_and_leaves_nothing(store: Store, root: Path, call: str) -> None:
    store.put("before", b"here")
    code = f"try: store.{call}('a/x', bytes(100_000))\nexcept Exception as e: print(type(e).__name__, e)"
    done = run_limited(root, code)
    operation = {"put": "write", "create": "create"}[call]
    assert done.stdout == f"StoreError {root}/a/x: {operation}: File too large\n", done.stderr
    assert files(root) == {"before": b"here"}


def test_a_disk_that_fills_up_within_a_piece_takes_the_part_that_fits_for_no_success(
    store: Store, root: Path
) -> None:
    code = (
        "try:\n"
        "    with store.writer('x') as file:\n"
        "        file.write(bytes(60_000)); file.write(bytes(10_000))\n"
        "    print('written')\n"
        "except Exception as e: print(type(e).__name__)"
    )
    assert run_limited(root, code).stdout == "StoreError\n"
    assert files(root) == {}


def test_what_cannot_be_written_is_found_out_early(store: Store, root: Path) -> None:
    store.check_writable()
    assert not root.exists()
    root.write_bytes(b"file")
    with pytest.raises(ConfigError) as caught:
        store.check_writable()
    assert str(caught.value) == f"{root}: is a file, expected a directory"
    with pytest.raises(ConfigError) as caught:
        Store(root / "x").check_writable()
    assert str(caught.value) == f"{root}/x: {root} is not a directory that can be written"


def test_names_are_deleted_in_order(store: Store, root: Path) -> None:
    (root / "b" / "c").mkdir(parents=True)
    for name in ("a", "d"):
        store.put(name, b"")
    with pytest.raises(StoreError, match=r"root/b: delete: "):
        store.delete("a", "b", "d")
    assert store.list() == ["d"]


def test_the_first_names_are_found_without_a_walk_through_all(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(20):
        store.put(f"{i:02d}/x", b"")
    walked: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: walked.append(str(path)) or scandir(path))
    assert store.list(limit=2) == ["00/x", "01/x"]
    assert [Path(path).name for path in walked] == ["root", "00", "01"]


def test_the_list_follows_links_to_files_and_not_to_folders(store: Store, root: Path) -> None:
    store.put("a/x", b"")
    store.put("a-b", b"")
    (root / "link").symlink_to(root / "a-b")
    (root / "loop").symlink_to(root)
    (root / "broken").symlink_to(root / "none")
    assert store.list() == ["a-b", "a/x", "link"]
    assert store.list("a-b") == []


def test_a_work_folder_that_is_a_link_is_refused_for_every_use(
    store: Store, root: Path, tmp_path: Path
) -> None:
    others = tmp_path / "others"
    others.mkdir()
    (others / "plan.json").write_bytes(b"precious")
    root.mkdir()
    (root / WORK).symlink_to(others)
    uses = [
        lambda: store.put("x", b""),
        lambda: store.create("x", b""),
        lambda: store.list(WORK),
        lambda: store.read(f"{WORK}/plan.json"),
        lambda: store.delete(f"{WORK}/plan.json"),
        lambda: store.delete_folder(WORK),
    ]
    for use in uses:
        with pytest.raises(StoreError, match=rf"/{WORK}: is a link, expected a folder; remove it") as caught:
            use()
        one_line(caught)
    assert files(others) == {"plan.json": b"precious"}
    assert store.list() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_a_work_folder_of_another_user_is_refused_where_anyone_may_make_one(store: Store, root: Path) -> None:
    (root / WORK).mkdir(parents=True)
    os.chown(root / WORK, 65534, 65534)
    store.put("x", b"")  # of somebody whom the owner of the directory lets write
    root.chmod(0o1777)
    with pytest.raises(StoreError, match=rf"/{WORK}: belongs to user 65534, and anyone may") as caught:
        store.put("y", b"")
    one_line(caught)
    assert files(root) == {"x": b""}


@pytest.mark.parametrize("call", ["put", "create"])
def test_an_object_never_goes_through_a_link(
    store: Store, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (root / WORK).mkdir(parents=True)
    (root / "x").symlink_to(target)
    getattr(store, call)("x", b"written")
    assert (root / "x").is_symlink() == (call == "create")
    monkeypatch.setattr(os, "urandom", lambda count: bytes(count))  # so that the name can be guessed
    (root / WORK / f".oxcart.{'00' * 6}.tmp").symlink_to(target)
    with pytest.raises(StoreError, match="File exists") as caught:
        getattr(store, call)("y", b"written")
    one_line(caught)
    assert target.read_bytes() == b"precious"


def test_what_is_no_regular_file_is_refused_at_once(store: Store, root: Path) -> None:
    """A pipe would wait for a writer, and a device would never end."""
    store.put("x", b"data")
    os.mkfifo(root / "pipe")
    (root / "zero").symlink_to("/dev/zero")
    (root / "link").symlink_to("x")
    for name in ("pipe", "zero"):
        for read in (
            lambda name=name: store.read(name),
            lambda name=name: store.read_range(name, 0, 1),
            lambda name=name: store.open(name),
            lambda name=name: next(store.stream(name)),
        ):
            with pytest.raises(StoreError, match=f"{name}: read: is not a regular file"):
                read()
    assert store.read("link") == store.read_range("link", 0, 4) == b"data"


def test_an_object_larger_than_asked_for_is_not_read(store: Store) -> None:
    store.put("x", b"data")
    assert store.read("x", 4) == b"data"
    with pytest.raises(StoreError, match="x: read: has 4 bytes, expected at most 3"):
        store.read("x", 3)
