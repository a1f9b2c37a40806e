"""The split rule and its file: what is written is read again, and a mistake is one line that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from depth import depth
from oxcart.manifests.split import BY, SplitRule, normalise, read_rule, write_rule
from oxcart.shards.errors import ConfigError

examples = depth(120)


names = st.text(min_size=1)
held_out = st.none() | st.floats(0, 1, exclude_max=True) | st.lists(names).map(tuple)


@st.composite
def rules(draw: st.DrawFn) -> SplitRule:
    """Any rule there is."""
    by = draw(st.sampled_from(BY))
    values: dict[str, Any] = {"by": by, "salt": draw(st.text())}
    pool = draw(st.lists(names, unique_by=normalise).map(lambda p: [n for n in p if normalise(n)]))
    cut = sorted(draw(st.lists(st.integers(0, len(pool)), min_size=3, max_size=3)))
    if by != "source":
        values["train"] = tuple(pool[: cut[0]])
        values["val"] = tuple(pool[cut[0] : cut[1]])
        values["test"] = tuple(pool[cut[1] : cut[2]])
        values["aliases"] = {name: (name + " two", "x" + name) for name in pool[cut[2] :]}
    if by not in ("source", "dataset"):
        values["val_seen"] = draw(held_out)
        if draw(st.booleans()):
            values["val"] = draw(st.none() | st.floats(0, 1, exclude_max=True))
    return SplitRule(**values)


@examples
@given(rule=rules())
def test_a_rule_survives_its_file(rule: SplitRule, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "rule.yaml"
    text = write_rule(rule)
    path.write_text(text, encoding="utf-8")
    assert read_rule(path) == rule
    assert write_rule(read_rule(path)) == text
    # Any YAML reader sees the same names.
    loaded = yaml.safe_load(text)
    assert list(loaded) == ["by", "salt", "val", "test", "val_seen", "train", "aliases"]
    assert tuple(loaded["train"]) == rule.train
    assert loaded["salt"] == rule.salt
    assert {name: tuple(others) for name, others in loaded["aliases"].items()} == rule.aliases


@examples
@given(text=st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Pick up the CUP.", "pick up cup"),
        ("  pick_up\ta -- cup\n", "pick up cup"),
        ("Ｏｐｅｎ　ｄｏｏｒ", "open door"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("The An A", ""),
        ("…", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_the_file_of_a_rule() -> None:
    rule = SplitRule(
        val=("toysink3", "12", "b"), test=0.05, train=("a: b",), aliases={"b": ("c", "no", "datacol1_b")}
    )
    assert write_rule(rule).splitlines()[1:] == [
        "by: environment",
        "salt: oxcart",
        "val:",
        '  - "12"',
        "  - b",
        "  - toysink3",
        "test: 0.05",
        "val_seen: none",
        "train:",
        '  - "a: b"',
        "aliases:",
        "  b:",
        "    - c",
        "    - datacol1_b",
        '    - "no"',
    ]
    assert write_rule(SplitRule()).splitlines() == [
        "# oxcart split rule. val, test, val_seen: a share of the episodes, a list of names, or none.",
        "by: environment",
        "salt: oxcart",
        "val: 0.1",
        "test: none",
        "val_seen: none",
        "train: []",
        "aliases: {}",
    ]


def test_names_need_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "rule.yaml"
    path.write_text("val: [12, no, 2021-09-31, 1.50]\ntest: none\nval_seen: 1e-2\nsalt: 7\n")
    rule = read_rule(path)
    assert rule == SplitRule(val=("12", "no", "2021-09-31", "1.50"), val_seen=0.01, salt="7")


FILE_ERRORS = {
    "vall: 0.1": r"unknown key 'vall'; expected by, .*, aliases; did you mean val\?",
    "by: enviroment": r"by: expected one of environment, .*; got 'enviroment'; did you mean environment\?",
    "val: true": r"val: expected a share of the episodes like 0\.1, a list of names, or none; got 'true'",
    "val: toysink": r"val: expected a share .* got 'toysink'; one name is a list too: \[toysink\]",
    "val: 1.0": r"val: expected a share of the episodes, from 0 to below 1; got 1\.0; a tenth is 0\.1",
    "test: -0.1": r"test: .* got -0\.1",
    "val_seen: nan": r"val_seen: .* got nan",
    "val:": r"val: is empty; give a value, or leave val out",
    "val: {a: b}": r"val: expected a share .* got \{'a': 'b'\}",
    "val: [[a]]": r"val: expected names that are text and not empty, got \['a'\]",
    "val: ['']": r"val: expected names that are text and not empty, got ''",
    "train: a": r"train: expected a list of names, got 'a'",
    "train: none": r"train: expected a list of names, got 'none'",
    "salt: [a]": r"salt: expected text, got \['a'\]",
    "aliases: [a]": r"aliases: expected one place and its other names per line, got \['a'\]",
    "aliases: {a: b}": r"aliases: a: expected a list of names, got 'b'",
    "val: [a]\ntest: [b, a]": r"'a' is listed in val and in test; list it once",
    "val: [a]\nval: [b]": r"line 2: key 'val' is given twice",
    "? [a]\n: b": r"line 1: not a key",
    "by: instruction\nval: [Open a door]\ntrain: [open door!]": r"'open door' is listed in train and in val",
    "val: [b]\ntest: [c]\naliases: {a: [b, c]}": r"'b' is listed in val and 'c' in test, but the alias table",
    "by: instruction\nval: [the]": r"val: expected names that are text and not empty, got 'the'",
    "by: dataset\nval: 0.1": r"val: splitting by dataset holds out whole datasets, got 0\.1; list names of",
    "by: dataset\nval_seen: 0.1": r"val_seen: splitting by dataset .*; leave val_seen out",
    "by: source\nval: 0.1": r"val: splitting by source keeps the source's own .* got 0\.1; leave val out",
    "by: source\ntrain: [a]": r"train: splitting by source keeps",
    "val: [a": r"line 2, column 1: not YAML: did not find expected ',' or '\]'",
    "val: \x00": r"not YAML: .+",
    "--- a\n--- b": r"line 2, column 1: not YAML: .+",
    "": r"expected keys such as `by: environment` and `val: 0\.1`, got None",
    "- a": r"expected keys such as .* got \['a'\]",
}


@pytest.mark.parametrize(("text", "message"), FILE_ERRORS.items())
def test_errors_of_a_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rule.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"^split rule .*rule.yaml: {message}") as raised:
        read_rule(path)
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^split rule .*none\.yaml: no such file or directory$"):
        read_rule(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"is a directory$"):
        read_rule(tmp_path)
    (tmp_path / "latin").write_bytes(b"val: [\xe9]")
    with pytest.raises(ConfigError, match=r"not UTF-8 text at byte 6$"):
        read_rule(tmp_path / "latin")


@pytest.mark.parametrize("value", [True, "a", 1, -0.5, float("nan"), object(), {"a"}, [1]])
@pytest.mark.parametrize("split", ["val", "test", "val_seen"])
def test_values_that_hold_out_nothing_sensible(split: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^{split}: expected "):
        SplitRule(**{split: value})  # type: ignore[arg-type]


def test_a_rule_is_in_canonical_order() -> None:
    assert SplitRule(val=("b", "a", "b")).val == ("a", "b")
    assert SplitRule(val=0).val == 0.0
    assert SplitRule().val == 0.1
    assert SplitRule(by="dataset").val is SplitRule(by="source").val is None
    rule = SplitRule(by="instruction", val=("Open the door",), aliases={"The door": ("A Gate", "gate")})
    assert (rule.val, rule.aliases) == (("open door",), {"door": ("gate",)})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "nested more than 8 deep"),
        ("val: &a [*a]\n", "anchors and aliases of YAML are not allowed"),
        ("a: &a [x, x]\nb: &b [*a, *a]\n", "anchors and aliases of YAML are not allowed"),
    ],
)
def test_a_rule_that_could_hang_its_reader_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "rule.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"line 1: {problem}"):
        read_rule(tmp_path / "rule.yaml")
