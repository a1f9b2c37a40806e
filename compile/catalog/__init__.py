"""What is known of each dataset: one YAML file a dataset, named exactly as its `dataset_info.json` names it.

cameras:            # the primary first
  - image_0
instruction: [...]  # features, in order of preference; `steps/` and `observation/` may be left out
action: [...]       # features, concatenated in this order
state: [...]
control_rate: {hz: 5.0, verified: true}    # verified: the dataset's own documentation says so
environment:        # where an episode's environment is recorded
  field: episode_metadata/file_path
  patterns: [...]   # regular expressions with groups `environment` and `session`; the first match counts
  known: declared
aliases:            # one environment -> its other names
  toykitchen1: [datacol1_toykitchen1]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml

from oxcart.compile.sources.base import EnvironmentRule, clean


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known of one dataset; everything may be missing."""

    cameras: tuple[str, ...] | None = None
    instruction: tuple[str, ...] | None = None
    action: tuple[str, ...] | None = None
    state: tuple[str, ...] | None = None
    control_rate: dict[str, Any] | None = None
    environment: EnvironmentRule | None = None
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def lookup(name: str) -> Entry:
    """The entry of the dataset of exactly this name; an empty one where nothing is known of it."""
    file = resources.files(__name__) / f"{name}.yaml"
    if clean(name) != name or not file.is_file():
        return Entry()
    value = yaml.safe_load(file.read_text("utf-8"))
    rule = value.pop("environment", None)
    rate = value.pop("control_rate", None)
    aliases = value.pop("aliases", {})
    return Entry(
        **{name: tuple(items) for name, items in value.items()},
        control_rate=rate,
        environment=EnvironmentRule(**{**rule, "patterns": tuple(rule.get("patterns", ()))})
        if rule
        else None,
        aliases={place: tuple(names) for place, names in aliases.items()},
    )
