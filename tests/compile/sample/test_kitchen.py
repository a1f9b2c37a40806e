"""The kitchens look different, their sessions alike, and both cameras show what happens."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

import oxcart.compile.sample.kitchen as kitchen
from oxcart.compile.sample.kitchen import (
    Session,
    build_kitchen,
    draw_main,
    draw_wrist,
    kitchen_names,
    open_session,
    record,
)
from oxcart.compile.sample.motion import COLOURS, Motion

SIZE = 40


def session(name: str = "toykitchen1", number: int = 0, *, seed: int = 0, size: int = SIZE) -> Session:
    return open_session(build_kitchen(name, size=size, seed=seed), number)


def median(of: Session, motion: Motion) -> NDArray[np.float64]:
    """[H, W, 3]: what an episode's main camera shows most of the time."""
    frames = [np.asarray(draw_main(of, motion, step)) for step in range(len(motion.state))]
    return np.median(np.stack(frames), axis=0)


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


def test_images_repeat_exactly_and_depend_on_the_seed() -> None:
    def bytes_of(seed: int) -> bytes:
        s = session(seed=seed)
        motion = record(s, episode=1, steps=5)
        return draw_main(s, motion, 2).tobytes() + draw_wrist(s, motion, 2).tobytes()

    assert bytes_of(0) == bytes_of(0)
    assert bytes_of(0) != bytes_of(1)


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


def test_a_session_records_one_task_or_many() -> None:
    sessions = [session(name, size=32) for name in kitchen_names(12)]
    assert any(s.task is None for s in sessions)
    for s in sessions:
        tasks = {record(s, episode=episode, steps=2).task for episode in range(8)}
        assert (tasks == {s.task}) if s.task else (len(tasks) > 1)


def test_an_episode_happens_on_the_table_of_its_session() -> None:
    near = []
    for s in (session(name, size=32) for name in kitchen_names(6)):
        for motion in (record(s, episode=episode, steps=12) for episode in range(8)):
            assert 9 <= len(motion.state) <= 15
            assert motion.task.landmark == s.landmark
            assert s.colours[motion.pushed] == motion.task.colour
            if motion.task.kind == "near":
                near.append(np.linalg.norm(motion.blocks[-1, motion.pushed, :2] - s.landmark_at))
    assert near
    assert all(0.15 < distance < 0.23 for distance in near)


def test_a_tap_stands_at_its_sink() -> None:
    themes = [build_kitchen(name, size=32).theme for name in kitchen_names(40)]
    sinks = [x for theme in themes for piece, x in theme.placed() if piece == "sink"]
    assert set(sinks) == {kitchen._STANDING["sink"][1]}


def test_kitchens_differ_more_than_sessions_and_sessions_more_than_episodes() -> None:
    def apart(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float(np.abs(a - b).mean())

    looks = []
    for name in kitchen_names(12):
        first, second = session(name, 0), session(name, 1)
        episodes_of = ((first, 0), (first, 1), (second, 0))
        looks.append([median(s, record(s, episode=e, steps=8)) for s, e in episodes_of])
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
