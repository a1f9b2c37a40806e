"""Labels: every step's codes, written, read back, and resumed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from oxcart.manifests.annotation import read_annotation
from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError, CorruptError, NotFiniteError, OxcartError
from oxcart.train.data import Loader, Pairs
from oxcart.train.laq import label as module
from oxcart.train.laq.label import label, open_producer, open_run
from oxcart.train.laq.model import LatentActionModel, to_float
from oxcart.train.ranks import Member
from tiny_laq import rewritten, saved, trained

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


def test_parts_in_any_order_and_the_rest_give_the_file_of_one_process(
    run: Path, kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 1)
    labeller = open_run(run)
    whole, parts = tmp_path / "whole.parquet", tmp_path / "parts.parquet"
    total = label(str(kitchen), labeller, str(whole), batch_size=8)
    told: list[int] = []
    for part in ((2, 3), (0, 3)):  # the other is left to whoever writes the file
        assert label(str(kitchen), labeller, str(parts), batch_size=8, part=part) is None
    assert not parts.exists()
    assert label(str(kitchen), labeller, str(parts), batch_size=8, report=told.append) == total
    assert parts.read_bytes() == whole.read_bytes()
    assert total is not None
    assert 0 < told[0] < told[-1] == total["coded"], "what is done is counted, and not done again"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_a_part_that_is_cut_off_is_named(run: Path, kitchen: Path, tmp_path: Path, content: bytes) -> None:
    labeller, output = open_run(run), tmp_path / "codes.parquet"
    assert label(str(kitchen), labeller, str(output), part=(0, 1)) is None
    part = next(Path(f"{output}.parts").glob("val-*.npz"))
    part.write_bytes(content)
    with pytest.raises(
        CorruptError, match=rf"^{re.escape(str(part))}: cannot be read \(.*; remove it, and label"
    ):
        label(str(kitchen), labeller, str(output))
    part.unlink()
    assert label(str(kitchen), labeller, str(output)) is not None


def test_a_rank_that_has_gone_is_said_in_one_line(
    run: Path, kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*given: Any) -> None:
        raise RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:12186.")

    monkeypatch.setattr(distributed, "all_gather_object", gone)
    two = Member(process_index=0, num_processes=2)
    with pytest.raises(OxcartError, match=r"^another rank has stopped; see its message"):
        label(str(kitchen), open_run(run), str(tmp_path / "codes.parquet"), ranks=two)


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
    assert open_run(run, str(saved(run))).fingerprint == open_run(run).fingerprint
    for name in ("last", "best"):
        producer = open_run(run, name).fingerprint
        assert open_producer(run, producer).fingerprint == producer
    assert open_producer(run, "another").fingerprint == open_run(run).fingerprint
    other = tmp_path / "other"
    trained(other, kitchen, "train.steps=1")
    assert open_run(other).fingerprint != open_run(run).fingerprint
    with pytest.raises(ConfigError, match=r"other: there is no checkpoint best; train first"):
        open_run(other, "best")


def test_episodes_that_are_too_short_have_no_codes(run: Path, kitchen: Path, tmp_path: Path) -> None:
    labeller = open_run(run)
    rows = Dataset.open(str(kitchen)).table("episodes.parquet").to_pylist()
    offset = max(row["steps"] for row in rows) - 1
    object.__setattr__(labeller.config.data, "offset", offset)
    found = label(str(kitchen), labeller, str(tmp_path / "codes.parquet"))
    assert found["coded"] == sum(row["steps"] > offset for row in rows)
    values = read_annotation(str(tmp_path / "codes.parquet")).values
    assert all((values[row["key"]] == -1).all() for row in rows if row["steps"] <= offset)


def test_an_offset_beyond_every_episode_is_refused(run: Path, kitchen: Path, tmp_path: Path) -> None:
    labeller = open_run(run)
    object.__setattr__(labeller.config.data, "offset", 100)
    with pytest.raises(ConfigError, match=r"^DATASET: no pair of .* can be labelled: needs 101 steps"):
        label(str(kitchen), labeller, str(tmp_path / "codes.parquet"))
    assert list(tmp_path.iterdir()) == []


def state(**values: Any) -> Callable[[dict[str, Any]], None]:
    """Changes values of a header's state; those that are None go."""

    def change(about: dict[str, Any]) -> None:
        for name, value in values.items():
            about["state"][name] = value
            if value is None:
                del about["state"][name]

    return change


