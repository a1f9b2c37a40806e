"""Rollouts side by side: pairs are by start, whatever the order and the number of episodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.train.rollout.compare import compare_rollouts
from oxcart.train.rollout.rates import difference_of
from sample_compile import cli

KITCHENS = [f"kitchen{i}" for i in range(6)]


def written(path: Path, success: Any, *, seed: int = 0, reverse: bool = False, **about: Any) -> Path:
    """The JSON of a rollout of six kitchens, as far as `compare` reads it; kitchen 5 is seen."""
    episodes = [
        {
            "environment": KITCHENS[i % 6],
            "place": "seen" if i % 6 == 5 else "held out",
            "number": i // 6,
            "seed": 1000 * seed + i,
            "success": bool(won),
        }
        for i, won in enumerate(success)
    ]
    plain = {"run": f"runs/{path.stem}", "env": "kitchens", "options": {"size": 96}, "adapter": None, **about}
    episodes = episodes[::-1] if reverse else episodes
    path.write_text(json.dumps({"format": "oxcart-rollout/1", "about": plain, "episodes": episodes}))
    return path


def test_episodes_are_paired_by_their_starts(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    a, b = generator.random(60) < 0.4, generator.random(60) < 0.8
    paths = [written(tmp_path / "a.json", a), written(tmp_path / "b.json", b, reverse=True)]
    found = {(one.place, one.name): one for one in compare_rollouts(paths)}
    held = np.arange(60) % 6 != 5
    expected = difference_of(b[held], a[held], [KITCHENS[i % 6] for i in np.flatnonzero(held)])
    mine = found["held out", "b"]
    assert mine.difference is not None
    assert mine.difference == expected
    assert mine.difference.over == "environments"
    assert mine.rate.value == b[held].mean()
    assert found["held out", "a"].difference is None
    seen = found["seen", "b"].difference
    assert seen is not None
    assert (seen.episodes, seen.over) == (10, "episodes")


def test_only_starts_that_both_have_are_compared(tmp_path: Path) -> None:
    paths = [written(tmp_path / "a.json", [True] * 60), written(tmp_path / "b.json", [False] * 12)]
    held = next(one for one in compare_rollouts(paths) if one.name == "b" and one.place == "held out")
    assert held.difference is not None
    assert (held.difference.episodes, held.difference.value) == (10, -1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "b.json and .*a.json share no start; play both with one --seed and --split"),
        (
            {"env": "x/Y-v0"},
            "played in another world than .*a.json: env is 'x/Y-v0', not 'kitchens'",
        ),
        ({"options": {"size": 64}}, "options is {'size': 64}, not {'size': 96}"),
    ],
)
def test_rollouts_of_other_starts_or_worlds_are_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    paths = [written(tmp_path / "a.json", [True] * 6), written(tmp_path / "b.json", [True] * 6, **change)]
    with pytest.raises(ConfigError, match=said):
        compare_rollouts(paths)


def test_files_that_are_no_rollouts_are_refused(tmp_path: Path) -> None:
    good = written(tmp_path / "a.json", [True] * 6)
    (tmp_path / "b.json").write_text('{"format": "oxcart-audit/2"}')
    with pytest.raises(ConfigError, match=r"b\.json is not the JSON of a rollout; write one with"):
        compare_rollouts([good, tmp_path / "b.json"])
    (tmp_path / "b.json").write_text('{"format": "oxcart-rollout/1", "about": {}}')
    with pytest.raises(CorruptError, match=r"b\.json is damaged"):
        compare_rollouts([good, tmp_path / "b.json"])


def test_the_command_takes_files_of_rollouts_as_it_takes_runs(tmp_path: Path) -> None:
    paths = [written(tmp_path / "a.json", [False] * 30), written(tmp_path / "b.json", [True] * 30)]
    result = cli("compare", *paths)
    assert result.exit_code == 0, result.output
    assert "+100.0%" in result.stdout
    assert "25 : 0" in result.stdout
    assert "Wilson intervals, over environments where there are 5" in result.stdout
