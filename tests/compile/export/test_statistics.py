"""Statistics of an export: those that LeRobot 0.6.1 itself gave for the same values and images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from oxcart.compile.export.statistics import (
    BINS,
    QUANTILES,
    Statistics,
    merged,
    of_frames,
    of_values,
    sampled,
)

SHORT = {
    "min": [-2.915395, -2.777444],
    "max": [2.999379, 2.974994],
    "mean": [0.114576, 0.052909],
    "std": [2.272815, 1.876355],
    "count": [9],
    "q01": [-2.915395, -2.777444],
    "q10": [-2.915395, -2.777444],
    "q50": [-3e-06, -0.32633],
    "q90": [2.998314, 2.973959],
    "q99": [2.999272, 2.974891],
}
BOTH = {
    "min": [-2.999659, -2.998944],
    "max": [2.999999, 2.999771],
    "mean": [0.004865, 0.012622],
    "std": [2.151662, 2.085222],
    "count": [159],
    "q01": [-2.993474, -2.986406],
    "q10": [-2.881688, -2.838136],
    "q50": [-0.014556, 2.8e-05],
    "q90": [2.87425, 2.861358],
    "q99": [2.999108, 2.997514],
}
"""Of `values(9, 0)`, and of that and `values(150, 1)` together."""
SMALL = {
    "min": [0.078431, 0.078431, 0.082353],
    "max": [0.858824, 0.858824, 0.858824],
    "mean": [0.481046, 0.47451, 0.464706],
    "std": [0.22046, 0.232384, 0.232067],
    "count": [5],
    "q01": [0.082443, 0.082396, 0.086344],
    "q10": [0.160841, 0.145233, 0.153012],
    "q50": [0.48642, 0.48642, 0.447139],
    "q90": [0.77657, 0.784374, 0.792202],
    "q99": [0.850988, 0.850957, 0.854879],
}
MANY = {
    "min": [0.078431, 0.078431, 0.078431],
    "max": [0.858824, 0.858824, 0.858824],
    "mean": [0.463922, 0.463529, 0.47451],
    "std": [0.228098, 0.223344, 0.224663],
    "count": [100],
    "q01": [0.086249, 0.082447, 0.086274],
    "q10": [0.152959, 0.153037, 0.156919],
    "q50": [0.458814, 0.458922, 0.478418],
    "q90": [0.784261, 0.776505, 0.784244],
    "q99": [0.854791, 0.850942, 0.85102],
}
LARGE = {
    "min": [0.078431, 0.078431, 0.078431],
    "max": [0.858824, 0.858824, 0.858824],
    "mean": [0.468627, 0.468627, 0.468627],
    "std": [0.226427, 0.226412, 0.226412],
    "count": [2],
    "q01": [0.086236, 0.082489, 0.086236],
    "q10": [0.156783, 0.156784, 0.156784],
    "q50": [0.466755, 0.466755, 0.466755],
    "q90": [0.78422, 0.780471, 0.780471],
    "q99": [0.854766, 0.851019, 0.854766],
}
"""Of `frames(5, 6, 8)`, of `frames(120, 4, 5)`, not all of which are looked at, and of `frames(2, 310, 460)`,
which are thinned out."""


def values(steps: int, shift: float) -> npt.NDArray[np.float32]:
    every = np.arange(steps * 2, dtype=np.float64).reshape(steps, 2)
    found: npt.NDArray[np.float32] = (np.sin(every * 1.7 + shift) * 3).astype(np.float32)
    return found


def frames(steps: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    t, y, x, c = np.meshgrid(*map(np.arange, (steps, height, width, 3)), indexing="ij")
    found: npt.NDArray[np.uint8] = ((t * 37 + y * 11 + x * 7 + c * 50) % 200 + 20).astype(np.uint8)
    return found


def same(found: Statistics, expected: dict[str, list[Any]], spread: float) -> None:
    """Equal; quantiles to the width of a bin, since LeRobot computes in float32."""
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        off = 1.01 * spread / BINS if name in QUANTILES else 2e-5
        np.testing.assert_allclose(found[name].reshape(-1), one, rtol=0, atol=off, err_msg=name)


def test_values_have_the_statistics_that_lerobot_gives_them() -> None:
    one = of_values(values(9, 0))
    same(one, SHORT, 6)
    same(merged(one, of_values(values(150, 1))), BOTH, 6)
    assert merged(None, one) is one


@pytest.mark.parametrize(
    ("shape", "expected"), [((5, 6, 8), SMALL), ((120, 4, 5), MANY), ((2, 310, 460), LARGE)]
)
def test_images_have_the_statistics_that_lerobot_gives_them(
    shape: tuple[int, int, int], expected: dict[str, list[Any]]
) -> None:
    found = of_frames(frames(*shape))
    same(found, expected, 1)
    assert {name: one.shape for name, one in found.items() if name != "count"} == dict.fromkeys(
        expected.keys() - {"count"}, (3, 1, 1)
    )


def test_values_that_never_change_have_statistics() -> None:
    found = of_values(np.full((7, 1), 2.5))
    assert found["std"].tolist() == [0]
    assert all(abs(found[name][0] - 2.5) < 1e-9 for name in ("min", "max", "mean", *QUANTILES))


def test_the_images_of_long_episodes_are_sampled() -> None:
    assert sampled(120)[:8] == [0, 1, 2, 4, 5, 6, 7, 8]
    assert [len(sampled(steps)) for steps in (1, 99, 120, 5000, 1_000_000)] == [1, 99, 100, 594, 10_000]
    assert sampled(5000)[-1] == 4999
