"""`oxcart bench` prints what it measured, for people and for scripts, and says what is wrong in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sample_compile import Compiled, cli, complaint


@pytest.fixture(scope="module")
def dataset(whole: Compiled) -> Path:
    return whole.out


def test_read_says_how_fast_and_why(dataset: Path) -> None:
    run = cli("bench", "read", dataset, "--seconds", 1, "--batch-size", 4)
    assert run.exit_code == 0, run.output
    for word in (
        "fetch alone",
        "copy alone",
        "limit: ",
        "best codec for this machine",
        "prefetch: ",
        "an epoch is",
    ):
        assert word in run.stdout
    found = json.loads(cli("bench", "read", dataset, "--seconds", 1, "--batch-size", 4, "--json").stdout)
    assert found["codec"] == "raw"
    assert [one["codec"] for one in found["forecasts"]] == ["raw", "zstd", "jpeg"]


def test_shuffle_says_what_windows_do_and_draws_it(dataset: Path, tmp_path: Path) -> None:
    plot = tmp_path / "new" / "shuffle.png"
    run = cli("bench", "shuffle", dataset, "-o", plot, "--batch-size", 4, "--per-episode", "all")
    assert run.exit_code == 0, run.output
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert "perfect" in run.stdout
    assert f"plot: {plot}" in run.stdout
    found = json.loads(cli("bench", "shuffle", dataset, "-o", plot, "--batch-size", 4, "--json").stdout)
    assert found[-1]["lanes"] == 0


def test_what_is_wrong_is_one_line(dataset: Path, tmp_path: Path) -> None:
    assert "no manifest.json" in complaint(cli("bench", "read", tmp_path))
    assert "--per-episode" in complaint(cli("bench", "read", dataset, "--per-episode", "some"))
    assert "needs 100 steps in a row" in complaint(cli("bench", "read", dataset, "--offset", 99))
    assert "expected a name that ends in" in complaint(
        cli("bench", "shuffle", dataset, "-o", tmp_path / "x.txt")
    )
