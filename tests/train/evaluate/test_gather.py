"""The pairs: drawn by seed, bounded, and the same for every model but for the codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from oxcart.manifests.columns import Column, motion_columns
from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError
from oxcart.train import frame_baseline, statistics
from oxcart.train.data.order import derive
from oxcart.train.data.summing import summed
from oxcart.train.evaluate.gather import (
    Draw,
    GatheredPairs,
    _Measured,
    _Table,
    draw_positions,
    gather,
    name_datasets,
    open_splits,
)
from oxcart.train.evaluate.laq import untrained_model
from oxcart.train.flow import flow_meter
from oxcart.train.laq.build import build_model
from oxcart.train.laq.model import to_float
from oxcart.train.laq.validate import open_split
from oxcart.train.trained_on import TrainedOn
from planted import planted
from tiny_laq import small

CPU = torch.device("cpu")


def read(kitchen: Path, draw: Draw, *others: Path) -> list[GatheredPairs]:
    config = small(kitchen, Path("run"))
    datasets = name_datasets([Dataset.open(str(one)) for one in (kitchen, *others)])
    torch.manual_seed(0)
    model = build_model(config.model, config.quantizer, config.flow).eval()
    loaders = open_splits(datasets, config.data, 16, draw.batch_size)
    untrained = untrained_model(config, model, next(iter(loaders.values())), CPU)
    return gather(loaders, [model, untrained], draw, CPU, flow_meter("dis", None, CPU), trained_on(kitchen))


def trained_on(out: Path) -> TrainedOn:
    """The record of a run that was trained on a dataset."""
    config = small(out, Path("run"))
    return TrainedOn.of(open_split(config, Dataset.open(str(out)), "train"))


def test_positions_are_distinct_and_a_function_of_the_key() -> None:
    drawn = draw_positions(1000, 300, 7)
    assert len(np.unique(drawn)) == 300
    assert drawn.max() < 1000
    assert (draw_positions(1000, 300, 7) == drawn).all()
    assert (draw_positions(1000, 300, 8) != drawn).any()
    assert (draw_positions(1000, 100, 7) == drawn[:100]).all(), "fewer are part of more"
    assert sorted(draw_positions(50, 99, 7).tolist()) == list(range(50))


def test_pairs_and_frames_are_bounded_and_the_same_again(kitchen: Path) -> None:
    draw = Draw(samples=20, frames=7, batch_size=8)
    one, other = read(kitchen, draw)
    names, counts = np.unique(one.split, return_counts=True)
    assert names.tolist() == ["train", "val", "val_seen"]
    assert counts.max() == 20
    assert one.frames is not None
    assert one.frames.shape == (7, 2, 16, 16, 3)
    assert one.flow is not None
    assert one.flow.shape == (len(one), 3, 2)
    assert one.frames is other.frames
    assert (one.codes != other.codes).any()
    again = read(kitchen, draw)[0]
    for name in ("codes", "key", "flow", "actions", "framed", "frames", "state"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name), name)
    moved = read(kitchen, Draw(samples=20, frames=7, batch_size=8, seed=1))[0]
    assert not np.array_equal(one.actions, moved.actions)
    assert read(kitchen, Draw(samples=20, frames=0))[0].missing["frames"] == "no frames are kept (--frames 0)"


@pytest.mark.parametrize(("frames", "splits"), [(5, 4), (64, 20), (7, 3), (3, 7), (0, 2)])
def test_frames_are_bounded_over_however_many_splits(kitchen: Path, frames: int, splits: int) -> None:
    config = small(kitchen, Path("run"))
    loader = next(iter(open_splits({"k": Dataset.open(str(kitchen))}, config.data, 16, 8).values()))
    model = build_model(config.model, config.quantizer, config.flow).eval()
    many = {(f"copy {i}", "train"): loader for i in range(splits)}
    (pairs,) = gather(many, [model], Draw(samples=12, frames=frames, batch_size=8), CPU, "off", None)
    assert len(pairs.framed) == frames
    assert len(set(pairs.dataset[pairs.framed])) == min(frames, splits), "spread over them"


def test_every_row_is_its_own_pair(kitchen: Path) -> None:
    config = small(kitchen, Path("run"))
    loaders = open_splits({"k": Dataset.open(str(kitchen))}, config.data, 16, 8)
    torch.manual_seed(0)
    model = build_model(config.model, config.quantizer, config.flow).eval()
    (pairs,) = gather(loaders, [model], Draw(samples=10_000, frames=12), CPU, "off", trained_on(kitchen))
    assert len(pairs) == sum(loader.epoch_length for loader in loaders.values())
    assert pairs.flow is None
    assert pairs.missing["flow"] == "off"
    assert pairs.frames is not None
    with torch.no_grad():
        codes = model.encode(to_float(torch.from_numpy(pairs.frames))).numpy()
    assert (codes == pairs.codes[pairs.framed]).all(), "frames stand beside their own codes"
    assert set(pairs.split[pairs.place == "held out"]) == {"val"}
    assert set(pairs.split[pairs.place == "seen"]) == {"train", "val_seen"}


def test_values_of_a_row_are_those_of_its_pair(kitchen: Path) -> None:
    config = small(kitchen, Path("run"))
    meter = flow_meter("dis", None, CPU)
    assert callable(meter)
    loaders = open_splits({"k": Dataset.open(str(kitchen))}, config.data, 16, 8)
    model = build_model(config.model, config.quantizer, config.flow).eval()
    draw = Draw(samples=10, frames=12, batch_size=4, seed=3)
    (pairs,) = gather(loaders, [model], draw, CPU, meter, None)
    for number, ((_, split), loader) in enumerate(loaders.items()):
        mine = np.flatnonzero(pairs.split == split)
        batch = loader.at(np.sort(draw_positions(loader.epoch_length, 10, derive(3, 41, number))))
        assert pairs.key[mine].tolist() == batch.key
        assert pairs.t[mine].tolist() == batch.t.tolist()
        assert pairs.environment[mine].tolist() == batch.environment
        assert pairs.instruction[mine].tolist() == batch.instruction
        assert pairs.flow is not None
        assert np.array_equal(pairs.flow[mine], meter(batch.frames.numpy()))
        assert batch.action is not None
        assert batch.action_mask is not None
        assert batch.state is not None
        assert pairs.actions is not None
        assert pairs.state is not None
        acts = batch.action_mask.numpy()
        assert np.isnan(pairs.actions[mine][~acts]).all(), "of a step that holds none"
        assert np.array_equal(pairs.actions[mine][acts], batch.action.numpy()[acts])
        assert np.array_equal(pairs.state[mine], batch.state.numpy())
    assert (pairs.place == "unknown").all()


def test_codes_are_shuffled_between_clusters_of_a_dataset_or_episodes_anywhere() -> None:
    """The code of each pair says which episode it is of, so a shuffle shows where codes come from."""
    pairs = planted("noise")
    pairs = replace(pairs, codes=np.stack([pairs.episodes, np.arange(len(pairs))], 1))
    dataset = dict(zip(pairs.episodes.tolist(), pairs.dataset.tolist(), strict=True))
    within, anywhere = pairs.shuffled(1), pairs.shuffled(1, anywhere=True)
    for shuffled in (within, anywhere):
        assert (shuffled.codes[:, 0] != pairs.episodes).all()
        for episode in range(36):
            assert len(set(shuffled.codes[pairs.episodes == episode, 0].tolist())) == 1
    assert [dataset[code] for code in within.codes[:, 0].tolist()] == pairs.dataset.tolist()
    assert [dataset[code] for code in anywhere.codes[:, 0].tolist()] != pairs.dataset.tolist()
    for name in ("left", "right"):
        mine = np.flatnonzero(pairs.dataset == name)
        drawn = statistics.shuffles(pairs.units[mine], 1, 1)[0]
        assert (within.codes[mine] == pairs.codes[mine[drawn]]).all()
    assert (pairs.shuffled(2).codes != within.codes).any()


def test_pairs_of_one_name_in_two_datasets_are_of_two_environments() -> None:
    pairs = planted("noise")
    named = replace(pairs, environment=np.char.add("kitchen", (pairs.episodes % 3).astype(str)), _kept={})
    assert len(np.unique(named.units.environment)) == 6
    assert named.units.over == "environments"
    unknown = replace(pairs, environment=np.where(pairs.dataset == "left", "", pairs.environment), _kept={})
    assert ((unknown.units.environment == -1) == (pairs.dataset == "left")).all()


def test_some_of_the_pairs_keep_their_frames(kitchen: Path) -> None:
    pairs = read(kitchen, Draw(samples=20, frames=12))[0]
    part = pairs.take(pairs.framed[[1, 3]])
    assert pairs.frames is not None
    assert part.frames is not None
    assert part.framed.tolist() == [0, 1]
    assert (part.frames == pairs.frames[[1, 3]]).all()
    assert sorted(map(tuple, pairs.shuffled(3).codes.tolist())) == sorted(map(tuple, pairs.codes.tolist()))


def test_actions_have_the_columns_of_their_dataset(kitchen: Path) -> None:
    pairs = read(kitchen, Draw(samples=8, frames=0))[0]
    assert [one.name for one in pairs.columns] == ["dx", "dy", "gripper"]
    assert [one.kind for one in pairs.columns] == ["delta", "delta", "gripper_delta"]
    assert [one.label for one in pairs.motion_columns] == ["dx (table)", "dy (table)"]


def table_of(*parts: tuple[dict[str, str], list[list[float]]]) -> tuple[np.ndarray, tuple[Column, ...]]:
    """Actions, and their columns, of datasets with columns of these kinds and these values."""
    columns = [tuple(Column(name=one, kind=kind) for one, kind in kinds.items()) for kinds, _ in parts]
    table = _Table(sum(len(values) for _, values in parts), {"actions": columns})
    for i, (_, values) in enumerate(parts):
        texts = {name: [""] * len(values) for name in ("environment", "key", "instruction")}
        none = np.zeros(0, np.uint8), np.zeros(0, np.int64)
        table.add(len(table), i, _Measured({"actions": np.array(values)}, texts, *none))
    return table.arrays["actions"], table.columns["actions"]


def test_datasets_keep_the_columns_that_others_lack() -> None:
    kinds = {"z": "absolute", "x": "absolute", "y": "absolute", "gripper": "gripper_absolute"}
    arm = summed([Column(name=name, kind=kind) for name, kind in kinds.items()])
    values, columns = table_of(
        ({"dx": "delta", "dy": "delta"}, [[1, 2], [3, 4]]),
        ({one.name: one.kind for one in arm}, [[0.5, 10, 20, 1]]),
    )
    assert [one.name for one in columns] == ["dx", "dy", "dz", "gripper"]
    nan = np.nan
    expected = [[1, 2, nan, nan], [3, 4, nan, nan], [10, 20, 0.5, 1]]
    np.testing.assert_array_equal(values, np.array(expected))


def test_columns_of_one_name_and_other_kinds_are_not_mixed() -> None:
    flag: tuple[dict[str, str], list[list[float]]] = ({"dx": "other", "dy": "delta"}, [[7, 8]])
    moves: tuple[dict[str, str], list[list[float]]] = ({"dx": "delta", "dy": "delta"}, [[1, 2]])
    for parts, expected in (
        ([flag, moves], {"dx (other)": [7, np.nan], "dy": [8, 2], "dx": [np.nan, 1]}),
        ([moves, flag], {"dx": [1, np.nan], "dy": [2, 8], "dx (other)": [np.nan, 7]}),
    ):
        values, columns = table_of(*parts)
        found = {one.name: values[:, i].tolist() for i, one in enumerate(columns)}
        np.testing.assert_equal(found, expected)
        assert {columns[i].name for i in motion_columns(columns).values()} == {"dx", "dy"}


def test_pairs_of_several_datasets_have_the_columns_that_all_have() -> None:
    pairs = planted("direction")
    assert pairs.actions is not None
    left = pairs.dataset == "left"
    third = np.where(left, np.nan, 0.5)
    wide = replace(
        pairs,
        actions=np.column_stack([pairs.actions, third]),
        columns=(*pairs.columns, Column(name="dz", kind="delta")),
    )
    assert [one.name for one in wide.having("actions").columns] == ["dx", "dy"]
    assert wide.motion is not None
    assert wide.motion.shape[1] == 2
    right = wide.take(~left).having("actions")
    assert [one.name for one in right.columns] == ["dx", "dy", "dz"]
    assert right.motion is not None
    assert right.motion.shape[1] == 3
    silent = replace(wide, actions=np.where(left[:, None], np.nan, wide.actions))
    assert not (silent.having("motion").dataset == "left").any()


def test_frames_are_described_beside_their_pairs(kitchen: Path) -> None:
    pairs = read(kitchen, Draw(samples=20, frames=7, batch_size=8))[0]
    assert pairs.frames is not None
    first = to_float(torch.from_numpy(pairs.frames))[:, 0]
    assert np.allclose(pairs.features[pairs.framed], frame_baseline.features(first), atol=1e-6)


def test_two_datasets_of_one_name_are_told_apart(kitchen: Path, unsplit: Path) -> None:
    pairs = read(kitchen, Draw(samples=10, frames=4), unsplit)[0]
    assert set(pairs.dataset) == {str(kitchen), str(unsplit)}
    assert set(pairs.place[pairs.dataset == str(unsplit)]) <= {"seen", "held out"}
    with pytest.raises(ConfigError, match="one is given twice"):
        name_datasets([Dataset.open(str(kitchen))] * 2)


def test_episodes_that_are_all_too_short_are_an_error(kitchen: Path) -> None:
    config = small(kitchen, Path("run"), "data.offset=100")
    with pytest.raises(ConfigError, match="no pairs to evaluate: needs 101 steps in a row"):
        open_splits({"k": Dataset.open(str(kitchen))}, config.data, 16, 8)


def test_the_untrained_model_is_that_of_the_seed_with_a_codebook_of_data(kitchen: Path) -> None:
    config = small(kitchen, Path("run"))
    loaders = open_splits({"k": Dataset.open(str(kitchen))}, config.data, 16, 8)
    torch.manual_seed(config.train.seed)
    fresh = build_model(config.model, config.quantizer, config.flow)
    before = torch.get_rng_state()
    found = untrained_model(config, fresh, next(iter(loaders.values())), CPU)
    assert torch.equal(torch.get_rng_state(), before), "training's own random numbers stay as they are"
    for (name, one), other in zip(fresh.state_dict().items(), found.state_dict().values(), strict=True):
        assert torch.equal(one, other) == ("codebook" not in name), name
