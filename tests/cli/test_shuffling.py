"""Mixing is measured right where it is known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oxcart.cli.shuffling import mixing, plot
from oxcart.train.data.order import Order

EPISODES, STEPS = 200, 40
ORDER = Order(5, np.full(EPISODES, STEPS), np.arange(EPISODES) // 50)
KITCHENS = np.arange(EPISODES) % 10


def test_without_any_shuffle_consecutive_samples_are_neighbours() -> None:
    plain, perfect = mixing(ORDER, KITCHENS, 40, [1], [1])
    assert plain.episodes == 1
    assert plain.environments == 1
    assert plain.correlation > 0.99
    assert perfect.lanes == 0
    assert abs(perfect.correlation) < 0.05
    assert 34 < perfect.episodes < 38  # 200 * (1 - (1 - 1/200) ** 40) = 36.3
    assert perfect.environments > 9


def test_larger_blocks_and_more_lanes_mix_better() -> None:
    found = mixing(ORDER, KITCHENS, 40, [1, 16], [1, 64, 512])
    by = {(one.lanes, one.block): one for one in found}
    assert by[1, 1].episodes < by[1, 64].episodes < by[1, 512].episodes
    assert by[1, 512].episodes < by[16, 512].episodes
    assert by[1, 1].correlation > by[1, 512].correlation > by[16, 512].correlation
    assert by[16, 64].memory == 1024


@pytest.mark.system
def test_the_plot_is_an_image(tmp_path: Path) -> None:
    plot(mixing(ORDER, KITCHENS, 40, [1, 4], [1, 64]), 40, "kitchens", tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert min(image.size) > 300
