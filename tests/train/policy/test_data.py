"""Actions are used of the labelled episodes, which are nested, and of no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from oxcart.manifests.annotation import Annotation, write_annotation
from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError
from oxcart.train.data.reader import EpisodeReader
from oxcart.train.policy.config import policy_config
from oxcart.train.policy.data import PolicyData
from tiny_laq import weights
from tiny_policy import small, trained


def data(kitchen: Path, *overrides: str) -> PolicyData:
    return PolicyData(policy_config(small(kitchen, Path("unused"), *overrides)))


def keys_of(found: PolicyData) -> list[str]:
    return [key for stream in found.labelled.streams for key in stream.index.keys.to_pylist()]


def test_fewer_labelled_episodes_are_among_more(kitchen: Path) -> None:
    few, more, share = (keys_of(data(kitchen, f"data.actions={actions}")) for actions in ("2", "5", "0.5"))
    whole = keys_of(data(kitchen))
    assert len(few) == 2
    assert few == more[:2]
    assert more == whole[:5]
    assert share == whole[: -(-len(whole) // 2)]
    assert keys_of(data(kitchen, "data.actions=1.0")) == whole
    assert keys_of(data(kitchen, "data.actions=1000")) == whole
    assert len(keys_of(data(kitchen, "data.actions=1"))) == 1


@pytest.mark.parametrize("actions", ["0", "0.0", "-1", "1.5", "true", "some"])
def test_a_labelled_share_of_nothing_is_refused(kitchen: Path, actions: str) -> None:
    with pytest.raises(ConfigError, match=r"^data\.actions: expected a share above 0"):
        data(kitchen, f"data.actions={actions}")


def test_a_batch_has_its_share_of_labelled_rows(kitchen: Path, codes: Path) -> None:
    found = data(kitchen, f"data.codes=[{codes}]", "data.actions=2", "data.labelled_share=0.25")
    loader = found.train_loader(0, 1, 1)
    for _, batch in zip(range(6), loader, strict=False):
        assert abs(int(found.known(batch).sum()) - 2) <= 1
    alone = data(kitchen, "data.actions=2")
    batch = next(iter(alone.train_loader(0, 1, 1)))
    assert alone.known(batch).all(), "without codes the others have nothing to tell"


def poison(monkeypatch: pytest.MonkeyPatch, kept: set[str]) -> None:
    """Actions and states of all episodes but `kept` are NaN."""
    for name in ("array", "gather"):
        original = getattr(EpisodeReader, name)

        def read(self: EpisodeReader, what: str, episodes: Any, *more: Any, original: Any = original) -> Any:
            values = np.array(original(self, what, episodes, *more))
            keys = self.index.keys_at(np.atleast_1d(episodes))
            wrong = np.array([key not in kept for key in keys])
            if values.ndim == 2:
                return values if not wrong[0] else np.full_like(values, np.nan)
            values[wrong] = np.nan
            return values

        monkeypatch.setattr(EpisodeReader, name, read)


def test_training_never_reads_the_actions_of_other_episodes(
    kitchen: Path, codes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = (f"data.codes=[{codes}]", "data.actions=2", "train.steps=3")
    trained(small(kitchen, tmp_path / "plain", *more))
    kept = set(keys_of(data(kitchen, *more)))
    with monkeypatch.context() as patch:
        poison(patch, kept)
        assert torch.isnan(next(iter(data(kitchen).train_loader(0, 1, 1))).action).any(), "it is poison"
        trained(small(kitchen, tmp_path / "poisoned", *more))
    plain, poisoned = weights(tmp_path / "plain"), weights(tmp_path / "poisoned")
    assert all(torch.equal(plain[name], poisoned[name]) for name in plain)


def test_scales_are_those_of_the_labelled_episodes(kitchen: Path) -> None:
    found = data(kitchen, "data.actions=1", "policy.normalisation=min_max")
    (key,) = keys_of(found)
    episode = Dataset.open(str(kitchen))[key]
    (scale,) = found.action.scales.values()
    low, high = np.array(scale.shift) - scale.scale, np.array(scale.shift) + scale.scale
    assert low[:2] == pytest.approx(episode.action[:, :2].min(0))
    assert high[:2] == pytest.approx(episode.action[:, :2].max(0))


def test_what_a_row_is_to_predict_is_the_chunk_that_follows(kitchen: Path) -> None:
    found = data(kitchen)
    batch = next(iter(found.train_loader(0, 1, 1)))
    inputs = found.inputs(batch, found.known(batch))
    name, ends = found.spec.datasets[0], 0
    for row, key in enumerate(batch.key):
        episode, t = Dataset.open(str(kitchen))[key], int(batch.t[row])
        held = min(4, len(episode.action) - 1 - t)  # the last step of an episode holds no action
        scaled = found.action(torch.tensor(episode.action[t : t + held])[None], name)[0]
        assert torch.equal(inputs["action"][row, :held], scaled)
        assert inputs["mask"][row].tolist() == [1.0] * held + [0.0] * (4 - held)
        ends += held < 4
    assert ends, "some chunks reach beyond the end"


def test_told_actions_stand_in_for_those_that_may_not_be_used(kitchen: Path, tmp_path: Path) -> None:
    told = write_actions(kitchen, tmp_path / "actions.parquet")
    found = data(kitchen, "data.actions=2", f"data.pseudo=[{told}]")
    loader = found.train_loader(0, 1, 1)
    batches = [batch for _, batch in zip(range(4), loader, strict=False)]
    seen = [0, 0]
    for batch in batches:
        known = found.known(batch)
        inputs = found.inputs(batch, known)
        values = found.action.inverse(inputs["action"], found.spec.datasets[0])
        for row, own in enumerate(known.tolist()):
            seen[own] += 1
            mask = inputs["mask"][row] > 0
            if not own:
                steps = Dataset.open(str(kitchen))[batch.key[row]].steps
                assert mask.sum() == min(4, steps - 1 - int(batch.t[row])), "NaN is no action"
                assert (values[row, mask, 2] == 0.25).all()
                assert (inputs["state"][row] == 0).all(), "the states of others are not used"
    assert min(seen) > 8, "half of each"


def write_actions(kitchen: Path, path: Path, **changed: Any) -> Path:
    """An annotation of actions as an inverse-dynamics model tells them."""
    opened = Dataset.open(str(kitchen))
    values = {}
    for row in opened.table("episodes.parquet").to_pylist():
        values[row["key"]] = np.full((row["steps"], 3), [0, 0, 0.25], np.float32)
        values[row["key"]][-1] = np.nan
    fields = {"name": "actions", "dataset": opened.manifest.fingerprint, "columns": ["dx", "dy", "gripper"]}
    fields |= changed
    columns = {"columns": fields.pop("columns")}
    write_annotation(str(path), Annotation(producer="a" * 64, parameters=columns, values=values, **fields))
    return path


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "codes"}, r"data\.pseudo: .* holds 'codes'"),
        ({"dataset": "b" * 64}, r"data\.pseudo: .* of the dataset bbbbbbbbbbbb, expected 'actions' of "),
        ({"columns": ["dx"]}, r"data\.pseudo: .* has other columns than the actions, dx, dy, gripper"),
    ],
)
def test_told_actions_of_something_else_are_refused(
    kitchen: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    told = write_actions(kitchen, tmp_path / "actions.parquet", **changed)
    with pytest.raises(ConfigError, match=said):
        data(kitchen, f"data.pseudo=[{told}]")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data.cameras=[side]",), r"frames: .* has no camera 'side', but image_0"),
        (("policy.execute=9",), r"policy\.execute: expected at most policy\.horizon, 4, got 9"),
        (("data.codes=[nowhere.parquet]",), r"nowhere\.parquet"),
        (("data.frames=[]",), r"data\.frames: expected steps that rise, such as \[-2, 0\], got \[\]"),
        (("data.frames=[0,-1]",), r"data\.frames: expected steps that rise"),
        (("policy.backbone=codes",), r"policy\.backbone: codes sees the labels of data\.codes"),
        (("train.shard=full",), r"train\.shard: full is only for oxcart train vla"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(
    kitchen: Path, overrides: tuple[str, ...], said: str
) -> None:
    with pytest.raises(Exception, match=said) as error:
        data(kitchen, *overrides)
    assert "\n" not in str(error.value)
