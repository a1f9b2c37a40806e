"""What is written behind is in the file, byte for byte, or an error says that it is not."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from oxcart.shards import write_behind
from oxcart.shards.write_behind import BLOCK, BLOCKS, WriteBehindFile


def write(path: Path, parts: list[bytes]) -> None:
    with open(path, "xb", buffering=0) as file:
        writer = WriteBehindFile(file)
        try:
            assert [writer.write(part) for part in parts] == [len(part) for part in parts]
            writer.finish()
        finally:
            writer.stop()


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, (BLOCKS + 2) * BLOCK + 4097])
@pytest.mark.parametrize("step", [3 << 20, 1 << 30])
def test_all_bytes_are_in_the_file(tmp_path: Path, size: int, step: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    write(tmp_path / "x", [data[i : i + step] for i in range(0, size, step)])
    assert (tmp_path / "x").read_bytes() == data


def test_many_small_writes_are_one_file(tmp_path: Path) -> None:
    parts = [bytes([i % 251]) * (i % 3000) for i in range(20_000)]
    write(tmp_path / "x", parts)
    assert (tmp_path / "x").read_bytes() == b"".join(parts)


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a file system that is memory")
def test_a_file_system_without_direct_writes_will_do() -> None:
    path = Path(f"/dev/shm/oxcart-test-{os.getpid()}")
    try:
        write(path, [bytes([7]) * (2 * BLOCK + 5)])
        assert path.read_bytes() == bytes([7]) * (2 * BLOCK + 5)
    finally:
        path.unlink(missing_ok=True)


def test_a_file_system_that_refuses_the_alignment_is_written_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite, refused = os.pwrite, []

    def refuse_first(descriptor: int, data: memoryview, offset: int) -> int:
        if not refused:
            refused.append(offset)
            raise OSError(errno.EINVAL, "Invalid argument")
        return pwrite(descriptor, data[: 1 << 20], offset)  # and in short pieces

    monkeypatch.setattr(write_behind.os, "pwrite", refuse_first)
    write(tmp_path / "x", [bytes([3]) * (3 * BLOCK + 1)])
    assert (tmp_path / "x").read_bytes() == bytes([3]) * (3 * BLOCK + 1)
    assert refused == [0]


@pytest.mark.parametrize("blocks", [1, 3, 20])
def test_a_disk_that_fills_up_is_an_error(tmp_path: Path, blocks: int) -> None:
    """Whether the thread finds out or the end."""
    code = (
        "import resource, signal, sys\n"
        "from oxcart.shards.write_behind import BLOCK, WriteBehindFile\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (BLOCK // 2, {resource.RLIM_INFINITY}))\n"
        "file = open(sys.argv[1], 'xb', buffering=0)\n"
        "writer = WriteBehindFile(file)\n"
        "try:\n"
        f"    for _ in range({blocks}): writer.write(bytes(BLOCK))\n"
        "    writer.finish()\n"
        "except OSError as error: print(error.strerror)\n"
        "finally: writer.stop()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("File too large\n", "")
