"""What an unknown name is answered."""

from __future__ import annotations

import pytest

from oxcart.shards.choices import MOST, did_you_mean, nearest, one_of
from oxcart.shards.errors import ConfigError


def test_a_value_that_is_allowed_passes() -> None:
    one_of("codec", "raw", ("raw", "zstd"))
    one_of("action", None, (None, "next"))


def test_another_value_is_refused_with_those_allowed_and_the_closest() -> None:
    with pytest.raises(
        ConfigError, match=r"^codec: expected one of raw, zstd; got 'zst'; did you mean zstd[?]$"
    ):
        one_of("codec", "zst", ("raw", "zstd"))
    with pytest.raises(ConfigError, match=r"^action: expected one of None, next; got 5$"):
        one_of("action", 5, (None, "next"))


def test_a_hint_names_the_closest_and_what_to_do() -> None:
    assert did_you_mean("trian", ["train", "val"]) == "; did you mean train?"
    assert did_you_mean("trian", ["train", "val"], "list them") == "; did you mean train? list them"
    assert did_you_mean("zzz", ["train", "val"], "list them") == "; list them"
    assert did_you_mean("zzz", ["train", "val"]) == ""


def test_too_many_names_are_not_searched() -> None:
    assert nearest("a1", map(str, range(MOST + 1))) is None
