"""Actions of several steps are one by the kinds of their columns; of unknown kinds they are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from oxcart.manifests.columns import KINDS, Column
from oxcart.shards.errors import ConfigError
from oxcart.train.data import Loader, Pairs
from oxcart.train.data.summing import ADDED, SUBTRACTED, Summing, summed
from sample_compile import Compiled


def columns(**kinds: str) -> list[Column]:
    return [Column(name=name, kind=kind) for name, kind in kinds.items()]


def total(
    sums: Summing, values: np.ndarray[Any, Any], t: int, k: int, acts: tuple[int, int] | None = None
) -> tuple[list[float], list[bool]]:
    """The sum of some steps, and which of its columns are known."""
    out, known = np.zeros(values.shape[1], np.float32), np.zeros(values.shape[1], np.bool_)
    sums.fill(out, known, values.astype(np.float32), t, k, acts or (0, len(values)))
    return out.tolist(), known.tolist()


KINDS_OF = {
    "dx": "delta",
    "x": "absolute",
    "vx": "velocity",
    "hand": "gripper_absolute",
    "grip": "gripper_delta",
    "mode": "other",
}


def test_every_kind_is_summed_as_it_should_be() -> None:
    sums = Summing(columns(**KINDS_OF), "robot")
    values = np.array(
        [[9, 10, 9, 0, 9, 9], [1, 11, 2, 0, 0.5, 7], [2, 13, 2, 1, 0.5, 8], [4, 17, 3, 1, -1, 9], [9] * 6]
    )
    assert total(sums, values, 1, 3) == ([7, 7, 7, 1, 0, 9], [True] * 6)
    assert total(sums, values, 3, 1) == ([4, 4, 3, 0, -1, 9], [True] * 6), "what one step changes"


def test_what_needs_a_step_that_holds_no_action_is_not_known() -> None:
    sums, values = Summing(columns(dx="delta", x="absolute"), "robot"), np.arange(12).reshape(6, 2)
    assert total(sums, values, 0, 2) == ([2, 0], [True, False]), "no value comes before the first"
    assert total(sums, values, 1, 2, (1, 6)) == ([6, 0], [True, False])
    assert total(sums, values, 0, 2, (1, 6)) == ([0, 0], [False, False])
    assert total(sums, values, 3, 2, (1, 5)) == ([14, 4], [True, True])
    assert total(sums, values, 4, 2, (1, 5)) == ([0, 0], [False, False])


def test_an_angle_turns_the_short_way() -> None:
    for unit, near, turn in (("rad", 3.1, 2 * np.pi), ("deg", 179.0, 360.0)):
        sums = Summing([Column(name="yaw", kind="absolute", unit=unit)], "robot")
        assert total(sums, np.array([[near], [-near]]), 1, 1)[0] == pytest.approx([turn - 2 * near], abs=1e-4)
    far = Summing([Column(name="x", kind="absolute", unit="m")], "robot")
    assert total(far, np.array([[3.1], [-3.1]]), 1, 1)[0] == pytest.approx([-6.2])


def test_columns_are_those_that_are_asked_for(whole: Compiled) -> None:
    options = {
        "sample": Pairs(frames=1, per_episode="all"),
        "batch_size": 8,
        "repeat": False,
        "action": "sum",
    }
    every = Loader(str(whole.out), **options)
    some = Loader(str(whole.out), action_columns=["gripper", "dy"], **options)
    for one, two in zip(every, some, strict=True):
        assert torch.equal(one.action[:, [2, 1]], two.action)
        assert torch.equal(one.action_mask[:, [2, 1]], two.action_mask)
        assert one.action[:, 1].any()


def test_columns_of_unknown_kind_are_refused_by_name() -> None:
    with pytest.raises(ConfigError) as caught:
        Summing(columns(dx="delta", a="unknown", b="unknown"), "/data/robot")
    assert str(caught.value) == (
        "action='sum': /data/robot has columns of unknown kind: a, b; leave them out with action_columns, "
        "or compile it with --action-kind"
    )


def test_sums_of_a_pose_are_called_like_sums_of_deltas() -> None:
    found = summed(
        [
            Column(name="x", kind="absolute", unit="m", frame="base"),
            Column(name="vy", kind="velocity", unit="m/s"),
            Column(name="gripper", kind="gripper_absolute"),
            Column(name="dz", kind="delta", unit="m"),
            Column(name="stop", kind="other"),
        ]
    )
    assert found == (
        Column(name="dx", kind="delta", unit="m", frame="base"),
        Column(name="dy", kind="delta"),
        Column(name="gripper", kind="gripper_delta"),
        Column(name="dz", kind="delta", unit="m"),
        Column(name="stop", kind="other"),
    )


def test_no_kind_is_forgotten() -> None:
    assert set(KINDS) == {*ADDED, *SUBTRACTED, "other", "unknown"}


def test_names_of_a_sum_differ() -> None:
    columns_of = [Column(name="x", kind="absolute"), Column(name="dx", kind="delta")]
    assert [one.name for one in summed(columns_of)] == ["x", "dx"]
    others = [Column(name=name, kind="velocity") for name in ("vjoint_3", "velocity", "left_vx", "dz")]
    assert [one.name for one in summed(others)] == ["djoint_3", "dvelocity", "left_dx", "dz"]
