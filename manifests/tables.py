"""The Parquet tables of a compiled dataset: their columns, and one way to write and read them."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from oxcart.shards.errors import CorruptError
from oxcart.shards.store import Store

ROW_GROUP = 65_536

EPISODES = "episodes.parquet"
REJECTED = "rejected.parquet"
ATTRIBUTION = "attribution.parquet"
"""Only where the source says whose work an episode is."""

TABLE_FILE = re.compile(r"(episodes|rejected|attribution)(-[0-9a-f]{16})?\.parquet")
"""Files that hold a table. One that replaces another has its digest in its name, so that no table is ever
overwritten while a manifest names it."""


def later_file(name: str, digest: str) -> str:
    """Where a table lies that replaces one of an earlier manifest."""
    return f"{name.removesuffix('.parquet')}-{digest[:16]}.parquet"


_SOURCE = [
    ("source_split", pa.string()),
    ("source_file", pa.string()),
    ("source_record", pa.int32()),
    ("source_offset", pa.int64()),
    ("source_length", pa.int64()),
]

REJECTED_SCHEMA = pa.schema([("key", pa.string()), *_SOURCE, ("reason", pa.string())])

ATTRIBUTION_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("video", pa.string()),
        ("same_as", pa.string()),
        ("title", pa.string()),
        ("channel", pa.string()),
        ("channel_id", pa.string()),
        ("licence", pa.string()),
        ("url", pa.string()),
        ("uploaded", pa.string()),
        ("start_s", pa.float64()),
        ("stop_s", pa.float64()),
    ]
)

CHUNKS_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("camera", pa.string()),
        ("digests", pa.list_(pa.uint64())),
        ("sizes", pa.list_(pa.uint32())),
    ]
)


def episodes_schema(cameras: Sequence[str]) -> pa.Schema:
    """Columns of `episodes.parquet`; three for each camera."""
    per_camera = [
        (f"{camera}.{what}", kind)
        for camera in cameras
        for what, kind in (("offset", pa.int64()), ("height", pa.int32()), ("width", pa.int32()))
    ]
    return pa.schema(
        [
            ("key", pa.string()),
            ("split", pa.string()),
            ("shard", pa.string()),
            ("environment", pa.string()),
            ("environment_known", pa.string()),
            ("session", pa.string()),
            ("instruction", pa.string()),
            ("steps", pa.int32()),
            ("control_rate", pa.float32()),
            *_SOURCE,
            ("source_digest", pa.uint64()),
            ("digest", pa.string()),
            ("offset", pa.int64()),
            ("bytes", pa.int64()),
            ("json.digest", pa.uint64()),
            ("action.offset", pa.int64()),
            ("action.digest", pa.uint64()),
            ("state.offset", pa.int64()),
            ("state.digest", pa.uint64()),
            *per_camera,
        ]
    )


def table_bytes(table: pa.Table) -> bytes:
    """The table as Parquet: the same table gives the same bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=ROW_GROUP, compression="zstd", write_statistics=True)
    return buffer.getvalue()


def read_table(store: Store, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, whole or some columns of it.

    Raises:
        CorruptError: it is not Parquet, or lacks a column.
        StoreError: it cannot be read.
    """
    return parse_table(store.read(name), name, columns)


def parse_table(
    data: bytes, name: str, columns: Sequence[str] | None = None, coded: Sequence[str] = ()
) -> pa.Table:
    """The table in `data`, which came from the object `name`; the columns `coded` as dictionaries."""
    try:
        return pq.read_table(
            pa.BufferReader(_own(data)),
            columns=list(columns) if columns is not None else None,
            read_dictionary=list(coded) or None,
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptError(f"{name}: not a readable Parquet table: {_first_line(error)}") from error


def _own(data: bytes) -> pa.Buffer:
    """The bytes in memory of Arrow's.

    Its threads may hold them a moment longer than the call. To let go of bytes of Python's they would need
    the interpreter, and if that is being torn down then, the process aborts.
    """
    buffer = pa.allocate_buffer(len(data))
    memoryview(buffer).cast("B")[:] = data
    return buffer


def _first_line(error: Exception) -> Any:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
