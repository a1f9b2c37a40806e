"""A disk that fills is said with the name of the file that it refused."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from oxcart.shards.errors import StoreError
from oxcart.train import plots
from oxcart.train.laq import label
from oxcart.train.report import RunLog
from oxcart.train.run_directory import write_run


@pytest.fixture
def full() -> Iterator[None]:
    """No file may be longer than ten bytes, as on a disk that has no more."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("full")
def test_every_file_of_a_run_is_named_where_the_disk_is_full(tmp_path: Path) -> None:
    image = np.zeros((1, 8, 8, 3), np.uint8)
    for name, work in {
        "config.yaml": lambda: write_run(tmp_path, "preset: tiny, and more", {}),
        "metrics.jsonl": lambda: RunLog(tmp_path, step=0, steps=1, label="x").metrics("train", 1, {"a": 0}),
        "grid.png": lambda: plots.grid(tmp_path / "grid.png", [("a", image)], ["row"], "title"),
        "work.json": lambda: label._claim(tmp_path, {"producer": "somebody"}),
        "0.npz": lambda: label._write_piece(
            tmp_path / "0.npz", ["a"], np.zeros(1, int), np.zeros((1, 1), np.int32)
        ),
    }.items():
        with pytest.raises(StoreError) as error:
            work()
        assert str(error.value) == f"{tmp_path / name}: write: File too large"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