def config(section: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    """Changes values of a header's configuration."""
    return lambda about: about["state"]["config"][section].update(values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda about: about.pop("state"), "state: expected dict, got 'None'"),
        (lambda about: about.update(state=[1]), r"state: expected dict, got '\[1\]'"),
        (lambda about: about.update(step="many"), "step: expected int, got 'many'"),
        (lambda about: about.update(step=-1), "step: expected at least 0, got -1"),
        (lambda about: about.update(files=5), "not a checkpoint, or cut off: 'int' object"),
        (state(config=None), "config: expected dict, got 'None'"),
        (state(config=5), "config: expected dict, got '5'"),
        (state(config={"model": 5}), "config: is not that of a latent-action model: "),
        (state(identity=None), "identity: expected dict, got 'None'"),
        (state(identity=5), "identity: expected dict, got '5'"),
        (config("data", offset=-1), "config: .*: data.offset: expected at least 1, got -1"),
        (config("model", width=32), r"\w+\..* is \[.*16.*\], and \["),
        (config("model", width=1 << 16), r"\w+\..* is \[.*\], and \["),
        (config("model", width=1 << 40), "config: .*: model.width: expected at most"),
        (config("model", decoder_depth=3), "there is no decoder.blocks.1"),
        (config("quantizer", codes=5), "quantizer.codebook is "),
        (config("quantizer", codes=1 << 20, dim=1 << 16), "config: .* expected at most .* in the codebooks"),
    ],
)
def test_a_checkpoint_whose_header_is_wrong_is_named_in_one_line(
    run: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    """Among them headers that ask for terabytes, before any of it is taken."""
    path = rewritten(saved(run), tmp_path / "other", change)
    with pytest.raises(CorruptError, match=f"^{re.escape(str(path))}: {said}") as error:
        open_run(run, str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(run: Path, tmp_path: Path, bad: float) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model/decoder.motion.bias"][0] = bad

    path = rewritten(saved(run), tmp_path / "bad", lambda about: None, spoil)
    with pytest.raises(CorruptError, match=r"bad: model/decoder\.motion\.bias holds numbers th"):
        open_run(run, str(path))


def test_weights_of_another_shape_are_refused_before_any_number_is_read(run: Path, tmp_path: Path) -> None:
    """Numbers that cost a scan of the file would be seen as what they are."""
    name = "decoder.motion.bias"

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"model/{name}"] = torch.full((1000,), float("nan"))

    path = rewritten(saved(run), tmp_path / "wide", lambda about: None, spoil)
    with pytest.raises(CorruptError, match=rf"^{re.escape(str(path))}: {name} is \[1000\], and \["):
        open_run(run, str(path))


def test_what_only_training_needs_is_not_read(run: Path, tmp_path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["optimizer/encoder.project.weight/exp_avg"].fill_(float("nan"))

    path = rewritten(saved(run), tmp_path / "moments", lambda about: None, spoil)
    assert open_run(run, str(path)).fingerprint == open_run(run).fingerprint


def test_latents_that_overflow_are_refused_with_their_samples(
    run: Path, kitchen: Path, tmp_path: Path
) -> None:
    labeller = open_run(run)
    with torch.no_grad():
        labeller.model.encoder.project.weight.fill_(3e38)
    with pytest.raises(NotFiniteError, match=r"^latents of oxcart_kitchens-\S+ t=\d+, .* are not finite"):
        label(str(kitchen), labeller, str(tmp_path / "codes.parquet"))
    assert not (tmp_path / "codes.parquet").exists()


def _loaders(labeller: module.Labeller, dataset: Path) -> list[Loader]:
    return list(module._loaders(Dataset.open(str(dataset)), labeller, 8).values())
