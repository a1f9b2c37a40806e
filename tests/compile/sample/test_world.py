"""The world does what actions say, misses no contact, and alone decides what counts as done."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from oxcart.compile.sample.world import (
    COLOURS,
    CONTACT,
    LIMIT,
    PARAPHRASES,
    TICKS,
    PushTask,
    World,
    move,
    new_world,
    pick_task,
    tasks,
)
from oxcart.shards.errors import ConfigError

BLOCKS = ("red", "blue", "green")
BOWL_AT = (0.12, 0.88)


def world(seed: int = 0, kind: str = "left", colour: str = "red") -> World:
    rng, task = np.random.default_rng(seed), PushTask(kind, colour, "bowl")
    return new_world(rng, key=str(seed), task=task, colours=BLOCKS, landmark_at=BOWL_AT)


def placed(tip: tuple[float, float], *blocks: tuple[float, float], **changes: object) -> World:
    """A world with the gripper and the blocks where the test wants them; the first block is named."""
    at = round(tip[0] * TICKS), round(tip[1] * TICKS)
    poses = tuple((x, y, 0.0) for x, y in blocks)
    return replace(world(), at=at, blocks=poses, pushed=0, start=blocks[0], **changes)  # type: ignore[arg-type]


def normal(text: str) -> str:
    return " ".join(word for word in text.lower().rstrip(".").split() if word != "the")


def test_actions_add_up_to_the_state_exactly() -> None:
    rng, now = np.random.default_rng(0), world()
    for _ in range(200):
        action = np.float32([*rng.integers(-128, 129, 2) / TICKS, rng.integers(2)])
        after = move(now, action)
        x, y, _ = (now.state + action).tolist()
        if 0 <= x <= 1 and 0 <= y <= 1:
            assert after.state[:2].tolist() == [x, y]
        assert after.state[2] == action[2]
        assert after.step == now.step + 1
        assert after.state.dtype == np.float32
        now = after


def test_actions_are_cut_off_at_the_limit_and_the_gripper_stops_at_the_edges() -> None:
    now = placed((0.5, 0.5), (0.9, 0.1))
    assert move(now, (9.0, -9.0, 0.0)).tip == (0.5 + LIMIT, 0.5 - LIMIT)
    for _ in range(9):
        now = move(now, (1.0, -1.0, 0.0))
    assert now.tip == (1.0, 0.0)
    assert now.blocks[0] == (0.9, 0.1, 0.0)


@pytest.mark.parametrize("action", [(0.1, math.nan, 0.0), (math.inf, 0.0, 0.0), (0.0, 0.0)])
def test_an_action_that_is_none_is_refused(action: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"^action: expected 3 finite numbers \(dx, dy, gripper\), got \["):
        move(world(), action)


def test_open_fingers_move_nothing_and_closed_ones_what_they_meet() -> None:
    now = placed((0.3, 0.5), (0.5, 0.5), (0.5, 0.9))
    for closed in (0.0, 1.0):
        after = now
        for _ in range(3):
            after = move(after, (LIMIT, 0.0, closed))
        carried = now.tip[0] + 3 * LIMIT + CONTACT if closed else 0.5
        assert after.blocks[0][:2] == pytest.approx((carried, 0.5), abs=1e-12)
        assert after.blocks[1] == now.blocks[1]


def test_a_block_stays_where_fingers_leave_it() -> None:
    now = placed((0.42, 0.5), (0.5, 0.5))
    for action in ((-LIMIT, 0.0, 1.0), (0.0, LIMIT, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 1.0)):
        now = move(now, action)
        assert now.blocks[0] == (0.5, 0.5, 0.0)


@pytest.mark.parametrize("offset", [0.0, 0.03, 0.06, 0.079, -0.079])
def test_no_contact_is_missed_at_any_speed(offset: float) -> None:
    """One step at full speed carries a block as far as the same way in the finest steps does."""
    for gap in (0.0, 0.004, 0.02, 0.04):
        start = 0.5 - math.sqrt(CONTACT**2 - offset**2) - gap
        now = placed((start, 0.5 + offset), (0.5, 0.5))
        fast, slow = move(now, (LIMIT, 0.0, 1.0)), now
        for _ in range(round(LIMIT * TICKS)):
            slow = move(slow, (1 / TICKS, 0.0, 1.0))
        assert fast.tip == slow.tip
        assert fast.blocks[0] == pytest.approx(slow.blocks[0], abs=1e-9)
        assert fast.blocks[0][0] == pytest.approx(0.5 + LIMIT - gap, abs=1 / TICKS)


def test_fingers_that_pass_beside_a_block_leave_it() -> None:
    now = placed((0.45, 0.5 + CONTACT + 0.002), (0.5, 0.5))
    assert move(now, (LIMIT, 0.0, 1.0)).blocks == now.blocks


def test_a_block_that_is_jumped_over_is_carried() -> None:
    """Contact lies inside the step: neither its beginning nor its end touches the block."""
    now = placed((0.44, 0.5 - 0.0785), (0.5, 0.5))
    after = move(now, (LIMIT, 0.0, 1.0))
    assert math.dist(now.tip, now.blocks[0][:2]) > CONTACT
    assert math.dist(after.tip, now.blocks[0][:2]) > CONTACT
    assert after.blocks[0][0] > 0.5 + 0.03


@pytest.mark.parametrize(
    ("kind", "to", "done"),
    [
        ("left", (0.31, 0.5), False),
        ("left", (0.29, 0.5), True),
        ("left", (0.29, 0.59), True),
        ("left", (0.29, 0.61), False),
        ("left", (0.71, 0.5), False),
        ("right", (0.71, 0.41), True),
        ("right", (0.29, 0.5), False),
        ("back", (0.5, 0.71), True),
        ("back", (0.39, 0.71), False),
        ("front", (0.5, 0.29), True),
        ("front", (0.5, 0.71), False),
        ("near", (0.12 + 0.25, 0.88), False),
        ("near", (0.12 + 0.23, 0.88), True),
    ],
)
def test_done_is_where_the_block_lies(kind: str, to: tuple[float, float], done: bool) -> None:
    task = PushTask(kind, "red", "bowl")
    before = placed((0.5, 0.5), (0.5, 0.5), (0.2, 0.2), task=task)
    assert not before.success
    assert replace(before, blocks=((*to, 0.0), before.blocks[1])).success == done
    assert not replace(before, blocks=(before.blocks[0], (*to, 0.0))).success


def test_every_task_can_be_done_and_is_not_done_yet() -> None:
    for seed, kind in itertools.product(range(10), PARAPHRASES):
        now = world(seed, kind, "blue")
        assert now.task.colour == BLOCKS[now.pushed]
        assert now.start == now.blocks[now.pushed][:2]
        assert not now.success
        there = ((*now.goal, 0.0) if n == now.pushed else block for n, block in enumerate(now.blocks))
        assert replace(now, blocks=tuple(there)).success
        spots = [block[:2] for block in now.blocks]
        assert min(math.dist(a, b) for a, b in itertools.combinations(spots, 2)) > 0.08
        assert all(0.1 < part < 0.9 for spot in (*spots, now.goal) for part in spot)


def test_any_task_may_be_picked() -> None:
    rng = np.random.default_rng(0)
    assert {pick_task(rng, BLOCKS, "bowl") for _ in range(300)} == set(tasks(BLOCKS, "bowl"))
    assert len(tasks(BLOCKS, "bowl")) == len(PARAPHRASES) * len(BLOCKS)
    assert PushTask("near", "blue", "bowl").name == "push_blue_block_near_bowl"
    assert PushTask("left", "red", "bowl").name == "push_red_block_left"


def test_wording_varies_and_normalises() -> None:
    said: dict[str, set[str]] = {}
    for seed, kind in itertools.product(range(24), PARAPHRASES):
        now = world(seed, kind)
        said.setdefault(now.task.name, set()).add(now.instruction)
    texts = set().union(*said.values())
    assert any(text.endswith(".") and text[0].isupper() for text in texts)
    assert any("the " not in text for text in texts)
    assert max(len(ways) for ways in said.values()) >= 3
    known = {
        normal(phrase.format(c=colour, t="bowl"))
        for phrases in PARAPHRASES.values()
        for phrase in phrases
        for colour in COLOURS
    }
    assert {normal(text) for text in texts} <= known
    assert len({normal(text) for text in texts}) < len(texts)
    assert all(len(phrases) >= 3 for phrases in PARAPHRASES.values())


def test_needs_nothing_that_draws_and_no_gymnasium() -> None:
    code = "import sys, oxcart.compile.sample.expert; print({'PIL', 'gymnasium'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
