"""Shards match the manifest, and statistics are those of train: forged ones are found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audited import audited, check, status
from oxcart.manifests.audit.audit import Audit


def test_an_honest_dataset_passes(clean_audit: Audit) -> None:
    assert status(clean_audit, "shards") == status(clean_audit, "statistics") == "passed"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda s: s["mean"].__setitem__(0, s["mean"][0] + 0.01), "action mean[0]"),
        (lambda s: s["std"].__setitem__(1, s["std"][1] * 1.01), "action std[1]"),
        (lambda s: s["max"].__setitem__(2, 7.0), "action max[2]"),
        (lambda s: s["q10"].__setitem__(0, s["q50"][0]), "action q10[0]"),
        (lambda s: s.__setitem__("count", s["count"] + 24), "action count"),
    ],
)
def test_statistics_of_other_episodes_are_found(
    clean: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], what: str
) -> None:
    root = Path(shutil.copytree(clean, tmp_path / "copy"))
    said = json.loads((root / "manifest.json").read_text())
    change(said["action"]["statistics"])
    (root / "manifest.json").write_text(json.dumps(said))
    found = audited(root)
    assert check(found, "statistics").status == "failed"
    assert what in check(found, "statistics").summary
