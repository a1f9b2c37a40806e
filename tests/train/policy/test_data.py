"""Actions are used of the labelled episodes, which are nested, and of no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data.cameras=[side]",), r"frames: .* has no camera 'side', but image_0"),
        (("policy.execute=9",), r"policy\.execute: expected at most policy\.horizon, 4, got 9"),
        (("data.codes=[nowhere.parquet]",), r"nowhere\.parquet"),
        (("train.shard=full",), r"train\.shard: full is only for oxcart train vla"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(
    kitchen: Path, overrides: tuple[str, ...], said: str
) -> None:
    with pytest.raises(Exception, match=said) as error:
        data(kitchen, *overrides)
    assert "\n" not in str(error.value)
