"""Validation looks at held-out environments, at the same pairs every time, whatever train is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from sklearn.metrics import r2_score

from oxcart.compile.sample.rlds import RldsSampleConfig
from oxcart.manifests.columns import Column
from oxcart.manifests.split import SplitRule
from oxcart.shards.errors import ConfigError
from oxcart.train import frame_baseline, statistics
from oxcart.train.laq.model import LatentActionModel, to_float
from oxcart.train.laq.task import LaqTask, train_laq
from oxcart.train.laq.validate import Seen, look, measure_probes, pairs_of, quality, usage
from oxcart.train.loaders import chunks
from sample_compile import compile_sample
from tiny_laq import lines, small, trained

VALIDATED = ("train.steps=4", "val.every=2")


@pytest.fixture(scope="module")
def run(kitchen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("run") / "run"
    trained(made, kitchen, *VALIDATED)
    return made


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other kitchens, one of which is val; there is no val_seen."""
    sample = RldsSampleConfig(kitchens=3, sessions=1, episodes=2, steps=6, size=32, files=1, seed=1)
    folder = tmp_path_factory.mktemp("second")
    return compile_sample(folder, sample, cameras=("image_0",), rule=SplitRule(val=0.3)).out


def seen(task: LaqTask, split: str) -> list[tuple[str, int]]:
    (loader,) = task._held_out[split].values()
    found = []
    for _, batch in chunks(loader, task._config.val.samples, task._config.val.seed, (0, 1)):
        found += list(zip(batch.key, batch.t.tolist(), strict=True))
    return found


def test_val_and_val_seen_stand_beside_each_other(run: Path) -> None:
    found = lines(run, "val")
    assert [line["step"] for line in found] == [2, 4]
    names = (
        "copy_ratio",
        "constant_ratio",
        "permuted_ratio",
        "psnr",
        "delta_psnr",
        "usage",
        "perplexity_joint",
    )
    for split in ("val", "val_seen"):
        for name in (*names, "probe_r2", "nmi_direction", "dead_codes", "perplexity_0", "perplexity_1"):
            assert isinstance(found[0][f"{split}/{name}"], float), f"{split}/{name}"


def test_val_holds_environments_that_train_never_shows(kitchen: Path, tmp_path: Path) -> None:
    task = LaqTask(small(kitchen, tmp_path, "val.every=1"), torch.device("cpu"))
    environments = {}
    for split, loaders in (("val", task._held_out["val"]), ("train", task._probed["train"])):
        (loader,) = loaders.values()
        environments[split] = {name for batch in loader for name in batch.environment}
    assert environments["val"]
    assert not environments["val"] & environments["train"]


def test_the_pairs_are_fixed_over_the_run_and_do_not_depend_on_train(kitchen: Path, tmp_path: Path) -> None:
    whole = LaqTask(small(kitchen, tmp_path, "val.every=1"), torch.device("cpu"))
    few = LaqTask(small(kitchen, tmp_path, "val.every=1", "data.limit.train=2"), torch.device("cpu"))
    assert seen(whole, "val") == seen(whole, "val") == seen(few, "val")
    assert len(few.loader(0, 1).streams[0].index) == 2
    capped = LaqTask(small(kitchen, tmp_path, "val.every=1", "data.limit.val=1"), torch.device("cpu"))
    assert len({key for key, _ in seen(capped, "val")}) == 1
    assert len(capped.loader(0, 1).streams[0].index) > 2
    other = LaqTask(small(kitchen, tmp_path, "val.every=1", "val.seed=1"), torch.device("cpu"))
    assert seen(other, "val") != seen(whole, "val")


def test_a_split_that_is_small_is_seen_whole_and_once(kitchen: Path, tmp_path: Path) -> None:
    task = LaqTask(small(kitchen, tmp_path, "val.every=1", "val.samples=100000"), torch.device("cpu"))
    found = seen(task, "val")
    (loader,) = task._held_out["val"].values()
    assert len(found) == len(set(found)) == loader.epoch_length


