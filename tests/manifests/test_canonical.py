"""Canonical JSON has one form for a value; pretty JSON says the same for people."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oxcart.manifests.canonical import canonical_json, differences, pretty_json, read_json, sha256_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def reordered(value: Any) -> Any:
    """The same value with the keys of every object in the opposite order."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [reordered(item) for item in value]
    return value


@given(VALUES)
def test_canonical_json_says_the_value_and_not_the_order_of_its_keys(value: Any) -> None:
    data = canonical_json(value)
    assert json.loads(data) == value
    assert canonical_json(reordered(value)) == data
    assert canonical_json(json.loads(data)) == data
    assert sha256_json(value) == hashlib.sha256(data).hexdigest()


@given(VALUES)
def test_pretty_json_says_the_value_in_the_order_of_its_keys(value: Any) -> None:
    data = pretty_json(value)
    assert json.loads(data) == value
    assert json.dumps(json.loads(data)) == json.dumps(value)
    assert data.endswith(b"\n")
    assert not data.endswith(b"\n\n")
    assert all(line == line.rstrip(" ") for line in data.decode().split("\n"))


def test_the_canonical_form() -> None:
    value = {"b": [1, 2.5, None, True], "a": {"ö": "ä\n", "z": []}}
    assert canonical_json(value) == '{"a":{"z":[],"ö":"ä\\n"},"b":[1,2.5,null,true]}'.encode()
    assert sha256_json({}) == hashlib.sha256(b"{}").hexdigest()


def test_the_pretty_form() -> None:
    value = {"b": [1, 2], "a": {"list": [{"x": 1}, {}], "none": {}}, "size": (3, 4), "deep": [[1], [2, 3]]}
    assert pretty_json(value).decode() == (
        "{\n"
        '  "b": [1, 2],\n'
        '  "a": {\n'
        '    "list": [\n'
        "      {\n"
        '        "x": 1\n'
        "      },\n"
        "      {}\n"
        "    ],\n"
        '    "none": {}\n'
        "  },\n"
        '  "size": [3, 4],\n'
        '  "deep": [\n'
        "    [1],\n"
        "    [2, 3]\n"
        "  ]\n"
        "}\n"
    )


@pytest.mark.parametrize("write", [canonical_json, pretty_json])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_has_no_number_for_is_refused(write: Any, value: float) -> None:
    for inside in (value, [value], {"x": [{"y": value}]}):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write(inside)


@pytest.mark.parametrize("write", [canonical_json, pretty_json])
@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object()], ids=["bytes", "set", "object"])
def test_what_is_no_json_is_refused(write: Any, value: Any) -> None:
    with pytest.raises(TypeError):
        write({"x": value})


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (0, False), ("1", 1), (None, "null"), ([], {})])
def test_values_of_different_kinds_differ(one: Any, other: Any) -> None:
    assert canonical_json(one) != canonical_json(other)


@given(VALUES)
def test_what_is_written_is_read(value: Any) -> None:
    assert read_json(canonical_json(value)) == read_json(pretty_json(value)) == value


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b"[" + b"[]," * 5_000_000 + b"[]]", b"9" * 5000, b"{", b"\xff"], ids=len
)
def test_json_that_unfolds_or_is_none_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        read_json(data)


def test_differences_are_told_by_their_dotted_names() -> None:
    before = {
        "same": 1,
        "a": {"b": [1, 2], "gone": None},
        "sets": [{"name": "x", "n": 1}, {}],
        "was": {"c": 3, "d": {"e": 4}},
        "empty": None,
    }
    after = {
        "same": 1,
        "a": {"b": [1], "new": 0},
        "sets": [{"name": "x", "n": 2}, {}],
        "was": None,
        "empty": {},
        "came": {"f": 5},
    }
    assert list(differences(before, after)) == [
        ("a.b", [1, 2], [1]),
        ("a.new", None, 0),
        ("sets[0].n", 1, 2),
        ("was.c", 3, None),
        ("was.d.e", 4, None),
        ("empty", None, {}),
        ("came.f", None, 5),
    ]


@given(VALUES)
def test_a_value_does_not_differ_from_itself(value: Any) -> None:
    assert list(differences(value, reordered(value))) == []
    assert [name for name, _, _ in differences({"a": value}, {"a": [value]})] == ["a"]
