"""Sharded training equals that of one rank; sharded checkpoints come back whole on any number of ranks."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import distributed, nn

from laq_process import ended, ranks_of
from once import Once
from oxcart.shards.errors import ConfigError, CorruptError, StoreError
from oxcart.train import sharding
from oxcart.train.checkpoint import check_shapes
from oxcart.train.laq.config import laq_config
from oxcart.train.sharding import ShardedWriter, find, load, read_header
from oxcart.train.vla.config import vla_config
from oxcart.train.vla.emit import emit
from oxcart.train.vla.policy import load_policy
from oxcart.train.vla.tiny import VlmConfig, write_vlm
from tiny_laq import alone, lines, weights
from tiny_vla import small, trained, write_codes


def made(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model after a step of its optimizer; its last layer has learnt nothing and has no moments."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    module[:2](torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    return module, optimizer


def written(run: Path, step: int, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """What a checkpoint was made of."""
    module, optimizer = made(seed)
    writer = ShardedWriter(run)
    writer.save(step, module, optimizer, {"loader": {"position": 7}})
    writer.wait()
    return module, optimizer


def test_a_checkpoint_comes_back_bit_for_bit_and_replaces_the_one_before_it(tmp_path: Path) -> None:
    written(tmp_path, 9, seed=1)
    module, optimizer = written(tmp_path, 10)
    state = torch.get_rng_state()
    path = find(tmp_path)
    assert path is not None
    assert [one.name for one in path.parent.iterdir()] == ["last-000000010"]
    other, moments = made(1)
    header = read_header(path, other, moments)
    assert (header.step, header.state) == (10, {"loader": {"position": 7}})
    assert sorted(header.optimizer) == [0, 1, 2, 3], "the last layer has no moments"
    random = load(path, other, moments, rank=0)
    assert torch.equal(random["cpu"], state)
    assert load(path, other, moments, rank=1) == {}
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        for name, value in optimizer.state[one].items():
            assert torch.equal(value, moments.state[two][name])


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of one, in which checkpoints are written in the background."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_what_is_saved_is_what_was_when_it_was_asked_for(tmp_path: Path, group: None) -> None:
    module, optimizer = made(0)
    before = [one.detach().clone() for one in module.parameters()]
    writer = ShardedWriter(tmp_path)
    writer.save(1, module, optimizer, {})
    with torch.no_grad():
        for one in module.parameters():
            one.zero_()
    writer.wait()
    path = find(tmp_path)
    assert path is not None
    load(path, module, optimizer, rank=0)
    assert all(torch.equal(one, two) for one, two in zip(module.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: next(path.glob("*.safetensors")).unlink(), "not there|missing|there is no"),
        (lambda path: cut(next(path.glob("*.safetensors"))), "not a checkpoint, or cut off"),
        (lambda path: cut(path / "about.json"), "not a checkpoint, or cut off"),
        (lambda path: (path / "about.json").write_text("[]"), "not a checkpoint, or cut off"),
    ],
)
def test_a_lost_or_cut_file_is_found(tmp_path: Path, spoil: Callable[[Path], Any], said: str) -> None:
    module, optimizer = written(tmp_path, 3)
    path = find(tmp_path)
    assert path is not None
    spoil(path)
    with pytest.raises(CorruptError, match=said):
        examine(path, module, optimizer)


def examine(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    shapes = {name: one.shape for name, one in sharding.weights_of(module).items()}
    check_shapes(path, read_header(path, module, optimizer).model, shapes)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    module, optimizer = made(0)
    with torch.no_grad():
        module[0].bias[1] = float("nan")  # type: ignore[index, union-attr, operator]
    writer = ShardedWriter(tmp_path)
    writer.save(3, module, optimizer, {})
    writer.wait()
    path = find(tmp_path)
    assert path is not None
    with pytest.raises(CorruptError, match=r"model/0\.bias holds numbers that are not finite"):
        load(path, module, optimizer, rank=0)


def test_a_disk_that_is_full_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: None
) -> None:
    written(tmp_path, 3)

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sharding._Storage, "write_data", full)
    module, optimizer = made(1)
    writer = ShardedWriter(tmp_path)
    writer.save(4, module, optimizer, {})
    with pytest.raises(StoreError, match=r"cannot be written \(.*No space left.*\); the one before it"):
        writer.wait()
    path = find(tmp_path)
    assert path is not None
    assert path.name == "last-000000003"
    monkeypatch.undo()
    written(tmp_path, 4)
    assert [one.name for one in path.parent.iterdir()] == ["last-000000004"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("vla.tune=lora", "vla.tune: expected full or frozen_vision with train.shard=full, got lora"),
        ("vla.head=head", "vla.head: expected tokens or replace with train.shard=full, got head"),
        ("train.compile=true", "train.compile: expected false with train.shard=full, got True"),
        ("train.shard=half", "train.shard: expected"),
    ],
)
def test_what_sharding_cannot_have_is_refused(given: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        vla_config(["train.shard=full", given])


def test_a_latent_action_model_is_not_sharded() -> None:
    with pytest.raises(ConfigError, match=r"train\.shard: expected none, got full; only oxcart train vla"):
        laq_config(["train.shard=full"])


MODEL = VlmConfig(
    family="smolvlm",
    spare=0,
    tied=False,
    padding="left",
    width=32,
    layers=2,
    vision_layers=1,
    image_size=32,
    patch=8,
    merge=2,
)
MORE = (
    "train.steps=3",
    "train.accumulate=2",
    "vla.checkpointing=true",
    "vla.tune=frozen_vision",
    "vla.new_rate=3",
)
VALIDATED = ("val.every=3", "val.samples=20", "val.images=1")
COMMANDS = """
import json, sys
from accelerate.state import AcceleratorState
from torch import distributed
from oxcart.cli.main import oxcart

