"""Runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from oxcart.shards.errors import ConfigError
from oxcart.train.compare import compare_runs, draw


def run(folder: Path, config: dict[str, Any], *validations: dict[str, Any]) -> Path:
    """A run of which only configuration and metrics are left."""
    folder.mkdir(parents=True)
    text = json.dumps({"val": {"splits": ["val"]}, "train": {"steps": 9, "lr": 0.1}, **config})
    (folder / "config.yaml").write_text(text)
    lines = [
        {"kind": "train", "step": 1, "loss": 2.0},
        *({"kind": "val", "step": 10 * (i + 1), **one} for i, one in enumerate(validations)),
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_table_has_what_differs_and_the_last_validation(tmp_path: Path) -> None:
    one = run(
        tmp_path / "one",
        {"vla": {"head": "tokens", "noise": 0.1}, "run": {"dir": "one"}},
        {"val/accuracy": 0.1, "val/exact": 0.0},
        {"val/accuracy": 0.25, "val/exact": 0.125},
    )
    other = run(
        tmp_path / "other", {"vla": {"head": "head", "noise": 0.1}, "run": {"dir": "other"}}, {"val/nll": 1.5}
    )
    found = compare_runs([one, other])
    assert found.columns == ("run", "vla.head", "step", "val/accuracy", "val/exact", "val/nll")
    assert found.rows == [
        ("one", "tokens", "20", "0.250", "0.125", ""),
        ("other", "head", "10", "", "", "1.500"),
    ]
    draw(tmp_path / "compared.png", found)
    with Image.open(tmp_path / "compared.png") as figure:
        assert figure.width > 4 * 400, "loss, accuracy, exact and nll"


def test_runs_of_one_name_are_told_by_their_paths(tmp_path: Path) -> None:
    paths = [run(tmp_path / name / "vla", {}, {"val/nll": 1.0}) for name in ("a", "b")]
    assert compare_runs(paths).names == [str(path) for path in paths]


def test_what_is_no_run_or_was_never_validated_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"RUN: .*nothing has no config\.yaml, so it is not a run"):
        compare_runs([tmp_path / "nothing"])
    with pytest.raises(ConfigError, match="was never validated; train it with"):
        compare_runs([run(tmp_path / "young", {})])
