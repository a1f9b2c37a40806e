"""Tables line up and stay on their lines, whatever is in them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oxcart.cli.table import size, table, wrapped


def test_numbers_to_the_right_and_the_rest_to_the_left() -> None:
    rows = [("train", 1234567, 0.5, None), ("val", -3, 12.25, 7), ("val_seen", 0, 3.0, None)]
    assert table(("split", "episodes", "rate", "limit"), rows).splitlines() == [
        "split      episodes   rate  limit",
        "--------  ---------  -----  -----",
        "train     1,234,567    0.5      -",
        "val              -3  12.25      7",
        "val_seen          0    3.0      -",
    ]


def test_a_column_with_one_text_is_text() -> None:
    assert table(("a", "b"), [(1, "x"), ("one", None)]).splitlines() == [
        "a    b",
        "---  -",
        "1    x",
        "one  -",
    ]


def test_without_rows_there_is_a_header() -> None:
    assert table(("shard", "size"), []) == "shard  size\n-----  ----"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines", "two lines"),
        ("a\r\nb\tc", "a  b c"),
        ("\x1b[31mred\x1b[0m", " [31mred [0m"),
        ("bell\x07", "bell"),
        ("a\u2028b\u202ec", "a b c"),
        ("küche 台所", "küche 台所"),
        ("two  spaces", "two  spaces"),
        ("", ""),
    ],
)
def test_control_characters_become_spaces(text: str, shown: str) -> None:
    assert table(("name",), [(text,)]).split("\n")[2:] == [shown]


@given(st.lists(st.tuples(st.text(), st.integers() | st.none(), st.text()), max_size=5))
def test_a_row_is_a_line_and_columns_line_up(rows: list[tuple[str, int | None, str]]) -> None:
    lines = table(("first", "number", "last"), rows).split("\n")
    assert len(lines) == len("".join(f"{line}\n" for line in lines).splitlines()) == 2 + len(rows)
    dashes = lines[1].split("  ")
    assert set("".join(dashes)) == {"-"}
    starts = [0, len(dashes[0]) + 2, len(dashes[0]) + len(dashes[1]) + 4]
    width = len(lines[1])
    for line, (_, number, _) in zip(lines[2:], rows, strict=True):
        assert line == line.rstrip()
        padded = line.ljust(width)
        cell = padded[starts[1] : starts[2] - 2]
        assert cell.strip() == ("-" if number is None else f"{number:,}")
        assert cell == cell.strip().rjust(len(dashes[1]))


def test_long_text_of_the_last_column_wraps_inside_it() -> None:
    rows = [("failed", 12, "a text that is longer than its column"), ("passed", 3, "short")]
    assert table(("status", "n", "found"), rows, width=32).splitlines() == [
        "status   n  found",
        "------  --  --------------------",
        "failed  12  a text that is",
        "            longer than its",
        "            column",
        "passed   3  short",
    ]


WORDS = st.lists(st.text("abcé-台", min_size=1, max_size=30), max_size=30).map(" ".join)


@given(st.lists(st.tuples(st.text("abc", max_size=9), WORDS), min_size=1, max_size=4), st.integers(60, 120))
def test_no_line_is_wider_than_asked_and_no_letter_is_lost(rows: list[tuple[str, str]], width: int) -> None:
    lines = table(("first", "last"), rows, width=width).splitlines()
    assert max(map(len, lines)) <= width
    start = lines[0].index("last")
    assert "".join("".join(line[start:].split()) for line in lines[2:]) == "".join(
        "".join(text.split()) for _, text in rows
    )
    assert [line[:start].strip() for line in lines[2:] if line[:start].strip()] == [
        first for first, _ in rows if first
    ]


def test_a_word_is_broken_only_where_it_is_longer_than_the_column() -> None:
    lines = table(("a",), [("one " * 12 + "x" * 45 + " two",)], width=20).splitlines()[2:]
    assert " ".join(lines).split()[:12] == ["one"] * 12
    assert max(map(len, lines)) == 20
    assert "".join(lines).replace(" ", "") == "one" * 12 + "x" * 45 + "two"


def test_a_word_to_be_copied_stays_whole() -> None:
    assert wrapped("  see " + "x" * 45 + " there", 20, "    ", break_words=False) == [
        "  see",
        "    " + "x" * 45,
        "    there",
    ]


def test_numbers_are_never_broken() -> None:
    rows = [("x" * 9, 1234567890)]
    assert table(("name", "number"), rows, width=20) == table(("name", "number"), rows)


def test_columns_that_do_not_fit_follow_below_beside_the_first_again() -> None:
    rows = [("one", "a" * 9, 1, 2.5), ("other", "b", 1234567, None)]
    assert table(("run", "model", "steps", "val/accuracy"), rows, width=28).splitlines() == [
        "run    model          steps",
        "-----  ---------  ---------",
        "one    aaaaaaaaa          1",
        "other  b          1,234,567",
        "",
        "run    val/accuracy",
        "-----  ------------",
        "one             2.5",
        "other             -",
    ]


NUMBERS = st.integers(-(10**9), 10**9)
"""Of which six fit beside each other; no number is broken."""


@given(
    st.lists(st.tuples(*[st.text("ab/", max_size=90) | NUMBERS] * 6), min_size=1, max_size=3),
    st.integers(60, 120),
)
def test_a_table_of_many_columns_is_as_wide_as_asked_and_loses_nothing(
    rows: list[tuple[str | int, ...]], width: int
) -> None:
    lines = table([f"column {i}" for i in range(6)], rows, width=width).splitlines()
    assert max(map(len, lines)) <= width
    shown = "".join("".join(lines).split())
    for value in (value for row in rows for value in row[1:]):
        assert sum(shown.count(letter) for letter in str(value)) >= len(str(value))


def test_a_long_text_of_the_first_column_wraps_if_the_others_need_the_room() -> None:
    rows = [("x" * 50, "y" * 50)]
    assert table(("a", "b"), rows, width=60).splitlines()[2:] == [
        f"{'x' * 30}  {'y' * 28}",
        f"{'x' * 20}{' ' * 12}{'y' * 22}",
    ]
    assert table(("a", "b"), [("x" * 50, "y")], width=60).splitlines()[2:] == [f"{'x' * 50}  y"]


def test_paint_is_laid_over_its_column_and_moves_nothing() -> None:
    rows = [("failed", "a b c d e f g h i j k l m n o"), ("ok", "c")]
    painted = table(("status", "found"), rows, width=28, paint={"status": lambda text: f"<{text}>"})
    assert re.sub("[<>]", "", painted) == table(("status", "found"), rows, width=28)
    assert painted.splitlines()[2].startswith("<failed>  a b")


@pytest.mark.parametrize("row", [("x",), ("x", 1, 2)])
def test_a_row_of_another_length_is_our_bug(row: tuple[object, ...]) -> None:
    with pytest.raises((ValueError, IndexError)):
        table(("a", "b"), [row])


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1024**2 - 52 * 1024, "972.0 KiB"),
        (1024**2, "1.0 MiB"),
        (1024**3 - 1, "1.0 GiB"),
        (512 << 20, "512.0 MiB"),
        (1024**4, "1.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@given(st.integers(0, 2**49))
def test_a_size_is_right_to_its_last_digit(count: int) -> None:
    number, unit = size(count).split(" ")
    scale = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB"].index(unit)
    assert abs(float(number) * scale - count) <= 0.0501 * scale
    assert float(number) < 1024
