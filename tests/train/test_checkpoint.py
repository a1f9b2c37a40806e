"""Checkpoints are whole or not there, and give back what was saved."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn

from oxcart.shards.errors import ConfigError, CorruptError, StoreError
from oxcart.train import checkpoint as checkpoints
from oxcart.train.checkpoint import (
    CheckpointWriter,
    check_shapes,
    find,
    load,
    read,
    read_header,
    state_tensors,
    weights_of,
)
from tiny_laq import contents, saved, step_of

Made = tuple[nn.Module, torch.optim.Optimizer]


def made(seed: int = 0) -> Made:
    """A model after a step of its optimizer; its last layer has learnt nothing and has no moments."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    module[:2](torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    return module, optimizer


def write(run: Path, step: int, seed: int = 0, *, best: bool = False) -> Made:
    """What a checkpoint was made of."""
    module, optimizer = made(seed)
    tensors = {**state_tensors(module, optimizer), "random/0/cpu": torch.get_rng_state()}
    writer = CheckpointWriter(run)
    writer.save(step, tensors, {"loader": {"position": 7}}, best=best)
    writer.wait()
    return module, optimizer


def names(run: Path) -> list[str]:
    """What lies in the folder of its checkpoints."""
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of one, in which checkpoints are written in the background."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_a_checkpoint_comes_back_bit_for_bit_and_replaces_the_one_before_it(tmp_path: Path) -> None:
    write(tmp_path, 9, seed=1)
    module, optimizer = write(tmp_path, 10)
    state = torch.get_rng_state()
    assert names(tmp_path) == ["last-000000010"]
    path = saved(tmp_path)
    header = read_header(path)
    assert (header.step, header.state) == (10, {"loader": {"position": 7}})
    assert {name: tuple(one.shape) for name, one in weights_of(module).items()} == header.model
    moments = {name.split("/")[1] for name in header.shapes if name.startswith("optimizer/")}
    assert moments == {"0.weight", "0.bias", "1.weight", "1.bias"}, "the last layer has none"
    assert torch.equal(read(path, header, "random/0/")["cpu"], state)
    assert read(path, header, "random/1/") == {}
    other, others = made(1)
    load(path, state_tensors(other, others))
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        for name, value in optimizer.state[one].items():
            assert torch.equal(value, others.state[two][name])


def test_what_is_saved_is_what_was_when_it_was_asked_for(tmp_path: Path, group: None) -> None:
    module, optimizer = made()
    before = {name: one.clone() for name, one in weights_of(module).items()}
    writer = CheckpointWriter(tmp_path)
    writer.save(1, state_tensors(module, optimizer), {})
    with torch.no_grad():
        for one in module.parameters():
            one.zero_()
    writer.wait()
    assert all(torch.equal(one, before[name]) for name, one in contents(tmp_path, "model/").items())


def test_a_tied_weight_is_stored_once(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    CheckpointWriter(tmp_path).save(1, state_tensors(module, torch.optim.AdamW(module.parameters())), {})
    assert sorted(contents(tmp_path)) == ["model/0.bias", "model/0.weight", "model/1.bias"]


def test_its_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path, 1, best=True)
    finally:
        os.umask(before)
    for name in ("last", "best"):
        for path in saved(tmp_path, name).iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_best_stays_while_last_moves_on(tmp_path: Path) -> None:
    write(tmp_path, 1, best=True)
    write(tmp_path, 2, seed=1)
    assert (step_of(tmp_path), step_of(tmp_path, "best")) == (2, 1)
    assert not torch.equal(
        contents(tmp_path)["model/0.weight"], contents(tmp_path, name="best")["model/0.weight"]
    )
    write(tmp_path, 3, best=True)
    assert names(tmp_path) == ["best-000000003", "last-000000003"]


def test_a_file_system_without_links_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write(tmp_path, 1, best=True)
    write(tmp_path, 2)
    assert step_of(tmp_path, "best") == 1


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("where", ["write_data", "fsync"])
def test_a_disk_that_fills_leaves_the_one_before_whole(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    where: str,
    background: bool,
) -> None:
    if background:
        request.getfixturevalue("group")
    write(tmp_path, 1)
    before = contents(tmp_path)

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._Storage if where == "write_data" else os, where, full)
        with pytest.raises(
            StoreError, match=r"\(No space left on device\); the one before it is whole; make"
        ):
            write(tmp_path, 2)
    assert step_of(tmp_path) == 1
    assert all(torch.equal(one, before[name]) for name, one in contents(tmp_path).items())
    write(tmp_path, 2)
    assert names(tmp_path) == ["last-000000002"]


