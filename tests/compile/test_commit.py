"""What the manifest says of all episodes together: the splits, and the statistics of train."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from oxcart.compile import commit
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SplitRule
from oxcart.manifests.tables import VALUES
from oxcart.manifests.values import counted
from oxcart.manifests.verify import verify
from oxcart.shards.errors import ConfigError
from rlds_builder import write_dataset
from sample_compile import Compiled, compiled, examples, rows_of
from toy_rlds import FEATURES, episode


def test_statistics_are_of_train_alone(whole: Compiled) -> None:
    rows = rows_of(whole.out)
    for what, feature in (("action", "steps/action"), ("state", "steps/observation/state")):
        values: dict[str, list[Any]] = defaultdict(list)
        for row in rows:
            example = examples(whole.source / row["source_file"])[row["source_record"]]
            floats = example.features.feature[feature].float_list.value
            acts = slice(row["action.start"], row["action.stop"]) if what == "action" else slice(None)
            values[row["split"]].append(np.array(floats, np.float64).reshape(row["steps"], 3)[acts])
        train, everything = (np.concatenate(v) for v in (values["train"], values["train"] + values["val"]))
        entry = getattr(whole.manifest, what)
        assert (entry["source"], entry["size"]) == ([feature], 3)
        found = entry["statistics"]
        assert found["count"] == len(train)
        for name in ("mean", "std", "min", "max"):
            np.testing.assert_allclose(found[name], getattr(train, name)(axis=0), rtol=1e-12, atol=1e-15)
        assert not np.allclose(found["mean"], everything.mean(axis=0), rtol=1e-6, atol=0)
        for name, share in (("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
            expected = np.quantile(train, share, axis=0, method="inverted_cdf")
            np.testing.assert_allclose(found[name], expected, rtol=2**-10, atol=0)
        counts = counted(what, train.astype(np.float32))
        stated = Dataset.open(str(whole.out)).values()
        assert stated.filter(pc.equal(stated["array"], what)).equals(counts)


def test_what_columns_mean_is_part_of_the_fingerprint_and_not_of_the_order(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "toy", FEATURES, [episode(i) for i in range(2)])
    ways: list[dict[str, Any]] = [{}, {"action_kinds": ("delta",)}, {"state_names": ("x", "y")}]
    ways += [{"no_action": ends} for ends in (("first",), ("last",), ("last", "first"))]
    made = []
    for i, how in enumerate(ways):
        source = SourceConfig(url=str(root), **how)
        made.append(compiled(root, tmp_path / str(i), source=source, rule=SplitRule(val=None)))
        assert verify(Dataset.open(str(tmp_path / str(i)))) == []
    assert len({one.fingerprint for one in made}) == len(made)
    assert len({one.order for one in made}) == 1
    assert made[-1].no_action == ["first", "last"]
    ends = [(row["action.start"], row["action.stop"]) for row in rows_of(tmp_path / "5")]
    assert ends == [(1, 2)] * 2


def test_no_val(whole: Compiled, tmp_path: Path) -> None:
    manifest = compiled(whole.source, tmp_path / "out", rule=SplitRule(val=None))
    assert list(manifest.splits) == ["train"]
    assert manifest.state is not None
    assert manifest.state["statistics"]["count"] == manifest.splits["train"]["steps"]


def test_no_train(whole: Compiled, tmp_path: Path) -> None:
    """A dataset to evaluate on: nothing to take statistics of."""
    names = tuple(sorted({row["environment"] for row in rows_of(whole.out)}))
    manifest = compiled(whole.source, tmp_path / "out", rule=SplitRule(val=names))
    assert list(manifest.splits) == ["val"]
    assert manifest.action is not None
    assert manifest.action["statistics"] is None
    assert rows_of(tmp_path / "out", VALUES) == []
    assert verify(Dataset.open(str(tmp_path / "out"))) == []


def test_a_table_that_could_not_be_read_again_is_not_committed(
    whole: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "FILE_BYTES", 1000)
    with pytest.raises(ConfigError, match=r"episodes\.parquet would have [\d,]+ bytes for 20 episodes"):
        compiled(whole.source, tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()
