"""The result of a check of the audit: a status, a sentence and evidence, all plain data for JSON.

There are four statuses. `suspicious` asks a person to look and does not affect the verdict. `not checked` is
always reported, because a check that did not run must not look like one that passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from oxcart.shards.errors import ConfigError

PASSED, FAILED, SUSPICIOUS, UNCHECKED = "passed", "failed", "suspicious", "not checked"
STATUSES = (FAILED, SUSPICIOUS, UNCHECKED, PASSED)
"""All statuses, most serious first."""

FORMAT = "oxcart-audit/1"
"""Name and version of the JSON format of an audit."""
SHOWN = 50
"""Maximum number of rows of evidence kept by a check; its summary states how many there are."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of one check."""

    name: str
    """A word for programs: `environments`."""
    title: str
    """What is compared, for people: a noun phrase, which reads well under every status."""
    status: str
    """One of `STATUSES`."""
    summary: str
    """What was found, in a sentence; if the check did not run, the reason."""
    evidence: tuple[dict[str, Any], ...] = field(default=())
    """First rows of the evidence, all with the same keys."""
    duplicate: bool = False
    """Whether an exact duplicate across splits was found; one is enough for the verdict `leak`."""


@dataclass(frozen=True)
class Criterion:
    """The subject of a check, with one method for each of the four statuses."""

    name: str
    """A word for programs: `environments`."""
    title: str
    """What is compared, for people: a noun phrase, which reads well under every status."""

    def passed(self, summary: str, evidence: Iterable[dict[str, Any]] = ()) -> Check:
        """The check found nothing wrong."""
        return self._check(PASSED, summary, evidence)

    def failed(
        self, summary: str, evidence: Iterable[dict[str, Any]] = (), *, duplicate: bool = False
    ) -> Check:
        """The check found a defect."""
        return replace(self._check(FAILED, summary, evidence), duplicate=duplicate)

    def suspicious(self, summary: str, evidence: Iterable[dict[str, Any]] = ()) -> Check:
        """The check found something that a person should look at."""
        return self._check(SUSPICIOUS, summary, evidence)

    def unchecked(self, why: str, evidence: Iterable[dict[str, Any]] = ()) -> Check:
        """The check did not run: why, without repeating that it did not."""
        return self._check(UNCHECKED, why, evidence)

    def _check(self, status: str, summary: str, evidence: Iterable[dict[str, Any]]) -> Check:
        first = tuple(evidence)[:SHOWN]
        return Check(name=self.name, title=self.title, status=status, summary=summary, evidence=first)


def count(number: int, what: str, plural: str | None = None) -> str:
    """`1 episode`, `1,234 episodes`."""
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few names on one line."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def check_format(value: Any, where: str) -> dict[str, Any]:
    """Validate the parsed JSON of a report, and return it.

    Raises:
        ConfigError: the value is not the JSON of an audit.
    """
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ConfigError(
            f"{where}: expected the JSON of an audit ({FORMAT}); write it with oxcart audit --json"
        )
    return value
