"""`oxcart export`: what it prints, and that mistakes are one line."""

from __future__ import annotations

import json
from pathlib import Path

from sample_compile import Compiled, cli, complaint


def test_an_export_says_what_it_wrote(six_episodes: Compiled, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = json.loads(cli("export", "lerobot", six_episodes.out, out, "--images", "--json", "--quiet").stdout)
    assert told["fingerprint"] == six_episodes.manifest.fingerprint
    assert {split: one["episodes"] for split, one in told["splits"].items()} == {"train": 4, "val": 2}
    assert told == json.loads((out / "oxcart-export.json").read_bytes())
    said = cli("export", "lerobot", six_episodes.out, out, "--images", "--overwrite").stdout
    assert said.splitlines()[0] == f"{out}: 4 train, 2 val episodes as images at 10 fps"


def test_mistakes_are_one_line(six_episodes: Compiled, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "not a compiled dataset" in complaint(cli("export", "lerobot", tmp_path, out))
    assert "holds" in complaint(cli("export", "lerobot", six_episodes.out, six_episodes.source))
    report = tmp_path / "audit.json"
    report.write_text("{}")
    command = ("export", "lerobot", six_episodes.out, out, "--audit", report)
    assert complaint(cli(*command)).startswith(f"--audit {report}: expected the JSON of an audit")
    assert not out.exists()


def test_an_export_is_no_place_for_other_results(six_episodes: Compiled, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cli("export", "lerobot", six_episodes.out, out, "--images")
    for place in (out, out / "train"):
        said = complaint(cli("show", six_episodes.out, "-o", place / "strip.png"))
        assert f"is inside the source '{out}" in said
