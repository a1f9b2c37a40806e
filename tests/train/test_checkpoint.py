"""Checkpoints are whole or not there, and give back what was saved."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from oxcart.shards.errors import ConfigError, CorruptError, StoreError
from oxcart.train import checkpoint as checkpoints
from oxcart.train.checkpoint import Checkpoint, load, path_of, save


def made(step: int, seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return Checkpoint(
        step=step,
        model=model.state_dict(),
        optimizer=optimizer.state_dict(),
        random={"0/cpu": torch.get_rng_state()},
        state={"loader": {"position": 7}, "best": 0.5},
    )


def test_a_checkpoint_gives_back_all_of_it(tmp_path: Path) -> None:
    saved = made(5)
    found = load(save(tmp_path, saved))
    assert (found.step, found.state) == (5, saved.state)
    assert all(torch.equal(found.model[name], tensor) for name, tensor in saved.model.items())
    assert torch.equal(found.random["0/cpu"], saved.random["0/cpu"])
    again = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(again.parameters(), lr=0.9)
    optimizer.load_state_dict(dict(found.optimizer))
    assert optimizer.param_groups[0]["lr"] == 0.1
    for index, values in saved.optimizer["state"].items():
        for name, value in values.items():
            assert torch.equal(optimizer.state_dict()["state"][index][name], value)


def test_its_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = save(tmp_path, made(1), best=True)
    finally:
        os.umask(before)
    for one in (path, path_of(tmp_path, "best")):
        assert stat.S_IMODE(one.stat().st_mode) == 0o640


def test_best_stays_while_last_moves_on(tmp_path: Path) -> None:
    save(tmp_path, made(1), best=True)
    save(tmp_path, made(2, seed=1))
    assert load(path_of(tmp_path)).step == 2
    assert load(path_of(tmp_path, "best")).step == 1
    save(tmp_path, made(3), best=True)
    assert load(path_of(tmp_path, "best")).step == 3
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "best.safetensors",
        "last.safetensors",
    ]


def test_a_file_system_without_links_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    save(tmp_path, made(1), best=True)
    save(tmp_path, made(2))
    assert load(path_of(tmp_path, "best")).step == 1


@pytest.mark.parametrize("where", ["save_file", "fsync"])
def test_a_disk_that_fills_leaves_the_one_before_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    save(tmp_path, made(1))
    before = path_of(tmp_path).read_bytes()

    def full(*given: Any) -> None:
        if where == "save_file":
            Path(given[1]).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints if where == "save_file" else os, where, full)
    with pytest.raises(StoreError) as error:
        save(tmp_path, made(2))
    assert "(No space left on device); the one before it is whole; make room" in str(error.value)
    assert path_of(tmp_path).read_bytes() == before
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.safetensors"]


def test_a_full_disk_at_the_first_one_says_that_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(StoreError, match="there is none before it"):
        save(tmp_path, made(1))


def test_a_save_follows_no_link_and_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / ".last.safetensors.0123456789ab.tmp").symlink_to(target)
    (folder / ".best.safetensors.0123456789ab.tmp").write_bytes(b"half of it")
    (folder / "last.safetensors").symlink_to(target)
    (folder / "best.safetensors").symlink_to(target)
    save(tmp_path, made(1), best=True)
    assert target.read_bytes() == b"precious"
    assert load(path_of(tmp_path, "best")).step == 1
    assert sorted(path.name for path in folder.iterdir()) == ["best.safetensors", "last.safetensors"]


def test_no_file_is_a_config_error_and_a_cut_one_corrupt(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such checkpoint"):
        load(path_of(tmp_path))
    path = save(tmp_path, made(1))
    for data in (path.read_bytes()[:-9], b"", b"text that is no checkpoint"):
        path.write_bytes(data)
        with pytest.raises(CorruptError, match="not a checkpoint, or cut off"):
            load(path)


def test_random_states_go_back() -> None:
    states = checkpoints.random_states()
    first = torch.rand(3)
    checkpoints.set_random_states(states)
    assert torch.equal(torch.rand(3), first)