for arguments in json.loads(sys.argv[1]):
    oxcart(["train", "vla", *arguments], standalone_mode=False)
    AcceleratorState._reset_state()
distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def runs(kitchen: Path, once: Once) -> Path:
    """Holds `one`, a run of one rank, and `two` and `four`, of sharded ranks; `four` has begun on two."""

    def launch(folder: Path) -> Path:
        write_vlm(folder / "vlm", MODEL)
        codes = write_codes(kitchen, folder / "codes.parquet")

        def given(name: str, *more: str) -> list[str]:
            return small(folder / "vlm", kitchen, codes, folder / name, *MORE, *VALIDATED, *more)

        with alone():
            trained(given("one"))
        full = "train.shard=full"
        begun = given("four", full, "train.steps=2", "val.every=0", "train.save_every=1")
        again = ["--resume", "auto", "--allow-changes", f"run.dir={folder / 'four'}"]
        again += ["train.steps=3", "val.every=3"]
        for count, commands in ((2, [given("two", full), begun]), (4, [again])):
            told = ended(ranks_of(count, ["-c", COMMANDS], json.dumps(commands)))
            assert [code for code, _ in told] == [0] * count, told
        return folder

    return Path(once("sharded", launch))


@pytest.mark.system
@pytest.mark.parametrize("name", ["two", "four"])
def test_sharded_ranks_equal_one(runs: Path, name: str) -> None:
    one, other = lines(runs / "one"), lines(runs / name)
    for what in ("loss", "grad_norm"):
        assert [line[what] for line in other] == pytest.approx([line[what] for line in one], rel=1e-4)
    one, other = lines(runs / "one", "val"), lines(runs / name, "val")
    assert other[0]["val/nll"] == pytest.approx(one[0]["val/nll"], rel=1e-4)
    assert other[0]["val/samples"] == one[0]["val/samples"] == 20, (
        "3 batches, of which each rank has its share"
    )
    frames = torch.full((2, 32, 32, 3), 90, dtype=torch.uint8)
    made = [emit(load_policy(runs / run, "cpu")[0], frames, ["push", "lift"])[1] for run in ("one", name)]
    torch.testing.assert_close(made[0], made[1], rtol=1e-3, atol=1e-4)


@pytest.mark.system
def test_each_rank_writes_its_share(runs: Path) -> None:
    path = find(runs / "four")
    assert path is not None
    files = sorted(path.glob("*.safetensors"))
    assert len(files) == 4
    whole = sum(one.numel() for one in weights(runs / "one").values())
    shares = []
    for file in files:
        with safe_open(str(file), "pt") as opened:
            sizes = {name: opened.get_tensor(name).numel() for name in opened.keys()}  # noqa: SIM118
        shares.append(sum(size for name, size in sizes.items() if name.startswith("model/")))
    assert sum(shares) == pytest.approx(whole, rel=0.2)
    assert max(shares) < 0.4 * whole


@pytest.mark.system
def test_sharded_ranks_resume_on_one_and_in_no_other_way(runs: Path, tmp_path: Path) -> None:
    more = ("train.steps=4", "val.every=0")
    for name in ("one", "two"):
        shutil.copytree(runs / name, tmp_path / name)
        with alone():
            trained([f"run.dir={tmp_path / name}", *more], resume=True, allow_changes=True)
    one, other = lines(tmp_path / "one")[-1], lines(tmp_path / "two")[-1]
    assert one["step"] == other["step"] == 4
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
    with pytest.raises(ConfigError, match=r"train\.shard: the run was started with full, got none"):
        trained([f"run.dir={runs / 'two'}", "train.shard=none"], resume=True)
