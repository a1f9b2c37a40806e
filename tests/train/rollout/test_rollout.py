"""Rollouts of planted policies: the same over processes, after an interruption, and for every policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from oxcart.compile.engines import processes
from oxcart.shards.errors import NotFiniteError
from oxcart.train.rollout.play import LANES, Outcome, Stage, Start, group
from oxcart.train.rollout.rollout import alone, plan, rollout
from oxcart.train.trained_on import HELD_OUT, SEEN
from planted_policies import LINE, Planted

STARTS = plan({None: HELD_OUT}, episodes=20, seed=0)


def stage(rule: str = "right") -> Stage:
    return Stage(policy=partial(Planted, rule), env=LINE)


def in_processes(workers: int, function: Any, stage: Stage, groups: Any, done: int) -> Iterator[Any]:
    yield from processes.run(function, stage, groups, workers=workers, report=lambda episodes, size: None)


def play(
    kept: Path, rule: str = "right", run: Any = alone, starts: Sequence[Start] = STARTS
) -> list[Outcome]:
    found = rollout(stage(rule), starts, identity={"rule": rule}, run=run, kept=kept)
    assert [one.start for one in found] == list(starts)
    assert not list(kept.iterdir())
    return [replace(one, act_s=0) for one in found]


def test_a_rollout_is_bit_for_bit_the_same_over_processes(tmp_path: Path) -> None:
    # The policy's actions depend on all rows of a batch, so groups must be the same as well.
    one = play(tmp_path, "batch")
    assert len({outcome.actions for outcome in one}) == len(one)
    assert play(tmp_path, "batch", partial(in_processes, 2)) == one


def test_an_interrupted_rollout_resumes(tmp_path: Path) -> None:
    played: list[int] = []

    def interrupted(function: Any, stage: Stage, groups: Any, done: int) -> Iterator[Any]:
        for number, outcomes in alone(function, stage, groups, done):
            played.append(len(groups[number]))
            yield number, outcomes
            if not done and number == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(tmp_path, "batch", interrupted)
    assert played == [LANES, LANES]
    resumed = play(tmp_path, "batch", interrupted)
    assert played == [LANES, LANES, 4]
    assert resumed == play(tmp_path, "batch")


def test_what_an_interrupted_rollout_left_is_no_other_rollouts(tmp_path: Path) -> None:
    def interrupted(function: Any, stage: Stage, groups: Any, done: int) -> Iterator[Any]:
        yield next(alone(function, stage, groups, done))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rollout(stage("steps"), STARTS, identity={"rule": "steps"}, run=interrupted, kept=tmp_path)
    rollout(stage("right"), STARTS, identity={"rule": "right"}, run=alone, kept=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1  # of the other


def test_chunks_are_executed_in_their_order(tmp_path: Path) -> None:
    (found,) = play(tmp_path, "steps", starts=STARTS[:1])
    expected = np.float32(0.01) * np.arange(1, found.steps + 1, dtype=np.float32)[:, None]
    sent = np.array([[0.01 * step] for step in range(1, found.steps + 1)], np.float32)
    assert found.actions == blake3(sent.tobytes()).hexdigest()
    np.testing.assert_allclose(sent, expected, rtol=1e-6)


def test_success_is_decided_by_the_world_and_ends_an_episode(tmp_path: Path) -> None:
    right, other = play(tmp_path, "right"), play(tmp_path, "starts")
    assert all(one.success and one.steps < 12 and one.reward == 1 for one in right)
    assert all(one.success or one.steps == 12 for one in other)
    assert 0 < sum(one.success for one in other) < len(other)
    assert {one.instruction for one in right} == {"go right"}


def test_an_action_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError, match=r"action 0 in episode 0 is not finite"):
        play(tmp_path, "nan")


def test_starts_depend_on_the_seed_the_environment_and_the_number_alone() -> None:
    places: dict[str | None, str] = {"a": HELD_OUT, "b": HELD_OUT, "c": SEEN}
    starts = plan(places, episodes=9, seed=0)
    assert [one.environment for one in starts] == ["a", "b", "c"] * 3
    assert len({one.seed for one in starts}) == 9
    fewer = plan({"b": HELD_OUT}, episodes=3, seed=0)
    assert fewer == [one for one in starts if one.environment == "b"]
    assert not {one.seed for one in plan(places, episodes=9, seed=1)} & {one.seed for one in starts}


def test_a_group_counts_each_episode_once_and_ends_with_the_last() -> None:
    ended: list[tuple[int, int]] = []
    outcomes = group(stage("starts"), STARTS[:8], lambda episodes, size: ended.append((episodes, size)))
    assert ended == [(1, 0)] * 8
    assert min(one.steps for one in outcomes) < 12
    assert max(one.steps for one in outcomes) == 12
