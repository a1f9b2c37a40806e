"""repair-split, recompile, audit: clean. And what no rule can mend is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audited import audited, everywhere, set_path
from oxcart.manifests.audit.audit import Audit
from oxcart.manifests.audit.repair import confirmed_pairs, group_pairs, read_report, repair
from oxcart.manifests.audit.report import report_json
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SplitRule, read_rule, write_rule
from oxcart.shards.errors import ConfigError
from sample_compile import compiled, edited, rows_of


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
    assert repair(str(clean), as_json(clean_audit)) == (SplitRule(val=0.2), 0)


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
        repair(str(leaky), {**report, "pairs": report["pairs"][:1], "group_pairs": []})
    with pytest.raises(ConfigError, match="audit again"):
        repair(str(leaky), {name: value for name, value in report.items() if name != "pairs"})


def test_the_rule_that_is_written_is_one_that_is_read(
    leaky: Path, leaky_audit: Audit, tmp_path: Path
) -> None:
    rule, _ = repair(str(leaky), as_json(leaky_audit))
    (tmp_path / "rule.yaml").write_text(write_rule(rule))
    assert read_rule(tmp_path / "rule.yaml") == rule
    assert isinstance(rule, SplitRule)


def test_one_pair_of_each_two_groups_repairs_what_lists_too_few(leaky: Path, leaky_audit: Audit) -> None:
    report = as_json(leaky_audit)
    limit = report["threshold"]["value"]
    confirmed = [pair for pair in report["pairs"] if pair["score"] > limit]
    groups = group_pairs(confirmed)
    assert len(groups) == len({(p["held_environment"], p["train_environment"]) for p in confirmed})
    assert len(groups) < len(confirmed)
    few = {**report, "pairs": report["pairs"][:1], "group_pairs": groups}
    assert repair(str(leaky), few) == repair(str(leaky), report)


def test_a_score_at_the_threshold_confirms_no_pair() -> None:
    pairs = [{"score": score} for score in (0.6, 0.5, 0.4)]
    report = {"threshold": {"value": 0.5}, "pairs": pairs, "confirmed": 1, "duplicates": []}
    assert confirmed_pairs(report) == (pairs[:1], 1)


def pair_of(url: Path, held: dict[str, Any], train: dict[str, Any]) -> dict[str, Any]:
    sides = {"held": held, "train": train}
    return {
        f"{side}_{what}": value
        for side, row in sides.items()
        for what, value in (
            ("dataset", str(url)),
            ("episode", row["key"]),
            ("split", row["split"]),
            ("environment", row["environment"]),
        )
    }


def test_an_unknown_environment_ties_nothing_together(kitchens: Path, tmp_path: Path) -> None:
    first = True

    def forget(path: str) -> str:
        nonlocal first
        first, was = False, first
        return "" if was else path

    source = edited(kitchens, tmp_path / "source", set_path(forget), *everywhere(kitchens))
    out = tmp_path / "out"
    compiled(source, out, rule=SplitRule(val=0.4, test=0.2))
    rows = rows_of(out)
    (unknown,) = (row for row in rows if row["environment"] is None)
    one_of = {row["environment"]: row for row in rows if row["environment"]}
    held, stays = sorted({row["environment"] for row in rows if row["split"] == "val"})
    train = min(row["environment"] for row in rows if row["split"] == "train" and row["environment"])
    pairs = [pair_of(out, one_of[name], unknown) for name in (held, train)]
    rule, number = repair(str(out), {**empty_report(out), "duplicates": pairs})
    assert (number, rule.aliases, rule.val) == (2, {}, (stays,))
    assert {held, train} <= set(rule.train)


def test_groups_that_a_chain_of_pairs_ties_become_one_place_in_train(kitchens: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compiled(kitchens, out, rule=SplitRule(val=0.4))
    one_of = {row["environment"]: row for row in rows_of(out)}
    stays, tied = sorted(name for name, row in one_of.items() if row["split"] == "val")
    train = sorted(name for name, row in one_of.items() if row["split"] == "train")
    pairs = [pair_of(out, one_of[tied], one_of[name]) for name in (train[0], train[-1])]
    rule, number = repair(str(out), {**empty_report(out), "duplicates": pairs})
    place, *others = sorted([tied, train[0], train[-1]])
    assert (number, rule.aliases) == (2, {place: tuple(others)})
    assert (rule.val, rule.train) == ((stays,), tuple(sorted([tied, *train])))


def empty_report(out: Path) -> dict[str, Any]:
    manifest = Dataset.open(str(out)).manifest
    datasets = [{"url": str(out), "fingerprint": manifest.fingerprint}]
    return {"datasets": datasets, "pairs": [], "threshold": None, "confirmed": 0, "duplicates": []}


def test_val_seen_stays_unless_a_pair_is_of_it(kitchens: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compiled(kitchens, out, rule=SplitRule(val=0.2, val_seen=0.2))
    one_of = {row["split"]: row for row in rows_of(out)}
    duplicates = [pair_of(out, one_of["val"], one_of["train"])]
    rule, _ = repair(str(out), {**empty_report(out), "duplicates": duplicates})
    assert rule.val_seen == 0.2
    duplicates = [pair_of(out, one_of["val_seen"], one_of["train"])]
    rule, _ = repair(str(out), {**empty_report(out), "duplicates": duplicates})
    assert rule.val_seen is None


@pytest.mark.parametrize("name", ["datasets", "pairs", "threshold", "confirmed", "duplicates"])
@pytest.mark.parametrize("value", [None, 3, ["x"], {"x": 1}, [{}]])
def test_an_edited_report_is_refused_in_one_line(clean: Path, name: str, value: Any) -> None:
    if (name, value) in (("threshold", None), ("confirmed", 3)):
        return
    with pytest.raises(ConfigError, match="--report: "):
        repair(str(clean), {**empty_report(clean), "threshold": {"value": 0.5}, name: value})


def test_pairs_of_an_episode_that_is_not_there_are_refused(clean: Path) -> None:
    row = rows_of(clean)[0]
    pair = {**pair_of(clean, row, row), "train_episode": "none"}
    with pytest.raises(ConfigError, match="audit again"):
        repair(str(clean), {**empty_report(clean), "duplicates": [pair]})
