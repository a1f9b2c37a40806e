"""Augmentation changes both frames alike, and depends on the sample's place alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from oxcart.train.laq.augment import NUMBERS, augment, draw_numbers
from oxcart.train.laq.config import AugmentConfig
from tiny_laq import lines, trained

ALL = AugmentConfig(flip=True, reverse=True, shift=0.3, colour=0.3)


def frames(count: int = 8) -> torch.Tensor:
    return torch.rand(count, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.5


def test_both_frames_of_a_pair_change_alike() -> None:
    same = frames()[:, :1].expand(-1, 2, -1, -1, -1)
    made = augment(same, draw_numbers(0, 1, 8), ALL)
    assert torch.equal(made[:, 0], made[:, 1])
    assert not torch.equal(made, same)
    assert made.min() >= -1
    assert made.max() <= 1


def test_a_sample_changes_by_its_place_and_step_and_not_by_its_company() -> None:
    whole = augment(frames(), draw_numbers(0, 1, 8), ALL)
    rows = torch.tensor([5, 2])
    torch.testing.assert_close(augment(frames()[rows], draw_numbers(0, 1, 8)[rows], ALL), whole[rows])
    assert not torch.equal(draw_numbers(0, 1, 8), draw_numbers(0, 2, 8))
    assert not torch.equal(draw_numbers(0, 1, 8), draw_numbers(1, 1, 8))


def test_a_flip_mirrors_and_nothing_else() -> None:
    numbers = torch.zeros(8, NUMBERS)
    numbers[4:, 0] = 0.9
    made = augment(frames(), numbers, AugmentConfig(flip=True))
    assert torch.equal(made[:4], frames()[:4].flip(-1))
    assert torch.equal(made[4:], frames()[4:])


def test_half_of_the_pairs_are_undone() -> None:
    numbers = torch.zeros(8, NUMBERS)
    numbers[4:, 7] = 0.9
    made = augment(frames(), numbers, AugmentConfig(reverse=True))
    assert torch.equal(made[:4], frames()[:4].flip(1))
    assert torch.equal(made[4:], frames()[4:])


def test_a_shift_moves_whole_pixels_and_repeats_the_edge() -> None:
    numbers = torch.full((8, NUMBERS), 0.5)
    numbers[0, 8], numbers[1, 9] = 0.75, 0.0
    made = augment(frames(), numbers, AugmentConfig(shift=0.5))
    assert torch.equal(made[0, :, :, 1:], frames()[0, :, :, :-1])
    assert torch.equal(made[0, :, :, 0], frames()[0, :, :, 0])
    assert torch.equal(made[1, ..., :2], frames()[1, ..., 2:])
    assert torch.equal(made[1, ..., 2:], frames()[1, ..., 3:].expand(-1, -1, -1, 2))
    assert torch.equal(made[2:], frames()[2:])


def test_nothing_asked_for_changes_nothing() -> None:
    assert torch.equal(augment(frames(), draw_numbers(0, 1, 8), AugmentConfig()), frames())


@pytest.mark.parametrize("one", ["flip=true", "reverse=true", "shift=0.3", "colour=0.3"])
def test_each_augmentation_works_without_the_others(kitchen: Path, tmp_path: Path, one: str) -> None:
    none = ("augment.flip=false", "augment.reverse=false", "augment.shift=0", "augment.colour=0")
    losses = []
    for name, more in (("plain", ()), ("changed", (f"augment.{one}",))):
        trained(tmp_path / name, kitchen, "train.steps=1", *none, *more)
        losses.append(lines(tmp_path / name)[0]["loss"])
    assert losses[0] != losses[1]
