"""Datasets for the tests of the audit, and how to look at what it found.

found = audited(clean.out)
assert status(found, "near") == "passed"
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oxcart.compile.sample.rlds import RldsSampleConfig
from oxcart.manifests.audit.audit import Audit, AuditOptions, audit
from oxcart.manifests.audit.result import Check
from sample_compile import FIRST, SECOND

SAMPLE = RldsSampleConfig(kitchens=6, sessions=2, episodes=2, steps=6, size=48, files=2)
"""24 episodes of six kitchens: a kitchen held out is 4 episodes, against a null of 20."""


def audited(*outs: Path, **options: Any) -> Audit:
    """An audit with few frames, which is quick."""
    return audit([str(out) for out in outs], AuditOptions(**{"frames": 4, **options}))


def check(found: Audit, name: str) -> Check:
    """One of its checks."""
    (one,) = (check for check in found.checks if check.name == name)
    return one


def status(found: Audit, name: str) -> str:
    """What one of its checks came to."""
    return check(found, name).status


def set_path(change: Callable[[str], str]) -> Callable[[Any], None]:
    """For `sample_compile.edited`: change the path of the raw recording, which names the environment."""

    def edit(feature: Any) -> None:
        value = feature["episode_metadata/file_path"].bytes_list.value
        value[:] = [change(value[0].decode()).encode()]

    return edit


def everywhere(source: Path) -> list[tuple[str, int]]:
    """File and number of every record of a source of two train files: for `sample_compile.edited`."""
    info = json.loads((source / "dataset_info.json").read_text())
    sizes = {split["name"]: [int(n) for n in split["shardLengths"]] for split in info["splits"]}
    files = (FIRST, SECOND, "oxcart_kitchens-val.tfrecord-00000-of-00001")
    numbers = (*sizes["train"], *sizes["val"])
    return [(name, i) for name, number in zip(files, numbers, strict=True) for i in range(number)]
