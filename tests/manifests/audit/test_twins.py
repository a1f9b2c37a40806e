"""The twin test: who stands out toward one environment of train, beside how much those of train do."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from oxcart.manifests.audit import copy_ahead, twins, verdict
from oxcart.manifests.audit.twins import DEVIATIONS, EXCESS, TAIL, USUAL, Twins, contrasts, judge

BENCH = Path(__file__).parents[3] / "bench" / "audit_twins.py"


def leave_out(likeness: np.ndarray) -> np.ndarray:
    """The rows of train, each without itself."""
    own = likeness.astype(float)
    np.fill_diagonal(own, np.nan)
    return own


def judged(held: np.ndarray, train: np.ndarray) -> Twins:
    """The result for environments of one dataset."""
    return judge(held, train, np.zeros(len(held), int), np.zeros(len(train), int))


def rooms(rng: np.random.Generator, number: int, held: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Likenesses of unrelated rooms, [held, number] and [number, number]."""
    train = rng.normal(0.3, 0.03, (number, number))
    return rng.normal(0.3, 0.03, (held, number)), leave_out((train + train.T) / 2)


def test_a_contrast_is_the_best_above_the_mean_of_the_others() -> None:
    found = contrasts(np.array([[0.9, 0.2, 0.4], [np.nan, 0.1, 0.4], [np.nan, np.nan, 0.7]]))
    assert found[:2] == pytest.approx([0.6, 0.3])
    assert math.isnan(found[2]), "one other environment makes no contrast"


@pytest.mark.parametrize("number", [3, 4, 8, 12, 100])
def test_a_twin_stands_out_and_nobody_else_does(number: int) -> None:
    held, train = rooms(np.random.default_rng(number), number, held=3)
    honest = judged(held, train)
    assert (honest.excess < honest.limit).all()
    held[1, 2] = 1.0
    found = judged(held, train)
    assert (found.excess > found.limit).tolist() == [False, True, False]
    assert (found.limit == honest.limit).all()


def test_rooms_of_one_building_are_no_twins() -> None:
    rng = np.random.default_rng(0)
    building = np.arange(12) // 4
    alike = np.where(building[:, None] == building[None], 0.9, 0.2) + rng.normal(0, 0.03, (12, 12))
    held = np.where(building == 1, 0.9, 0.2)[None] + rng.normal(0, 0.03, (1, 12))
    found = judged(held, leave_out(alike))
    assert found.excess[0] < found.limit, "train's own rooms resemble their neighbours as much"


def test_two_names_of_one_place_in_train_do_not_hide_another_in_val() -> None:
    held, train = rooms(np.random.default_rng(1), 9)
    train[2, 3] = train[3, 2] = held[0, 7] = 1.0
    found = judged(held, train)
    assert found.excess[0] > found.limit


def test_the_limit_grows_with_how_many_are_tested_and_how_much_train_varies() -> None:
    rng = np.random.default_rng(2)
    held, train = rooms(rng, 8, held=20)
    assert judged(held[:1], train).limit[0] == EXCESS
    assert judged(held, train).limit[0] == pytest.approx(EXCESS + TAIL * math.log(20))
    own = np.linspace(0, 0.65, 8)
    varied = leave_out(np.where(np.eye(8, k=1) + np.eye(8, k=-7) > 0, 0.3 + own[:, None], 0.3))
    null = contrasts(varied)
    spread = 1.4826 * np.median(np.abs(null - np.median(null)))
    assert judged(held[:1], varied).limit[0] == pytest.approx(DEVIATIONS * spread)
    assert DEVIATIONS * spread > EXCESS
    assert np.median(null) < USUAL


def test_train_in_which_every_place_has_two_names_is_no_measure() -> None:
    """Environments that are named by session: the other session of each place is in train too."""
    rng = np.random.default_rng(3)
    place = np.arange(8) // 2
    alike = np.where(place[:, None] == place[None], 1.1, 0.2) + rng.normal(0, 0.03, (8, 8))
    held = np.where(np.arange(8) == 5, 1.1, 0.2)[None] + rng.normal(0, 0.03, (1, 8))
    found = judged(held, leave_out(alike))
    assert found.middle > USUAL
    assert found.excess[0] > found.limit[0]


def test_rooms_of_one_dataset_of_a_mixture_are_judged_beside_their_own() -> None:
    rng = np.random.default_rng(4)
    of = np.repeat([0, 1], [4, 30])
    alike = np.where(of[:, None] == of[None], np.where(of == 0, 0.8, 0.35)[:, None], 0.3)
    alike = alike + rng.normal(0, 0.03, (34, 34))
    held = np.where(of == 0, 0.8, 0.3)[None] + rng.normal(0, 0.03, (1, 34))
    found = judge(held, leave_out(alike), np.array([0]), of)
    assert found.excess[0] < found.limit[0], "rooms of that lab resemble each other as much"
    assert judge(held, leave_out(alike), np.array([1]), of).excess[0] > found.limit[0]
    assert judge(held, leave_out(alike), np.array([7]), of).limit[0] >= EXCESS, "of a dataset not in train"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The script that measures the limits."""
    spec = importlib.util.spec_from_file_location("audit_twins", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit_twins"] = module
    spec.loader.exec_module(module)
    return module


def test_the_limits_are_those_of_the_margins_that_were_measured(bench: ModuleType) -> None:
    assert bench.limits() == {
        "EXCESS": twins.EXCESS,
        "TAIL": twins.TAIL,
        "USUAL": twins.USUAL,
        "BEYOND": verdict.BEYOND,
        "KNOWN": copy_ahead.KNOWN,
    }


@pytest.mark.system
def test_the_margins_are_measured_again_to_the_digit(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    again = bench.margins(bench.cases(0, [False], bench.DRAWN, [4])).splitlines()
    recorded = bench.MARGINS.read_text().splitlines()
    assert again == [recorded[0], *(line for line in recorded[1:] if line.startswith("0\t4\t"))]


def test_an_interval_is_that_of_clopper_and_pearson(bench: ModuleType) -> None:
    assert bench.interval(0, 80) == pytest.approx((0, 0.0451), abs=1e-4)
    assert bench.interval(80, 80) == pytest.approx((0.9549, 1), abs=1e-4)
    assert bench.interval(5, 20) == pytest.approx((0.0866, 0.4910), abs=1e-4)
