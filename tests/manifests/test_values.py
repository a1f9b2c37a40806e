"""Quantiles from bins are NumPy's, within the error that the format states, in whatever parts values came."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from depth import depth
from oxcart.manifests import values as module
from oxcart.manifests.tables import FREE_ROWS, VALUES_SCHEMA, parse_table, table_bytes
from oxcart.manifests.values import PERCENTS, Floats, counted, merged, quantiles

LARGEST, SMALLEST, DENORMAL = np.finfo(np.float32).max, 2.0**-126, 2.0**-149
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
STEPS = st.tuples(st.integers(1, 120), st.integers(1, 3)).flatmap(
    lambda shape: arrays.arrays(np.float32, shape, elements=FLOATS)
)


def exact(steps: Floats) -> dict[str, Floats]:
    return {
        name: np.quantile(steps, percent / 100, axis=0, method="inverted_cdf")
        for name, percent in PERCENTS.items()
    }


def assert_close(steps: Floats, share: float = 2.0**-10, least: float = 2.0**-136) -> None:
    """The quantiles of values [T, A] are in order, and as near to NumPy's as the format says."""
    found = quantiles(counted("action", steps), "action", steps.shape[1])
    for name, expected in exact(steps).items():
        wanted = expected.astype(np.float64)
        error = np.abs(np.array(found[name]) - wanted)
        allowed = np.where(np.abs(wanted) < SMALLEST, least, share * np.abs(wanted))
        assert (error <= allowed).all(), (name, found[name], wanted)
    ordered = np.array([steps.min(0), *found.values(), steps.max(0)], np.float64)
    assert (np.diff(ordered, axis=0) >= 0).all()


@depth(400)
@given(STEPS)
def test_quantiles_are_numpys_within_the_stated_error(steps: Floats) -> None:
    assert_close(steps)


RANDOM = np.random.default_rng(0)
DISTRIBUTIONS = {
    "normal": RANDOM.normal(size=3000),
    "uniform": RANDOM.uniform(0.1, 0.2, 3000),
    "far from zero": 1000 + RANDOM.normal(0, 0.01, 3000),
    "many sizes": np.exp(RANDOM.normal(0, 15, 3000)) * RANDOM.choice([-1, 1], 3000),
    "huge": RANDOM.uniform(-1, 1, 3000) * LARGEST,
    "denormal": RANDOM.integers(-(2**23), 2**23, 3000) * DENORMAL,
    "around the smallest normal number": RANDOM.uniform(-3, 3, 3000) * SMALLEST,
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_whatever_the_distribution(name: str) -> None:
    assert_close(DISTRIBUTIONS[name].astype(np.float32)[:, None])


@pytest.mark.parametrize(
    "steps",
    [
        [0.1] * 50,
        [0.0, 1.0] * 20 + [1.0],
        [-0.0, 0.0, -0.0],
        [-1.0, -0.0, 0.0, 1.0],
        list(range(-1024, 1025)),
        [LARGEST, -LARGEST],
        [DENORMAL],
        [-0.3],
        [1.0, np.nextafter(np.float32(1), np.float32(2))],
    ],
    ids=["constant", "gripper", "zeros", "signs", "whole", "extremes", "denormal", "one step", "neighbours"],
)
def test_few_values_are_exact(steps: list[float]) -> None:
    assert_close(np.array(steps, np.float32)[:, None], share=0, least=0)


def test_the_error_comes_near_to_the_stated_one_and_not_beyond() -> None:
    """All values but one lie at the lower end of a bin."""
    below_two = np.nextafter(np.float32(1 + 2**-10), np.float32(0))
    steps = np.array([1] * 999 + [below_two], np.float32)[:, None]
    error = quantiles(counted("action", steps), "action", 1)["q99"][0] - 1
    assert 0.9 * 2**-10 < error < 2**-10
    assert_close(steps)


@pytest.mark.parametrize("sign", [1, -1])
def test_every_bin_is_as_narrow_as_stated_and_they_are_in_the_order_of_their_values(sign: int) -> None:
    lowest = np.arange(0xFF << 10, dtype=np.uint32) << 13  # the bits of the least of each bin, from 0.0 up
    near, far = lowest.view(np.float32), (lowest + 2**13 - 1).view(np.float32)
    near[0] = DENORMAL  # -0.0 is in the bin of 0.0
    steps = sign * np.stack([near, far], axis=1).reshape(-1, 1)
    bins = counted("action", steps)
    assert bins["count"].to_pylist() == [2] * len(lowest)
    assert np.array_equal(bins["least"].to_numpy(), np.sort(np.minimum(sign * near, sign * far)))
    width = far.astype(np.float64) - near
    assert (width < np.where(far < SMALLEST, 2.0**-136, 2.0**-10 * near.astype(np.float64))).all()


@given(STEPS, st.lists(st.integers(0, 120), max_size=5), st.randoms(use_true_random=False))
def test_any_division_in_any_order_gives_the_same_bytes(
    steps: Floats, cuts: list[int], random: object
) -> None:
    whole = merged([counted("action", steps), counted("state", steps[:, :1])])
    parts = [counted("action", part) for part in np.split(steps, sorted(cuts))]
    parts += [counted("state", part[:, :1]) for part in np.split(steps[::-1], sorted(cuts)[:2])]
    random.shuffle(parts)  # type: ignore[attr-defined]
    middle = len(parts) // 2
    grouped = merged([merged(parts[middle:]), merged(parts[:middle])])
    assert table_bytes(whole) == table_bytes(merged(parts)) == table_bytes(grouped)
    assert whole["count"].to_numpy().sum() == steps.size + len(steps)


def test_minus_zero_is_zero_and_shares_its_row() -> None:
    for zeros in ([-0.0, 0.0], [0.0, -0.0], [-0.0, -0.0]):
        rows = counted("state", np.array([*zeros, -1], np.float32)[:, None]).to_pylist()
        assert [(row["least"], row["greatest"], row["count"]) for row in rows] == [(-1, -1, 1), (0, 0, 2)]
        assert str(rows[1]["least"]) == str(rows[1]["greatest"]) == "0.0"


def test_no_steps_are_no_rows() -> None:
    nothing = counted("action", np.zeros((0, 7), np.float32))
    assert nothing.schema.equals(VALUES_SCHEMA)
    assert nothing.num_rows == merged([]).num_rows == merged([nothing, nothing]).num_rows == 0


def test_counting_does_not_change_the_values() -> None:
    steps = np.array([[-0.0, 2.0]], np.float32)
    counted("action", steps)
    assert str(steps[0, 0]) == "-0.0"


def test_few_of_many_parts_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    part = counted("action", np.arange(5, dtype=np.float32)[:, None])
    given: list[weakref.ref[pa.Table]] = []
    most = 0

    def parts() -> Iterator[pa.Table]:
        nonlocal most
        for _ in range(100):
            one = part.slice(0)
            given.append(weakref.ref(one))
            most = max(most, sum(ref() is not None for ref in given))
            yield one

    monkeypatch.setattr(module, "_PENDING", 20)
    found = merged(parts())
    assert found["count"].to_pylist() == [100] * 5
    assert most < 10


def test_many_columns_of_the_same_few_values_can_be_read_again() -> None:
    """Such as those of a tactile image, whose table zstd makes smaller than a byte per row."""
    table = counted("state", np.tile(np.arange(64, dtype=np.float32)[:, None], (1, 200)))
    assert table.num_rows == 12_800 > FREE_ROWS
    assert parse_table(table_bytes(table), "values.parquet").equals(table)