def test_a_full_disk_at_the_first_one_says_that_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints._Storage, "write_data", full)
    with pytest.raises(StoreError, match="there is none before it"):
        write(tmp_path, 1)


def test_a_save_follows_no_link_and_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    target, folder = tmp_path / "target", tmp_path / "checkpoints"
    target.mkdir()
    (target / "about.json").write_bytes(b"precious")
    folder.mkdir()
    (folder / ".best").mkdir()
    (folder / ".best" / "half").write_bytes(b"half of it")
    for name in (".new", "last-000000001", "best-000000000"):
        (folder / name).symlink_to(target)
    write(tmp_path, 1, best=True)
    assert [path.name for path in target.iterdir()] == ["about.json"]
    assert (target / "about.json").read_bytes() == b"precious"
    assert names(tmp_path) == ["best-000000001", "last-000000001"]


def test_one_process_saves_what_it_has_though_what_it_began_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: None
) -> None:
    def gone(*given: Any) -> None:
        raise RuntimeError("Connection closed by peer")

    writer = CheckpointWriter(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._Storage, "write_data", gone)
        writer.save(1, {"model/a": torch.ones(2)}, {})
        assert writer._pending is not None
        writer._pending.exception()
    writer.save(2, {"model/a": torch.ones(2)}, {}, alone=True)
    assert step_of(tmp_path) == 2


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def spoiled(path: Path, at: int) -> None:
    """A bit of a file is another."""
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda path: next(path.glob("*.safetensors")).unlink(),
            "not a checkpoint, or cut off: .*No such file",
        ),
        (lambda path: cut(next(path.glob("*.safetensors"))), "cut off: expected [0-9,]+ bytes, got"),
        (lambda path: spoiled(next(path.glob("*.safetensors")), 3), "not a checkpoint, or cut off"),
        (lambda path: spoiled(next(path.glob("*.safetensors")), 12), "not a checkpoint, or cut off"),
        (lambda path: cut(path / "about.json"), "not a checkpoint, or cut off"),
        (lambda path: (path / "about.json").write_text("[" * 100_000), "not a checkpoint, or cut off"),
        (lambda path: (path / "about.json").write_text("[]"), "not a checkpoint, or cut off"),
        (lambda path: (path / "about.json").unlink(), "not a checkpoint, or cut off"),
    ],
)
def test_a_lost_cut_or_spoiled_file_is_found(tmp_path: Path, spoil: Callable[[Path], Any], said: str) -> None:
    write(tmp_path, 3)
    path = saved(tmp_path)
    spoil(path)
    with pytest.raises(CorruptError, match=f"^{path}.*{said}") as error:
        read_header(path)
    assert "\n" not in str(error.value)


def test_pieces_that_do_not_make_a_tensor_are_found(tmp_path: Path) -> None:
    write(tmp_path, 3)
    path = saved(tmp_path)
    (file,) = path.glob("*.safetensors")
    (path / "more.safetensors").write_bytes(file.read_bytes())  # every tensor has two first pieces
    with pytest.raises(CorruptError, match=r"a part of model/\S+ is missing; the file of a rank may be lost"):
        read_header(path)


def test_shapes_are_known_before_a_tensor_is_read(tmp_path: Path) -> None:
    write(tmp_path, 3)
    with pytest.raises(CorruptError, match=r"0\.weight is \[5, 3\], and \[5, 4\] in the model"):
        check_shapes(tmp_path, read_header(saved(tmp_path)).model, {"0.weight": (5, 4)})


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    module, optimizer = made()
    with torch.no_grad():
        module[0].bias[1] = float("nan")  # type: ignore[index, union-attr, operator]
    CheckpointWriter(tmp_path).save(3, state_tensors(module, optimizer), {})
    with pytest.raises(CorruptError, match=r"model/0\.bias holds numbers that are not finite"):
        load(saved(tmp_path), state_tensors(module, optimizer))


def test_a_run_without_one_has_none_and_that_of_an_older_version_is_named(tmp_path: Path) -> None:
    assert find(tmp_path) is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"last\.safetensors: an older version of oxcart wrote it; use "):
        find(tmp_path)


def test_another_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 1)
    path = saved(tmp_path) / "about.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 1}))
    with pytest.raises(CorruptError, match="version 1, expected 2"):
        read_header(path.parent)


def test_random_states_go_back() -> None:
    states = checkpoints.random_states()
    first = torch.rand(3)
    checkpoints.set_random_states(states)
    assert torch.equal(torch.rand(3), first)
