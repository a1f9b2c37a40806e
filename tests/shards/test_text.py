"""A text takes one line and no more room than it is given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oxcart.shards.text import cut


def test_short_texts_stay_and_long_ones_end_in_an_ellipsis() -> None:
    assert cut("put the spoon", 13) == "put the spoon"
    assert cut("put the spoon", 12) == "put the spo…"
    assert cut(" put\n\tthe  spoon\r\n", 80) == "put the spoon"
    assert cut("", 1) == ""


@given(st.text(), st.integers(1, 30))
def test_any_text_is_one_line(text: str, most: int) -> None:
    line = cut(text, most)
    assert len(line) <= most
    assert len(line.splitlines()) <= 1
    assert cut(line, most) == line
