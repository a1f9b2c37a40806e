"""The steps of episodes, from the Parquet files of a LeRobot dataset.

LeRobot writes a row group per episode; others write all into one. A few groups are kept, so that such a file
is not read again for each of its episodes.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from oxcart.compile.sources.base import Floats
from oxcart.compile.sources.videos.decode import RemoteFile
from oxcart.shards.store import Store

_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
FILES, GROUPS = 8, 2
"""Files that stay open, and row groups that stay in memory."""


class StepFiles:
    """The Parquet files of a dataset.

    Args:
        store: the store of the dataset.
        columns: the columns that are read.
    """

    def __init__(self, store: Store, columns: list[str]) -> None:
        self._store, self._columns = store, columns
        self._reading = threading.Lock()
        self._file = lru_cache(FILES)(self._open)
        self._group = lru_cache(GROUPS)(self._read_group)

    def rows(self, file: str, start: int, count: int) -> pa.Table:
        """`count` rows of a file from row `start` on.

        Raises:
            ValueError: the file is missing, cannot be read, or has other columns or fewer rows.
        """
        with self._reading:
            try:
                _, ends = self._file(file)
                if start + count > (ends[-1] if ends else 0):
                    end = f"row {start + count - 1}"
                    raise ValueError(f"{file} has {ends[-1] if ends else 0} rows; its steps end in {end}")
                first, last = bisect_right(ends, start), bisect_right(ends, start + count - 1)
                table = pa.concat_tables([self._group(file, group) for group in range(first, last + 1)])
            except FileNotFoundError as error:
                raise ValueError(f"{file} is missing") from error
            except (OSError, pa.ArrowException) as error:
                raise ValueError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error
        return table.slice(start - (ends[first - 1] if first else 0), count)

    def _open(self, file: str) -> tuple[pq.ParquetFile, list[int]]:
        """A file, and the row at which each of its groups ends."""
        if not self._store.exists(file):
            raise FileNotFoundError
        place: Any = f"{self._store.url}/{file}"
        opened = pq.ParquetFile(pa.PythonFile(RemoteFile(self._store, file)) if self._store.remote else place)
        for column in self._columns:
            if column not in opened.schema_arrow.names:
                raise ValueError(f"{file} has no column {column}")
        metadata = opened.metadata
        groups = (metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        return opened, list(accumulate(groups))

    def _read_group(self, file: str, group: int) -> pa.Table:
        opened, _ = self._file(file)
        return opened.read_row_group(group, self._columns, use_threads=False)


def integers(table: pa.Table, name: str) -> np.ndarray[Any, Any]:
    """A column of one whole number per step, int64 [T].

    Raises:
        ValueError: it holds something else.
    """
    values = _flat(table, name, 1)
    if not pa.types.is_integer(values.type):
        raise ValueError(f"{name} holds {values.type} where whole numbers are expected")
    return np.asarray(values.to_numpy(zero_copy_only=False), np.int64)


def numbers(table: pa.Table, name: str, width: int) -> Floats:
    """A column of `width` numbers per step, float32 [T, width]; values beyond float32 become infinite.

    Raises:
        ValueError: it holds something else.
    """
    values = _flat(table, name, width)
    if not any(is_kind(values.type) for is_kind in _NUMBERS):
        raise ValueError(f"{name} holds {values.type} where numbers are expected")
    with np.errstate(over="ignore"):
        found = np.asarray(values.to_numpy(zero_copy_only=False), np.float32)
    return found.reshape(table.num_rows, width)


def images(table: pa.Table, name: str) -> list[bytes]:
    """A column of encoded images.

    Raises:
        ValueError: the images are not in the file.
    """
    kind = table.schema.field(name).type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise ValueError(f"{name} holds {kind} where encoded images are expected")
    found: list[bytes | None] = pc.struct_field(table[name], "bytes").to_pylist()
    for step, image in enumerate(found):
        if not image:
            raise ValueError(f"{name} holds no image at step {step}")
    return [image for image in found if image]


def _flat(table: pa.Table, name: str, width: int) -> pa.Array:
    """The values of a column one after another."""
    values = table[name].combine_chunks()
    sizes = 1
    while isinstance(values.type, pa.ExtensionType):
        values = values.storage
    while pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or _is_fixed(values.type):
        lengths = pc.unique(pc.list_value_length(values)).to_pylist()
        if len(lengths) > 1 or lengths == [None]:
            raise ValueError(f"{name} has steps of {', '.join(map(str, lengths))} values; expected {width}")
        sizes *= lengths[0] if lengths else 1
        values = values.flatten()
    if sizes != width or values.null_count:
        what = f"{sizes} values" if sizes != width else "nothing in a value"
        raise ValueError(f"{name} has {what} at a step; expected {width}")
    return values


def _is_fixed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))
