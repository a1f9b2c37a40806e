"""How many cases are tried: some in the fast tier, all in the system tier.

    @depth(300)
    @given(data=st.data())
    def test_...

    @pytest.mark.parametrize("codec", few(IMAGE_CODECS, "zstd"))
    def test_...

A property without `depth` is tried on 100 examples. `make test-system` tries all properties again, with the
number of examples that its hypothesis profile sets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings

QUICK, FULL = "quick", "full"
"""Names of the hypothesis profiles; the first is the default."""
FEW = 16

settings.register_profile(QUICK, max_examples=FEW, deadline=None)
settings.register_profile(FULL, max_examples=100, deadline=None)


def depth(examples: int, **options: Any) -> settings:
    """Settings of a property that is tried on the given number of examples at full depth."""
    quick = settings.get_current_profile_name() == QUICK
    return settings(max_examples=min(examples, FEW) if quick else examples, **options)


def few(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """Cases for `parametrize`: the fast tier runs the named ones, the system tier all others."""
    cases = list(cases)
    assert all(case in cases for case in quick), f"not all of {quick} are cases: {cases}"
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=[] if case in quick else [pytest.mark.system],
        )
        for case in cases
    ]
