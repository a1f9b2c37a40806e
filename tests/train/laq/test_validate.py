"""Validation looks at held-out environments, at the same pairs every time, whatever train is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.metrics import normalized_mutual_info_score, r2_score
from sklearn.preprocessing import OneHotEncoder
from torch import Tensor

from oxcart.compile.sample.rlds import RldsSampleConfig
from oxcart.manifests.columns import Column
from oxcart.manifests.split import SplitRule
from oxcart.shards.errors import ConfigError
from oxcart.train import frame_baseline, statistics
from oxcart.train.checkpoint import read_header
from oxcart.train.data import Batch
from oxcart.train.laq.build import build_model
from oxcart.train.laq.model import LatentActionModel, to_float
from oxcart.train.laq.task import LaqTask, train_laq
from oxcart.train.laq.validate import (
    Seen,
    judge_codebook,
    look,
    measure_probes,
    pairs_of,
    places_of,
    quality,
    usage,
    validate,
    warnings_of,
)
from oxcart.train.loaders import chunks
from oxcart.train.statistics import Ints
from sample_compile import compile_sample
from tiny_laq import lines, saved, small, step_of, trained

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


def test_a_rank_reads_only_its_own_pairs_of_a_whole_split(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = LaqTask(small(kitchen, tmp_path, "val.every=1"), torch.device("cpu"))
    (loader,) = task._held_out["val"].values()
    whole = [(batch.key, batch.t.tolist()) for batch in loader]
    read: list[int] = []
    locate = loader._locate

    def spy(positions: Any, **given: Any) -> Any:
        read.extend(positions.tolist())
        return locate(positions, **given)

    monkeypatch.setattr(loader, "_locate", spy)
    found = {}
    for rank in range(2):
        read.clear()
        own = dict(chunks(loader, loader.epoch_length, 0, (rank, 2)))
        assert len(read) == sum(len(batch.key) for batch in own.values())
        found |= {i: (batch.key, batch.t.tolist()) for i, batch in own.items()}
    assert [found[i] for i in range(len(whole))] == whole


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
    found = {line["step"]: line["val/copy_ratio"] for line in lines(run, "val")}
    assert step_of(run, "best") == min(found, key=lambda step: found[step])
    assert read_header(saved(run)).state["best"] == min(found.values())


def test_usage_of_known_codes() -> None:
    known = np.array([[0, 1], [0, 1], [0, 1], [1, 1]])
    assert usage(known, 4, shared=False)["dead_codes"] == 2 + 3, "each place has its own four"
    found = usage(known, 4, shared=True)
    assert found["usage"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert found["dead_codes"] == 2
    first = np.exp(stats.entropy([3, 1]))
    assert found["perplexity_0"] == pytest.approx(first)
    assert found["perplexity_1"] == pytest.approx(1)
    assert found["perplexity"] == pytest.approx((first + 1) / 2)
    assert found["perplexity_joint"] == pytest.approx(first)


def codes_of(*counts: list[int]) -> Ints:
    """Codes [N, n]: so many pairs of each code, for each place."""
    return np.stack([np.repeat(np.arange(len(one)), one) for one in counts], 1)


@pytest.mark.parametrize(
    ("codes", "size", "word"),
    [
        (codes_of([250] * 4), 8, "collapsed"),
        (codes_of([200] * 5), 8, "in use"),
        (codes_of([125] * 8, [500, 500] + [0] * 6), 8, "collapsed"),  # one place of two
        (codes_of([10_000 - 70] + [10] * 7), 8, "collapsed"),  # codes that hardly occur
        (codes_of([1000, 0]), 2, "collapsed"),
        (codes_of([500, 500]), 2, "in use"),
        (codes_of([4] * 60 + [8] * 34), 2048, "collapsed"),
        (codes_of([2] * 256), 2048, "in use"),  # 512 pairs cannot use more than 0.221 of them
        (codes_of([1]), 1, "in use"),
    ],
)
def test_a_codebook_collapses_where_a_place_uses_half_of_what_pairs_would(
    codes: Ints, size: int, word: str
) -> None:
    assert judge_codebook(places_of(codes, size))["codebook"] == word


def test_a_collapse_is_said_after_each_validation_and_in_the_report(
    kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the form of large: the encoder learns much too fast, and codes neither follow nor come back."""
    form = ("preset=large", "model.spatial_depth=1", "model.temporal_depth=1", "val.samples=64")
    form += ("quantizer.tokens=4", "quantizer.codes=8", "quantizer.dim=32", "val.probes=false")
    wrong = ("quantizer.follow=0", "quantizer.replace_every=0", "train.lr=0.1", "train.warmup=0")
    trained(tmp_path / "run", kitchen, *form, *wrong, "train.steps=6", "val.every=3")
    found = lines(tmp_path / "run", "val")
    assert [line["val/codebook"] for line in found] == ["collapsed"] * 2
    assert max(line["val/usage"] for line in found) < 0.3
    said = [line for line in capsys.readouterr().err.splitlines() if "collapsed" in line]
    assert len(said) == 2
    for line, validation in zip(said, found, strict=True):
        assert line.startswith(f"oxcart: warning: step {validation['step']}: the codebook has collapsed: ")
        assert f"pairs of val use {100 * validation['val/usage_least']:.0f}% of the codes of a token" in line
        assert "take a smaller train.lr" in line
    report = (tmp_path / "run" / "report.md").read_text()
    assert f"> **Warning**: {said[-1].partition('step 6: ')[2]}\n" in report
    assert "| codebook | collapsed | collapsed |" in report


