"""New files, and private folders: whatever was planted at a name, what it points to stays as it is."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.files import new_file, open_private, private_folder, remove, replacing, write_file

NOBODY = 65534
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def plant_symlink(path: Path, target: Path) -> None:
    path.symlink_to(target)


def plant_hard_link(path: Path, target: Path) -> None:
    os.link(target, path)


def plant_fifo(path: Path, target: Path) -> None:
    os.mkfifo(path)


def plant_foreign_file(path: Path, target: Path) -> None:
    path.write_bytes(b"planted")
    os.chown(path, NOBODY, NOBODY)


def plant_open_file(path: Path, target: Path) -> None:
    path.write_bytes(b"planted")
    path.chmod(0o666)


def plant_device(path: Path, target: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this container makes no devices")


PLANTS = [
    plant_symlink,
    plant_hard_link,
    plant_fifo,
    plant_open_file,
    pytest.param(plant_foreign_file, marks=root),
    pytest.param(plant_device, marks=root),
]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file that is not to change."""
    path = tmp_path / "target"
    path.write_bytes(b"precious")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir(mode=0o755)
    return path


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_in_a_private_folder_is_replaced_by_an_empty_file_of_ours(
    folder: Path, target: Path, plant: Callable[[Path, Path], None]
) -> None:
    plant(folder / "x", target)
    opened = private_folder(folder, "cache")
    descriptor = open_private(opened, "x")
    try:
        assert os.pread(descriptor, 8, 0) == b""
        os.pwrite(descriptor, b"written", 0)
        assert target.read_bytes() == b"precious"
        assert (folder / "x").read_bytes() == b"written"
        found = (folder / "x").lstat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_nlink) == (0o600, os.geteuid(), 1)
        again = open_private(opened, "x")
        assert os.pread(again, 8, 0) == b"written"
        os.close(again)
    finally:
        os.close(descriptor)
        os.close(opened)


def test_a_folder_of_a_private_file_s_name_is_an_error_and_stays(folder: Path) -> None:
    (folder / "x").mkdir()
    opened = private_folder(folder, "cache")
    with pytest.raises(OSError, match="x"):
        open_private(opened, "x")
    os.close(opened)
    assert (folder / "x").is_dir()


def test_a_private_folder_is_made_for_this_user_alone(tmp_path: Path) -> None:
    os.close(private_folder(tmp_path / "a" / "b", "cache"))
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o711])
def test_a_private_folder_that_others_may_only_read_is_closed_to_them(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    os.close(private_folder(folder, "cache"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_private_folder_that_is_a_link_is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ConfigError) as caught:
        private_folder(tmp_path / "link", "cache")
    expected = f"cache: {tmp_path}/link is a link, expected a folder; remove it or choose another place"
    assert str(caught.value) == expected


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_private_folder_that_others_may_write_to_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        private_folder(folder, "cache")
    expected = f"lets other users write (mode {mode:o}); chmod 700 it or choose another place"
    assert str(caught.value) == f"cache: {folder} {expected}"


@root
def test_a_private_folder_of_another_user_is_refused(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(ConfigError) as caught:
        private_folder(folder, "cache")
    assert str(caught.value) == f"cache: {folder} belongs to user {NOBODY}, expected 0; choose another place"


def test_a_private_folder_that_is_a_file_is_refused(target: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        private_folder(target, "cache")
    assert str(caught.value) == f"cache: {target}: Not a directory"


@pytest.mark.parametrize("plant", [plant_symlink, plant_hard_link, plant_fifo])
def test_a_file_takes_the_place_of_a_link_and_leaves_what_that_points_to(
    folder: Path, target: Path, plant: Callable[[Path, Path], None]
) -> None:
    plant(folder / "x", target)
    write_file(folder / "x", b"written")
    assert target.read_bytes() == b"precious"
    assert (folder / "x").read_bytes() == b"written"
    assert [path.name for path in folder.iterdir()] == ["x"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_an_output_has_the_mode_that_the_umask_leaves(folder: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_file(folder / "x", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "x").stat().st_mode) == mode


def test_a_new_file_is_never_one_that_was_there(
    folder: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "urandom", lambda count: bytes(count))  # so that it can be guessed
    unfinished = folder / f".oxcart.{'00' * 6}.tmp"
    unfinished.symlink_to(target)
    with pytest.raises(FileExistsError), new_file(folder):
        pass
    unfinished.unlink()
    unfinished.symlink_to(folder / "dangling")
    with pytest.raises(StoreError, match=r"folder/y: write: File exists") as caught:
        write_file(folder / "y", b"written")
    assert "\n" not in str(caught.value)
    assert target.read_bytes() == b"precious"
    assert not (folder / "dangling").exists()


def test_a_name_may_be_as_long_as_the_system_allows(folder: Path) -> None:
    longest = os.pathconf(folder, "PC_NAME_MAX")
    write_file(folder / ("x" * longest), b"written")
    assert (folder / ("x" * longest)).read_bytes() == b"written"
    with pytest.raises(StoreError, match="File name too long"):
        write_file(folder / ("x" * (longest + 1)), b"")
    assert len(list(folder.iterdir())) == 1


def test_what_fails_leaves_the_file_before_it_and_nothing_else(folder: Path) -> None:
    (folder / "x").write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), replacing(folder / "x") as file:
        file.write(b"half" * (1 // 0))
    assert (folder / "x").read_bytes() == b"before"
    assert [path.name for path in folder.iterdir()] == ["x"]


def test_removing_a_link_removes_the_link_alone(tmp_path: Path, folder: Path) -> None:
    (folder / "x").write_bytes(b"")
    (tmp_path / "link").symlink_to(folder)
    remove(tmp_path / "link")
    assert (folder / "x").exists()
    remove(folder)
    remove(folder)
    assert list(tmp_path.iterdir()) == []
