"""How many examples a property is tried on: few in the fast tier, as many as it asks for in the other.

    @depth(300)
    @given(data=st.data())
    def test_...

Without the line it is 100. The profile is chosen by `--hypothesis-profile`, which `make test-system` passes.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings

QUICK, FULL = "quick", "full"
"""Profiles; the first is the default."""
FEW = 25

settings.register_profile(QUICK, max_examples=FEW, deadline=None)
settings.register_profile(FULL, max_examples=100, deadline=None)


def depth(examples: int, **options: Any) -> settings:
    """Settings of a property that is tried on so many examples at full depth."""
    quick = settings.get_current_profile_name() == QUICK
    return settings(max_examples=min(examples, FEW) if quick else examples, **options)
