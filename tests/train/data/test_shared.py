"""Thirty loaders of a process take no more threads and memory than one, and give the same samples."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from oxcart.train.data import Loader, Pairs
from oxcart.train.data.memory import BatchMemory
from oxcart.train.data.reuse import Budget, process_budget

KEPT = 60_000
"""Bytes; chunks are kept, as frames of 16 pixels are not those that are stored."""


def reading() -> int:
    """Threads that read."""
    return sum(thread.name.startswith("oxcart-") for thread in threading.enumerate())


def open_one(url: Path, seed: int) -> Loader:
    return Loader(
        str(url),
        "train",
        sample=Pairs(frames=1, per_episode="all"),
        size=16,
        batch_size=4,
        seed=seed,
        memory=KEPT,
    )


@pytest.fixture(autouse=True)
def _ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


def test_thirty_loaders_share_threads_and_memory(kitchen: Path) -> None:
    before = reading()
    loaders = [open_one(kitchen, seed) for seed in range(30)]
    whole = loaders[0]._budget._whole
    assert whole is not None
    most = 0
    running: list[Iterator[object]] = [iter(loader) for loader in loaders]
    for _ in range(3):
        for one in running:
            next(one)
            used = sum(loader._budget.used for loader in loaders)
            most = max(most, used)
            assert used <= whole.size
    assert most > 0, "something is kept"
    assert all(loader._budget._whole is whole for loader in loaders)
    assert reading() - before <= loaders[0].threads, "as one loader has"
    memory: set[BatchMemory] = {one for loader in loaders for one in loader._memory.values()}
    assert len(memory) == 1


def test_the_order_of_samples_is_that_of_a_loader_alone(kitchen: Path) -> None:
    alone = [next(iter(open_one(kitchen, seed))) for seed in range(3)]
    batches = [iter(loader) for loader in [open_one(kitchen, seed) for seed in range(3)]]
    for own, shared in zip(alone, map(next, batches), strict=True):
        assert (own.key, own.t.tolist()) == (shared.key, shared.t.tolist())
        assert torch.equal(own.frames, shared.frames)


def test_parts_of_a_budget_take_from_the_whole() -> None:
    whole = Budget(10)
    first, second = Budget(10, whole), Budget(4, whole)
    assert first.take(7)
    assert not second.take(4), "3 bytes are left"
    assert second.take(3)
    first.give(7)
    assert (whole.used, first.used, second.used) == (3, 0, 3)
    assert not second.take(2), "its own limit"


def test_the_budget_of_a_process_is_the_largest_that_is_asked_for() -> None:
    one = process_budget(10)
    size = one.size
    assert process_budget(size + 5) is one
    assert process_budget(1).size == size + 5
