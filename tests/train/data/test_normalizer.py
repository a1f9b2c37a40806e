"""A normalizer follows the manifest's statistics, leaves grippers alone, and gives values back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from depth import depth
from once import Once
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.columns import KINDS
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SplitRule
from oxcart.shards.errors import ConfigError
from oxcart.train.data import Loader, Mixture, Normalizer, Pairs, Window
from oxcart.train.data.normalizer import LEFT_ALONE, METHODS, Scale, _shift_and_scale
from rlds_builder import write_dataset
from sample_compile import compiled
from toy_rlds import FEATURES, episode, vector

PAIRS = Pairs(frames=3, per_episode="all")
LEFT = Scale(
    columns=("dx", "still", "gripper"),
    shift=(1.0, 5.0, 0.0),
    scale=(2.0, 0.0, 1.0),
    left_alone=(False, False, True),
)
TWO = Normalizer(
    method="quantile",
    width=3,
    scales={"left": LEFT, "right": replace(LEFT, shift=(-1.0, 5.0, 0.0), scale=(4.0, 0.0, 1.0))},
)
NARROW = Scale(columns=("grip", "yaw"), shift=(0.0, 3.0), scale=(1.0, 2.0), left_alone=(True, False))
MIXED = Normalizer(method="gaussian", width=4, scales={"left": LEFT, "narrow": NARROW})
"""Two datasets whose columns differ, as `pad_to=4` brings them together."""


def test_each_dataset_has_its_own_scale() -> None:
    values = torch.tensor([[2.0, 5, 0], [1.0, 6, 1]])
    assert TWO(values, ["left", "right"]).tolist() == [[0.5, 0, 0], [0.5, 0, 1]]
    assert TWO(values, "left").tolist() == [[0.5, 0, 0], [0, 0, 1]]
    chunks = values[:, None].expand(2, 4, 3)
    assert TWO(chunks, ["left", "right"])[:, 3].tolist() == [[0.5, 0, 0], [0.5, 0, 1]]


def test_each_dataset_has_its_own_columns_and_the_rest_stays_zero() -> None:
    values = torch.tensor([[3.0, 5, 7, 0], [7.0, 7, 0, 0]])
    scaled = MIXED(values, ["left", "narrow"])
    assert scaled.tolist() == [[1, 0, 7, 0], [7, 2, 0, 0]]
    assert torch.equal(MIXED.inverse(scaled, ["left", "narrow"]), values)
    predicted = torch.full((2, 5, 4), 0.5)
    back = MIXED.inverse(predicted, ["left", "narrow"])
    assert back[:, 4].tolist() == [[2, 5, 0.5, 0], [0.5, 4, 0, 0]]
    assert MIXED(predicted, "narrow")[1, 0].tolist() == [0.5, -1.25, 0, 0]


def test_a_masked_step_of_zeros_becomes_whatever_zero_becomes() -> None:
    steps = torch.tensor([[[3.0, 5, 1], [0, 0, 0]]])
    assert replace(TWO, method="min_max")(steps, ["left"]).tolist() == [[[1, 0, 1], [-0.5, 0, 0]]]


def test_quantiles_are_clipped_and_the_others_not() -> None:
    far = torch.tensor([[100.0, 5, 7]])
    assert TWO(far, "left").tolist() == [[1, 0, 7]]
    assert replace(TWO, method="min_max")(far, "left").tolist() == [[49.5, 0, 7]]


@depth(100)
@given(data=st.data())
def test_values_come_back(data: st.DataObject) -> None:
    """Of several datasets whose columns differ, [B, W] and [B, K, W]."""
    counts = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    width = data.draw(st.integers(max(counts), 6))
    finite, wide = st.floats(-100, 100, width=32), st.floats(0.125, 100, width=32)
    scales = {
        f"dataset {i}": Scale(
            columns=tuple(f"column {j}" for j in range(count)),
            shift=tuple(data.draw(finite) for _ in range(count)),
            scale=tuple(data.draw(wide) for _ in range(count)),
            left_alone=tuple(data.draw(st.booleans()) for _ in range(count)),
        )
        for i, count in enumerate(counts)
    }
    normalizer = Normalizer(
        method=data.draw(st.sampled_from(["min_max", "gaussian"])), width=width, scales=scales
    )
    names = data.draw(st.lists(st.sampled_from(list(scales)), min_size=1, max_size=4))
    shape = (len(names), *data.draw(st.sampled_from([(), (3,), (2, 2)])), width)
    values = torch.from_numpy(data.draw(hnp.arrays(np.float32, shape, elements=finite)))
    for row, name in zip(values, names, strict=True):
        row[..., len(scales[name].columns) :] = 0
    scaled = normalizer(values, names)
    assert scaled.isfinite().all()
    torch.testing.assert_close(normalizer.inverse(scaled, names), values, rtol=1e-4, atol=1e-4)
    for i, name in enumerate(names):
        one = scales[name]
        alone = [*one.left_alone, *[True] * (width - len(one.columns))]
        assert torch.equal(scaled[i][..., alone], values[i][..., alone])
        torch.testing.assert_close(normalizer(values[i], name), scaled[i])
    assert Normalizer.from_json(normalizer.to_json()) == normalizer


def test_a_column_that_never_varies_gives_no_nan() -> None:
    assert TWO(torch.tensor([[0.0, 9, 0]]), "left").isfinite().all()
    assert TWO.inverse(torch.tensor([[0.0, 0.7, 0]]), "left")[0, 1] == 5


@pytest.mark.parametrize(
    ("method", "low", "high"),
    [("quantile", "q01", "q99"), ("min_max", "min", "max"), ("gaussian", "mean", "std")],
)
def test_a_loaders_normalizer_is_that_of_its_manifests(
    datasets: Mapping[str, Path], method: str, low: str, high: str
) -> None:
    loader = Loader(str(datasets["raw"]), sample=PAIRS, batch_size=8, action="steps", state=True)
    normalizer = Normalizer.of(loader, "action", method)
    assert normalizer.scales["oxcart_kitchens"].columns == ("dx", "dy", "gripper")
    stated = Dataset.open(str(datasets["raw"])).manifest.action["statistics"]  # type: ignore[index]
    ends = torch.tensor([stated[low], stated[high]])
    if method == "gaussian":
        ends[1] += ends[0]
    expected = [[0, 0], [1, 1]] if method == "gaussian" else [[-1, -1], [1, 1]]
    np.testing.assert_allclose(normalizer(ends, "oxcart_kitchens")[:, :2], expected, atol=1e-6)
    assert torch.equal(normalizer(ends, "oxcart_kitchens")[:, 2], ends[:, 2]), "grippers stay"
    batch = next(iter(loader))
    back = normalizer.inverse(normalizer(batch.action, batch.dataset), batch.dataset)
    within = ((batch.action >= ends[0]) & (batch.action <= ends[1])) | (method != "quantile")
    np.testing.assert_allclose(back[within], batch.action[within], atol=1e-6)
    states = Normalizer.of(loader, "state", method)
    assert states.scales["oxcart_kitchens"].columns == ("x", "y", "gripper")


def actions_of(seed: int, steps: int = 12) -> npt.NDArray[np.float32]:
    """Actions [T, 9]: a column of each kind, then one that never varies and one that rarely does."""
    values = np.random.default_rng(seed).uniform(-3, 5, (steps, len(KINDS) + 2)).astype(np.float32)
    values[:, -2], values[:, -1] = 0.1, 0
    values[3, -1] = 7 if seed == 0 else 0
    return values


NAMES = (*KINDS, "still", "rare")


@pytest.fixture(scope="module")
def of_every_kind(once: Once) -> Path:
    """A dataset whose action has a column of every kind."""

    def build(folder: Path) -> Path:
        steps = FEATURES["steps"] | {"action": vector(len(NAMES))}
        episodes = [episode(i, steps=12, action=lambda t, i=i: actions_of(i)[t]) for i in range(12)]
        root = write_dataset(folder, FEATURES | {"steps": steps}, episodes)
        kinds = (*(f"{kind}={kind}" for kind in KINDS), "still=absolute", "rare=delta")
        source = SourceConfig(url=str(root), action_names=NAMES, action_kinds=kinds)
        compiled(root, folder / "out", source=source, rule=SplitRule(val=None))
        return folder / "out"

    made: Path = once("of_every_kind", build)
    return made


@pytest.mark.parametrize("method", METHODS)
def test_every_kind_of_column_comes_back(of_every_kind: Path, method: str) -> None:
    known = [name for name in NAMES if name != "unknown" or method == "none"]
    loader = Loader(
        str(of_every_kind), sample=PAIRS, batch_size=64, action="steps", action_columns=known, repeat=False
    )
    normalizer = Normalizer.of(loader, method=method)
    batch = next(iter(loader))
    assert batch.action is not None
    scaled = normalizer(batch.action, batch.dataset)
    back = normalizer.inverse(scaled, batch.dataset)
    for i, name in enumerate(known):
        before, after, again = batch.action[..., i], scaled[..., i], back[..., i]
        if name in LEFT_ALONE or method == "none":
            assert torch.equal(after, before), name
        elif name == "still":
            assert not after.any(), name
        elif name == "rare":
            torch.testing.assert_close(again, before)
        else:
            assert after.isfinite().all()
            held = after.abs() < 1 if method == "quantile" else torch.ones_like(after, dtype=torch.bool)
            assert held.float().mean() > 0.9, name
            torch.testing.assert_close(again[held], before[held], rtol=1e-5, atol=1e-5)
            assert after.abs().max() <= (3 if method == "gaussian" else 1.0001), name


def test_a_column_of_unknown_kind_is_not_scaled_but_refused(of_every_kind: Path) -> None:
    loader = Loader(str(of_every_kind), sample=PAIRS, batch_size=4, action="steps", state=True)
    said = r"normalisation: column 'unknown' of \S+/out is of unknown kind; say it with --action-kind when "
    with pytest.raises(ConfigError, match=said + "you compile, or leave it out with action_columns$"):
        Normalizer.of(loader)
    with pytest.raises(ConfigError, match=r"'state\[0\]' of .* with --state-kind when you compile$"):
        Normalizer.of(loader, "state")
    assert Normalizer.of(loader, "action", "none").scales["toy_dataset"].columns == NAMES


@pytest.mark.parametrize("array", ["action", "state"])
@pytest.mark.parametrize("pad_to", [6, {"action": 4, "state": 5}])
def test_datasets_of_other_columns_are_scaled_apart(
    windowed: Mapping[str, Path], array: str, pad_to: int | Mapping[str, int]
) -> None:
    window = Window(frames=None, action=range(3), state=0, pad="repeat", per_episode="all")
    paths = [str(windowed[name]) for name in ("raw", "legged")]
    loader = Loader(paths, sample=window, batch_size=32, pad_to=pad_to)
    normalizer = Normalizer.of(loader, array, "gaussian")
    batch = next(iter(loader))
    values: torch.Tensor = getattr(batch, array)
    assert normalizer.width == values.shape[-1] == (pad_to if isinstance(pad_to, int) else pad_to[array])
    scaled = normalizer(values, batch.dataset)
    torch.testing.assert_close(normalizer.inverse(scaled, batch.dataset), values, rtol=1e-5, atol=1e-5)
    for path in paths:
        name = (manifest := Dataset.open(path).manifest).dataset["name"]
        mine = [i for i, dataset in enumerate(batch.dataset) if dataset == name]
        stated = getattr(manifest, array)["statistics"]
        mean, std = torch.tensor(stated["mean"]), torch.tensor(stated["std"])
        expected = (values[mine][..., : len(mean)] - mean) / std
        scales = normalizer.scales[name]
        for i, alone in enumerate(scales.left_alone):
            if alone:
                expected[..., i] = values[mine][..., i]
        torch.testing.assert_close(scaled[mine][..., : len(mean)], expected, rtol=1e-5, atol=1e-5)
        assert not scaled[mine][..., len(mean) :].any()
        kept = [column.name for column in batch.columns[name][array] if column.kind in LEFT_ALONE]
        assert [one for one, it in zip(scales.columns, scales.left_alone, strict=True) if it] == kept


def test_it_follows_the_columns_that_are_read(datasets: Mapping[str, Path]) -> None:
    options = {"sample": PAIRS, "batch_size": 8, "action": "steps"}
    whole = Normalizer.of(Loader(str(datasets["raw"]), **options))
    some = Normalizer.of(Loader(str(datasets["raw"]), action_columns=["dy"], **options))
    assert (some.width, some.scales["oxcart_kitchens"].columns) == (1, ("dy",))
    assert some.scales["oxcart_kitchens"].scale == whole.scales["oxcart_kitchens"].scale[1:2]


def test_a_column_that_moves_rarely_keeps_what_it_does() -> None:
    stated = {"q01": [0.0], "q99": [0.0], "min": [-1.0], "max": [3.0]}
    assert _shift_and_scale("quantile", stated, 0) == (1.0, 2.0)
    assert _shift_and_scale("quantile", {**stated, "min": [0.0], "max": [0.0]}, 0) == (0.0, 0.0)


def test_the_rounding_error_of_a_deviation_is_no_scale() -> None:
    stated = {"mean": [0.1], "std": [1e-18], "min": [0.1], "max": [0.1]}
    assert _shift_and_scale("gaussian", stated, 0) == (0.1, 0.0)


@pytest.mark.parametrize(
    "changes",
    [{"scale": (2.0, 0.0)}, {"left_alone": (False,)}, {"columns": ("dx",)}, {"shift": (np.nan, 5.0, 0.5)}],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected a finite shift and scale for each column"):
        replace(LEFT, **changes)


def test_a_dataset_of_more_columns_than_the_values_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="normalizer: expected at most 2 columns, got 3 of left"):
        replace(TWO, width=2)


def test_none_changes_nothing(datasets: Mapping[str, Path]) -> None:
    loader = Loader(str(datasets["raw"]), sample=PAIRS, batch_size=8, action="steps")
    batch = next(iter(loader))
    assert torch.equal(Normalizer.of(loader, method="none")(batch.action, batch.dataset), batch.action)


@pytest.mark.parametrize("normalizer", [TWO, MIXED], ids=["alike", "mixed"])
def test_json_keeps_it(normalizer: Normalizer) -> None:
    assert Normalizer.from_json(normalizer.to_json()) == normalizer


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"method": "quantile"}', '{"scales": {"a": {}}}'])
def test_other_json_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(ConfigError, match="not a normalizer's JSON"):
        Normalizer.from_json(text)


def test_mistakes_are_one_line(datasets: Mapping[str, Path]) -> None:
    raw, small = str(datasets["raw"]), str(datasets["small"])
    steps = Loader(raw, sample=PAIRS, batch_size=4, action="steps")
    with pytest.raises(
        ConfigError, match=r"normalisation: expected one of quantile, .*; got 'quantiles'; did you"
    ):
        Normalizer.of(steps, "action", "quantiles")
    with pytest.raises(ConfigError, match="statistics are of single steps, not of sums"):
        Normalizer.of(Loader(raw, sample=PAIRS, batch_size=4, action="sum"))
    with pytest.raises(ConfigError, match="the loader does not read state; pass state= to it"):
        Normalizer.of(steps, "state")
    with pytest.raises(ConfigError, match=r"no dataset 'lift'; there are left, right; did you mean left\?"):
        TWO(torch.zeros(1, 3), ["lift"])
    with pytest.raises(ConfigError, match="normalizer: expected 3 columns, got 2"):
        TWO(torch.zeros(1, 2), "left")
    with pytest.raises(ConfigError, match="expected a dataset for each of 2, got 1"):
        TWO(torch.zeros(2, 3), ["left"])
    with pytest.raises(ConfigError, match=r"expected floats, got torch\.int64"):
        TWO(torch.zeros(2, 3, dtype=torch.int64), "left")
    both = Mixture(datasets=[raw, small], epoch="all")
    with pytest.raises(ConfigError, match="two datasets are called 'oxcart_kitchens', with different "):
        Normalizer.of(Loader(both, sample=PAIRS, batch_size=4, action="steps"))
