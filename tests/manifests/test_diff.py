"""What moved, appeared and vanished between datasets or rules; identical where fingerprints are equal."""

from __future__ import annotations

from pathlib import Path

import pytest

from oxcart.compile.images import Resize
from oxcart.manifests.diff import Change, diff
from oxcart.manifests.split import SplitRule, write_rule
from oxcart.shards.errors import ConfigError
from sample_compile import Compiled, compiled, rows_of


def changes(a: Path, b: Path, what: str) -> dict[str, tuple[str | None, str | None]]:
    found = diff(str(a), str(b)).changes
    return {one.name: (one.before, one.after) for one in found if one.what == what}


@pytest.mark.system
def test_equal_fingerprints_are_identical(whole: Compiled, tmp_path: Path) -> None:
    compiled(whole.source, tmp_path / "again", workers=2)
    found = diff(str(whole.out), str(tmp_path / "again"))
    assert found.identical
    assert (found.changes, found.changed, found.configuration) == ((), (), ())


def test_what_moved(whole: Compiled, tmp_path: Path) -> None:
    names = sorted({row["environment"] for row in rows_of(whole.out)})
    held = {row["environment"] for row in rows_of(whole.out) if row["split"] == "val"}
    other = next(name for name in names if name not in held)
    compiled(whole.source, tmp_path / "other", rule=SplitRule(val=(other,)))
    found = diff(str(whole.out), str(tmp_path / "other"))
    assert not found.identical
    assert changes(whole.out, tmp_path / "other", "environment") == {
        other: ("train", "val"),
        **dict.fromkeys(held, ("val", "train")),
    }
    moved = changes(whole.out, tmp_path / "other", "episode")
    assert len(moved) == 8
    assert found.changed == ()
    assert {name for name, _, _ in found.configuration} == {"config.split.val"}
    assert (found.a["splits"], found.b["splits"]) == ({"train": 16, "val": 4}, {"train": 16, "val": 4})


def test_what_appeared_vanished_and_changed(whole: Compiled, tmp_path: Path) -> None:
    compiled(whole.source, tmp_path / "few", limit=3)
    vanished = changes(whole.out, tmp_path / "few", "episode")
    assert set(vanished.values()) == {("train", None)}
    assert len(vanished) == 13
    assert set(changes(tmp_path / "few", whole.out, "episode").values()) == {(None, "train")}
    compiled(whole.source, tmp_path / "small", resize=Resize(size=(16, 16)))
    found = diff(str(whole.out), str(tmp_path / "small"))
    assert found.changes == ()
    assert len(found.changed) == 20
    assert ("pixels.size", None, [16, 16]) in found.configuration


def test_rules(tmp_path: Path) -> None:
    a, b = tmp_path / "a.yaml", tmp_path / "b.yml"
    a.write_text(write_rule(SplitRule(val=("one", "two"), train=("three",))))
    b.write_text(write_rule(SplitRule(val=("one",), train=("two", "four"), salt="other")))
    found = diff(str(a), str(b))
    assert found.changes == (
        Change(what="name", name="four", before=None, after="train"),
        Change(what="name", name="three", before="train", after=None),
        Change(what="name", name="two", before="val", after="train"),
    )
    assert found.configuration == (("salt", "oxcart", "other"),)
    assert diff(str(a), str(a)).identical


def test_a_rule_and_a_dataset_are_not_compared(whole: Compiled, tmp_path: Path) -> None:
    (tmp_path / "rule.yaml").write_text("by: environment\n")
    with pytest.raises(ConfigError, match="expected two datasets or two rules"):
        diff(str(whole.out), str(tmp_path / "rule.yaml"))
    with pytest.raises(ConfigError, match="not a compiled dataset"):
        diff(str(whole.out), str(tmp_path / "nothing"))
