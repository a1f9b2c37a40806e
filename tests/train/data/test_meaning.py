"""Sums of actions of real layouts: a pose is differenced, and a first action that is none is masked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.columns import parse_columns
from oxcart.manifests.manifest import Manifest
from oxcart.manifests.split import SplitRule
from oxcart.shards.errors import ConfigError
from oxcart.train.data import Loader, Pairs
from oxe_layouts import LAYOUTS, tfds_features, values
from rlds_builder import write_dataset
from sample_compile import compiled
from toy_rlds import FEATURES, episode

PAIRS = Pairs(frames=2, per_episode="all")


def compile_actions(
    folder: Path, name: str, actions: np.ndarray[Any, Any], **options: Any
) -> tuple[Path, Manifest]:
    """A dataset of one episode of this layout, with these actions [T, A]."""
    one = values(LAYOUTS[name], 0, steps=len(actions))
    for step, action in zip(one["steps"], actions, strict=True):
        step["action"] = action
    root = write_dataset(folder, tfds_features(LAYOUTS[name]), [one], name=name)
    source = SourceConfig(url=str(root), **options)
    return folder / "out", compiled(root, folder / "out", source=source, rule=SplitRule(val=None))


def test_the_absolute_pose_of_droid_is_differenced(tmp_path: Path) -> None:
    pose = np.array(
        [
            [0.1, 0.2, 0.3, 3.0, 0, 0.1, 0],
            [0.1, 0.3, 0.3, 3.1, 0, 0.1, 0],
            [0.4, 0.4, 0.2, -3.1, 0, 0, 1],
            [0.5, 0.4, 0.2, -3.1, 0, 0, 1],
        ]
    )
    out, manifest = compile_actions(tmp_path, "droid", pose)
    assert [one.kind for one in parse_columns(manifest.action)] == ["absolute"] * 6 + ["gripper_absolute"]
    (batch,) = Loader(str(out), sample=PAIRS, batch_size=4, repeat=False, action="sum")
    first, second = np.argsort(batch.t.numpy())
    assert not batch.action_mask[first].any(), "where the motion began is not known"
    assert batch.action_mask[second].all()
    turned = 2 * np.pi - 6.1
    assert batch.action[second].tolist() == pytest.approx([0.3, 0.2, -0.1, turned, 0, -0.1, 1], abs=1e-5)


def test_the_first_action_of_bridge_is_none_and_counts_nowhere(tmp_path: Path) -> None:
    moves = np.random.default_rng(0).uniform(0.01, 0.05, (5, 7)).astype(np.float32)
    moves[0] = [2e-10, 0, 0, 7e-7, 0, 0, 1]
    out, manifest = compile_actions(tmp_path, "bridge_dataset", moves)
    assert manifest.action is not None
    assert manifest.action["statistics"]["count"] == 4
    assert manifest.action["statistics"]["max"] == moves[1:].max(axis=0).tolist()
    loader = Loader(str(out), sample=PAIRS, batch_size=4, repeat=False, action="sum")
    (batch,) = loader
    for t, action, known in zip(
        batch.t.tolist(), batch.action.tolist(), batch.action_mask.tolist(), strict=True
    ):
        assert known == [t > 0] * 6 + [t > 1]
        closed = moves[t + 1, 6] - moves[t - 1, 6] if t > 1 else 0
        moved = moves[t : t + 2, :6].sum(axis=0) if t else [0] * 6
        assert action == pytest.approx([*moved, closed], abs=1e-6)


def test_unknown_kinds_are_never_summed_until_they_are_said(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode(i) for i in range(2)])
    compiled(root, tmp_path / "out", rule=SplitRule(val=None))
    with pytest.raises(
        ConfigError, match=r"unknown kind: action\[0\], action\[1\], action\[2\]; leave them out"
    ):
        Loader(str(tmp_path / "out"), sample=PAIRS, batch_size=4, action="sum")
    source = SourceConfig(url=str(root), action_kinds=("1=delta",))
    compiled(root, tmp_path / "said", source=source, rule=SplitRule(val=None))
    loader = Loader(
        str(tmp_path / "said"), sample=PAIRS, batch_size=4, action="sum", action_columns=["action[1]"]
    )
    assert next(iter(loader)).action.shape == (4, 1)
