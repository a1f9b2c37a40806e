"""Anchors cover an episode evenly and depend on nothing but key, epoch, episode and draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oxcart.shards.errors import ConfigError
from oxcart.train.data.order import Samples
from oxcart.train.data.sampling import Frames, Pairs, Seconds, Window, count_draws, draw_anchors

VERIFIED = {"hz": 5.0, "verified": True}


def draws(epochs: list[int], episodes: list[int], numbers: list[int]) -> Samples:
    return Samples(*(np.array(one, np.int64) for one in (epochs, episodes, numbers)))


def test_all_is_every_anchor_once() -> None:
    assert count_draws("all", np.array([7, 0, 1])).tolist() == [7, 0, 1]
    found = draw_anchors("all", 1, draws([0] * 7, [0] * 7, list(range(7))), np.full(7, 7))
    assert found.tolist() == list(range(7))


def test_an_episode_without_anchors_is_not_drawn_from() -> None:
    assert count_draws(3, np.array([7, 0, 1])).tolist() == [3, 0, 3]


def test_draws_are_even_and_differ_by_epoch_episode_draw_and_key() -> None:
    count = 100_000
    many = draws([0] * count, list(range(count)), [0] * count)
    found = draw_anchors(1, 7, many, np.full(count, 10))
    assert np.abs(np.bincount(found, minlength=10) / count - 0.1).max() < 0.005
    room = np.full(64, 10**6)
    base = [3] * 64, [5] * 64, list(range(64))
    first = draw_anchors(64, 7, draws(*base), room)
    assert len(set(first.tolist())) == 64
    for other in (([4] * 64, *base[1:]), (base[0], [6] * 64, base[2])):
        assert (draw_anchors(64, 7, draws(*other), room) != first).all()
    assert (draw_anchors(64, 8, draws(*base), room) != first).all()


def test_an_episode_gives_the_same_steps_whatever_else_is_asked() -> None:
    together = draw_anchors(2, 9, draws([0, 0, 1], [4, 8, 4], [1, 0, 1]), np.full(3, 99))
    for i, (epoch, episode, draw) in enumerate([(0, 4, 1), (0, 8, 0), (1, 4, 1)]):
        alone = draw_anchors(2, 9, draws([epoch], [episode], [draw]), np.full(1, 99))
        assert alone.tolist() == [together[i]]


def test_pairs_and_frames_are_windows() -> None:
    assert Pairs(frames=3, per_episode=2).window == Window(frames=(0, 3), per_episode=2)
    assert Pairs(seconds=0.5).window == Window(frames=Seconds(0, 0.5))
    assert Frames(per_episode="all", leave=2).window == Window(frames=0, per_episode="all", leave=2)


@pytest.mark.parametrize(("seconds", "steps"), [(0.2, 1), (1, 5), (0.01, 1), (0.5, 2), (1.1, 6)])
def test_seconds_become_steps_of_a_verified_rate(seconds: float, steps: int) -> None:
    assert Pairs(seconds=seconds).window.relative("top", VERIFIED, "it").frames["top"].tolist() == [0, steps]
    before = Window(frames=None, state=Seconds(-seconds, 0)).relative("top", VERIFIED, "it")
    assert before.state is not None
    assert before.state.tolist() == [-steps, 0]
    assert before.seen == (0, 0)


@pytest.mark.parametrize(
    ("rate", "said"),
    [(None, "is unknown"), ({"hz": 10.0, "verified": False}, "is said to be 10 Hz, unverified")],
)
def test_seconds_need_a_verified_rate(rate: dict | None, said: str) -> None:
    with pytest.raises(ConfigError, match=f"the control rate of bridge {said}; give steps, or control_rate"):
        Pairs(seconds=1).window.relative("top", rate, "bridge")
    assert Pairs(frames=4).window.relative("top", rate, "bridge").frames["top"].tolist() == [0, 4]


@pytest.mark.parametrize(
    "options",
    [{}, {"frames": 1, "seconds": 1.0}, {"frames": 0}, {"seconds": 0.0}, {"seconds": float("nan")}]
    + [{"frames": 1, "per_episode": value} for value in (0, -1, "some")],
)
def test_impossible_pairs_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=r"pairs|per_episode"):
        Pairs(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"frames": None}, "window: expected frames, a state or an action, got none"),
        ({"frames": {}}, "window: expected frames, a state or an action, got none"),
        ({"frames": {"top": ()}}, r"frames of top: expected steps, such as 0, \(-4, 0\) or range\(16\)"),
        ({"frames": (0, 0)}, "frames of the camera: expected steps that rise"),
        ({"action": (0, 0.5)}, "action: expected whole steps, .* not mixed with steps"),
        ({"action": (0, Seconds(1))}, "action: expected whole steps, .* not mixed with steps"),
        ({"state": True}, "state: expected whole steps"),
        ({"state": "0"}, "state: expected steps"),
        ({"state": 1 << 40}, "state: expected steps that rise, from -1,048,576 to 1,048,576"),
        ({"pad": "zero"}, "pad: expected one of drop, repeat; got 'zero'"),
        ({"per_episode": 0}, "per_episode: expected a whole number"),
        ({"leave": -1}, "leave: expected a whole number from 0 to 1,048,576, got -1"),
        ({"leave": 2.5}, "leave: expected a whole number"),
        ({"leave": None}, "leave: expected a whole number"),
        ({"frames": {"primary": 0, "wrist": None}}, "frames of wrist: expected steps, .* got None"),
        ({"frames": np.arange(200)}, r"frames of the camera: expected steps, .* got array\("),
        ({"action": np.arange(200)}, r"action: expected steps, .* got array\("),
        ({"action": range(1 << 40)}, "action: expected steps, "),
    ],
)
def test_impossible_windows_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Window(**options)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "offsets",
    [(), (0.0, 0.0), (1, -1), (float("nan"),), (float("inf"),), ("1",), ([0, 0.5],), (None,)],
)
def test_impossible_seconds_are_refused(offsets: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="seconds: expected numbers that rise"):
        Seconds(*offsets)


def test_seconds_that_are_more_steps_than_a_window_may_reach_are_refused() -> None:
    window = Window(frames=Seconds(0, 1e19))
    with pytest.raises(ConfigError, match=r"seconds: expected at most 1,048,576 steps of bridge, got 5"):
        window.relative("top", {"hz": 5.0, "verified": True}, "bridge")
