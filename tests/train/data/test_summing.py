"""Actions of several steps are one by the kinds of their columns; of unknown kinds they are refused."""

from __future__ import annotations

import numpy as np
import pytest

from oxcart.manifests.columns import KINDS, Column
from oxcart.shards.errors import ConfigError
from oxcart.train.data.summing import ADDED, SUBTRACTED, Summing, summed


def columns(**kinds: str) -> list[Column]:
    return [Column(name=name, kind=kind) for name, kind in kinds.items()]


def test_every_kind_is_summed_as_it_should_be() -> None:
    kinds = {"dx": "delta", "x": "absolute", "vx": "velocity"}
    kinds |= {"hand": "gripper_absolute", "grip": "gripper_delta", "mode": "other"}
    sums = Summing(columns(**kinds), "robot")
    assert sums.ahead == 1
    values = np.array(
        [[1, 10, 2, 0, 0.5, 7], [2, 11, 2, 0, 0.5, 8], [4, 13, 3, 1, -1, 9], [100, 17, 100, 1, 100, 100]],
        np.float32,
    )
    assert sums(values).tolist() == [7, 7, 7, 1, 0, 9], "of the step behind, differences alone"


def test_deltas_alone_need_no_further_step() -> None:
    sums = Summing(columns(dx="delta", dy="delta"), "robot")
    assert sums.ahead == 0
    assert sums(np.array([[1, 2], [3, 4]], np.float32)).tolist() == [4, 6]


def test_an_angle_turns_the_short_way() -> None:
    sums = Summing([Column(name="yaw", kind="absolute", unit="rad")], "robot")
    assert sums(np.array([[3.1], [-3.1]], np.float32))[0] == pytest.approx(2 * np.pi - 6.2, abs=1e-5)
    far = Summing([Column(name="x", kind="absolute", unit="m")], "robot")
    assert far(np.array([[3.1], [-3.1]], np.float32))[0] == pytest.approx(-6.2)


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
