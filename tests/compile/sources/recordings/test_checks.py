"""Every mistake in an episode is said in one line, as it is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxcart.shards.errors import ConfigError
from recorded import CAMERAS, created, episode
from sample_compile import census_of, one_line

BLANK = np.zeros((5, 20, 24, 3), np.uint8)
WRIST = np.zeros((5, 16, 16, 3), np.uint8)


def frames(**changes: Any) -> dict[str, Any]:
    return {"frames": {"image_0": BLANK, "wrist": WRIST, **changes}}


def holed(value: float) -> np.ndarray[Any, Any]:
    action = np.zeros((5, 2))
    action[3, 1] = value
    return action


class OnGpu:
    """What NumPy cannot read, as it cannot read a tensor on a GPU."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __array__(self, *_: object, **__: object) -> np.ndarray[Any, Any]:
        raise self.error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (frames(wrist=WRIST[:4]), "frames['wrist']: expected 5 steps, as image_0 has; got 4"),
        ({"action": np.zeros((4, 2))}, "action: expected 5 steps, as the frames have; got 4"),
        ({"action": holed(np.nan)}, "action: expected finite numbers, got nan at step 3, column gripper"),
        ({"action": holed(-np.inf)}, "action: expected finite numbers, got -inf at step 3, column gripper"),
        ({"action": holed(1e39)}, "action: float32 cannot hold 1e+39 at step 3, column gripper"),
        (
            {"action": np.zeros((5, 3))},
            "action: expected numbers [T, 2] (dx, gripper), got float64 [5, 3]",
        ),
        ({"action": np.zeros(5)}, "action: expected numbers [T, 2] (dx, gripper), got float64 [5]"),
        ({"action": [["a", "b"]] * 5}, "action: expected numbers [T, 2] (dx, gripper), got <U1 [5, 2]"),
        ({"action": [[1, 2], [3]]}, "action: expected one array, got items of several shapes"),
        ({"action": OnGpu(TypeError("use\n.cpu()"))}, "action: NumPy cannot read OnGpu: use .cpu()"),
        (frames(wrist=OnGpu(RuntimeError("detach"))), "frames['wrist']: NumPy cannot read OnGpu: detach"),
        ({"action": None}, "action: expected [T, 2] (dx, gripper), got none"),
        ({"reward": np.zeros(5)}, "reward: these recordings declare none; leave it out, or create others"),
        (
            {"frames": {"image_0": BLANK}},
            "frames: camera 'wrist' is missing; expected image_0, wrist, got image_0",
        ),
        (
            frames(wirst=WRIST),
            "frames: expected the cameras image_0, wrist; got 'wirst'; did you mean wrist?",
        ),
        ({"frames": BLANK}, "frames: expected frames by camera, {'image_0': ...}; got ndarray"),
        (
            frames(image_0=BLANK.astype(np.float32)),
            "frames['image_0']: expected uint8 [T, H, W, 3], got float32 [5, 20, 24, 3]",
        ),
        (
            frames(image_0=BLANK[..., 0]),
            "frames['image_0']: expected uint8 [T, H, W, 3], got uint8 [5, 20, 24]; repeat grey frames three "
            "times along the last axis",
        ),
        (
            frames(image_0=BLANK[..., :1]),
            "frames['image_0']: expected uint8 [T, H, W, 3], got uint8 [5, 20, 24, 1]; repeat grey frames "
            "three times along the last axis",
        ),
        (
            frames(image_0=np.zeros((5, 20, 24, 4), np.uint8)),
            "frames['image_0']: expected uint8 [T, H, W, 3], got uint8 [5, 20, 24, 4]",
        ),
        (
            frames(image_0=[BLANK[0], BLANK[1][:4]]),
            "frames['image_0']: expected one array, got items of several shapes",
        ),
        (
            frames(image_0=np.zeros((5, 0, 24, 3), np.uint8)),
            "frames['image_0']: expected 1 to 67108864 pixels per frame, got 0x24",
        ),
        (
            frames(wrist=np.zeros((5, 16, 18, 3), np.uint8)),
            "frames['wrist']: expected 16x16 pixels, as the episodes before have; got 16x18",
        ),
        (frames(image_0=BLANK[:0]), "frames['image_0']: expected at least 2 steps, got 0"),
        (frames(image_0=BLANK[:1]), "frames['image_0']: expected at least 2 steps, got 1"),
        ({"environment": 3}, "environment: expected a text or None, got 3"),
        ({"environment": " "}, "environment: expected a text or None, got ' '"),
        ({"environment": "\ud800"}, "environment: expected text that UTF-8 can hold, got '\\ud800'"),
        ({"session": b"day"}, "session: expected a text or None, got b'day'"),
        ({"success": 1}, "success: expected True, False or None, got 1"),
        (
            {"instruction": 5},
            "instruction: expected a text, or (step, text) for each in the order of steps; ",
        ),
        ({"instruction": ["put"]}, "instruction: expected a text, or (step, text) for each in the order of "),
        ({"instruction": [(2, "a"), (2, "b")]}, "in the order of steps, from 3 to 4; got step 2"),
        ({"instruction": [(0, "a"), (5, "b")]}, "in the order of steps, from 1 to 4; got step 5"),
        ({"instruction": [(0, None), (1, 2)]}, "instruction: expected a text or None, got 2"),
    ],
)
def test_a_mistake_is_said_in_one_line(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with created(tmp_path / "mine") as out:
        out.add_episode(**episode(0))
        with pytest.raises(ConfigError) as caught:
            out.add_episode(**episode(1, **change))
        assert said in one_line(caught.value)
        assert len(out) == 1


def test_a_camera_keeps_its_size_when_the_recorder_is_opened_again(tmp_path: Path) -> None:
    for _ in range(2):
        with created(tmp_path / "mine") as out:
            if not len(out):
                out.add_episode(**episode(0))
            else:
                with pytest.raises(ConfigError, match="expected 20x24 pixels, as the episodes before have"):
                    out.add_episode(**episode(1, **frames(image_0=BLANK[:, 1:])))


def test_whole_numbers_flags_and_lists_are_converted(tmp_path: Path) -> None:
    with created(tmp_path / "mine", state=(), reward=True) as out:
        for reward in ([0, 0, 0, 0, 1], np.zeros((5, 1), bool)):
            call = episode(0, state=None, reward=reward, action=[[1, 0]] * 5, success=np.bool_(True))
            call["frames"] = {camera: list(call["frames"][camera]) for camera in reversed([*CAMERAS])}
            out.add_episode(**call)
        with pytest.raises(ConfigError, match="reward: expected numbers"):
            out.add_episode(**episode(1, state=None, reward=np.zeros((5, 2))))
        with pytest.raises(ConfigError, match="reward: expected \\[T, 1\\] \\(reward\\), got none"):
            out.add_episode(**episode(1, state=None))


def test_spaces_around_a_text_do_not_make_another_place(tmp_path: Path) -> None:
    texts = {"environment": " kitchen 3\n", "session": "day\t", "instruction": [(0, "take it "), (2, " ")]}
    with created(tmp_path / "mine") as out:
        with pytest.raises(ConfigError, match="instruction: expected a text or None, got ' '"):
            out.add_episode(**episode(0, **texts))
        out.add_episode(**episode(0, **{**texts, "instruction": " take it\n"}))
    (row,) = census_of(tmp_path / "mine", kind="recordings").table.to_pylist()
    assert (row["environment"], row["session"], row["instructions"]) == ("kitchen 3", "day", ["take it"])
