"""Labels: every step's codes, written, read back, and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from oxcart.manifests.annotation import read_annotation
from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError
from oxcart.train.data import Loader, Pairs
from oxcart.train.laq import label as module
from oxcart.train.laq.label import label, open_producer, open_run
from oxcart.train.laq.model import LatentActionModel, to_float
from tiny_laq import trained

K = 2
"""Steps of a pair."""


@pytest.fixture(scope="module")
def run(kitchen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("run") / "run"
    trained(made, kitchen, "train.steps=4", "val.every=2")
    return made


def test_codes_of_every_step_round_trip_through_the_loader(run: Path, kitchen: Path, tmp_path: Path) -> None:
    labeller = open_run(run)
    counts = label(str(kitchen), labeller, str(tmp_path / "codes.parquet"), batch_size=7)
    dataset = Dataset.open(str(kitchen))
    rows = dataset.table("episodes.parquet").to_pylist()
    assert counts["episodes"] == len(rows)
    assert counts["coded"] == sum(max(0, row["steps"] - K) for row in rows)
    for split in ("train", "val", "val_seen"):
        loader = Loader(
            str(kitchen),
            split,
            sample=Pairs(frames=K, per_episode="all"),
            batch_size=16,
            size=16,
            annotations=[str(tmp_path / "codes.parquet")],
            repeat=False,
        )
        for batch in loader:
            with torch.no_grad():
                codes = labeller.model.encode(to_float(batch.frames))
            assert torch.equal(batch.annotations["codes"].long(), codes)


def test_the_annotation_says_where_it_comes_from(run: Path, kitchen: Path, tmp_path: Path) -> None:
    labeller = open_run(run)
    label(str(kitchen), labeller, str(tmp_path / "codes.parquet"))
    found = read_annotation(str(tmp_path / "codes.parquet"))
    assert (found.name, found.producer) == ("codes", labeller.fingerprint)
    assert found.dataset == json.loads((kitchen / "manifest.json").read_text())["fingerprint"]
    wanted = {"offset": K, "tokens": 2, "codes": 4, "step": 4, "image_size": 16, "none": -1}
    assert found.parameters == wanted
    for values in found.values.values():
        assert values.shape[1] == 2
        assert (values[-K:] == -1).all()
        assert (values[:-K] >= 0).all()
        assert (values[:-K] < 4).all()


def test_work_that_was_cut_off_goes_on_and_gives_the_same_file(
    run: Path, kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 1)
    labeller = open_run(run)
    whole, again = tmp_path / "whole.parquet", tmp_path / "again.parquet"
    label(str(kitchen), labeller, str(whole), batch_size=8)
    calls = 0
    original = LatentActionModel.encode

    def encode(self: LatentActionModel, frames: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return original(self, frames)

    monkeypatch.setattr(LatentActionModel, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        label(str(kitchen), labeller, str(again), batch_size=8)
    assert not again.exists()
    assert len(list(Path(f"{again}.parts").glob("*.npz"))) == 4
    calls = 5
    label(str(kitchen), labeller, str(again), batch_size=8)
    batches = sum(-(-loader.epoch_length // 8) for loader in _loaders(labeller, kitchen))
    assert calls - 5 == batches - 4, "what was done is not done again"
    assert again.read_bytes() == whole.read_bytes()
    assert not Path(f"{again}.parts").exists()


def test_parts_that_somebody_else_may_have_put_there_are_refused(
    run: Path, kitchen: Path, tmp_path: Path
) -> None:
    output, others = tmp_path / "codes.parquet", tmp_path / "others"
    others.mkdir()
    Path(f"{output}.parts").symlink_to(others)
    with pytest.raises(ConfigError, match=r"--output: \S+\.parts is a link, expected a folder; [^\n]+$"):
        label(str(kitchen), open_run(run), str(output))
    assert list(others.iterdir()) == []


def test_parts_of_other_work_are_refused(
    run: Path, kitchen: Path, unsplit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, original = tmp_path / "codes.parquet", LatentActionModel.encode

    def encode(self: LatentActionModel, frames: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LatentActionModel, "encode", encode)
        with pytest.raises(KeyboardInterrupt):
            label(str(kitchen), open_run(run), str(output), batch_size=8)
    trained(tmp_path / "other", kitchen, "train.steps=1")
    for url, of, size in (
        (kitchen, run, 4),
        (kitchen, tmp_path / "other", 8),
        (unsplit, run, 8),
    ):
        with pytest.raises(ConfigError, match="has parts of other work"):
            label(str(url), open_run(of), str(output), batch_size=size)
    monkeypatch.setattr(LatentActionModel, "encode", original)
    assert label(str(kitchen), open_run(run), str(output), batch_size=8)["coded"] > 0


def test_last_is_the_default_and_best_can_be_had(run: Path, kitchen: Path, tmp_path: Path) -> None:
    assert open_run(run).step == 4
    assert open_run(run, "best").step in (2, 4)
    assert (
        open_run(run, str(run / "checkpoints" / "last.safetensors")).fingerprint == open_run(run).fingerprint
    )
    for name in ("last", "best"):
        producer = open_run(run, name).fingerprint
        assert open_producer(run, producer).fingerprint == producer
    assert open_producer(run, "another").fingerprint == open_run(run).fingerprint
    other = tmp_path / "other"
    trained(other, kitchen, "train.steps=1")
    assert open_run(other).fingerprint != open_run(run).fingerprint
    with pytest.raises(ConfigError, match=r"best\.safetensors: there is no such checkpoint; train first"):
        open_run(other, "best")


def test_episodes_that_are_too_short_have_no_codes(run: Path, kitchen: Path, tmp_path: Path) -> None:
    labeller = open_run(run)
    config = labeller.config
    object.__setattr__(config.data, "offset", 100)
    found = label(str(kitchen), labeller, str(tmp_path / "codes.parquet"))
    assert found["coded"] == 0
    values = read_annotation(str(tmp_path / "codes.parquet")).values
    assert all((one == -1).all() for one in values.values())
    assert np.concatenate(list(values.values())).shape[1] == 2


def _loaders(labeller: module.Labeller, dataset: Path) -> list[Loader]:
    return list(module._loaders(Dataset.open(str(dataset)), labeller, 8).values())
