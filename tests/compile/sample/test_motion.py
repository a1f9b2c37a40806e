"""The arm does what its actions say, pushes what it was asked to push, and is asked in many ways."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

from oxcart.compile.sample.motion import COLOURS, PARAPHRASES, TICKS, Motion, PushTask, perform, pick_task

BLOCKS = ("red", "blue", "green")
BOWL_AT = (0.12, 0.88)


def motion(seed: int, steps: int = 24, task: PushTask | None = None) -> Motion:
    return perform(np.random.default_rng(seed), task, BLOCKS, "bowl", BOWL_AT, steps)


def normal(text: str) -> str:
    return " ".join(word for word in text.lower().rstrip(".").split() if word != "the")


def test_length_varies_around_the_mean() -> None:
    lengths = [len(motion(seed).state) for seed in range(30)]
    assert 18 <= min(lengths) < max(lengths) <= 30
    assert 22 < np.mean(lengths) < 26


@pytest.mark.parametrize("steps", [2, 3, 24])
def test_shapes(steps: int) -> None:
    m = motion(0, steps)
    count = len(m.state)
    assert m.state.shape == m.action.shape == (count, 3)
    assert m.blocks.shape == (count, len(BLOCKS), 3)
    assert m.shifts.shape == (count, 4)
    assert m.state.dtype == m.action.dtype == np.float32
    assert m.blocks.dtype == np.float64


@pytest.mark.parametrize("steps", [2, 3, 24])
def test_actions_add_up_to_the_state_exactly(steps: int) -> None:
    for seed in range(5):
        m = motion(seed, steps)
        state, action = m.state, m.action
        np.testing.assert_array_equal(state[1:, :2], state[:-1, :2] + action[:-1, :2])
        np.testing.assert_array_equal(action[:, :2].sum(axis=0), state[-1, :2] - state[0, :2])
        np.testing.assert_array_equal(action[:-1, 2], state[1:, 2])
        np.testing.assert_array_equal(action[-1], [0, 0, state[-1, 2]])
        np.testing.assert_array_equal(state[:, :2] * TICKS, np.round(state[:, :2] * TICKS))
        assert set(state[:, 2].tolist()) <= {0.0, 1.0}
        assert state.min() >= 0
        assert state.max() <= 1


@pytest.mark.parametrize("steps", [2, 24])
def test_the_named_block_moves_where_the_task_says(steps: int) -> None:
    seen = set()
    for seed in range(40):
        m = motion(seed, steps)
        start, end = m.blocks[0, m.pushed, :2], m.blocks[-1, m.pushed, :2]
        dx, dy = end - start
        kind = m.task.kind
        assert np.hypot(dx, dy) > 0.15
        if kind == "near":
            near = np.array(BOWL_AT)
            assert np.linalg.norm(end - near) < np.linalg.norm(start - near)
            assert 0.15 < np.linalg.norm(end - near) < 0.23
        else:
            assert {"left": -dx, "right": dx, "back": dy, "front": -dy}[kind] > 0.2
        assert BLOCKS[m.pushed] == m.task.colour
        seen.add(kind)
    assert seen == set(PARAPHRASES)


def test_a_given_task_is_the_one_performed() -> None:
    task = PushTask("near", "blue", "bowl")
    assert {motion(seed, 2, task).task for seed in range(5)} == {task}
    assert task.name == "push_blue_block_near_bowl"
    assert PushTask("left", "red", "bowl").name == "push_red_block_left"


def test_any_task_may_be_picked() -> None:
    rng = np.random.default_rng(0)
    tasks = {pick_task(rng, BLOCKS, "bowl") for _ in range(300)}
    assert tasks == {PushTask(kind, colour, "bowl") for kind in PARAPHRASES for colour in BLOCKS}


def test_blocks_stay_on_the_table_and_apart() -> None:
    for seed in range(10):
        blocks = motion(seed).blocks[:, :, :2]
        assert blocks.min() >= 0
        assert blocks.max() <= 1
        for a, b in itertools.combinations(range(blocks.shape[1]), 2):
            assert np.linalg.norm(blocks[:, a] - blocks[:, b], axis=1).min() > 0.08


def test_only_a_closed_gripper_moves_blocks() -> None:
    for seed in range(5):
        m = motion(seed, 40)
        closed = np.flatnonzero(m.state[:, 2])
        moved = np.abs(np.diff(m.blocks, axis=0)).max(axis=(1, 2))
        assert moved[: closed[0] - 1].max(initial=0) == 0
        assert moved[closed[-1] + 1 :].max(initial=0) == 0
        assert moved.max() > 0


def test_wording_varies_and_normalises() -> None:
    said: dict[str, set[str]] = {}
    for seed in range(120):
        m = motion(seed, 2)
        said.setdefault(m.task.name, set()).add(m.instruction)
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


def test_needs_nothing_that_draws() -> None:
    code = "import sys, oxcart.compile.sample.motion; print('PIL' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
