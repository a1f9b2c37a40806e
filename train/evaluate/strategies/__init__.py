"""The strategies: one file each, found by its place in this folder; `oxcart.train.evaluate.strategy` says
what one is."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError

if TYPE_CHECKING:
    from oxcart.train.evaluate.strategy import Strategy


MERGED = {"tokens": "compass", "sequences": "codebook", "examples": "codebook"}
"""Names of strategies that older versions had -> the strategy that draws their figures now."""


def names() -> list[str]:
    """Names of all strategies; imports none of them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def check(chosen: Sequence[str], argument: str) -> None:
    """Refuse a name that no strategy has.

    Raises:
        ConfigError: a name is unknown; the message lists all.
    """
    for name in chosen:
        if name in MERGED:
            raise ConfigError(f"{argument}: the figures of {name!r} are drawn by {MERGED[name]}; use that")
        one_of(argument, name, names())


def load(chosen: Sequence[str]) -> dict[str, Strategy]:
    """Strategies by name, in the order of the report."""
    found = {name: importlib.import_module(f"{__name__}.{name}").STRATEGY for name in chosen}
    return dict(sorted(found.items(), key=lambda item: (item[1].place, item[0])))
