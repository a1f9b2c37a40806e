"""A normalizer follows the manifest's statistics, leaves grippers alone, and gives values back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError
from oxcart.train.data import Loader, Mixture, Normalizer, Pairs
from oxcart.train.data.normalizer import _scale

PAIRS = Pairs(frames=3, per_episode="all")
TWO = Normalizer(
    method="quantile",
    columns=("dx", "still", "gripper"),
    shift={"left": (1.0, 5.0, 0.5), "right": (-1.0, 5.0, 0.5)},
    scale={"left": (2.0, 0.0, 0.5), "right": (4.0, 0.0, 0.5)},
    left_alone=(False, False, True),
)


def test_each_dataset_has_its_own_scale() -> None:
    values = torch.tensor([[2.0, 5, 0], [1.0, 6, 1]])
    assert TWO(values, ["left", "right"]).tolist() == [[0.5, 0, 0], [0.5, 0, 1]]
    assert TWO(values, "left").tolist() == [[0.5, 0, 0], [0, 0, 1]]
    chunks = values[:, None].expand(2, 4, 3)
    assert TWO(chunks, ["left", "right"])[:, 3].tolist() == [[0.5, 0, 0], [0.5, 0, 1]]


def test_quantiles_are_clipped_and_the_others_not() -> None:
    far = torch.tensor([[100.0, 5, 7]])
    assert TWO(far, "left").tolist() == [[1, 0, 7]]
    assert replace(TWO, method="min_max")(far, "left").tolist() == [[49.5, 0, 7]]


def test_values_come_back() -> None:
    values = torch.tensor([[2.0, 5, 0.25], [1.0, 5, 1]])
    for names in ("left", ["left", "right"]):
        assert torch.equal(TWO.inverse(TWO(values, names), names), values)


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
    assert normalizer.columns == ("dx", "dy", "gripper")
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
    assert Normalizer.of(loader, "state", method).columns == ("x", "y", "gripper")


def test_it_follows_the_columns_that_are_read(datasets: Mapping[str, Path]) -> None:
    options = {"sample": PAIRS, "batch_size": 8, "action": "steps"}
    whole = Normalizer.of(Loader(str(datasets["raw"]), **options))
    some = Normalizer.of(Loader(str(datasets["raw"]), action_columns=["dy"], **options))
    assert some.columns == ("dy",)
    assert some.scale["oxcart_kitchens"] == whole.scale["oxcart_kitchens"][1:2]


def test_a_column_that_moves_rarely_keeps_what_it_does() -> None:
    stated = {"q01": [0.0], "q99": [0.0], "min": [-1.0], "max": [3.0]}
    assert _scale("quantile", stated, 0) == (1.0, 2.0)
    assert _scale("quantile", {**stated, "min": [0.0], "max": [0.0]}, 0) == (0.0, 0.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": {"left": (2.0, 0.0, 0.5)}},
        {"left_alone": (False,)},
        {"columns": ("dx",)},
        {"shift": {"left": (float("nan"), 5.0, 0.5), "right": (-1.0, 5.0, 0.5)}},
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected a finite shift and scale of every dataset and column"):
        replace(TWO, **changes)


def test_none_changes_nothing(datasets: Mapping[str, Path]) -> None:
    loader = Loader(str(datasets["raw"]), sample=PAIRS, batch_size=8, action="steps")
    batch = next(iter(loader))
    assert torch.equal(Normalizer.of(loader, method="none")(batch.action, batch.dataset), batch.action)


def test_json_keeps_it() -> None:
    assert Normalizer.from_json(TWO.to_json()) == TWO


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"method": "quantile"}'])
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
    with pytest.raises(ConfigError, match=r"expected 3 columns \(dx, still, gripper\), got 2"):
        TWO(torch.zeros(1, 2), "left")
    with pytest.raises(ConfigError, match="expected a dataset for each of 2, got 1"):
        TWO(torch.zeros(2, 3), ["left"])
    with pytest.raises(ConfigError, match=r"expected floats, got torch\.int64"):
        TWO(torch.zeros(2, 3, dtype=torch.int64), "left")
    both = Mixture(datasets=[raw, small], epoch="all")
    with pytest.raises(ConfigError, match="two datasets are called 'oxcart_kitchens', with different stat"):
        Normalizer.of(Loader(both, sample=PAIRS, batch_size=4, action="steps"))