def test_a_codebook_in_use_is_no_warning(
    kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "run", kitchen, *VALIDATED, "train.lr=1e-5")
    assert [line["val/codebook"] for line in lines(tmp_path / "run", "val")] == ["in use"] * 2
    assert "warning" not in capsys.readouterr().err
    report = (tmp_path / "run" / "report.md").read_text()
    assert "| codebook | in use |" in report
    assert "Warning" not in report


def test_a_collapse_is_said_of_each_dataset_of_the_first_split() -> None:
    values = {
        "val/a/codebook": "collapsed",
        "val/a/usage_least": 0.3,
        "val/b/codebook": "in use",
        "val/b/usage_least": 1.0,
    }
    (line,) = warnings_of(values | {"val_seen/a/codebook": "collapsed", "val_seen/a/usage_least": 0.1}, "val")
    assert "pairs of val/a use 30% of the codes of a token" in line
    assert warnings_of(values | {"val/a/codebook": "in use"}, "val") == []


def test_quality_of_known_errors() -> None:
    """Ratios are of means over pairs and a PSNR is a mean over pairs, which differs where errors do."""
    errors = {
        "prediction": np.array([0.01, 0.0001, 0.001], np.float32),
        "copy": np.array([0.04, 0.0004, 0.004], np.float32),
        "constant": np.array([0.01, 0.0233, 0], np.float32),
        "permuted": np.array([0.0808, 0.008, 0], np.float32),
        "random": np.array([0.1, 0.1, 0.1], np.float32),
    }
    found = quality(errors)
    assert found["mse"] == pytest.approx(0.0111 / 3)
    assert found["copy_ratio"] == pytest.approx(0.0111 / 0.0444)
    assert found["constant_ratio"] == pytest.approx(0.0333 / 0.0444)
    assert found["permuted_ratio"] == pytest.approx(0.0888 / 0.0444)
    assert found["random_ratio"] == pytest.approx(0.3 / 0.0444)
    assert found["psnr"] == pytest.approx((20 + 40 + 30) / 3)
    assert found["delta_psnr"] == pytest.approx(30 - 10)


