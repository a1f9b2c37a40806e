"""Datasets of two and of seven action values side by side: every strategy has its numbers, all right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import OneHotEncoder

from oxcart.manifests.columns import Column
from oxcart.train.evaluate import strategies
from oxcart.train.evaluate.gather import GatheredPairs
from planted import context, found, measured, planted, skipped

ARM = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")


def two_and_seven(kind: str) -> GatheredPairs:
    """Dataset `left` has dx and dy; `right` has seven values: dz follows dx, and the others are noise."""
    pairs = planted(kind)
    assert pairs.actions is not None
    generator = np.random.default_rng(3)
    noise = generator.normal(size=(len(pairs), 4))
    height = pairs.actions[:, :1] + 0.1 * generator.normal(size=(len(pairs), 1))
    wide = np.hstack([pairs.actions, height, noise])
    wide[pairs.dataset == "left", 2:] = np.nan
    columns = tuple(Column(name=name, kind="gripper_delta" if name == "gripper" else "delta") for name in ARM)
    return replace(pairs, actions=wide, columns=columns)


def test_arrows_of_both_are_compared_along_what_both_have() -> None:
    assert measured("compass", two_and_seven("direction")) == measured("compass", planted("direction"))
    assert measured("compass", two_and_seven("direction"))["cosine_datasets"].low > 0.95
    noise = measured("compass", two_and_seven("noise"))["cosine_datasets"]
    assert noise.low < 0 < noise.high


def test_what_a_token_tells_holds_in_the_other_dataset() -> None:
    numbers = measured("consistency", two_and_seven("direction"))
    same = measured("consistency", planted("direction"))
    for name in ("actions_across_datasets", "actions_within_datasets", "actions_across_environments"):
        assert numbers[name] == same[name], name
        assert numbers[name].low > 0.5, name
    assert measured("consistency", two_and_seven("noise"))["actions_across_datasets"].value < 0.05


def test_every_value_is_probed_where_it_is() -> None:
    pairs = two_and_seven("direction")
    numbers = measured("probe", pairs)
    assert {name.removeprefix("r2_") for name in numbers if name.startswith("r2_")} == set(ARM)
    assert not skipped("probe", pairs)
    alone = measured("probe", planted("direction"))
    for name in ("dx", "dy"):
        assert numbers[f"r2_{name}"].value == pytest.approx(alone[f"r2_{name}"].value)
    assert pairs.actions is not None
    right = pairs.dataset == "right"
    new = right & (pairs.split == "val")
    old = right & ~new
    basis = pairs.actions[old][:, 2:]
    target = (pairs.actions[:, 2:] - basis.mean(0)) / basis.std(0)
    hot = OneHotEncoder(sparse_output=False).fit_transform(pairs.codes)
    expected = r2_score(
        target[new], Ridge(1.0).fit(hot[old], target[old]).predict(hot[new]), multioutput="raw_values"
    )
    assert [numbers[f"r2_{name}"].value for name in ARM[2:]] == pytest.approx(expected.tolist(), abs=1e-4)
    assert numbers["r2_dz"].low > 0.5
    for name in ARM[3:]:
        assert numbers[f"r2_{name}"].value < 0.1, "the codes do not tell it"


def test_a_value_that_the_first_pairs_of_episodes_lack_is_probed_on_the_others() -> None:
    pairs = two_and_seven("direction")
    assert pairs.actions is not None
    gaps = pairs.actions.copy()
    gaps[pairs.t == 0, 6] = np.nan  # no change of the gripper is known there
    some = replace(pairs, actions=gaps)
    numbers, whole = measured("probe", some), measured("probe", pairs)
    for name in ARM[:6]:
        assert numbers[f"r2_{name}"] == whole[f"r2_{name}"], name
    assert numbers["r2_gripper"].value == pytest.approx(whole["r2_gripper"].value, abs=0.05)
    assert numbers["r2_gripper"] != whole["r2_gripper"]
    assert measured("compass", some) == measured("compass", pairs), "a motion needs no gripper"


@pytest.mark.system
def test_plots_are_drawn_of_both_with_the_names_of_their_axes() -> None:
    pairs = two_and_seven("direction")
    for name in ("compass", "probe"):
        strategy = strategies.load([name])[name]
        given = replace(context(), seen=pairs.at("seen"))
        drawn = list(strategy.draw(pairs.at("held out") if name == "probe" else pairs, given))
        assert drawn
    tables = [
        one for one in strategies.load(["compass"])["compass"].draw(pairs, context()) if hasattr(one, "rows")
    ]
    assert {row[0] for row in tables[0].rows} == {"left", "right"}
    assert "mean dx, dy" in tables[0].columns


@pytest.mark.parametrize("name", ["disentanglement", "magnitude"])
def test_the_others_have_their_numbers_as_well(name: str) -> None:
    given = context()
    whole = {one.name for one in found(name, planted("direction"), given) if hasattr(one, "value")}
    both = {one.name for one in found(name, two_and_seven("direction"), given) if hasattr(one, "value")}
    assert both == whole
    assert both
