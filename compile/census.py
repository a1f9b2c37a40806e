"""The census: what a source holds, one row per episode, without decoding an image.

It is taken file by file, in parallel, and ordered by file and record, so it does not depend on who took it.
A saved census is the random-access index of its source: it remembers the options that it was taken with, the
size of every file, and in each row the digest of the record.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from oxcart.compile.engines import Part, Run
from oxcart.compile.engines.processes import Advance, Progress
from oxcart.compile.engines.processes import run as run_processes
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import CensusRow, Source, SourceConfig, census_schema
from oxcart.manifests.canonical import read_json
from oxcart.manifests.tables import parse_table, table_bytes
from oxcart.shards.errors import ConfigError, SourceError
from oxcart.shards.prefetch import prefetch, unwanted
from oxcart.shards.store import Store

WORKER_BYTES = 1 << 30
"""Bytes of a source per worker: a cached source of this size is read before another worker has started."""
GROUP_BYTES = 64 << 20
"""Bytes of small files that one task reads, if a source lets threads read several files at once."""

METADATA = b"oxcart.census"


@dataclass(frozen=True, kw_only=True)
class Census:
    """Every episode of a source."""

    source: Mapping[str, Any]
    """How the source describes itself and how it was read: `Source.describe()`."""
    sizes: Mapping[str, int]
    """Name of each file -> its bytes."""
    table: pa.Table
    """One row per episode, in the order of the source; columns as in `census_schema`."""
    unlisted: int = 0
    """Episodes missing from the table because a limit left them out of the dataset that is now the source."""
    part: Part | None = None
    """Part of the files that the table covers; None for all files."""

    @property
    def rejected(self) -> pa.Table:
        """Rows of the episodes that cannot be compiled."""
        return self.table.filter(self.table["rejected"].is_valid())

    @property
    def usable(self) -> pa.Table:
        """Rows of the episodes that can be compiled."""
        if self.table["rejected"].null_count == self.table.num_rows:
            return self.table  # no copy
        return self.table.filter(self.table["rejected"].is_null())

    def to_bytes(self) -> bytes:
        """The census as a Parquet file."""
        # Not canonical JSON: the order of the cameras matters, the first is the primary.
        value = {
            "made_by": _made_by(),
            "source": dict(self.source),
            "sizes": dict(self.sizes),
            "part": str(self.part) if self.part else None,
        }
        metadata = {METADATA: json.dumps(value)}
        return table_bytes(self.table.combine_chunks().replace_schema_metadata(metadata))


def _made_by() -> dict[str, str]:
    """Versions of the packages that determine the census rows."""
    return {package: version(package) for package in ("oxcart", "tensorflow-datasets")}


def take(
    config: SourceConfig,
    *,
    workers: int,
    report: Progress,
    source: Source | None = None,
    part: Part | None = None,
    run: Run = run_processes,
) -> Census:
    """Take the census of a source.

    Args:
        config: how to read the source.
        workers: upper limit of processes; a small source is read by fewer.
        report: called with the episodes and bytes read so far.
        source: the source that `config` opens, if it is open already.
        part: part of the files to read, to be merged with the others; None for all.
        run: the engine.

    Raises:
        ConfigError: an option names something that the source does not have; two episodes have one key.
        SourceError: the source is not complete, or holds no episode.
    """
    source = source or open_source(config)
    sizes = source.sizes()
    files = part.of(source.files()) if part else source.files()
    groups = _groups(files, sizes) if source.at_once > 1 else [[file] for file in files]
    workers = min(workers, 1 + sum(sizes.values()) * source.effort // WORKER_BYTES)
    tables = dict(run(_take_files, _CensusJob(config, source), groups, workers=workers, report=report))
    nothing = census_schema(tuple(camera.name for camera in source.cameras)).empty_table()
    table = pa.concat_tables([nothing, *(tables[index] for index in sorted(tables))])
    found = Census(source=source.described(), sizes=sizes, table=table, part=part)
    return found if part else _joined(found, source, config.url)


def merge(parts: Sequence[Census], source: Source) -> Census:
    """The census of a source from the censuses of all its parts, as if it had been taken at once.

    Raises:
        ConfigError: a part is missing, or is of another census.
        SourceError: a file has changed in the meantime, or the source holds no episode.
    """
    for one in parts:
        check(one, source)
    counts = {one.part.count for one in parts if one.part}
    numbers = sorted(one.part.number for one in parts if one.part)
    if len(counts) != 1 or numbers != list(range(min(counts))) or len(numbers) != len(parts):
        given = ", ".join(str(one.part or "a whole census") for one in parts)
        raise ConfigError(f"merge: expected each part of one census once, got {given or 'nothing'}")
    place = {file: i for i, file in enumerate(source.files())}
    columns = census_schema(tuple(camera.name for camera in source.cameras))
    table = pa.concat_tables([one.table for one in parts]).cast(columns)
    files = np.array([place[file] for file in table["source_file"].to_pylist()], np.int64)
    rows = np.argsort(files, kind="stable")  # within a file they are in order already
    return _joined(replace(parts[0], table=table.take(pa.array(rows)), part=None), source, source.name)


def _joined(census: Census, source: Source, where: str) -> Census:
    """A whole census, with the columns that depend on all of its episodes together."""
    if not census.table.num_rows:
        raise SourceError(f"{where}: holds no episode")
    table = source.join(census.table)
    if source.places:
        table = source.places.put(table)
    counts = table.group_by("key").aggregate([("key", "count")])
    twice = counts.filter(pc.greater(counts["key_count"], 1))["key"].to_pylist()
    if twice:
        raise ConfigError(
            f"key {min(twice)}: {len(twice)} keys are not unique; read fewer source splits at once"
        )
    return replace(census, table=table)


def read(data: bytes, name: str) -> Census:
    """Read the census that `to_bytes` wrote.

    Raises:
        ConfigError: the file holds no census, or a census of another version.
        CorruptError: the file is not a Parquet file.
    """
    table = parse_table(data, name)
    try:
        value = read_json((table.schema.metadata or {})[METADATA])
        source, sizes = dict(value["source"]), dict(value["sizes"])
        part = Part.parse(value["part"]) if value["part"] else None
        expected = census_schema(tuple(source["cameras"]))
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"census {name}: not a census; make one with oxcart scan --parquet") from error
    if not table.schema.equals(expected) or value.get("made_by") != _made_by():
        raise ConfigError(f"census {name}: taken by another version of oxcart; take it again")
    return Census(source=source, sizes=sizes, table=table, part=part)


def check(census: Census, source: Source) -> None:
    """Refuse a census that was taken of another source, with other options, or before the source changed.

    Raises:
        ConfigError: the source or an option differs.
        SourceError: a file has changed.
    """
    found, wanted = census.source, source.described()
    for name in wanted:
        then, now = json.dumps(found.get(name)), json.dumps(wanted[name])  # text, for the order of cameras
        if then != now:
            raise ConfigError(
                f"census: taken with {name} {then}, expected {now}; take it again with the same options"
            )
    sizes = source.sizes()
    for name in sorted({*sizes, *census.sizes}):
        if sizes.get(name) != census.sizes.get(name):
            raise SourceError(
                f"has changed since the census: {census.sizes.get(name)} bytes then, {sizes.get(name)} now",
                file=name,
            )


def warnings(census: Census, source: Source) -> list[str]:
    """Warnings about unexpected properties of the episodes of a source, one line each."""
    beside = source.places.warnings(census.table) if source.places else []
    return [*source.warnings(census.table), *beside]


def load(path: str, source: Source) -> Census:
    """Read the census in the file or URL `path`, and check that it is a whole census of `source`."""
    census = read_file(path)
    if census.part is not None:
        raise ConfigError(f"census {path}: is part {census.part}; merge all parts with oxcart scan --merge")
    check(census, source)
    return census


def read_file(path: str) -> Census:
    """Read the census, or the part of a census, in a file or URL."""
    folder, slash, name = path.rpartition("/")
    return read(Store(folder or slash or ".").read(name), path)


@dataclass(frozen=True)
class _CensusJob:
    """Data shared by the tasks of a census."""

    config: SourceConfig
    """How to read the source."""
    source: Source | None
    """The open source, in the process that opened it."""

    def __reduce__(self) -> tuple[type[_CensusJob], tuple[SourceConfig, None]]:
        return _CensusJob, (self.config, None)

    @cached_property
    def opened(self) -> Source:
        """The source; each process opens it once."""
        return self.source or open_source(self.config)


def _groups(files: Sequence[str], sizes: Mapping[str, int]) -> list[list[str]]:
    """Group the files into runs of at most `GROUP_BYTES`, each of which one task reads."""
    groups: list[list[str]] = []
    used = 0
    for file in files:
        if not groups or used + sizes[file] > GROUP_BYTES:  # a missing file has 0 bytes
            groups.append([])
            used = 0
        groups[-1].append(file)
        used += sizes[file]
    return groups


def _take_files(job: _CensusJob, files: list[str], advance: Advance) -> pa.Table:
    """Census rows of some files, in their order."""
    if len(files) == 1:
        return _take_file(job.opened, files[0], advance)
    lock = threading.Lock()

    def one_by_one(count: int, size: int) -> None:
        with lock:
            advance(count, size)

    source = job.opened
    pool = ThreadPoolExecutor(source.at_once)
    try:
        calls = [partial(_take_file, source, file, one_by_one) for file in files]
        with contextlib.closing(prefetch(pool, calls)) as tables:
            return pa.concat_tables(list(tables))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # a request that hangs is not waited for


def _take_file(source: Source, file: str, advance: Advance) -> pa.Table:
    ended = unwanted()

    def counted() -> Iterator[CensusRow]:
        for row in source.census(file):
            yield row
            advance(1, row.source_length)
            if ended is not None and ended.is_set():  # another file has failed
                return

    return rows(counted(), tuple(camera.name for camera in source.cameras))


def rows(found: Iterable[CensusRow], cameras: tuple[str, ...]) -> pa.Table:
    """Census rows as a table of `census_schema(cameras)`."""
    values, schema = [vars(row) for row in found], census_schema(cameras)
    sides = {
        f"{camera}.{side}": [row[f"{side}s"][place] for row in values]
        for place, camera in enumerate(cameras)
        for side in ("height", "width")
    }
    columns = {name: [row[name] for row in values] for name in schema.names if name not in sides}
    return pa.Table.from_pydict(columns | sides, schema)


def summary(census: Census) -> dict[str, Any]:
    """Summary of a source for people and scripts, as plain JSON; counts cover usable episodes only."""
    usable = census.usable
    environments = usable.group_by(["environment", "environment_known"]).aggregate(
        [("session", "count_distinct"), ("steps", "count"), ("steps", "sum")]
    )
    instructions = Counter(texts[0] if texts else "" for texts in usable["instructions"].to_pylist())
    return {
        "episodes": usable.num_rows,
        "steps": pc.sum(usable["steps"]).as_py() or 0,
        "duplicates": usable.num_rows - pc.count_distinct(usable["duplicate"]).as_py(),
        "environments": sorted(
            (
                {
                    "name": row["environment"],
                    "known": row["environment_known"],
                    "sessions": row["session_count_distinct"],
                    "episodes": row["steps_count"],
                    "steps": row["steps_sum"],
                }
                for row in environments.to_pylist()
            ),
            key=lambda one: (one["name"] is None, one["name"] or "", one["known"]),
        ),
        "cameras": [
            {"name": name, "source": source, "sizes": _sizes(usable, name)}
            for name, source in census.source["cameras"].items()
        ],
        "instructions": dict(sorted(instructions.items(), key=lambda item: (-item[1], item[0]))),
        "rejected": [
            {name: row[name] for name in ("key", "source_file", "source_record")}
            | {"reason": row["rejected"]}
            for row in census.rejected.to_pylist()
        ],
    }


def _sizes(rows: pa.Table, camera: str) -> list[str]:
    """Every distinct `height x width` of a camera's images."""
    pairs = rows.select([f"{camera}.height", f"{camera}.width"]).to_pylist()
    return [f"{h}x{w}" for h, w in sorted({tuple(pair.values()) for pair in pairs})]
