"""Killed anywhere, an export either is whole or opens nowhere, and the same command makes it whole."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from depth import few
from killed import run, watch_folder
from oxcart.manifests.ownership import EXPORT, EXPORTING
from sample_compile import Compiled, Tree, cli, complaint, tree

POINTS = 12


def command(dataset: Path, out: Path) -> list[object]:
    return ["export", "lerobot", dataset, out, "--images", "--quiet", "--workers", 1]


@pytest.fixture(scope="module")
def whole(six_episodes: Compiled, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tree, int]:
    """A folder to watch from, the tree of an export that nobody disturbed, and its events."""
    folder = tmp_path_factory.mktemp("killed")
    watch, out = watch_folder(folder / "watch"), folder / "out"
    ended = run(watch, command(six_episodes.out, out), out)
    assert (ended.code, ended.err) == (0, "")
    return watch, tree(out), ended.events


@pytest.mark.parametrize("point", few(range(POINTS), 3, 10, 11))
def test_at_an_event(
    six_episodes: Compiled, whole: tuple[Path, Tree, int], tmp_path: Path, point: int
) -> None:
    watch, complete, events = whole
    out = tmp_path / "out"
    # The last points are the last events: the descriptions of the splits, the card, and what ends it.
    at = events - 3 * (POINTS - 1 - point) if point > 4 else 1 + point * (events - 24) // 4
    ended = run(watch, command(six_episodes.out, out), out, at=at)
    assert ended.code == -signal.SIGKILL
    finished = (out / EXPORT).exists() and not (out / EXPORTING).exists()
    if finished or list(out.rglob("info.json")):
        last = ("info.json", "README.md", EXPORT)
        others = {name for name in complete if not name.endswith(last)}
        assert others <= tree(out).keys(), "a split opens before all of them are written"
    if not finished and list(out.rglob("info.json")):
        assert "its export has not finished" in complaint(cli("scan", out))
    again = run(watch, command(six_episodes.out, out), out)
    assert again.code == int(finished), again.err
    assert tree(out) == complete
