"""What a check of the audit says: a status, a sentence and its evidence. Plain data, so that JSON holds it
all.

Four statuses and no more. `suspicious` is for a person to look at and decides nothing; `not checked` is
never left out, because a check that did not run must not look like one that passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from oxcart.shards.errors import ConfigError

PASSED, FAILED, SUSPICIOUS, UNCHECKED = "passed", "failed", "suspicious", "not checked"
STATUSES = (FAILED, SUSPICIOUS, UNCHECKED, PASSED)
"""The gravest first."""

FORMAT = "oxcart-audit/1"
"""Of the JSON of an audit."""
SHOWN = 50
"""Rows of evidence that are kept of a check; its summary states how many there are."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """The outcome of one check."""

    name: str
    """A word for programs: `environments`."""
    title: str
    """What must hold, for people."""
    status: str
    """One of `STATUSES`."""
    summary: str
    """What was found, in a sentence; where it was not checked, why."""
    evidence: tuple[dict[str, Any], ...] = field(default=())
    """The first rows of what speaks for it, all with the same keys."""
    duplicate: bool = False
    """Whether it found an exact duplicate across splits, which alone makes a leak."""


def passed(name: str, title: str, summary: str, evidence: Iterable[dict[str, Any]] = ()) -> Check:
    """A check that found nothing wrong."""
    return Check(name=name, title=title, status=PASSED, summary=summary, evidence=_first(evidence))


def failed(
    name: str, title: str, summary: str, evidence: Iterable[dict[str, Any]] = (), *, duplicate: bool = False
) -> Check:
    """A check that found what must not be."""
    return Check(
        name=name,
        title=title,
        status=FAILED,
        summary=summary,
        evidence=_first(evidence),
        duplicate=duplicate,
    )


def suspicious(name: str, title: str, summary: str, evidence: Iterable[dict[str, Any]] = ()) -> Check:
    """A check that found what a person should look at."""
    return Check(name=name, title=title, status=SUSPICIOUS, summary=summary, evidence=_first(evidence))


def unchecked(name: str, title: str, because: str, evidence: Iterable[dict[str, Any]] = ()) -> Check:
    """A check that did not run."""
    return Check(
        name=name,
        title=title,
        status=UNCHECKED,
        summary=f"not checked because {because}",
        evidence=_first(evidence),
    )


def _first(evidence: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    return tuple(evidence)[:SHOWN]


def count(number: int, what: str, plural: str | None = None) -> str:
    """`1 episode`, `1,234 episodes`."""
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few names on one line."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def check_format(value: Any, where: str) -> dict[str, Any]:
    """The report in parsed JSON.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ConfigError(
            f"{where}: expected the JSON of an audit ({FORMAT}); write it with oxcart audit --json"
        )
    return value
