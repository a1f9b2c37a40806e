"""Rollouts in the sample kitchens: the expert succeeds, random actions do not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import expert_adapter

from oxcart.train.rollout.adapter import KITCHENS
from oxcart.train.rollout.fit import check_fit
from oxcart.train.rollout.play import Stage, group
from oxcart.train.rollout.rollout import plan
from oxcart.train.trained_on import HELD_OUT
from planted_policies import InKitchens

EXPERT = Path(expert_adapter.__file__)
STARTS = plan(dict.fromkeys(("toykitchen1", "toysink1", "toykitchen13"), HELD_OUT), episodes=6, seed=0)


def test_the_expert_succeeds_and_random_actions_do_not() -> None:
    stage = Stage(policy=partial(InKitchens, "state"), env=KITCHENS, adapter=EXPERT)
    check_fit(stage, STARTS[0])
    expert = group(stage, STARTS, lambda episodes, size: None)
    assert all(one.success and one.reward == 1 and one.steps < 30 for one in expert)
    assert {one.task for one in expert} <= {"left", "right", "back", "front", "near"}
    random = group(
        Stage(policy=partial(InKitchens, "random"), env=KITCHENS), STARTS, lambda episodes, size: None
    )
    assert [one.instruction for one in random] == [one.instruction for one in expert]  # the same starts
    assert sum(one.success for one in random) <= 1
    assert max(one.steps for one in random) == 60


def test_an_episode_begins_alike_whatever_was_played_before() -> None:
    stage = Stage(policy=partial(InKitchens, "state"), env=KITCHENS, adapter=EXPERT)
    first, second = (group(stage, some, lambda episodes, size: None) for some in (STARTS[:4], STARTS[2:4]))
    assert [replace(one, act_s=0) for one in first[2:]] == [replace(one, act_s=0) for one in second]
