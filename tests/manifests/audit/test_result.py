"""What a check is called and what it says read well together, whatever it came to."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from oxcart.manifests import audit
from oxcart.manifests.audit.audit import Audit

THINGS_COMPARED = re.compile(r"[A-Z][\w ]+, (across splits|(\w+ )?against [\w ]+)( \(information only\))?")
"""`Recording sessions, train against held out`: the things, and where they are compared."""
STATEMENT = re.compile(r"\b(no|not|none|never|is|are|was|were|has|have|do|does|must|should)\b", re.IGNORECASE)
"""Words of a sentence, which would claim something of a check that did not run."""


def titles() -> list[str]:
    """The title of every criterion in the source of the audit."""
    found = []
    for module in Path(audit.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Criterion":
                name, title = map(ast.literal_eval, node.args)
                assert isinstance(name, str)
                found.append(str(title))
    return found


@pytest.mark.parametrize("title", titles())
def test_a_title_says_what_is_compared_and_claims_nothing(title: str) -> None:
    assert THINGS_COMPARED.fullmatch(title)
    assert not STATEMENT.search(title)


@pytest.mark.parametrize("which", ["clean", "leaky", "whole", "sampled"])
def test_what_was_not_checked_reads_as_that(which: str, request: pytest.FixtureRequest) -> None:
    found: Audit = request.getfixturevalue(f"{which}_audit")
    unchecked = [check for check in found.checks if check.status == "not checked"]
    assert unchecked
    assert {check.title for check in found.checks} <= set(titles())
    said = [*(check.summary for check in unchecked), *found.verdict.because]
    assert not [text for text in said if text.startswith("not checked")]
