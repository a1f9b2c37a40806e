"""Sharded training equals that of one rank; sharded checkpoints come back whole on any number of ranks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from laq_process import ended, ranks_of
from once import Once
from oxcart.shards.errors import ConfigError
from oxcart.train.laq.config import laq_config
from oxcart.train.vla.config import vla_config
from oxcart.train.vla.emit import emit
from oxcart.train.vla.policy import load_policy
from oxcart.train.vla.tiny import VlmConfig, write_vlm
from tiny_laq import alone, lines, saved, weights
from tiny_vla import small, trained, write_codes


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("vla.tune=lora", "vla.tune: expected full or frozen_vision with train.shard=full, got lora"),
        ("vla.head=head", "vla.head: expected tokens with train.shard=full, got head"),
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
    files = sorted(saved(runs / "four").glob("*.safetensors"))
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
def test_sharded_ranks_resume_on_one_sharded_or_not(runs: Path, tmp_path: Path) -> None:
    more = ("train.steps=4", "val.every=0")
    for name, kind in (("one", "full"), ("two", "none")):
        shutil.copytree(runs / name, tmp_path / name)
        with alone():
            given = [f"run.dir={tmp_path / name}", f"train.shard={kind}", *more]
            trained(given, resume=True, allow_changes=True)
    one, other = lines(tmp_path / "one")[-1], lines(tmp_path / "two")[-1]
    assert one["step"] == other["step"] == 4
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
