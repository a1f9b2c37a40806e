"""What `oxcart export lerobot` says of an episode in the table of episodes: its key, split and place.

Whoever merges or filters an export with LeRobot's tools keeps these columns, so they are read wherever they
are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from oxcart.compile.sources.base import CensusRow, EnvironmentRule, clean
from oxcart.compile.sources.lerobot.choices import single_values
from oxcart.compile.sources.lerobot.metadata import RobotDataset
from oxcart.compile.sources.places import KNOWN
from oxcart.manifests.split import SPLITS

KEY, SPLIT, SESSION = "oxcart/key", "oxcart/split", "oxcart/session"
ENVIRONMENT, ENVIRONMENT_KNOWN = "oxcart/environment", "oxcart/environment_known"


def own_rule(dataset: RobotDataset) -> EnvironmentRule | None:
    """The rule that reads the environments of an export; None if the dataset is none or knows none."""
    return EnvironmentRule(field=ENVIRONMENT) if ENVIRONMENT in single_values(dataset) else None


def says_splits(dataset: RobotDataset) -> bool:
    """Whether the dataset says which split each episode was in."""
    return bool(dataset.episodes) and all(one.columns.get(SPLIT) in SPLITS for one in dataset.episodes)


def restored(row: CensusRow, columns: Mapping[str, Any]) -> CensusRow:
    """The census row of an episode as it was before the export, as far as its `columns` say."""
    if SPLIT not in columns:
        return row
    key, split, known = columns.get(KEY), columns[SPLIT], columns.get(ENVIRONMENT_KNOWN)
    changes: dict[str, Any] = {}
    if isinstance(key, str) and key and key == clean(key):
        changes["key"] = key
    if split in SPLITS:
        changes["source_split"] = split
    if row.environment is not None and row.environment == columns.get(ENVIRONMENT):
        session = columns.get(SESSION)
        changes["session"] = session if isinstance(session, str) and session else row.session
        changes["environment_known"] = known if known in KNOWN else row.environment_known
    return replace(row, **changes)
