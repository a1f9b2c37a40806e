"""`oxcart sample rlds`: its defaults are the writer's, and its output says what to type next."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from oxcart.cli.main import oxcart
from oxcart.cli.sample import rlds
from oxcart.compile.sample import rlds as writer

SMALL = ["--kitchens=3", "--sessions=1", "--episodes=2", "--steps=4", "--size=32", "--files=2"]


def test_the_defaults_are_those_of_the_writer() -> None:
    config = writer.RldsSampleConfig()
    defaults = {parameter.name: parameter.default for parameter in rlds.params}
    assert {name: defaults[name] for name in vars(config)} == vars(config)


def test_it_writes_a_source_and_says_where_and_what_to_type_next(tmp_path: Path) -> None:
    run = CliRunner().invoke(oxcart, ["sample", "rlds", str(tmp_path), *SMALL, "--quiet"])
    where = tmp_path / "oxcart_kitchens" / "1.0.0"
    assert run.exit_code == 0, run.output
    assert run.stdout.splitlines() == [
        f"wrote 6 episodes of 3 kitchens to {where}",
        f"next: oxcart compile {where} OUT --val-fraction 0.2",
    ]
    assert run.stderr == ""
    assert (where / "features.json").is_file()


def test_progress_counts_every_episode_on_stderr(tmp_path: Path) -> None:
    run = CliRunner().invoke(oxcart, ["sample", "rlds", str(tmp_path), *SMALL, "--duplicates", "1"])
    assert "wrote 7 episodes" in run.stdout
    assert run.stderr.splitlines()[-1].startswith("writing: 7/7 episodes")


def test_an_impossible_value_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    run = CliRunner().invoke(oxcart, ["sample", "rlds", str(tmp_path / "new"), *SMALL, "--kitchens=0"])
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.startswith("oxcart: error: kitchens: expected ")
    assert len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "new").exists()
