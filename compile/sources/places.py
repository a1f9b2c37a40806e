"""Tables that tell the environments of episodes: a list of them, or the census of another source.

A list names episodes by `episode_index` (of LeRobot) or by `key`. A census tells the environments of a copy
that has none: an episode is where the episode of the census is that has as many steps and the same numbers
(see `sketch`). If episodes of several environments fit, it is unknown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64, xxh3_64_hexdigest

from oxcart.manifests.canonical import canonical_json
from oxcart.shards.errors import ConfigError

OPTION = "--environment-table"
INDEX, KEY = "episode_index", "key"
KNOWN = ("declared", "inferred", "unknown")
"""What `environment_known` may say."""
FEWEST = 4
"""Hashes that a copy must share with its original."""
COMMON = 8
"""Most episodes of a census that may share a hash; one that more have says nothing."""
DROPPED = 2
"""Steps by which a copy may be shorter or longer than its original."""
PLACE = ("environment", "session", "environment_known")
"""Columns that make an `EpisodePlace`."""


class EpisodePlace(NamedTuple):
    """Where and when an episode was recorded."""

    environment: str | None
    session: str | None = None
    known: str = "declared"


NOWHERE = EpisodePlace(None, None, "unknown")


class PlaceTable(Protocol):
    """What tells the environments of the episodes of a source."""

    sketched: bool
    """Whether it needs a sketch of each episode."""

    def describe(self) -> str:
        """A digest of all that it tells."""
        ...

    def check(self, kind: str, episodes: int | None) -> None:
        """Refuse a source that it cannot be about, by its kind and, if known, its number of episodes."""
        ...

    def put(self, table: pa.Table) -> pa.Table:
        """A census table with these environments."""
        ...

    def warnings(self, table: pa.Table) -> list[str]:
        """Lines on what was not found, for the census table of the source."""
        ...


@dataclass(frozen=True, kw_only=True)
class ListedPlaces:
    """PlaceTable of episodes that are named one by one; those of all others are unknown."""

    by: str
    """`episode_index` or `key`."""
    places: Mapping[Any, EpisodePlace]
    """Number or key of an episode -> its place."""

    sketched = False

    def describe(self) -> str:
        """A digest of the list."""
        return xxh3_64_hexdigest(canonical_json([self.by, sorted(self.places.items())]))

    def check(self, kind: str, episodes: int | None) -> None:
        """Refuse numbers of episodes that the source cannot have."""
        if self.by == KEY:
            return
        if kind != "lerobot":
            raise ConfigError(
                f"{OPTION}: expected a column {KEY} for a source of {kind}, got {INDEX}, which LeRobot has"
            )
        beyond = max(self.places, default=0)
        if beyond and episodes is not None and beyond >= episodes:
            raise ConfigError(f"{OPTION}: expected episodes up to {episodes - 1}, got {beyond}")

    def put(self, table: pa.Table) -> pa.Table:
        """The census table with the places that the list gives."""
        names = table["source_record" if self.by == INDEX else KEY].to_pylist()
        return _with(table, [self.places.get(name, NOWHERE) for name in names])

    def warnings(self, table: pa.Table) -> list[str]:
        """A line if keys are listed that the source does not have."""
        if self.by == INDEX:
            return []
        strange = self.places.keys() - set(table[KEY].to_pylist())
        if not strange:
            return []
        return [f"{OPTION}: lists {len(strange):,} keys that no episode has, such as {min(strange)}"]


@dataclass(frozen=True)
class CensusPlaces:
    """PlaceTable of the episodes of a census, for a copy of them."""

    name: str
    """Name of the dataset of the census."""
    rows: pa.Table
    """`steps`, `sketch` and place of each of its episodes."""

    sketched = True

    def describe(self) -> str:
        """A digest of the census."""
        told = [self.name, *(self.rows[name].to_pylist() for name in ("steps", *PLACE))]
        same = xxh3_64(canonical_json(told))
        for hashes in self.rows["sketch"].to_numpy():
            same.update(np.append(hashes, np.uint32(len(hashes))).astype("<u4").tobytes())
        return same.hexdigest()

    def check(self, kind: str, episodes: int | None) -> None:
        """Refuse a source of which no sketches are made."""
        if kind != "lerobot":
            raise ConfigError(f"{OPTION}: expected a list of episodes for a source of {kind}, got a census")

    def put(self, table: pa.Table) -> pa.Table:
        """The census table of the copy with the places of the originals."""
        return _with(table, [place for place, _ in self._found(table)])

    def warnings(self, table: pa.Table) -> list[str]:
        """A line that counts which episodes of the copy were found."""
        usable = table.filter(table["rejected"].is_null())
        counts = Counter(why for _, why in self._found(usable))
        said = ", ".join(f"{counts[why]:,} {why}" for why in ("ambiguous", "not found") if counts[why])
        found = f"{counts['found']:,} of {usable.num_rows:,} episodes are episodes of {self.name}"
        return [f"{OPTION}: {found}" + (f"; {said}, whose environments stay unknown" if said else "")]

    @cached_property
    def _places(self) -> list[EpisodePlace]:
        return [
            EpisodePlace(*row) for row in zip(*(self.rows[name].to_pylist() for name in PLACE), strict=True)
        ]

    @cached_property
    def _holders(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """Every hash, sorted, and beside each an episode that has it; a hash may come several times."""
        sketches = self.rows["sketch"].combine_chunks()
        hashes = pc.list_flatten(sketches).to_numpy()
        order = np.argsort(hashes, kind="stable")
        return hashes[order], pc.list_parent_indices(sketches).to_numpy()[order]

    def _found(self, table: pa.Table) -> Iterator[tuple[EpisodePlace, str]]:
        """The place of each episode, and whether it was `found`, `not found` or is `ambiguous`."""
        every, holders = self._holders
        steps = self.rows["steps"].to_numpy()
        for length, sketch in zip(table["steps"].to_pylist(), table["sketch"].to_pylist(), strict=True):
            own = np.array(sketch or (), np.uint32)
            first, last = (np.searchsorted(every, own, side) for side in ("left", "right"))
            shared = Counter(
                episode
                for start, stop in zip(first.tolist(), last.tolist(), strict=True)
                if stop - start <= COMMON
                for episode in holders[start:stop].tolist()
                if abs(steps[episode] - length) <= DROPPED
            )
            yield self._judged(shared)

    def _judged(self, shared: Mapping[int, int]) -> tuple[EpisodePlace, str]:
        """The place where most hashes are from; none if another place has half as many."""
        best: dict[str | None, int] = defaultdict(int)
        for episode, count in shared.items():
            name = self._places[episode].environment
            best[name] = max(best[name], count)
        top, *others = sorted(best.values(), reverse=True) or [0]
        if top < FEWEST:
            return NOWHERE, "not found"
        if others and 2 * others[0] >= top:
            return NOWHERE, "ambiguous"
        nearest = [self._places[episode] for episode, count in sorted(shared.items()) if count == top]
        sessions = {place.session for place in nearest}
        return nearest[0] if len(sessions) == 1 else nearest[0]._replace(session=None), "found"


def _with(table: pa.Table, places: Sequence[EpisodePlace]) -> pa.Table:
    """A census table with other places."""
    for column, name in enumerate(PLACE):
        at = table.schema.get_field_index(name)
        values = pa.array([place[column] for place in places], pa.string())
        table = table.set_column(at, table.schema.field(at), values)
    return table