class Lit(torch.nn.Module):
    """Codes of uniform frames say how much brighter the second is; what is drawn is nearly as bright."""

    def __init__(self) -> None:
        super().__init__()
        self.quantizer = SimpleNamespace(shared=True)
        self.given: list[np.ndarray] = []

    def encode(self, frames: Tensor) -> Tensor:
        brighter = (127.5 * (frames[:, 1] - frames[:, 0])).mean((1, 2, 3)).round().long()
        return torch.stack([brighter // 30, brighter % 30 // 7], 1)

    def decode(self, first: Tensor, codes: Tensor) -> Tensor:
        self.given.append(codes.numpy())
        return first + (28 * codes[:, 0] + 8 * codes[:, 1]).view(-1, 1, 1, 1) / 127.5


class Batches:
    """A loader of uniform pairs with the given codes [N, 2], which are read four at a time."""

    def __init__(self, codes: np.ndarray) -> None:
        self._codes = codes
        self.epoch_length = len(codes)
        self.config = SimpleNamespace(batch_size=4)

    def at(self, positions: np.ndarray) -> Batch:
        codes = torch.from_numpy(self._codes[positions])
        levels = torch.stack(
            [torch.zeros(len(codes)), codes.double() @ torch.tensor([30.0, 7.0]).double()], 1
        )
        frames = (60 + levels).to(torch.uint8).view(-1, 2, 1, 1, 1).expand(-1, -1, 8, 8, 3)
        return Batch(
            frames=frames,
            t=torch.from_numpy(positions),
            offset=torch.ones(len(codes), dtype=torch.int64),
            dataset=["lamp"] * len(codes),
            key=[f"episode {i}" for i in positions],
            environment=[f"kitchen {i // 2}" for i in positions],
            instruction=[""] * len(codes),
        )


def test_own_constant_and_permuted_codes_are_those_that_they_say(tmp_path: Path) -> None:
    own = np.array([[2, 1], [0, 3], [2, 1], [1, 0], [3, 3], [2, 1], [1, 2], [0, 1], [2, 1], [1, 1]])
    model: Any = Lit()
    loader: Any = Batches(own)
    config = small("lamp", tmp_path)
    found, seen, examples = validate(model, config, loader, Accelerator(cpu=True))
    assert seen.codes.tolist() == own.tolist()
    assert seen.units.environment.tolist() == [i // 2 for i in range(10)]
    assert examples is not None
    assert examples.prediction[:, 0, 0, 0].tolist() == [60 + 28 * 2 + 8, 60 + 8 * 3], "the first pairs"

    def error(codes: np.ndarray) -> float:
        """Of what the model draws for codes, worked out in pixels."""
        return float((((codes @ [28, 8] - own @ [30, 7]) / 255) ** 2).mean())

    at_random = np.concatenate(model.given[3::4])
    assert (at_random != own).any(1).sum() > 5
    copy = float(((own @ [30, 7] / 255) ** 2).mean())
    assert found["mse"] == pytest.approx(error(own), rel=1e-4)
    assert found["copy_ratio"] == pytest.approx(error(own) / copy, rel=1e-4)
    assert found["constant_ratio"] == pytest.approx(error(np.array([[2, 1]] * 10)) / copy, rel=1e-4)
    assert found["permuted_ratio"] == pytest.approx(error(np.roll(own, 1, 0)) / copy, rel=1e-4)
    assert found["random_ratio"] == pytest.approx(error(at_random) / copy, rel=1e-4)
    assert found["samples"] == 10


def test_pairs_of_validation_say_where_they_come_from(kitchen: Path, tmp_path: Path) -> None:
    config = small(kitchen, tmp_path, "val.every=1", "val.probe_samples=24")
    task = LaqTask(config, torch.device("cpu"))
    (loader,) = task._probed["train"].values()
    model = build_model(config.model, config.quantizer, config.flow).eval()
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


def pairs_with_actions(seed: int, count: int) -> Seen:
    """Pairs of six kitchens whose codes tell some of their actions; means differ from seed to seed."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 4, (count, 2))
    actions = np.stack([codes[:, 0] - 1.5, 2 * codes[:, 1] - 3, codes[:, 0] * 0.1, np.full(count, 5)], 1)
    actions[:, :3] += generator.normal(size=(count, 3)) * (0.5, 1.5, 0.2) + 0.3 * seed
    return Seen(
        codes=codes,
        features=generator.normal(size=(count, 3)),
        actions=actions,
        columns=tuple(Column(name=name, kind="delta") for name in ("dx", "turn", "dy", "still")),
        units=statistics.make_units(
            [f"kitchen {i % 6}" for i in range(count)],
            [f"episode {i % 12}" for i in range(count)],
            np.arange(count),
        ),
    )


def test_the_probes_are_those_of_scikit_learn() -> None:
    train, val = pairs_with_actions(0, 90), pairs_with_actions(1, 60)
    assert train.actions is not None
    assert val.actions is not None
    found = measure_probes(train, val, 4)
    hot = OneHotEncoder(categories=[range(4)] * 2, sparse_output=False)
    probe = Ridge(1.0).fit(hot.fit_transform(train.codes), train.actions)
    expected = r2_score(val.actions, probe.predict(hot.transform(val.codes)), multioutput="raw_values")[:3]
    by_name = dict(zip(("dx", "turn", "dy"), expected.round(4).tolist(), strict=True))
    assert found["probe_r2_values"] == {**by_name, "still": None}, "it never varies"
    assert found["probe_r2"] == pytest.approx(expected.mean())
    assert found["probe_r2_motion"] == pytest.approx(expected[[0, 2]].mean())
    directions = statistics.directions(val.actions[:, [0, 2]])
    known = normalized_mutual_info_score(statistics.joint(val.codes), directions, average_method="geometric")
    assert found["nmi_direction"] == pytest.approx(known)
    same = statistics.information(val.codes, directions, val.units)
    assert found["nmi_direction_shuffled"] == same.shuffled
    assert found["nmi_direction_excess"] == pytest.approx(known - same.shuffled)
    assert (found["nmi_direction_excess_low"], found["nmi_direction_excess_high"]) == same.interval
    assert found["nmi_direction_excess_low"] < found["nmi_direction_excess"]
    assert found["intervals_over"] == "environments"
    assert measure_probes(replace(train, actions=None), val, 4) == {}
    gaps = np.vstack([val.actions, np.full((1, 4), np.nan)])
    more = replace(
        val,
        codes=np.vstack([val.codes, val.codes[:1]]),
        features=np.vstack([val.features, val.features[:1]]),
        actions=gaps,
        units=val.units[np.append(np.arange(60), 0)],
    )
    assert measure_probes(train, more, 4) == found, "a pair whose steps hold no action does not count"
    still = tuple(Column(name=f"joint_{i}", kind="absolute") for i in range(4))
    without = measure_probes(replace(train, columns=still), replace(val, columns=still), 4)
    assert not [name for name in without if "motion" in name or "nmi" in name]
    assert without["probe_r2"] == found["probe_r2"]


def test_the_probes_of_a_validation_are_fitted_on_train(kitchen: Path, tmp_path: Path) -> None:
    config = small(kitchen, tmp_path, "val.every=1", "val.probe_samples=24", "val.splits=[val]")
    task, alone = LaqTask(config, torch.device("cpu")), Accelerator(cpu=True)
    torch.manual_seed(0)
    model = build_model(config.model, config.quantizer, config.flow).eval()
    (train,), (held,) = task._probed["train"].values(), task._held_out["val"].values()
    _, val, _ = validate(model, config, held, alone)
    expected = measure_probes(look(model, config, train, alone), val, config.quantizer.codes)
    found = task.validate(model, 1, alone, None)
    assert found["val/probe_r2"] == expected["probe_r2"]
    assert found["val/probe_r2_frame"] == expected["probe_r2_frame"]
