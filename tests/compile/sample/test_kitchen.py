"""The kitchens look different, their sessions alike, and both cameras show what happens."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

import oxcart.compile.sample.kitchen as kitchen
from oxcart.compile.sample.expert import demonstrate
from oxcart.compile.sample.kitchen import (
    Session,
    begin,
    build_kitchen,
    draw_main,
    draw_wrist,
    is_kitchen,
    kitchen_names,
    open_session,
)
from oxcart.compile.sample.world import COLOURS, PARAPHRASES, World, move, tasks

SIZE = 40


def session(name: str = "toykitchen1", number: int = 0, *, seed: int = 0, size: int = SIZE) -> Session:
    return open_session(build_kitchen(name, size=size, seed=seed), number)


def median(of: Session, episode: int) -> NDArray[np.float64]:
    """[H, W, 3]: what an episode's main camera shows most of the time."""
    worlds = demonstrate(begin(of, episode=episode), 8)
    return np.median(np.stack([np.asarray(draw_main(of, world)) for world in worlds]), axis=0)


def test_names_are_distinct_and_extend() -> None:
    names = kitchen_names(40)
    assert len(set(names)) == 40
    assert kitchen_names(12) == names[:12]
    assert {"toykitchen1", "toysink1", "tabletop_dark_wood", "laundry_machine"} <= set(names[:12])
    assert names[12] == "toykitchen13"
    assert kitchen_names(1) == ["toykitchen1"]
    assert all(is_kitchen(name) for name in names)
    wrong = ("", "toykitchen", "toykitchen4", "toykitchen12", "toykitchen013", "toykitchen-13", "moon")
    assert not any(is_kitchen(name) for name in wrong)


@pytest.mark.parametrize("size", [32, 33, 48, 96])
def test_frame_sizes(size: int) -> None:
    s = session(size=size)
    world = begin(s, episode=0)
    main, wrist = draw_main(s, world), draw_wrist(s, world)
    assert (main.mode, main.size) == ("RGB", (size, size))
    assert (wrist.mode, wrist.size) == ("RGB", (size // 2, size // 2))


@pytest.mark.parametrize("name", kitchen_names(24))
def test_every_kitchen_draws_in_good_light(name: str) -> None:
    s = session(name)
    world = begin(s, episode=0)
    for frame in (draw_main(s, world), draw_wrist(s, world)):
        pixels = np.asarray(frame)
        assert 25 < pixels.mean() < 245
        assert pixels.std() > 8


def test_images_repeat_exactly_and_depend_on_the_seed() -> None:
    def bytes_of(seed: int) -> bytes:
        s = session(seed=seed)
        world = move(begin(s, episode=1), (0.1, 0.0, 1.0))
        return draw_main(s, world).tobytes() + draw_wrist(s, world).tobytes()

    assert bytes_of(0) == bytes_of(0)
    assert bytes_of(0) != bytes_of(1)


def test_the_block_is_seen_where_it_goes() -> None:
    s = session(size=96)
    world = begin(s, episode=0)
    colour = np.array(COLOURS[s.colours[world.pushed]])
    frame = np.asarray(draw_main(s, world)).astype(int)
    x, y, _ = world.blocks[world.pushed]
    u, v, _ = s.camera.at((x, y, 0.09))
    seen = frame[round(v / 2), round(u / 2)]
    assert seen.argmax() == colour.argmax()
    assert np.abs(seen / seen.max() - colour / colour.max()).max() < 0.35


def test_a_session_records_one_task_or_many() -> None:
    sessions = [session(name, size=32) for name in kitchen_names(12)]
    assert any(s.task is None for s in sessions)
    for s in sessions:
        asked = {begin(s, episode=episode).task for episode in range(8)}
        assert (asked == {s.task}) if s.task else (len(asked) > 1)


def test_an_episode_happens_on_the_table_of_its_session() -> None:
    for s in (session(name, size=32) for name in kitchen_names(6)):
        for world in (begin(s, episode=episode) for episode in range(8)):
            assert world.task.landmark == s.landmark
            assert world.landmark_at == s.landmark_at
            assert s.colours[world.pushed] == world.task.colour


def test_an_episode_may_be_given_its_task_and_start_perturbed() -> None:
    s = session(size=32)
    asked = [begin(s, episode=3, task=task) for task in tasks(s.colours, s.landmark)]
    assert [world.task for world in asked] == tasks(s.colours, s.landmark)
    assert {world.task.kind for world in asked} == set(PARAPHRASES)
    plain, shaken = begin(s, episode=3), begin(s, episode=3, perturbed=True)
    assert (shaken.task, shaken.start, shaken.goal) == (plain.task, plain.start, plain.goal)
    assert shaken.at != plain.at
    assert shaken == begin(s, episode=3, perturbed=True)


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
        looks.append([median(s, e) for s, e in episodes_of])
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
    first, second = begin(s, episode=0), move(begin(s, episode=0), (0.0, 0.0, 0.0))
    assert (np.asarray(draw_main(s, first)) != np.asarray(draw_main(s, second))).mean() > 0.7


def test_noise_depends_on_the_episode_and_the_step_alone() -> None:
    s = session()

    def alike(a: World, b: World) -> float:
        """Share of the pixels that are equal: most where the noise is the same, few elsewhere."""
        return float((np.asarray(draw_main(s, a)) == np.asarray(draw_main(s, b))).mean())

    there, back = begin(s, episode=0), begin(s, episode=0)
    for sign in (1, -1):
        there, back = move(there, (0.05 * sign, 0.0, 0.0)), move(back, (0.0, 0.03 * sign, 1.0))
        assert 0.6 < alike(there, back) < 1
    assert alike(there, begin(s, episode=0)) < 0.3
    assert alike(begin(s, episode=0), begin(s, episode=1)) < 0.3
