"""Expressions choose what pandas chooses, and whatever else is typed is refused in one line."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth import depth
from oxcart.manifests.where import Where
from oxcart.shards.errors import ConfigError

TEXTS = ["toy kitchen", "sink", "", "a 'b'", 'say "put"', "put|place", "ÄÖ"]
NUMBERS = [0, 1, 7, 20, -3]
RATES = [0.1, 5.0, 3.75, 1e9]
PATTERNS = ["put|place", "^toy", "kitchen$", ".", r"\bsink\b", "[aÄ]", ""]
TRUTHS, KLEENE = "success", ("success", "terminal")


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(0, 12))

    def column(values: list[Any]) -> list[Any]:
        return draw(st.lists(st.sampled_from([*values, None]), min_size=rows, max_size=rows))

    found = {
        "success": pa.array(column([True, False]), pa.bool_()),
        "terminal": pa.array(column([True, False]), pa.bool_()),
        "steps": pa.array(column(NUMBERS), pa.int32()),
        "control_rate": pa.array(column(RATES), pa.float32()),
        "environment": pa.array(column(TEXTS), pa.string()),
        "instruction": pa.array(column(TEXTS), pa.string()),
    }
    if draw(st.booleans()):
        found["environment"] = found["environment"].dictionary_encode()
    return pa.table(found)


def quoted(text: str) -> str:
    return f"'{text}'" if "'" not in text else f'"{text}"'


COMPARE = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[str, Any]:
    """A test, and what it is in pandas."""
    kind = draw(st.sampled_from(["truth", "number", "text", "match", "in", "known"]))
    if kind == "truth":
        name = draw(st.sampled_from(KLEENE))
        return name, lambda t: t[name]
    if kind == "known":
        name = draw(st.sampled_from(["success", "steps", "environment"]))
        if draw(st.booleans()):
            return f"{name} is known", lambda t: t[name].notna().astype("boolean")
        return f"{name} is not known", lambda t: t[name].isna().astype("boolean")
    sign = draw(st.sampled_from(list(COMPARE)))
    if kind == "number":
        name, values = draw(st.sampled_from([("steps", [*NUMBERS, 6.5, 1e30]), ("control_rate", RATES)]))
        value = draw(st.sampled_from(values))
        told = np.float32(value) if name == "control_rate" else value
        return f"{name} {sign} {value}", lambda t: COMPARE[sign](t[name], told)
    name = draw(st.sampled_from(["environment", "instruction"]))
    if kind == "text":
        value = draw(st.sampled_from([one for one in TEXTS if not {"'", '"'} <= {*one}]))
        return f"{name}{sign}{quoted(value)}", lambda t: COMPARE[sign](t[name], value).astype("boolean")
    if kind == "match":
        pattern = draw(st.sampled_from(PATTERNS))

        def found(t: Any) -> Any:
            matched = [pd.NA if pd.isna(one) else bool(re.search(pattern, one)) for one in t[name]]
            return pd.Series(matched, index=t.index, dtype="boolean")

        if draw(st.booleans()):
            return f"{name} ~ {quoted(pattern)}", found
        return f"{name} !~ {quoted(pattern)}", lambda t: ~found(t)
    if draw(st.booleans()):
        some = draw(st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=3))
        return (
            f"steps in ({', '.join(map(str, some))})",
            lambda t: t["steps"].isin(some).astype("boolean").mask(t["steps"].isna()),
        )
    chosen = draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3))
    return (
        f"{name} in ({','.join(map(quoted, chosen))})",
        lambda t: t[name].isin(chosen).astype("boolean").mask(t[name].isna()),
    )


def joined(children: st.SearchStrategy[tuple[str, Any]]) -> st.SearchStrategy[tuple[str, Any]]:
    """Expressions of expressions; those joined stand in parentheses, as precedence has a test of its own."""
    both = st.tuples(st.sampled_from(["and", "or"]), children, children).map(
        lambda got: (
            f"({got[1][0]}) {got[0]} ({got[2][0]})",
            lambda t: got[1][1](t) & got[2][1](t) if got[0] == "and" else got[1][1](t) | got[2][1](t),
        )
    )
    inverse = children.map(lambda got: (f"not ({got[0]})", lambda t: ~got[1](t)))
    return both | inverse


@depth(400)
@given(table=tables(), expression=st.recursive(comparisons(), joined, max_leaves=6))
def test_an_expression_chooses_what_pandas_does(table: pa.Table, expression: tuple[str, Any]) -> None:
    text, expected = expression
    frame = pd.DataFrame(
        {
            "success": pd.array(table["success"].to_pylist(), "boolean"),
            "terminal": pd.array(table["terminal"].to_pylist(), "boolean"),
            "steps": pd.array(table["steps"].to_pylist(), "Int64"),
            "control_rate": pd.array(table["control_rate"].to_pylist(), "Float32"),
            "environment": pd.array(table["environment"].to_pylist(), "string"),
            "instruction": pd.array(table["instruction"].to_pylist(), "string"),
        }
    )
    found = Where(text).holds(table).to_pylist()
    assert found == [None if pd.isna(one) else bool(one) for one in expected(frame).tolist()]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("success or terminal and steps > 6", "success or (terminal and steps > 6)"),
        ("success and terminal or steps > 6", "(success and terminal) or steps > 6"),
        ("not success and terminal", "(not success) and terminal"),
        ("not success or terminal", "(not success) or terminal"),
        ("not not success", "success"),
        ("steps>6 and(success)", "steps > 6 and success"),
        ("success\n  and\tterminal", "success and terminal"),
    ],
)
def test_and_goes_before_or_and_not_before_both(text: str, same: str) -> None:
    every = [True, False, None]
    rows = [(a, b, n) for a in every for b in every for n in (1, 20, None)]
    success, terminal, steps = zip(*rows, strict=True)
    table = pa.table({"success": success, "terminal": terminal, "steps": pa.array(steps, pa.int32())})
    assert Where(text).holds(table) == Where(same).holds(table)


TABLE = pa.table(
    {
        "success": [True],
        "steps": pa.array([7], pa.int32()),
        "environment": ["toy"],
        "source_digest": pa.array([1], pa.uint64()),
    }
)

HOSTILE = [
    ("", "expected a column, not, or (, at character 1, where it ends"),
    ("succes", "there is no column 'succes' to choose by; did you mean success?"),
    ("source_digest == 1", "there is no column 'source_digest' to choose by"),
    ("xyzzy", "there are success, steps, environment"),
    ("steps", "steps holds numbers; expected ==, ~, <, in or is known after it"),
    ("steps ~ '7'", "steps holds no texts, at character 9: \"'7'\""),
    ("steps == 'seven'", "steps holds numbers, not texts, at character 10"),
    ("environment == 7", "environment holds texts, not numbers"),
    ("success == 'yes'", "success is true or false"),
    ("success and", "expected a column, not, or (, at character 12, where it ends"),
    ("(success", "expected ), at character 9, where it ends"),
    ("success)", "expected and, or, or the end, at character 8: ')'"),
    ("success terminal", "expected and, or, or the end, at character 9: 'terminal'"),
    ("environment ~ '('", "not a regular expression"),
    ("environment ~ toy", "expected a regular expression in quotes"),
    ("environment == 'toy", "cannot be read, at character 16"),
    ("steps == 1; DROP", "cannot be read, at character 11: '; DROP'"),
    ("steps = 5", "cannot be read, at character 7: '= 5'; did you mean ==?"),
    ("steps == 0x10", "cannot be read, at character 10"),
    ("__import__('os').system('true')", "cannot be read, at character 17: \".system('true')\""),
    ("steps.real == 7", "there is no column 'steps.real'"),
    ("steps in ()", "expected a number, 'text', true or false"),
    ("steps in 7", "expected (, at character 10"),
    ("steps is 7", "expected known, at character 10"),
    ("true", "expected a column, not, or ("),
    ("steps == steps", "expected a number, 'text', true or false"),
    ("(" * 500 + "success" + ")" * 500, "expected at most 100 parentheses and nots in each other"),
    ("not " * 500 + "success", "expected at most 100 parentheses and nots in each other"),
    ("success and " * 2000 + "success", "24,007 characters; expected at most 10,000"),
    ("environment ~ '" + "(a*)*" * 1000 + "(.{1000}){1000}'", "not a regular expression"),
]


@pytest.mark.parametrize(("text", "said"), HOSTILE, ids=[one[:24] for one, _ in HOSTILE])
def test_what_is_no_expression_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        Where(text).holds(TABLE)
    assert str(caught.value).startswith("where: ")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 300


@depth(300)
@given(st.text(alphabet="abc ()'\"=!<>~,.0123456789-+successtpandorinkw\n\\", max_size=40))
def test_any_text_is_an_expression_or_one_line(text: str) -> None:
    try:
        Where(text).holds(TABLE)
    except ConfigError as error:
        lines = str(error).splitlines()
    else:
        return
    assert len(lines) == 1


def test_an_expression_says_which_columns_it_needs() -> None:
    schema = TABLE.schema
    assert Where("success and steps > 2 or success").columns(schema) == ["success", "steps"]


def test_a_pattern_that_backtracks_elsewhere_takes_no_time() -> None:
    table = pa.table({"environment": ["a" * 5000]})
    assert Where("environment ~ '(a*)*b'").holds(table).to_pylist() == [False]
