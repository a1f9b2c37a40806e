"""The fast tier takes the cases that are named, and a name that is none is a mistake."""

from __future__ import annotations

import pytest

from depth import few


def test_the_cases_that_are_named_are_those_of_the_fast_tier() -> None:
    made = few((one for one in ("a", "b", "c")), "b")
    assert [(case.values, len(case.marks)) for case in made] == [(("a",), 1), (("b",), 0), (("c",), 1)]


def test_a_quick_case_that_is_none_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"not all of \('bb',\) are cases"):
        few(["a", "b"], "bb")
