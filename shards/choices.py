"""Choices among names: refuse unknown ones, and suggest the one that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from oxcart.shards.errors import ConfigError

MOST = 20_000
"""Maximum number of names searched for a similar one: difflib takes up to 100 us per name."""


def one_of(argument: str, value: object, allowed: Collection[object]) -> None:
    """Refuse a value that is not among those allowed.

    Raises:
        ConfigError: the value is not allowed; the message lists those that are.
    """
    if value not in allowed:
        names = [str(name) for name in allowed]
        raise ConfigError(
            f"{argument}: expected one of {', '.join(names)}; got {value!r}{did_you_mean(str(value), names)}"
        )


def did_you_mean(name: str, names: Iterable[str], remedy: str = "") -> str:
    """The end of a message about an unknown name: `; did you mean NAME? REMEDY`, as far as there are both."""
    near = nearest(name, names)
    hint = " ".join(filter(None, (f"did you mean {near}?" if near else "", remedy)))
    return f"; {hint}" if hint else ""


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that most resembles another; None if none does, or if there are too many."""
    known = sorted(names)
    near = difflib.get_close_matches(name, known, 1, cutoff=0.5) if len(known) <= MOST else []
    return near[0] if near else None
