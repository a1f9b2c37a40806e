"""Augmentation changes both frames alike, and depends on the sample's place alone."""

from __future__ import annotations

import torch

from oxcart.train.laq.augment import augment, draw_numbers
from oxcart.train.laq.config import AugmentConfig

BOTH = AugmentConfig(flip=True, colour=0.3)


def frames(count: int = 8) -> torch.Tensor:
    return torch.rand(count, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.5


def test_both_frames_of_a_pair_change_alike() -> None:
    same = frames()[:, :1].expand(-1, 2, -1, -1, -1)
    made = augment(same, draw_numbers(0, 1, 8), BOTH)
    assert torch.equal(made[:, 0], made[:, 1])
    assert not torch.equal(made, same)
    assert made.min() >= -1
    assert made.max() <= 1


def test_a_sample_changes_by_its_place_and_step_and_not_by_its_company() -> None:
    whole = augment(frames(), draw_numbers(0, 1, 8), BOTH)
    rows = torch.tensor([5, 2])
    torch.testing.assert_close(augment(frames()[rows], draw_numbers(0, 1, 8)[rows], BOTH), whole[rows])
    assert not torch.equal(draw_numbers(0, 1, 8), draw_numbers(0, 2, 8))
    assert not torch.equal(draw_numbers(0, 1, 8), draw_numbers(1, 1, 8))


def test_a_flip_mirrors_and_nothing_else() -> None:
    numbers = torch.zeros(8, 7)
    numbers[4:, 0] = 0.9
    made = augment(frames(), numbers, AugmentConfig(flip=True))
    assert torch.equal(made[:4], frames()[:4].flip(-1))
    assert torch.equal(made[4:], frames()[4:])


def test_nothing_asked_for_changes_nothing() -> None:
    assert torch.equal(augment(frames(), draw_numbers(0, 1, 8), AugmentConfig()), frames())
