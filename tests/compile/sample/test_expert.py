"""The expert does every task, from wherever it starts, at the pace that it is given."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from oxcart.compile.sample.expert import SPEED, actions, demonstrate, expert, perturb
from oxcart.compile.sample.world import CONTACT, LIMIT, PARAPHRASES, TICKS, PushTask, World, move, new_world

BLOCKS = ("red", "blue", "green")
STARTS = [*itertools.product(range(60), PARAPHRASES)]
"""Seed and kind of the task."""


def world(seed: int, kind: str) -> World:
    rng = np.random.default_rng(seed)
    task, landmark_at = PushTask(kind, BLOCKS[seed % 3], "bowl"), ((0.12, 0.88)[seed % 2], 0.9)
    return new_world(rng, key=str(seed), task=task, colours=BLOCKS, landmark_at=landmark_at)


def perturbed(seed: int, kind: str) -> World:
    return perturb(world(seed, kind), np.random.default_rng(seed))


def acted(now: World, steps: int = 60) -> World:
    """A world after the expert did the task, or after so many steps."""
    while not now.success and now.step < steps:
        now = move(now, expert(now))
    return now


def random_action(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.uniform((-LIMIT, -LIMIT, 0), (LIMIT, LIMIT, 1))


def test_the_expert_does_every_task() -> None:
    assert np.mean([acted(world(*start)).success for start in STARTS]) >= 0.98
    assert max(acted(world(*start)).step for start in STARTS) < 30


def test_the_expert_recovers_from_perturbed_starts() -> None:
    found = [perturbed(*start) for start in STARTS]
    assert not any(now.success for now in found)
    assert all(now.step == 0 for now in found)
    assert np.mean([now.closed for now in found]) > 0.2
    assert np.mean([now.blocks[now.pushed][:2] != now.start for now in found]) > 0.2
    assert np.mean([acted(now).success for now in found]) >= 0.98


def test_random_actions_do_hardly_anything() -> None:
    done = []
    for start in STARTS:
        rng, now = np.random.default_rng(start[0]), world(*start)
        for _ in range(60):
            now = now if now.success else move(now, random_action(rng))
        done.append(now.success)
    assert np.mean(done) < 0.1


def test_a_policy_that_is_wrong_half_of_the_time_comes_back() -> None:
    done = []
    for start in STARTS[::3]:
        rng, now = np.random.default_rng(start[0]), world(*start)
        for _ in range(60):
            if not now.success:
                now = move(now, random_action(rng) if rng.random() < 0.5 else expert(now))
        done.append(now.success)
    assert np.mean(done) > 0.6


def test_the_expert_sees_nothing_but_the_world() -> None:
    now = move(move(world(1, "left"), (0.1, 0.1, 1)), (0, -0.1, 0))
    np.testing.assert_array_equal(expert(now), expert(replace(now, step=7, key="another", instruction="?")))


def test_actions_are_whole_ticks_no_faster_than_asked() -> None:
    for seed, kind in STARTS[:20]:
        for speed in (0.02, SPEED, 1.0):
            dx, dy, closed = expert(world(seed, kind), speed)
            assert np.hypot(dx, dy) <= min(speed, LIMIT) + 1 / TICKS
            assert (dx * TICKS) % 1 == (dy * TICKS) % 1 == 0
            assert closed in (0, 1)


@pytest.mark.parametrize("length", [2, 3, 18, 24, 90])
def test_a_demonstration_has_its_length_and_its_actions_lead_through_it(length: int) -> None:
    for seed, kind in STARTS[:10]:
        worlds = demonstrate(world(seed, kind), length)
        taken = actions(worlds)
        assert len(worlds) == len(taken) == length
        assert taken.dtype == np.float32
        assert worlds[-1].success == (length >= 18)
        for now, action, after in zip(worlds, taken, worlds[1:], strict=False):
            assert move(now, action) == after
        state = np.stack([now.state for now in worlds])
        np.testing.assert_array_equal(taken[:, :2].sum(axis=0), state[-1, :2] - state[0, :2])
        np.testing.assert_array_equal(taken[-1], [0, 0, state[-1, 2]])


def test_a_demonstration_fills_its_length_and_ends_with_open_fingers_clear_of_the_block() -> None:
    for seed, kind in STARTS[:20]:
        worlds = demonstrate(world(seed, kind), 24)
        end = worlds[-1]
        assert not end.closed
        block = end.blocks[end.pushed][:2]
        assert np.hypot(*np.subtract(end.tip, block)) > CONTACT + 0.04
        assert np.hypot(*np.subtract(end.goal, block)) < 0.012
        far = np.hypot(*actions(worlds)[:-1, :2].T)
        assert far.max() <= LIMIT + 1 / TICKS
        assert (far > 0).mean() > 0.9
        others = [n for n in range(len(BLOCKS)) if n != end.pushed]
        assert all(end.blocks[n] == worlds[0].blocks[n] for n in others)


def test_the_expert_rests_when_all_is_done() -> None:
    end = demonstrate(world(3, "right"), 30)[-1]
    for _ in range(3):
        end = move(end, expert(end))
    assert expert(end).tolist() == [0, 0, 0]
