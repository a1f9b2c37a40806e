"""Named subsets of the pairs, defined by rules in YAML.

    bridge: dataset=bridge
    toykitchens: environment~toykitchen
    new places: held out
    new toykitchens: [held out, environment~toykitchen, instruction!~drawer]

A rule is `FIELD=TEXT` (equal), `FIELD!=TEXT` (not equal), `FIELD~PATTERN` (the regular expression occurs),
`FIELD!~PATTERN` (it does not), `seen`, `held out` or `unknown`. A pair is in the subset if all rules of a
list hold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import yaml

from oxcart.shards.errors import ConfigError
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.statistics import Strings
from oxcart.train.trained_on import PLACES

FIELDS = ("dataset", "environment", "split", "instruction", "key")
Mask = npt.NDArray[np.bool_]

_RULE = re.compile(r"(\w+)\s*(!?[=~])\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Subset:
    """A subset of the pairs: those for which all rules hold.

    Raises:
        ConfigError: a rule cannot be read.
    """

    name: str
    rules: tuple[str, ...]

    def __post_init__(self) -> None:
        for rule in self.rules:
            if rule in PLACES:
                continue
            found = _RULE.fullmatch(rule)
            if found is None or found[1] not in FIELDS:
                raise ConfigError(
                    f"subset {self.name!r}: expected rules such as dataset=bridge, environment~toykitchen, "
                    f"seen, held out or unknown (fields: {', '.join(FIELDS)}); got {rule!r}"
                )
            if found[2].endswith("~"):
                try:
                    re.compile(found[3])
                except re.error as error:
                    raise ConfigError(
                        f"subset {self.name!r}: {found[3]!r} is not a regular expression: {error}"
                    ) from error

    def mask(self, pairs: GatheredPairs) -> Mask:
        """Mask [N] of the pairs in the subset."""
        found = np.ones(len(pairs), bool)
        for rule in self.rules:
            found &= _holds(rule, pairs)
        return found


def parse(text: str, where: str) -> list[Subset]:
    """Parse the subsets in a YAML file.

    Args:
        text: contents of the file.
        where: name of the file, for errors.

    Raises:
        ConfigError: the file does not define subsets.
    """
    try:
        loaded = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict) or not loaded:
        raise ConfigError(f"{where}: expected lines such as `bridge: dataset=bridge`, got none")
    found = []
    for name, value in loaded.items():
        rules = value if isinstance(value, list) else [value]
        if not rules or not all(isinstance(rule, str) for rule in rules):
            raise ConfigError(f"{where}: {name}: expected a rule or a list of rules, got {value!r}")
        try:
            found.append(Subset(str(name), tuple(rule.strip() for rule in rules)))
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
    return found


def default_subsets(pairs: GatheredPairs) -> list[Subset]:
    """Each dataset, if there are several."""
    datasets: Sequence[str] = np.unique(pairs.dataset).tolist()
    return [Subset(name, (f"dataset={name}",)) for name in datasets] if len(datasets) > 1 else []


def _holds(rule: str, pairs: GatheredPairs) -> Mask:
    if rule in PLACES:
        there: Mask = pairs.place == rule
        return there
    parts = _RULE.fullmatch(rule)
    assert parts is not None
    values: Strings = getattr(pairs, parts[1])
    if parts[2].endswith("="):
        found = values == parts[3]
    else:
        names, place = np.unique(values, return_inverse=True)
        pattern = re.compile(parts[3])
        found = np.array([pattern.search(name) is not None for name in names.tolist()])[place]
    held: Mask = ~found if parts[2].startswith("!") else found
    return held
