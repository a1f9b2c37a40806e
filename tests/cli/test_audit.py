"""`audit`, `diff` and `repair-split` as commands: exit codes, files, one-line errors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import click
import pytest
from click.testing import CliRunner, Result

from oxcart.cli.audit import _exit_code
from oxcart.cli.main import oxcart
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.manifests.audit.audit import Audit
from oxcart.manifests.audit.result import Criterion
from oxcart.manifests.audit.verdict import Verdict
from oxcart.manifests.split import SplitRule, read_rule
from sample_compile import cli, compiled, complaint, rows_of

QUICK = ("--frames", "3", "--quiet")


@pytest.fixture(scope="module")
def kitchens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sample = RldsSampleConfig(kitchens=6, sessions=1, episodes=3, steps=4, size=32, files=2)
    return write_rlds(tmp_path_factory.mktemp("kitchens"), sample)


@pytest.fixture(scope="module")
def clean(kitchens: Path) -> Path:
    compiled(kitchens, kitchens.parent / "clean", rule=SplitRule(val=0.2))
    return kitchens.parent / "clean"


@pytest.fixture(scope="module")
def leaky(kitchens: Path) -> Path:
    compiled(kitchens, kitchens.parent / "leaky", rule=SplitRule(by="episode", val=0.2))
    return kitchens.parent / "leaky"


def test_exit_0_if_clean_and_both_reports(clean: Path, tmp_path: Path) -> None:
    page, data = tmp_path / "new" / "audit.html", tmp_path / "new" / "audit.json"
    result = cli("audit", clean, "-o", page, "--json", data, "--frames", 3, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("verdict: clean\n")
    assert "mirrored" in result.stdout
    assert result.stdout.endswith(f"report: {page}\n")
    assert "decoding: " in result.stderr
    assert "planting leaks: " in result.stderr
    said = json.loads(data.read_text())
    assert said["verdict"]["word"] == "clean"
    assert said["command"].startswith(f"oxcart audit {clean} --frames 3 --seed 0")
    assert page.read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["audit.html", "audit.json"]


def test_exit_1_on_a_leak_unless_told_otherwise(leaky: Path) -> None:
    assert cli("audit", leaky, *QUICK).exit_code == 1
    assert cli("audit", leaky, *QUICK, "--fail-on", "leak").exit_code == 1
    result = cli("audit", leaky, *QUICK, "--fail-on", "never")
    assert (result.exit_code, result.output) == (0, "")


def test_exit_2_where_it_could_not_be_checked(kitchens: Path, tmp_path: Path) -> None:
    compiled(kitchens, tmp_path / "out", rule=SplitRule(val=None))
    result = cli("audit", tmp_path / "out", "--frames", 3)
    assert result.exit_code == 2
    assert result.stdout.startswith("verdict: not checked\n")
    assert cli("audit", tmp_path / "out", *QUICK, "--fail-on", "never").exit_code == 0


@pytest.mark.parametrize("unread", ["stdout", "stderr"])
@pytest.mark.system
def test_exit_2_where_the_reader_has_gone(unread: str, clean: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, unread: writer}
    run = subprocess.run(
        [sys.executable, "-m", "oxcart.cli.main", "audit", clean, "--frames", "2"], **streams
    )
    os.close(writer)
    assert run.returncode == 2
    assert b"Traceback" not in (run.stderr or b"")


@pytest.mark.parametrize(("columns", "width"), [(200, 120), (80, 80), (20, 60)])
def test_text_wraps_to_the_terminal_and_nothing_is_cut(
    columns: int, width: int, leaky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = cli("audit", leaky, "--frames", 2, "--json", tmp_path / "audit.json").stdout.splitlines()
    assert width - 20 < max(len(line) for line in lines if len(line.split()) > 1) <= width
    said = json.loads((tmp_path / "audit.json").read_text())
    head = next(i for i, line in enumerate(lines) if line.startswith("status "))
    found = lines[head].index("found")
    shown = "".join(line[found:] for line in lines[head + 2 :])
    for check in said["checks"]:
        assert "".join(check["summary"].split()) in "".join(shown.split()), check["name"]
    sentences = lines[1 : head - 1]
    assert sum(not line.startswith("    ") for line in sentences) == len(said["verdict"]["because"])
    assert "".join("".join(sentences).split()) == "".join("".join(said["verdict"]["because"]).split())


@pytest.mark.system
def test_colours_are_for_terminals_that_want_them(leaky: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(color: bool) -> str:
        arguments = ["audit", str(leaky), "--frames", "2", "--fail-on", "never"]
        return CliRunner().invoke(oxcart, arguments, color=color).stdout

    monkeypatch.delenv("NO_COLOR", raising=False)
    on_a_terminal, piped = said(color=True), said(color=False)
    assert on_a_terminal.startswith("verdict: \x1b[31mleak\x1b[0m\n")
    for look in ("\x1b[31mfailed ", "\x1b[2mnot checked", "\x1b[32mpassed "):
        assert look in on_a_terminal
    assert click.unstyle(on_a_terminal) == piped
    assert "\x1b" not in piped
    monkeypatch.setenv("NO_COLOR", "1")
    assert said(color=True) == piped


def test_a_check_that_failed_fails_a_clean_audit(clean: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(clean, tmp_path / "copy"))
    said = json.loads((root / "manifest.json").read_text())
    said["action"]["statistics"]["mean"][0] += 0.01
    (root / "manifest.json").write_text(json.dumps(said))
    assert cli("audit", root, *QUICK).exit_code == 1
    assert cli("audit", root, *QUICK, "--fail-on", "leak").exit_code == 0


def test_a_report_is_the_same_twice(clean: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        cli("audit", clean, "-o", tmp_path / f"{name}.html", "--json", tmp_path / f"{name}.json", *QUICK)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_errors_are_one_line_and_exit_2(clean: Path, tmp_path: Path) -> None:
    said = complaint(cli("audit", tmp_path / "none"), code=2)
    assert "none: no manifest.json, so not a compiled dataset" in said
    assert said.count("\n") == 0
    assert "--output: expected a path on this machine" in complaint(
        cli("audit", clean, "-o", "s3://bucket/audit.html"), code=2
    )
    (tmp_path / "file").write_text("")
    assert complaint(cli("audit", clean, "-o", tmp_path / "file" / "audit.html", *QUICK), code=2)
    root = Path(shutil.copytree(clean, tmp_path / "copy"))
    row = rows_of(root)[0]
    shard = root / f"shards/{row['shard']}.tar"
    data = bytearray(shard.read_bytes())
    data[row["image_0.offset"]] ^= 1
    shard.write_bytes(data)
    said = complaint(cli("audit", root, *QUICK), code=2)
    assert f"{row['shard']}: {row['key']}, camera image_0, chunk 0 does not match its digest" in said


def test_slips_of_the_command_line(clean: Path) -> None:
    for slip in (["--sample", "0"], ["--frames", "1"], ["--fail-on", "sometimes"], ["--nonsense"]):
        assert cli("audit", clean, *slip).exit_code == 2
    assert cli("audit").exit_code == 2


@pytest.mark.system
def test_repair_and_recompile(kitchens: Path, leaky: Path, tmp_path: Path) -> None:
    report, rule = tmp_path / "audit.json", tmp_path / "rule.yaml"
    cli("audit", leaky, "--json", report, *QUICK)
    result = cli("repair-split", leaky, "--report", report, "-o", rule)
    assert result.exit_code == 0, result.output
    assert "confirmed pairs share a split; by environment" in result.stdout
    assert read_rule(rule).by == "environment"
    assert cli("compile", kitchens, tmp_path / "out", "--split", rule, "--quiet").exit_code == 0
    assert cli("audit", tmp_path / "out", *QUICK).exit_code == 0
    assert "is not an audit of" in complaint(
        cli("repair-split", tmp_path / "out", "--report", report, "-o", rule)
    )


def test_diff_of_datasets(clean: Path, leaky: Path) -> None:
    result = cli("diff", clean, leaky)
    assert result.exit_code == 0
    assert "environments: " in result.stdout
    assert "episodes: " in result.stdout
    assert "config.split.by" in result.stdout
    assert cli("diff", clean, leaky, "--exit-code").exit_code == 1
    same = cli("diff", clean, clean, "--exit-code")
    assert (same.exit_code, same.stdout.startswith("identical: fingerprint ")) == (0, True)
    said = json.loads(cli("diff", clean, leaky, "--json").stdout)
    assert said["identical"] is False
    assert {change["what"] for change in said["changes"]} == {"environment", "episode"}


def test_diff_of_rules(tmp_path: Path) -> None:
    for name, val in (("a", "[one]"), ("b", "[two]")):
        (tmp_path / f"{name}.yaml").write_text(f"val: {val}\n")
    result = cli("diff", tmp_path / "a.yaml", tmp_path / "b.yaml")
    assert "names: 0 moved, 1 appeared, 1 vanished" in result.stdout
    assert cli("diff", tmp_path / "a.yaml", tmp_path / "a.yaml").stdout == "identical\n"
    assert "compare like with like" in complaint(cli("diff", tmp_path / "a.yaml", tmp_path))


EXITS = """
verdict      checks                  leak failed suspicious never
clean        passed                  0    0      0          0
clean        passed,suspicious       0    0      3          0
clean        failed                  0    1      1          0
clean        failed,suspicious       0    1      1          0
suspicious   suspicious              0    3      3          0
suspicious   suspicious,failed       0    1      1          0
suspicious!  suspicious,not_checked  2    3      3          0
leak         failed,suspicious       1    1      1          0
not_checked  not_checked             2    2      2          0
not_checked  not_checked,suspicious  2    2      2          0
not_checked  not_checked,failed      2    2      2          0
"""
FAIL_ON, *ROWS = (line.split() for line in EXITS.strip().splitlines())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}: {row[1]}")
def test_the_exit_code_of_every_verdict(row: list[str]) -> None:
    word, statuses, *codes = row
    criterion = Criterion("any", "")
    checks = [criterion._check(status.replace("_", " "), "", ()) for status in statuses.split(",")]
    verdict = Verdict(word=word.replace("_", " ").partition("!")[0], because=(), complete="!" not in word)
    found = cast("Audit", SimpleNamespace(checks=checks, verdict=verdict))
    for fail_on, code in zip(FAIL_ON[2:], codes, strict=True):
        assert _exit_code(found, fail_on) == int(code), fail_on


@pytest.mark.system
def test_exit_3_where_a_kitchen_is_in_train_under_another_name(tmp_path: Path) -> None:
    sample = RldsSampleConfig(kitchens=5, sessions=2, episodes=2, steps=6, size=48, files=2)
    source = write_rlds(tmp_path / "source", sample)
    where = "episode_metadata/file_path~bridge_data_v2/([^/]+/[^/]+/[^/]+)/"
    sessions = environments(cli("scan", source, "--json", "--environment", where))
    kitchen = "toykitchen2"
    twin, under_two_names = (name for name in sessions if name.startswith(f"{kitchen}/"))
    others = {name.split("/")[0] for name in sessions} - {kitchen}
    aliases = {
        f"{other}/all": [name for name in sessions if name.startswith(f"{other}/")]
        for other in sorted(others)
    }
    rule = tmp_path / "rule.yaml"
    rule.write_text(json.dumps({"val": [twin], "aliases": aliases}))
    options = ("--split", rule, "--environment", where, "--quiet")
    assert cli("compile", source, tmp_path / "out", *options).exit_code == 0
    result = cli("audit", tmp_path / "out", "--frames", 4)
    assert result.exit_code == 3, result.output
    assert result.stdout.startswith("verdict: suspicious\n")
    assert f"{twin} looks like {under_two_names}" in " ".join(result.stdout.split())
    assert cli("audit", tmp_path / "out", *QUICK, "--fail-on", "leak").exit_code == 0
    assert cli("audit", tmp_path / "out", *QUICK, "--fail-on", "suspicious").exit_code == 3


def environments(result: Result) -> list[str]:
    return [place["name"] for place in json.loads(result.stdout)["environments"]]


def test_outputs_are_checked_before_the_work(clean: Path, tmp_path: Path) -> None:
    none = tmp_path / "none"
    page = tmp_path / "audit"
    said = complaint(cli("audit", none, "-o", page, "--json", f"{tmp_path}/./audit"), code=2)
    assert said == (
        f"--output: '{page}' is --json ('{tmp_path}/./audit') of the same command; choose another path"
    )
    (tmp_path / "file").write_text("")
    for option in ("--output", "--json"):
        said = complaint(cli("audit", none, option, tmp_path / "file" / "new" / "audit"), code=2)
        assert said.startswith(f"{option}: ")
        assert "is no folder" in said
    assert "is the same as" in complaint(cli("audit", clean, f"{clean}/"), code=2)


def test_what_nobody_expected_is_one_line_and_exit_2(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from oxcart.manifests.audit import audit as run

    def broken(*args: object, **options: object) -> None:
        raise ZeroDivisionError("by\x1b[31m\u2028nothing")

    monkeypatch.setattr(run, "audit", broken)
    result = cli("audit", clean)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "oxcart: error: ZeroDivisionError: by [31m nothing (a bug of oxcart: OXCART_DEBUG=1 shows where)\n"
    )
    monkeypatch.setenv("OXCART_DEBUG", "1")
    result = cli("audit", clean)
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


def test_names_do_not_reach_the_terminal_raw(clean: Path, tmp_path: Path) -> None:
    page = tmp_path / "a\x1b[31m\u2028.html"
    result = cli("audit", clean, "-o", page, "--frames", 3)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout
    assert "\u2028" not in result.stdout
    assert page.exists()
    for name, val in (("a", "one"), ("b", "two\u2028\u009b31m")):
        (tmp_path / f"{name}.yaml").write_text(f'val: ["{val}"]\n')
    for option in ((), ("--json",)):
        said = cli("diff", tmp_path / "a.yaml", tmp_path / "b.yaml", *option).output
        assert "\u2028" not in said
        assert "\u009b" not in said


def test_repair_without_a_pair_says_so_and_keeps_the_rule(clean: Path, tmp_path: Path) -> None:
    report, rule = tmp_path / "audit.json", tmp_path / "rule.yaml"
    cli("audit", clean, "--json", report, *QUICK)
    assert "workers" not in json.loads(report.read_text())["options"]
    result = cli("repair-split", clean, "--report", report, "-o", rule)
    assert "no pair is confirmed, so the rule stays as it was" in result.stdout
    assert "next:" not in result.stdout, "the same rule compiles the same split"
    assert read_rule(rule) == SplitRule(val=0.2)
