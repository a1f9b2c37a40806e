"""Options that several commands have: how their texts become values."""

from __future__ import annotations

from pathlib import Path

import pytest

from sample_compile import cli, complaint


@pytest.mark.parametrize("url", ["s3://bucket/x.png", "gs:/bucket/x.png", "https://host/x.png"])
@pytest.mark.parametrize(
    ("option", "arguments"),
    [
        ("--parquet", ["scan", "source"]),
        ("--write-rule", ["compile", "source", "out"]),
        ("--split", ["compile", "source", "out"]),
        ("--output", ["show", "dataset"]),
    ],
)
def test_a_file_on_this_machine_is_no_url(
    option: str, arguments: list[str], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = complaint(cli(*arguments, option, url))
    assert said == f"{option}: expected a path on this machine, got {url!r}"
    assert list(tmp_path.iterdir()) == []


def test_a_directory_on_this_machine_is_no_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = complaint(cli("sample", "rlds", "s3://bucket/x"))
    assert said == "DIRECTORY: expected a path on this machine, got 's3://bucket/x'"
    assert list(tmp_path.iterdir()) == []
