"""Read the table of environments beside a source: a list of its episodes, or the census of another.

episode_index,environment,session
0,kitchen 1,monday
1,kitchen 2,
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from oxcart.compile.census import METADATA, Census
from oxcart.compile.census import read as read_census
from oxcart.compile.sources.places import (
    INDEX,
    KEY,
    KNOWN,
    NOWHERE,
    OPTION,
    PLACE,
    CensusPlaces,
    EpisodePlace,
    ListedPlaces,
    PlaceTable,
)
from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError
from oxcart.shards.store import store_of

MOST_BYTES = 1 << 30
"""Size limit of the file, in bytes."""
_TYPES = {
    INDEX: pa.int64(),
    KEY: pa.string(),
    "environment": pa.string(),
    "session": pa.string(),
    "environment_known": pa.string(),
}


def read_places(file: str) -> PlaceTable:
    """Read a table of environments: Parquet, CSV if its name says so, or a census that `oxcart scan` wrote.

    Raises:
        ConfigError: it is no such table, or names an episode twice.
        StoreError: it cannot be read.
    """
    store, name = store_of(file)
    data = store.read(name, MOST_BYTES)
    try:
        if name.lower().endswith(".csv"):
            types = pyarrow.csv.ConvertOptions(
                column_types=_TYPES, strings_can_be_null=True, null_values=[""]
            )
            table = pyarrow.csv.read_csv(pa.BufferReader(data), convert_options=types)
        else:
            table = pq.read_table(pa.BufferReader(data))
            if METADATA in (table.schema.metadata or {}):
                return _of_census(read_census(data, file), file)
        by = INDEX if INDEX in table.column_names else KEY
        for column in (by, "environment"):
            if column not in table.column_names:
                raise ValueError(f"there is no column {column}, only {', '.join(table.column_names)}")
        for column in _TYPES:
            if table.column_names.count(column) > 1:
                raise ValueError(f"there are several columns {column}")
        found = {
            column: table[column].cast(kind).to_pylist()
            for column, kind in _TYPES.items()
            if column in table.column_names
        }
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ConfigError(
            f"{OPTION} {file}: expected Parquet or CSV with {INDEX} or {KEY}, and environment: "
            f"{str(error).splitlines()[0]}"
        ) from error
    nothing: list[Any] = [None] * table.num_rows
    columns = [found[by], *(found.get(name, nothing) for name in PLACE)]
    places: dict[Any, EpisodePlace] = {}
    for name, environment, session, known in zip(*columns, strict=True):
        if name is None or (by == INDEX and name < 0) or name in places:
            raise ConfigError(f"{OPTION} {file}: expected each {by} once, got {name!r} in row {len(places)}")
        one_of(f"{OPTION} {file}: environment_known", known or KNOWN[0], KNOWN)
        known = (known or KNOWN[0]) if environment else NOWHERE.known
        places[name] = EpisodePlace(environment or None, session or None, known)
    return ListedPlaces(by=by, places=places)


def _of_census(census: Census, file: str) -> CensusPlaces:
    """The places of the episodes of a census.

    Raises:
        ConfigError: it is a part of one, or of a source without sketches.
    """
    if census.part is not None:
        raise ConfigError(f"{OPTION} {file}: expected a whole census, got part {census.part}")
    if census.source["kind"] != "rlds":
        raise ConfigError(
            f"{OPTION} {file}: expected the census of an RLDS dataset, got one of {census.source['kind']}"
        )
    rows = census.usable.select(["steps", "sketch", *PLACE]).combine_chunks()
    return CensusPlaces(census.source["name"], rows)
