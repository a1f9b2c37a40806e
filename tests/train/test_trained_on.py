"""What a run was trained on, and what is held out from it whatever the splits of a dataset are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SplitRule
from oxcart.shards.errors import CorruptError
from oxcart.train.data import Loader, Pairs
from oxcart.train.trained_on import TrainedOn, read_record
from sample_compile import compiled

SAMPLE = RldsSampleConfig(kitchens=5, sessions=1, episodes=2, steps=6, size=32, files=2)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rlds(tmp_path_factory.mktemp("source"), SAMPLE)


def dataset(source: Path, out: Path, rule: SplitRule) -> Dataset:
    compiled(source, out, rule=rule)
    return Dataset.open(str(out))


def loader(opened: Dataset, split: str = "train", limit: int | None = None) -> Loader:
    return Loader(opened, split, sample=Pairs(frames=1), batch_size=2, limit=limit, repeat=False)


def environments(opened: Dataset, split: str) -> list[str]:
    index = loader(opened, split).streams[0].index
    return sorted({str(name) for name in index.texts["environment"].at(np.arange(len(index)))})


def test_another_salt_holds_out_kitchens_that_the_run_has_seen(source: Path, tmp_path: Path) -> None:
    one = dataset(source, tmp_path / "one", SplitRule(val=("toykitchen1",)))
    other = dataset(source, tmp_path / "other", SplitRule(val=("toykitchen2", "toykitchen1")))
    record = TrainedOn.of(loader(one))
    assert record.places(one, ["toykitchen1", "toykitchen2", None]).tolist() == [
        "held out",
        "seen",
        "unknown",
    ]
    assert record.places(other, ["toykitchen1", "toykitchen2"]).tolist() == ["held out", "seen"]
    assert record.share_held_out(loader(one, "val")) == 1
    assert record.share_held_out(loader(one)) == 0
    assert record.share_held_out(loader(other, "val")) == pytest.approx(0.5, abs=0.15)


def test_episodes_that_are_held_out_at_random_are_of_kitchens_that_are_seen(
    source: Path, tmp_path: Path
) -> None:
    found = dataset(source, tmp_path / "out", SplitRule(by="episode", val=0.2))
    assert TrainedOn.of(loader(found)).share_held_out(loader(found, "val")) == 0


def test_a_limit_counts_only_what_it_leaves(source: Path, tmp_path: Path) -> None:
    found = dataset(source, tmp_path / "out", SplitRule(val=0.2))
    whole, part = TrainedOn.of(loader(found)), TrainedOn.of(loader(found, limit=1))
    names = environments(found, "train")
    assert set(whole.places(found, names)) == {"seen"}
    assert sorted(part.places(found, names)) == ["held out"] * (len(names) - 1) + ["seen"]
    (one,), (every,) = part.datasets["oxcart_kitchens"], whole.datasets["oxcart_kitchens"]
    assert (one.episodes, every.episodes) == (1, 8)
    assert one.keys != every.keys


def test_another_name_of_a_place_is_seen_on_either_side(source: Path, tmp_path: Path) -> None:
    plain = dataset(source, tmp_path / "plain", SplitRule(val=("toykitchen1",)))
    tied = SplitRule(val=("tabletop_dark_wood",), aliases={"toykitchen2": ("toykitchen1",)})
    joined = dataset(source, tmp_path / "joined", tied)
    assert TrainedOn.of(loader(plain)).places(joined, ["toykitchen1"]).tolist() == ["seen"]
    only = SplitRule(val=("toykitchen1", "toykitchen2", "toysink1"), aliases={"toysink1": ("annex",)})
    few = TrainedOn.of(loader(dataset(source, tmp_path / "few", only)))
    assert few.places(plain, ["toysink1", "annex", "tabletop_dark_wood"]).tolist() == [
        "held out",
        "held out",
        "seen",
    ]
    other = TrainedOn.of(loader(dataset(source, tmp_path / "named", replace(only, val=("toykitchen1",)))))
    assert other.places(plain, ["annex", "toykitchen1"]).tolist() == ["seen", "held out"]


def test_a_dataset_that_the_run_never_saw_is_held_out(source: Path, tmp_path: Path) -> None:
    found = dataset(source, tmp_path / "out", SplitRule(val=0.2))
    assert TrainedOn(datasets={}).places(found, ["toykitchen1", None]).tolist() == ["held out", "held out"]


def test_a_record_survives_its_checkpoint_and_joins_that_of_an_earlier_stretch(
    source: Path, tmp_path: Path
) -> None:
    found = dataset(source, tmp_path / "out", SplitRule(val=0.2))
    whole, part = TrainedOn.of(loader(found)), TrainedOn.of(loader(found, limit=1))
    assert read_record(Path("last"), {"trained_on": whole.plain()}) == whole
    assert read_record(Path("last"), {}) is None
    both = part.joined(whole)
    assert len(both.datasets["oxcart_kitchens"]) == 2
    assert both.joined(whole) == both
    assert set(both.places(found, environments(found, "train"))) == {"seen"}
    with pytest.raises(CorruptError, match="last: trained_on: expected episodes by dataset, got"):
        read_record(Path("last"), {"trained_on": {"bridge": [{"environments": 3}]}})
