"""The steps of episodes, from the Parquet files of a LeRobot dataset.

LeRobot writes a row group per episode; others write all into one. So the groups that were read last are kept,
and a file of one group is not read again for each of its episodes. The episodes of a shard lie anywhere in
the files, so a compile gathers the rows of many, with one read of each file. In a bucket, the columns of
groups that follow each other are read together, in requests of a good size.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from xxhash import xxh3_64_intdigest

from oxcart.compile.sources.base import Floats
from oxcart.compile.sources.lerobot.metadata import EpisodeEntry
from oxcart.compile.sources.videos.decode import RemoteFile
from oxcart.shards.store import Store

_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
FILES, READS = 8, 2
"""Files whose metadata stay in memory, and row groups that were read together and do."""
RUN_BYTES = 64 << 20
"""Size of the row groups that a census reads together, in bytes; a single one may be larger."""

SMALL_BYTES = 4 << 20
"""Size of the largest file that is read whole for several of its groups, in bytes: each column of a group
would be a read of its own."""


@dataclass(frozen=True, kw_only=True)
class _StepFile:
    metadata: Any
    size: int
    begins: list[int]
    """Rows of all groups before each, and of all groups."""
    sizes: list[int]
    """Uncompressed bytes of each group."""

    def groups(self, rows: range) -> range:
        """The groups in which some rows lie; the last group if they lie beyond the end."""
        last = len(self.begins) - 1
        first = bisect_right(self.begins, rows.start, hi=last) - 1
        return range(first, max(first + 1, bisect_right(self.begins, rows.stop - 1, hi=last)))

    def size_of(self, groups: Iterable[int]) -> int:
        """Uncompressed bytes of groups."""
        return sum(self.sizes[group] for group in groups)


class StepFiles:
    """The Parquet files of a dataset, which any number of threads may read at once.

    Args:
        store: the store of the dataset.
        columns: the columns that are read.
    """

    def __init__(self, store: Store, columns: list[str]) -> None:
        self._store, self._columns = store, columns
        self._opened = lru_cache(FILES)(self._open)
        self._groups = lru_cache(READS)(self._read)

    def rows(self, file: str, entries: Sequence[EpisodeEntry]) -> pa.Table:
        """The rows of episodes of a file, which are in the order of the file.

        Raises:
            ValueError: the file is missing, cannot be read, or has other columns or fewer rows.
        """
        opened = self._file(file)
        end = entries[-1].row + entries[-1].steps
        if end > opened.begins[-1]:
            raise ValueError(f"{file} has {opened.begins[-1]} rows; its steps end in row {end - 1}")
        stretches = _stretches(entries)
        groups = tuple(dict.fromkeys(group for rows in stretches for group in opened.groups(rows)))
        try:
            table = self._groups(file, groups)
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{file} {_unreadable(error)}") from error
        lengths = [opened.begins[group + 1] - opened.begins[group] for group in groups]
        left_out = {  # group -> rows of the file before it that are not in the table
            group: opened.begins[group] - before
            for group, before in zip(groups, accumulate(lengths, initial=0), strict=False)
        }
        starts = [rows.start - left_out[opened.groups(rows)[0]] for rows in stretches]
        parts = [table.slice(start, len(rows)) for start, rows in zip(starts, stretches, strict=True)]
        return parts[0] if len(parts) == 1 else pa.concat_tables(parts)

    def gather(self, entries: Sequence[EpisodeEntry]) -> pa.Table:
        """The rows of episodes of any files, which are in the order of the files and of their rows.

        They are copied, so that nothing else that was read with them stays in memory.

        Raises:
            ValueError: see `rows`; or the files differ in the types of columns.
        """
        parts = []
        for file, some in groupby(entries, lambda entry: entry.file):
            for run in self.runs(file, [*some]):
                rows = self.rows(file, run)
                parts.append(rows.take(np.arange(rows.num_rows)))
        return pa.concat_tables(parts)

    def runs(self, file: str, entries: Sequence[EpisodeEntry]) -> Iterator[list[EpisodeEntry]]:
        """The episodes of a file, as many at a time as are read together."""
        try:
            opened = self._file(file)
        except ValueError:  # whoever reads an episode is told
            yield [*entries]
            return
        if sum(opened.sizes) <= RUN_BYTES:
            yield [*entries]
            return
        run: list[EpisodeEntry] = []
        size, last = 0, -1
        for entry in entries:
            groups = opened.groups(range(entry.row, entry.row + entry.steps))
            more = opened.size_of(group for group in groups if group > last)
            if run and more and size + more > RUN_BYTES:
                yield run
                run, size, more = [], 0, opened.size_of(groups)
            run.append(entry)
            size, last = size + more, groups[-1]
        yield run

    def _file(self, file: str) -> _StepFile:
        opened = self._opened(file)
        if isinstance(opened, str):
            raise ValueError(f"{file} {opened}")
        return opened

    def _open(self, file: str) -> _StepFile | str:
        """A file, or what is wrong with it, which is not looked up again for each of its episodes."""
        size = self._store.found([file]).get(file)
        if size is None:
            return "is missing"
        try:
            opened = self._parquet(file, size, None, ())
        except (OSError, pa.ArrowException) as error:
            return _unreadable(error)
        there = frozenset(opened.schema_arrow.names)
        for column in self._columns:
            if column not in there:
                return f"has no column {column}"
        metadata = opened.metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        if not groups:
            return "has no row"
        return _StepFile(
            metadata=metadata,
            size=size,
            begins=[*accumulate((group.num_rows for group in groups), initial=0)],
            sizes=[group.total_byte_size for group in groups],
        )

    def _read(self, file: str, groups: tuple[int, ...]) -> pa.Table:
        opened = self._file(file)
        parquet = self._parquet(file, opened.size, opened.metadata, groups)
        return parquet.read_row_groups([*groups], self._columns, use_threads=False)

    def _parquet(self, file: str, size: int, metadata: Any, groups: Sequence[int]) -> pq.ParquetFile:
        source: Any
        if self._store.remote:
            remote = RemoteFile(self._store, file, size)
            remote.fetch([place for group in groups for place in self._places(metadata.row_group(group))])
            source = pa.PythonFile(remote)
        elif len(groups) > 1 and size <= SMALL_BYTES:
            source = pa.py_buffer(self._store.read(file))
        else:
            source = pa.OSFile(f"{self._store.url}/{file}")
        return pq.ParquetFile(source, metadata=metadata, pre_buffer=False)

    def _places(self, group: Any) -> Iterator[tuple[int, int]]:
        """Offset and length of the columns that are read of a row group."""
        wanted = tuple(f"{column}." for column in self._columns)  # whose own names may have dots
        for one in (group.column(i) for i in range(group.num_columns)):
            if f"{one.path_in_schema}.".startswith(wanted):
                start = min(one.data_page_offset, one.dictionary_page_offset or one.data_page_offset)
                yield start, one.total_compressed_size


@dataclass(frozen=True, kw_only=True)
class RobotImages:
    """Encoded images, one per step."""

    data: memoryview
    """Holds all of them, one after another."""
    starts: npt.NDArray[np.int64]
    """[T + 1]: offset of each in `data`, and of the end of the last."""

    def part(self, start: int, end: int) -> RobotImages:
        """The images of some steps."""
        return RobotImages(data=self.data, starts=self.starts[start : end + 1])

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return int(self.starts[-1] - self.starts[0])

    def views(self) -> list[memoryview]:
        """The images."""
        places = self.starts.tolist()
        return [self.data[start:end] for start, end in pairwise(places)]

    def digest(self, seed: int = 0) -> int:
        """xxh3-64 of the lengths and the bytes of all images."""
        lengths = xxh3_64_intdigest(np.diff(self.starts).data, seed)
        return xxh3_64_intdigest(self.data[self.starts[0] : self.starts[-1]], lengths)


def integers(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
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


def images(table: pa.Table, name: str) -> RobotImages:
    """A column of encoded images.

    Raises:
        ValueError: the images are not in the file.
    """
    kind = table.schema.field(name).type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise ValueError(f"{name} holds {kind} where encoded images are expected")
    found = pc.struct_field(table[name], "bytes").cast(pa.large_binary()).combine_chunks()
    lengths = pc.fill_null(pc.binary_length(found), 0).to_numpy()
    if not lengths.all():
        raise ValueError(f"{name} holds no image at step {int(np.argmin(lengths != 0))}")
    _, offsets, data = found.buffers()
    starts = np.frombuffer(offsets, np.int64)[found.offset : found.offset + len(found) + 1]
    return RobotImages(data=memoryview(data), starts=starts)


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


def _stretches(entries: Sequence[EpisodeEntry]) -> list[range]:
    """The rows of episodes, those of episodes that follow each other in one."""
    found: list[range] = []
    for entry in entries:
        start = found.pop().start if found and found[-1].stop == entry.row else entry.row
        found.append(range(start, entry.row + entry.steps))
    return found


def _unreadable(error: Exception) -> str:
    return f"cannot be read: {str(error).splitlines()[0]}"


def _is_fixed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))
