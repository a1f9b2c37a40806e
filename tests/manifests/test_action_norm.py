"""The action annotation: what each kind of column changes, the same for any number of workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.action_norm import measure_actions, norms
from oxcart.manifests.annotation import ACTION, beside, read_annotation
from oxcart.manifests.columns import Column
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SplitRule
from oxcart.shards.errors import ConfigError
from rlds_builder import write_dataset
from sample_compile import Compiled, cli, compiled, complaint, rows_of, tree
from toy_rlds import FEATURES, episode

COLUMNS = (
    Column(name="dx", kind="delta"),
    Column(name="yaw", kind="absolute", unit="rad"),
    Column(name="gripper", kind="gripper_absolute"),
)


def row(start: int, stop: int) -> dict[str, int]:
    return {"action.start": start, "action.stop": stop}


def test_each_kind_counts_by_what_it_changes() -> None:
    """The gripper closes at step 2; the angle goes the short way through pi at step 3."""
    values = np.array([[3, 3.1, 1], [0, 3.1, 1], [0, 3.1, 0], [4, -3.1, 0]], np.float32)
    turned = 2 * np.pi - 6.2
    assert norms(values, COLUMNS, row(0, 4)).tolist() == pytest.approx([3, 0, 1, np.hypot(4, turned)])
    assert norms(values[:, :1], COLUMNS[:1], row(0, 4)).tolist() == [3, 0, 0, 4]


def test_steps_without_an_action_have_the_value_of_the_nearest() -> None:
    values = np.array([[9], [3], [4], [9]], np.float32)
    assert norms(values, COLUMNS[:1], row(1, 3)).tolist() == [3, 3, 4, 4]
    assert norms(values, COLUMNS[:1], row(2, 2)).tolist() == [0, 0, 0, 0]


def test_every_episode_has_the_norm_of_its_action(whole: Compiled) -> None:
    dataset = Dataset.open(str(whole.out))
    found = measure_actions(dataset, workers=3)
    assert found.parameters == {"columns": ["dx", "dy", "gripper"]}
    alone = measure_actions(dataset, leave_out=["gripper"])
    assert alone.producer != found.producer
    for one in rows_of(whole.out):
        assert len(found.values[one["key"]]) == one["steps"]
        assert (found.values[one["key"]] >= alone.values[one["key"]]).all()
    assert {key: value.tolist() for key, value in measure_actions(dataset).values.items()} == {
        key: value.tolist() for key, value in found.values.items()
    }


def test_the_command_writes_beside_the_dataset(whole: Compiled, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    out.symlink_to(whole.out)
    run = cli("annotate", "action", out, "--leave-out", "gripper", "--workers", 1)
    assert run.exit_code == 0, run.output
    assert tree(whole.out) == whole.tree
    found = read_annotation(beside(str(out), ACTION))
    assert (found.name, found.parameters) == (ACTION, {"columns": ["dx", "dy"]})
    assert complaint(cli("annotate", "action", out, "--leave-out", "griper")) == (
        f"--leave-out: {out} has no column 'griper', but dx, dy, gripper; did you mean gripper?"
    )


def test_actions_that_are_unknown_or_missing_are_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode(0), episode(1)])
    for name, action in (("some", None), ("none", ())):
        source = SourceConfig(url=str(root), cameras=("image",), action=action)
        compiled(root, tmp_path / name, source=source, rule=SplitRule(val=None))
    with pytest.raises(ConfigError, match=r"columns of unknown kind: .* name them with --leave-out"):
        measure_actions(Dataset.open(str(tmp_path / "some")))
    with pytest.raises(ConfigError, match="has no actions; measure its motion instead"):
        measure_actions(Dataset.open(str(tmp_path / "none")))
