"""A disk that is full or must not be written."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oxcart.compile.engines import Part
from oxcart.compile.pipeline import CompileConfig, execute, execute_part, finish, prepare
from oxcart.shards.errors import ConfigError, StoreError
from sample_compile import SHARD_SIZE, Compiled, cli, complaint, config_of, one_line, tree


def mounted(folder: Path, options: str) -> bool:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "oxcart", str(folder)], capture_output=True)
    return done.returncode == 0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 8 MiB, skipped where this user may mount none."""
    folder = tmp_path / "small"
    if shutil.which("mount") is None or not mounted(folder, "size=8m"):
        pytest.skip("may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@contextlib.contextmanager
def full(folder: Path, left: int) -> Iterator[None]:
    """So many bytes are free on the file system, to a page."""
    ballast = folder / "ballast"
    free = shutil.disk_usage(folder).free
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - left))
    try:
        yield
    finally:
        ballast.unlink()


def ended(config: CompileConfig) -> str | None:
    """What a compile fails with, which is one line; None where it does not."""
    try:
        execute(prepare(config))
    except StoreError as error:
        return one_line(error)
    return None


def test_a_disk_that_fills_at_any_point_is_one_line_and_the_compile_goes_on_when_there_is_room(
    whole: Compiled, small: Path
) -> None:
    """Room for more and more: in the claim, amid the first shard, between shards, and at commit."""
    out = small / "out"
    config = config_of(whole.source, out)
    said = []
    for left in (0, 8 << 10, 40 << 10, 100 << 10, 250 << 10):
        shutil.rmtree(out, ignore_errors=True)
        with full(small, left):
            message = ended(config)
            assert message is not None
            assert message.endswith("No space left on device")
            assert str(out) in message
            said.append(message)
            assert not (out / "manifest.json").exists()
            found = {name: one for name, one in tree(out).items() if not name.startswith(".oxcart/")}
            assert found.items() <= whole.tree.items()
        assert execute(prepare(config)) == whole.manifest
        assert tree(out) == whole.tree
    assert any("/shards/" in message or ".tar" in message for message in said)


def test_a_disk_that_is_full_at_commit_is_one_line_and_a_commit_when_there_is_room_is_whole(
    whole: Compiled, small: Path
) -> None:
    out = small / "out"
    execute_part(prepare(config_of(whole.source, out, part=Part(0, 1))))
    before = tree(out)
    room = sum((whole.out / name).stat().st_size for name in ("episodes.parquet", "rejected.parquet"))
    for left in (0, 4 << 10, room + (1 << 10)):
        with full(small, left):
            with pytest.raises(StoreError, match="No space left on device") as caught:
                finish(str(out))
            one_line(caught.value)
            assert not (out / "manifest.json").exists()
            assert before.items() <= tree(out).items()
    assert finish(str(out)) == whole.manifest
    assert tree(out) == whole.tree


def test_a_read_only_output_is_refused_before_anything_is_read(whole: Compiled, small: Path) -> None:
    remount(small, "ro")
    result = cli("compile", whole.source, small / "out", "--val-fraction", 0.2, "--shard-size", SHARD_SIZE)
    assert complaint(result).endswith("is not a directory that can be written")
    assert tree(small) == {}


def test_an_image_for_which_there_is_no_room_is_named_and_not_there(whole: Compiled, small: Path) -> None:
    with full(small, 0):
        assert complaint(cli("show", whole.out, "-o", small / "x.png")).endswith(
            "x.png: write: No space left on device"
        )
        assert [path.name for path in small.iterdir()] == ["ballast"]
    assert cli("show", whole.out, "-o", small / "x.png").exit_code == 0
    assert [path.name for path in small.iterdir()] == ["x.png"]


@pytest.mark.parametrize("what", ["unfinished", "dataset"])
def test_an_output_that_became_read_only_keeps_its_state(whole: Compiled, small: Path, what: str) -> None:
    out = small / "out"
    if what == "dataset":
        shutil.copytree(whole.out, out)
    else:
        execute_part(prepare(config_of(whole.source, out, part=Part(0, 3))))
    before = tree(out)
    remount(small, "ro")
    for again in (config_of(whole.source, out, limit=2, overwrite=True), config_of(whole.source, out)):
        if what == "dataset" and not again.overwrite:
            assert execute(prepare(again)) == whole.manifest, "it is there and whole"
            continue
        with pytest.raises((StoreError, ConfigError)) as caught:
            execute(prepare(again))
        assert re.search("Read-only file system|can be written", one_line(caught.value))
    assert tree(out) == before
    remount(small, "rw")
    assert execute(prepare(config_of(whole.source, out))) == whole.manifest
    assert tree(out) == whole.tree


LIMITED = """
import resource, signal, sys

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
from oxcart.cli.main import main
main()
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_may_not_grow_is_one_line(whole: Compiled, tmp_path: Path, workers: int) -> None:
    """As under a quota: the write fails in the middle of a shard; other shards stay as they are."""
    out = tmp_path / "out"
    options = ["--val-fraction", "0.2", "--shard-size", str(SHARD_SIZE), "--quiet"]
    options += ["--workers", str(workers)]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "20000", "compile", str(whole.source), str(out), *options],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "File too large" in done.stderr
    assert not list((out / "shards").glob("*.tar"))
    assert execute(prepare(config_of(whole.source, out))) == whole.manifest
    assert tree(out) == whole.tree
