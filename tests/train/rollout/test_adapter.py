"""Adapters: what is left out has a default, and the example is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oxcart.shards.errors import ConfigError
from oxcart.train.rollout import adapter
from oxcart.train.rollout.adapter import KITCHENS, load_adapter

PUSHT = Path(__file__).parents[3] / "examples" / "pusht.py"


def test_without_a_file_an_environment_is_taken_as_it_is() -> None:
    found = load_adapter("some/Env-v0", None)
    assert (found.env, found.make, found.columns) == ("some/Env-v0", adapter.make, None)
    image = np.zeros((4, 6, 3), np.uint8)
    seen = found.observe({"front": image, "agent_pos": np.ones(2), "mask": image[..., 0]}, {})
    assert list(seen[0]) == ["front"]
    assert seen[1] is not None
    assert (seen[1].dtype, seen[2]) == (np.float32, "")
    assert list(found.observe(image, {"instruction": "go"})[0]) == ["image_0"]
    assert not found.success({}, False)
    assert found.success({}, True)
    assert not found.success({"is_success": False}, True)


def test_the_sample_kitchens_have_an_adapter_of_their_own() -> None:
    found = load_adapter(KITCHENS, None)
    assert found.columns is not None
    assert [column.name for column in found.columns] == ["dx", "dy", "gripper"]
    assert (found.env, found.control_rate) == ("oxcart.sim:oxcart/Kitchens-v0", 10)
    assert found.options("toysink1") == {"kitchen": "toysink1"}
    assert found.sized({"wrist": (48, 48)}) == {"size": 96}
    assert found.sized({"image_0": (64, 64), "wrist": (32, 32)}) == {"size": 64}
    assert found.sized({}) == {}


def test_the_example_adapts_gym_pusht() -> None:
    found = load_adapter("gym_pusht/PushT-v0", PUSHT)
    assert found.columns is not None
    assert [column.kind for column in found.columns] == ["absolute", "absolute"]
    assert found.sized({"top": (64, 80)}) == {"observation_height": 64, "observation_width": 80}
    image = np.zeros((96, 96, 3), np.uint8)
    images, state, instruction = found.observe({"pixels": image, "agent_pos": np.array([3.0, 4.0])}, {})
    assert (list(images), instruction) == (["top"], "push the T")
    assert state is not None
    assert state.dtype == np.float32
    assert found.success({"is_success": True}, True)


def test_the_example_plays_where_gym_pusht_is_installed() -> None:
    pytest.importorskip("gym_pusht")
    found = load_adapter("gym_pusht/PushT-v0", PUSHT)
    env = found.make(found.env, **found.sized({"top": (32, 32)}))
    images, state, _ = found.observe(*env.reset(seed=0))
    assert (images["top"].shape, len(state or ())) == ((32, 32, 3), 2)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--adapter: expected a Python file, got"):
        load_adapter("x", tmp_path / "none.py")
