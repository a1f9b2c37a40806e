"""What a run leaves beside its weights."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from oxcart.shards.errors import ConfigError
from oxcart.train import run_directory
from oxcart.train.config import saved_config, to_yaml
from oxcart.train.laq.config import laq_config


def test_a_run_gives_its_configuration_back(tmp_path: Path) -> None:
    assert saved_config(tmp_path) is None
    config = laq_config(["preset=tiny"])
    run_directory.write_run(tmp_path, to_yaml(config), {"git_commit": None})
    saved = saved_config(tmp_path)
    assert saved is not None
    assert laq_config([], saved) == config
    assert json.loads((tmp_path / "run.json").read_text()) == {"git_commit": None}


def test_what_shaped_earlier_starts_of_a_run_is_kept(tmp_path: Path) -> None:
    for commit in "abc":
        run_directory.write_run(tmp_path, "", {"git_commit": commit})
    found = json.loads((tmp_path / "run.json").read_text())
    assert found == {"git_commit": "c", "before": [{"git_commit": "a"}, {"git_commit": "b"}]}


def test_a_folder_with_metrics_is_no_place_to_begin(tmp_path: Path) -> None:
    run_directory.check_free(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"run\.dir: .* holds a run"):
        run_directory.check_free(tmp_path)


def test_a_configuration_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    for text in ("[1, 2", "- 1\n- 2\n"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"config\.yaml: "):
            saved_config(tmp_path)


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*given: Any, **more: Any) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert run_directory.git_commit() is None
