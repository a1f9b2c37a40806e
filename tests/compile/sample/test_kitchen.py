"""The kitchens look different, their sessions alike, and the arm does what its actions say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from oxcart.compile.sample.kitchen import (
    COLOURS,
    PARAPHRASES,
    TICKS,
    Motion,
    Session,
    build_kitchen,
    draw_main,
    draw_wrist,
    kitchen_names,
    open_session,
    record,
)

SIZE = 40


def session(name: str = "toykitchen1", number: int = 0, *, seed: int = 0, size: int = SIZE) -> Session:
    return open_session(build_kitchen(name, size=size, seed=seed), number)


def median(of: Session, motion: Motion) -> NDArray[np.float64]:
    """[H, W, 3]: what an episode's main camera shows most of the time."""
    frames = [np.asarray(draw_main(of, motion, step)) for step in range(len(motion.state))]
    return np.median(np.stack(frames), axis=0)


def normal(text: str) -> str:
    return " ".join(word for word in text.lower().rstrip(".").split() if word != "the")


def test_names_are_distinct_and_extend() -> None:
    names = kitchen_names(40)
    assert len(set(names)) == 40
    assert kitchen_names(12) == names[:12]
    assert {"toykitchen1", "toysink1", "tabletop_dark_wood", "laundry_machine"} <= set(names[:12])
    assert names[12] == "toykitchen13"
    assert kitchen_names(1) == ["toykitchen1"]


