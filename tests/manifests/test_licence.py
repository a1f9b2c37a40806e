"""A licence is an SPDX expression or a URL, and a name in words is answered with the nearest of SPDX."""

from __future__ import annotations

import pytest

from oxcart.manifests.licence import check_licence
from oxcart.shards.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("CC-BY-4.0", "CC-BY-4.0"),
        ("apache-2.0", "Apache-2.0"),
        ("mit and (apache-2.0 or bsd-2-clause)", "MIT AND (Apache-2.0 OR BSD-2-Clause)"),
        ("https://example.org/terms", "https://example.org/terms"),
        ("http://example.org", "http://example.org"),
    ],
)
def test_a_licence_has_a_canonical_form(text: str, canonical: str) -> None:
    assert check_licence(text) == check_licence(canonical) == canonical


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("CC BY 4.0", "CC-BY-4.0"),
        ("CC BY-NC 4.0", "CC-BY-NC-4.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("The MIT License (MIT)", "MIT"),
        ("own terms", None),
        ("public domain", None),
        ("https://", None),
        ("https://[::1", None),
        ("https://example.org/two words", None),
        ("ftp://example.org", None),
        ("", None),
    ],
)
def test_other_text_is_refused_in_one_line(text: str, near: str | None) -> None:
    with pytest.raises(ConfigError, match="licence: expected an SPDX") as caught:
        check_licence(text)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.partition("; did you mean ")[2] == (f"{near}?" if near else "")
