"""What the catalog knows of a LeRobot dataset that is a port of another one.

Converters drop what tells the environment, round the rate of control down to a whole number, and label
licences wrongly. So those facts are the original's. Two converters standardise actions and states in the same
way, but for the zeros with which one fills states up to eight values. Some ports are as the original was.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from oxcart.compile.catalog import Entry, lookup, names, parted, ported
from oxcart.manifests.columns import Column
from oxcart.shards.choices import did_you_mean
from oxcart.shards.errors import ConfigError

NONE = "none"
_HUB = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@[^/]+)?")
_CACHE = re.compile(r".*/datasets--([^/]+?)--([^/]+)/snapshots/[^/]+")
_FEATURES = {"action": "action", "observation.state": "state"}
"""Feature of a port -> what it is in the catalog."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """A LeRobot dataset that was converted from another one."""

    repo_id: str | None
    """Its repo id, if that is how it was recognised."""
    dataset: str
    """The original, by its name in the catalog."""
    known: Entry
    """What is known of the original, with its cameras named as in the port."""

    def columns(self, feature: str, size: int) -> tuple[Column, ...] | None:
        """The columns of a feature of `size` values; None if the catalog has none that are as many."""
        standard = self.known.ports.columns.get(feature, ())
        bare = tuple(one for one in standard if not one.name.startswith("pad"))
        original = getattr(self.known, _FEATURES[feature], None) if feature in _FEATURES else None
        raw = self.known.columns.get(parted(original[0])[0], ()) if original and len(original) == 1 else ()
        return next((one for one in (standard, bare, raw) if len(one) == size), None)

    def unlike(self, feature: str, size: int) -> str | None:
        """A warning if a feature has not as many values as the catalog has columns for it."""
        expected = len(self.known.ports.columns.get(feature, ()))
        if not expected or self.columns(feature, size) is not None:
            return None
        option = _FEATURES[feature]
        return (
            f"{option} {feature}: expected the {expected} values of the catalog, got {size}, so its columns "
            f"have unknown kinds; pass --{option}-kind"
        )

    def other_rate(self, fps: int) -> str | None:
        """A warning if the catalog's rate of control is not the one that the port rounds down."""
        rate = self.known.control_rate
        if rate is None or int(rate["hz"]) == fps:
            return None
        return f"fps is {fps}, but {self.dataset} was controlled at {rate['hz']:g} Hz: {rate['source']}"

    def control_rate(self, fps: int, source: str) -> dict[str, Any]:
        """The original's rate if that is known; else the whole number that the converter wrote."""
        return self.known.control_rate or {"hz": float(fps), "verified": False, "source": source}

    def describe(self) -> dict[str, Any]:
        """Repo id and original, as plain JSON."""
        return {"repo_id": self.repo_id, "dataset": self.dataset}


def find_port(url: str, asked: str | None) -> Port | None:
    """The port that lies at a place; None if the catalog does not know it.

    Args:
        url: the directory or URL of the dataset.
        asked: a repo id, the name of the original, or `none`; None goes by the place.

    Raises:
        ConfigError: the catalog does not know what is asked for.
    """
    if asked == NONE:
        return None
    repo = asked or repo_id_of(url)
    if repo is None:
        return None
    dataset = ported(repo)
    if dataset is None and asked in (every := names()):
        repo, dataset = None, asked
    if dataset is None:
        if asked is None:
            return None
        raise ConfigError(
            f"--catalog {asked}: expected a dataset of the catalog or a repo id of a port of one"
            + did_you_mean(asked, every, "oxcart catalog lists them")
        )
    entry = lookup(dataset)
    called = {theirs: ours for ours, theirs in entry.ports.cameras.items()}
    channels = {} if repo in entry.ports.rgb else entry.channels
    known = {
        "cameras": tuple(called.get(one, one) for one in entry.cameras or ()),
        "roles": {called.get(one, one): role for one, role in entry.roles.items()},
        "channels": {called.get(one, one): order for one, order in channels.items()},
    }
    return Port(repo_id=repo, dataset=dataset, known=Entry(**{**vars(entry), **known}))


def repo_id_of(url: str) -> str | None:
    """The repo id that a place tells: a URL of the Hub, a folder of its cache, or a folder OWNER/NAME."""
    place = url.rstrip("/") if "://" in url else os.path.abspath(url)
    if match := _HUB.fullmatch(place):
        return match[1]
    if match := _CACHE.fullmatch(place):
        return f"{match[1]}/{match[2]}"
    parts = place.split("/")
    return "/".join(parts[-2:]) if len(parts) > 2 and all(parts[-2:]) else None
