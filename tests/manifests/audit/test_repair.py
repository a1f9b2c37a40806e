"""repair-split, recompile, audit: clean. And what no rule can mend is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audited import audited
from oxcart.manifests.audit.repair import read_report, repair
from oxcart.manifests.audit.report import report_json
from oxcart.manifests.audit.run import Audit
from oxcart.manifests.split import SplitRule, read_rule, write_rule
from oxcart.shards.errors import ConfigError
from sample_compile import compiled, rows_of


def as_json(found: Audit) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(report_json(found))
    return value


def test_repair_recompile_audit_is_clean(
    kitchens: Path, leaky: Path, leaky_audit: Audit, tmp_path: Path
) -> None:
    rule, pairs = repair(str(leaky), as_json(leaky_audit))
    assert pairs == leaky_audit.confirmed > 0
    (tmp_path / "rule.yaml").write_text(write_rule(rule))
    compiled(kitchens, tmp_path / "out", rule=read_rule(tmp_path / "rule.yaml"))
    split_of = {row["key"]: row["split"] for row in rows_of(tmp_path / "out")}
    limit = leaky_audit.threshold
    assert limit is not None
    for pair in leaky_audit.pairs:
        if pair["score"] > limit.value:
            assert split_of[pair["held_episode"]] == split_of[pair["train_episode"]]
    again = audited(tmp_path / "out")
    assert again.verdict.word == "clean", again.verdict
    assert again.scores


def test_two_kitchens_that_are_one_become_one_group(clean: Path, clean_audit: Audit) -> None:
    report = as_json(clean_audit)
    held = {row["environment"] for row in rows_of(clean) if row["split"] == "val"}
    pair = next(pair for pair in report["pairs"] if pair["rank"] == 0)
    report["threshold"]["value"], report["confirmed"] = pair["score"] - 1e-6, 1
    rule, pairs = repair(str(clean), report)
    assert (pairs, rule.by) == (1, "environment")
    joined = {pair["held_environment"], pair["train_environment"]}
    assert {*rule.aliases, *(name for others in rule.aliases.values() for name in others)} == joined
    assert isinstance(rule.val, tuple)
    assert rule.val, "something is held out still"
    assert joined <= set(rule.val) or joined <= set(rule.train)
    assert held == {pair["held_environment"]}


def test_a_clean_report_keeps_the_split(clean: Path, clean_audit: Audit) -> None:
    rule, pairs = repair(str(clean), as_json(clean_audit))
    held = {row["environment"] for row in rows_of(clean) if row["split"] == "val"}
    assert (pairs, rule.val) == (0, tuple(sorted(held)))


def test_pairs_with_another_dataset_move_to_train(clean: Path, mixed_audit: Audit) -> None:
    with pytest.raises(ConfigError, match="tie all groups that could be held out"):
        repair(str(clean), {**as_json(mixed_audit), "pairs": [], "confirmed": 0})


def test_a_report_of_other_data_is_refused(clean: Path, leaky_audit: Audit, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not an audit of"):
        repair(str(clean), as_json(leaky_audit))
    for text in ("{", "[]", '{"format": "something"}'):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(ConfigError, match="--report"):
            read_report(tmp_path / "report.json")
    with pytest.raises(ConfigError, match="no such file"):
        read_report(tmp_path / "none.json")


def test_a_report_that_lists_too_few_pairs_is_refused(leaky: Path, leaky_audit: Audit) -> None:
    report = as_json(leaky_audit)
    with pytest.raises(ConfigError, match="are confirmed and"):
        repair(str(leaky), {**report, "pairs": report["pairs"][:1]})
    with pytest.raises(ConfigError, match="audit again"):
        repair(str(leaky), {name: value for name, value in report.items() if name != "pairs"})


def test_the_rule_that_is_written_is_one_that_is_read(
    leaky: Path, leaky_audit: Audit, tmp_path: Path
) -> None:
    rule, _ = repair(str(leaky), as_json(leaky_audit))
    (tmp_path / "rule.yaml").write_text(write_rule(rule))
    assert read_rule(tmp_path / "rule.yaml") == rule
    assert isinstance(rule, SplitRule)
