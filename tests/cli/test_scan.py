"""`oxcart scan` as typed: what a source holds, for people, for scripts, and for `compile --census`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import Result

from audited import set_path
from oxcart.manifests.alike import BESIDE, SPELLING
from sample_compile import cli, complaint, edited, examples


class TestScan:
    """What a source holds, for people, for scripts, and for `compile --census`."""

    def test_text(self, source: Path) -> None:
        result = cli("scan", source, "--workers", 1)
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        steps = json.loads(cli("scan", source, "--json", "--quiet", "--workers", 1).stdout)["steps"]
        assert lines[0] == (f"oxcart_kitchens 1.0.0 (rlds): 10 episodes (0 repeat another), {steps} steps")
        assert lines[2].split() == ["environment", "known", "sessions", "episodes", "steps"]
        places = [line.split() for line in lines[4:9]]
        assert [place[1:4] for place in places] == [["declared", "1", "2"]] * 5
        assert [place[0] for place in places] == sorted(place[0] for place in places)
        assert sum(int(place[4]) for place in places) == steps
        assert any(line.split() == ["image_0", "steps/observation/image_0", "32x32"] for line in lines)
        arrays = ["action: steps/action", "state: steps/observation/state", "reward: steps/reward"]
        assert lines[-5::2] == arrays
        assert result.stderr.startswith("scanning: 10/10 episodes")

    def test_json(self, source: Path) -> None:
        result = cli("scan", source, "--json", "--quiet", "--workers", 1, "--camera", "wrist")
        assert (result.exit_code, result.stderr) == (0, "")
        found = json.loads(result.stdout)
        assert (found["episodes"], found["duplicates"], found["rejected"]) == (10, 0, [])
        assert found["steps"] == sum(place["steps"] for place in found["environments"])
        assert [place["episodes"] for place in found["environments"]] == [2] * 5
        assert found["cameras"] == [
            {"name": "wrist", "source": "steps/observation/wrist", "sizes": ["16x16"]}
        ]
        assert sum(found["instructions"].values()) == 10
        assert found["source"]["name"] == "oxcart_kitchens"

    def test_parquet(self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        result = cli("scan", source, "--parquet", "census.parquet", "--quiet", "--workers", 1)
        assert (result.exit_code, result.output) == (0, "")
        assert [path.name for path in tmp_path.iterdir()] == ["census.parquet"]
        assert pq.read_table("census.parquet").num_rows == 10
        options = ("--census", "census.parquet", "--val-fraction", 0.2, "--quiet", "--workers", 1)
        assert cli("compile", source, "out", *options).exit_code == 0

    def test_parquet_where_none_can_be(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        said = complaint(cli("scan", source, "--parquet", tmp_path / "file/c", "--quiet", "--workers", 1))
        assert said == f"--parquet: '{tmp_path}/file/c' cannot be written, '{tmp_path}/file' is no folder"

    def test_a_census_that_is_none(self, compile_: Callable[..., Result], tmp_path: Path) -> None:
        for name, text in (("missing", None), ("text", "text")):
            if text is not None:
                (tmp_path / name).write_text(text)
            assert complaint(compile_("--census", tmp_path / name)).startswith(f"{tmp_path}/{name}: ")

    def test_quiet(self, source: Path) -> None:
        result = cli("scan", source, "--quiet", "--workers", 1)
        assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize(
    ("change", "differ"),
    [(str.upper, SPELLING), ("{}_room8052".format, BESIDE), ("Franka {}".format, BESIDE)],
    ids=["upper", "room", "robot"],
)
def test_alike_environments_are_said_with_a_rule_that_joins_them(
    source: Path, tmp_path: Path, change: Callable[[str], str], differ: str
) -> None:
    places = json.loads(cli("scan", source, "--json", "--quiet", "--workers", 1).stdout)["environments"]
    one, other = places[0]["name"], places[1]["name"]
    everywhere = [(file.name, i) for file in source.glob("*.tfrecord*") for i, _ in enumerate(examples(file))]
    rename = set_path(lambda path: path.replace(other, change(one)))
    made = edited(source, tmp_path / "source", rename, *everywhere)
    compile_ = ("compile", made, tmp_path / "out", "--dry-run")
    said = set()
    for line in (("scan", made), compile_):
        result = cli(*line, "--quiet", "--workers", 1)
        assert result.exit_code == 0
        (warning,) = [line for line in result.stderr.splitlines() if "aliases" in line]
        said.add(warning)
    (warning,) = said
    assert f"because their names differ only in {differ}; " in warning
    (tmp_path / "rule.yaml").write_text(warning[warning.index("aliases: ") :])
    joined = cli(*compile_, "--split", tmp_path / "rule.yaml", "--quiet", "--workers", 1)
    assert joined.exit_code == 0
    assert "aliases" not in joined.stderr
