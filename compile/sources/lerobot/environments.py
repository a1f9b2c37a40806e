"""The environments of episodes, from a table beside the dataset, which has no field for them.

episode_index,environment,session
0,kitchen 1,monday
1,kitchen 2,
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from oxcart.shards.errors import ConfigError
from oxcart.shards.store import store_of

Places = Mapping[int, tuple[str | None, str | None]]
"""Number of an episode -> its environment and its session; None if it has none."""

MOST_BYTES = 256 << 20
"""Size limit of the file, in bytes."""
_TYPES = {"episode_index": pa.int64(), "environment": pa.string(), "session": pa.string()}


def read_environments(file: str) -> Places:
    """Read a table: Parquet, or CSV if its name says so. The column `session` may be left out.

    Raises:
        ConfigError: it is no such table, or names an episode twice.
        StoreError: it cannot be read.
    """
    store, name = store_of(file)
    data = pa.BufferReader(store.read(name, MOST_BYTES))
    try:
        if name.lower().endswith(".csv"):
            types = pyarrow.csv.ConvertOptions(
                column_types=_TYPES, strings_can_be_null=True, null_values=[""]
            )
            table = pyarrow.csv.read_csv(data, convert_options=types)
        else:
            table = pq.read_table(data)
        for column in ("episode_index", "environment"):
            if column not in table.column_names:
                raise ValueError(f"there is no column {column}, only {', '.join(table.column_names)}")
        found = {
            column: table[column].cast(kind).to_pylist()
            for column, kind in _TYPES.items()
            if column in table.column_names
        }
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ConfigError(
            f"--environment-table {file}: expected Parquet or CSV with episode_index and environment: "
            f"{str(error).splitlines()[0]}"
        ) from error
    sessions = found.get("session", [None] * table.num_rows)
    places: dict[int, tuple[str | None, str | None]] = {}
    for number, place, session in zip(found["episode_index"], found["environment"], sessions, strict=True):
        if number is None or number < 0 or number in places:
            raise ConfigError(
                f"--environment-table {file}: expected each episode_index once, got {number} "
                f"in row {len(places)}"
            )
        places[number] = place or None, session or None
    return places