@pytest.mark.parametrize("size", [32, 33, 48, 96])
def test_frame_sizes(size: int) -> None:
    s = session(size=size)
    motion = record(s, episode=0, steps=4)
    main, wrist = draw_main(s, motion, 0), draw_wrist(s, motion, 0)
    assert (main.mode, main.size) == ("RGB", (size, size))
    assert (wrist.mode, wrist.size) == ("RGB", (size // 2, size // 2))


@pytest.mark.parametrize("name", kitchen_names(24))
def test_every_kitchen_draws_in_good_light(name: str) -> None:
    s = session(name)
    motion = record(s, episode=0, steps=4)
    for frame in (draw_main(s, motion, 1), draw_wrist(s, motion, 1)):
        pixels = np.asarray(frame)
        assert 25 < pixels.mean() < 245
        assert pixels.std() > 8


def test_pictures_repeat_exactly_and_depend_on_the_seed() -> None:
    def bytes_of(seed: int) -> bytes:
        s = session(seed=seed)
        motion = record(s, episode=1, steps=5)
        return draw_main(s, motion, 2).tobytes() + draw_wrist(s, motion, 2).tobytes()

    assert bytes_of(0) == bytes_of(0)
    assert bytes_of(0) != bytes_of(1)


def test_length_varies_around_the_mean() -> None:
    s = session()
    lengths = [len(record(s, episode=e, steps=24).state) for e in range(30)]
    assert 18 <= min(lengths) < max(lengths) <= 30
    assert 22 < np.mean(lengths) < 26


@pytest.mark.parametrize("steps", [2, 3, 24])
def test_actions_add_up_to_the_state_exactly(steps: int) -> None:
    s = session("toysink1")
    for episode in range(5):
        motion = record(s, episode=episode, steps=steps)
        state, action = motion.state, motion.action
        assert state.dtype == action.dtype == np.float32
        assert state.shape == action.shape == (len(motion.blocks), 3)
        np.testing.assert_array_equal(state[1:, :2], state[:-1, :2] + action[:-1, :2])
        np.testing.assert_array_equal(action[:, :2].sum(axis=0), state[-1, :2] - state[0, :2])
        np.testing.assert_array_equal(action[:-1, 2], state[1:, 2])
        np.testing.assert_array_equal(state[:, :2] * TICKS, np.round(state[:, :2] * TICKS))
        assert set(state[:, 2].tolist()) <= {0.0, 1.0}
        assert state.min() >= 0
        assert state.max() <= 1


@pytest.mark.parametrize("steps", [2, 24])
def test_the_named_block_moves_where_the_task_says(steps: int) -> None:
    seen = set()
    for name in kitchen_names(4):
        s = session(name)
        for episode in range(10):
            motion = record(s, episode=episode, steps=steps)
            start, end = motion.blocks[0, motion.pushed, :2], motion.blocks[-1, motion.pushed, :2]
            dx, dy = end - start
            kind = motion.task.kind
            assert np.hypot(dx, dy) > 0.15
            if kind == "near":
                near = np.array(s.landmark_at)
                assert np.linalg.norm(end - near) < np.linalg.norm(start - near)
                assert 0.15 < np.linalg.norm(end - near) < 0.23
            else:
                assert {"left": -dx, "right": dx, "back": dy, "front": -dy}[kind] > 0.2
            assert s.colours[motion.pushed] == motion.task.colour
            seen.add(kind)
    assert seen == set(PARAPHRASES)


def test_blocks_stay_on_the_table_and_apart() -> None:
    s = session("toykitchen2")
    for episode in range(10):
        blocks = record(s, episode=episode, steps=24).blocks[:, :, :2]
        assert blocks.min() >= 0
        assert blocks.max() <= 1
        for a, b in itertools.combinations(range(blocks.shape[1]), 2):
            assert np.linalg.norm(blocks[:, a] - blocks[:, b], axis=1).min() > 0.08


def test_only_a_closed_gripper_moves_blocks() -> None:
    s = session()
    for episode in range(5):
        motion = record(s, episode=episode, steps=40)
        closed = np.flatnonzero(motion.state[:, 2])
        moved = np.abs(np.diff(motion.blocks, axis=0)).max(axis=(1, 2))
        assert moved[: closed[0] - 1].max(initial=0) == 0
        assert moved[closed[-1] + 1 :].max(initial=0) == 0
        assert moved.max() > 0


def test_the_block_is_seen_where_it_goes() -> None:
    s = session(size=96)
    motion = record(s, episode=0, steps=24)
    colour = np.array(COLOURS[s.colours[motion.pushed]])
    frame = np.asarray(draw_main(s, motion, 0)).astype(int)
    x, y = motion.blocks[0, motion.pushed, :2].tolist()
    u, v, _ = s.camera.at((x, y, 0.09))
    seen = frame[round(v / 2), round(u / 2)]
    assert seen.argmax() == colour.argmax()
    assert np.abs(seen / seen.max() - colour / colour.max()).max() < 0.35


def test_wording_varies_and_normalises() -> None:
    said: dict[str, set[str]] = {}
    for name in kitchen_names(6):
        s = session(name, size=32)
        for episode in range(20):
            motion = record(s, episode=episode, steps=2)
            said.setdefault(motion.task.name, set()).add(motion.instruction)
    texts = set().union(*said.values())
    assert any(text.endswith(".") and text[0].isupper() for text in texts)
    assert any("the " not in text for text in texts)
    assert max(len(ways) for ways in said.values()) >= 3
    known = {
        normal(phrase.format(c=colour, t=landmark))
        for phrases in PARAPHRASES.values()
        for phrase in phrases
        for colour in COLOURS
        for landmark in ("bowl", "plate", "pot")
    }
    assert {normal(text) for text in texts} <= known
    assert len({normal(text) for text in texts}) < len(texts)
    assert all(len(phrases) >= 3 for phrases in PARAPHRASES.values())


def test_a_session_records_one_task_or_many() -> None:
    sessions = [session(name, size=32) for name in kitchen_names(12)]
    assert any(s.task is None for s in sessions)
    for s in sessions:
        tasks = {record(s, episode=episode, steps=2).task for episode in range(8)}
        assert (tasks == {s.task}) if s.task else (len(tasks) > 1)


def test_kitchens_differ_more_than_sessions_and_sessions_more_than_episodes() -> None:
    def apart(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float(np.abs(a - b).mean())

    looks = []
    for name in kitchen_names(12):
        kitchen = build_kitchen(name, size=SIZE)
        first, second = open_session(kitchen, 0), open_session(kitchen, 1)
        one = median(first, record(first, episode=0, steps=8))
        looks.append((one, median(first, record(first, episode=1, steps=8)),
                      median(second, record(second, episode=0, steps=8))))  # fmt: skip
    episodes = [apart(a, b) for a, b, _ in looks]
    sessions = [apart(a, c) for a, _, c in looks]
    kitchens = [apart(p[0], q[0]) for p, q in itertools.combinations(looks, 2)]
    assert max(episodes) < min(kitchens)
    assert np.mean(episodes) < np.mean(sessions) < np.mean(kitchens)
    assert max(sessions) < np.median(kitchens)


def test_noise_is_a_cameras() -> None:
    s = session(size=96)
    noise = np.asarray(s.noise).astype(float)
    assert abs(noise.mean() - 128) < 0.2
    assert 2 < noise.std() < 4
    motion = record(s, episode=0, steps=24)
    first, second = (np.asarray(draw_main(s, motion, step)) for step in (0, 1))
    assert (first != second).mean() > 0.7