def test_ranks_share_the_pairs_out(kitchen: Path, tmp_path: Path) -> None:
    task = LaqTask(small(kitchen, tmp_path, "val.every=1"), torch.device("cpu"))
    (loader,) = task._held_out["val"].values()
    whole = [(i, batch.key, batch.t.tolist()) for i, batch in chunks(loader, 16, 0, (0, 1))]
    parts = [
        (i, batch.key, batch.t.tolist()) for rank in range(2) for i, batch in chunks(loader, 16, 0, (rank, 2))
    ]
    assert sorted(parts) == sorted(whole)


def test_a_dataset_without_val_is_refused_before_anything_is_written(unsplit: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"val\.splits: .* has no 'val'; compile it with --val-fraction"):
        trained(run, unsplit, "val.every=1")
    assert not run.exists()
    assert trained(run, unsplit, "val.every=0", "train.steps=1").step == 1


def test_frames_smaller_than_the_patch_are_refused(kitchen: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.patch: 64 pixels are more than the 32 of frames of"):
        trained(tmp_path / "run", kitchen, "model.image_size=64", "model.patch=64")


def test_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.datasets: expected at least one dataset"):
        LaqTask(small(tmp_path, tmp_path, "data.datasets=[]").__class__(), torch.device("cpu"))


def test_the_ratios_are_those_of_plain_arithmetic(kitchen: Path, run: Path) -> None:
    from oxcart.train.laq.label import open_run

    labeller = open_run(run)
    model, config = labeller.model, labeller.config
    assert isinstance(model, LatentActionModel)
    task = LaqTask(config, torch.device("cpu"))
    (loader,) = task._held_out["val"].values()
    apart, still = [], []
    with torch.no_grad():
        for _, batch in chunks(loader, config.val.samples, config.val.seed, (0, 1)):
            frames = to_float(batch.frames)
            made = model.decode(frames[:, 0], model.encode(frames)).clamp(-1, 1)
            apart.append(((made - frames[:, 1]) ** 2).flatten(1).mean(1))
            still.append(((frames[:, 0] - frames[:, 1]) ** 2).flatten(1).mean(1))
    ratio = float(torch.cat(apart).mean() / torch.cat(still).mean())
    assert lines(run, "val")[-1]["val/copy_ratio"] == pytest.approx(ratio, rel=1e-5)
    assert pairs_of(config).frames == 2


def test_images_and_a_report_are_left(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {"samples.png", "report.md", "config.yaml", "run.json", "metrics.jsonl"} <= names
    assert {path.name for path in (run / "samples").iterdir()} == {"step-000002.png", "step-000004.png"}
    report = (run / "report.md").read_text()
    assert "| | val | val_seen |" in report
    assert "| copy_ratio | " in report
    assert "| intervals_over | episodes | episodes |" in report


def test_the_report_has_a_column_for_each_of_several_datasets(
    kitchen: Path, second: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    trained(run, kitchen, f"data.datasets=[{kitchen},{second}]", "train.steps=1", "val.every=1")
    report = (run / "report.md").read_text()
    (line,) = lines(run, "val")
    assert f"| | val | val: {kitchen} | val: {second} | val_seen |" in report
    each = [line[f"val/{one}/copy_ratio"] for one in (kitchen, second)]
    cells = [f"{value:.4g}" for value in (sum(each) / 2, *each, line["val_seen/copy_ratio"])]
    assert f"| copy_ratio | {' | '.join(cells)} |" in report


def test_without_validation_there_is_the_loss_alone(kitchen: Path, tmp_path: Path) -> None:
    config = small(kitchen, tmp_path / "run", "train.steps=1", "val.every=0")
    train_laq(config)
    assert (tmp_path / "run" / "loss.png").stat().st_size > 1000
    assert not (tmp_path / "run" / "report.md").exists()


def test_best_is_the_checkpoint_of_the_lowest_ratio(run: Path) -> None:
    from oxcart.train import checkpoint as checkpoints

    found = {line["step"]: line["val/copy_ratio"] for line in lines(run, "val")}
    best = checkpoints.load(checkpoints.path_of(run, "best"))
    assert best.step == min(found, key=lambda step: found[step])
    assert checkpoints.load(checkpoints.path_of(run)).state["best"] == min(found.values())


def test_usage_of_known_codes() -> None:
    known = np.array([[0, 1], [0, 1], [1, 1], [1, 1]])
    assert usage(known, 4, shared=False)["dead_codes"] == 2 + 3, "each place has its own four"
    found = usage(known, 4, shared=True)
    assert found["usage"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert found["dead_codes"] == 2
    assert found["perplexity_0"] == pytest.approx(2)
    assert found["perplexity_1"] == pytest.approx(1)
    assert found["perplexity_joint"] == pytest.approx(2)


def test_quality_of_known_errors() -> None:
    errors = {
        kind: np.full(3, value, np.float32)
        for kind, value in (
            ("prediction", 0.01),
            ("copy", 0.04),
            ("constant", 0.03),
            ("permuted", 0.08),
            ("random", 0.1),
        )
    }
    found = quality(errors)
    assert found["copy_ratio"] == pytest.approx(0.25)
    assert found["constant_ratio"] == pytest.approx(0.75)
    assert found["permuted_ratio"] == pytest.approx(2)
    assert found["psnr"] == pytest.approx(20)
    assert found["delta_psnr"] == pytest.approx(10)


def test_pairs_of_validation_say_where_they_come_from(kitchen: Path, tmp_path: Path) -> None:
    config = small(kitchen, tmp_path, "val.every=1", "val.probe_samples=24")
    task = LaqTask(config, torch.device("cpu"))
    (loader,) = task._probed["train"].values()
    model = LatentActionModel(config.model, config.quantizer).eval()
    units = look(model, config, loader, Accelerator(cpu=True)).units
    batches = [batch for _, batch in chunks(loader, 24, config.val.seed, (0, 1))]
    expected = statistics.make_units(
        [name for batch in batches for name in batch.environment],
        [key for batch in batches for key in batch.key],
        np.concatenate([batch.t.numpy() for batch in batches]),
    )
    for name in ("environment", "episode", "t"):
        assert (getattr(units, name) == getattr(expected, name)).all(), name
    assert len(np.unique(units.environment[units.environment >= 0])) > 1


def test_where_nothing_moves_there_are_no_ratios_to_copying() -> None:
    errors = {kind: np.full(3, 0.01, np.float32) for kind in ("prediction", "constant", "permuted", "random")}
    found = quality({**errors, "copy": np.zeros(3, np.float32)})
    assert not [name for name in found if name.endswith("_ratio")]
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.parametrize("known", [True, False])
def test_the_frame_of_a_pair_is_a_baseline_whose_penalty_suits_other_environments(known: bool) -> None:
    """Without environments it suits other episodes."""
    generator = np.random.default_rng(0)
    count = 60
    features = generator.normal(size=(2, count, 3))
    actions = features[..., :2] * (1, 0.3) + generator.normal(size=(2, count, 2))
    kitchens = [f"kitchen {i % 4}" if known else "" for i in range(count)]
    keys = [f"episode {i % 12}" for i in range(count)]
    train, val = (
        Seen(
            codes=generator.integers(0, 4, (count, 2)),
            features=features[i],
            actions=actions[i],
            columns=(Column(name="a"), Column(name="b")),
            units=statistics.make_units(kitchens, keys, np.arange(count)),
        )
        for i in range(2)
    )
    groups = statistics.numbered(kitchens if known else keys)
    guess = frame_baseline.predict(features[0], actions[0], groups, features[1])
    expected = [r2_score(actions[1][:, i], guess[:, i]) for i in range(2)]
    assert measure_probes(train, val, 4)["probe_r2_frame"] == pytest.approx(float(np.mean(expected)))
    assert expected[0] > 0.3
