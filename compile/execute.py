"""Execute a plan: one task per shard, each of which reads, decodes and writes on its own.

A task leaves three files, each written to a temporary name, fsynced and renamed, in this order:

    shards/train-00000.tar               the shard
    shards/train-00000.chunks.parquet    digests of its chunks
    .oxcart/rows/train-00000.parquet     rows of its episodes: the mark that the task is done

A killed task leaves nothing that counts as done, and a repeated task writes the same bytes. A task holds
one episode in memory, its record and its frames; of a LeRobot dataset, also the steps of the next ones. The
disk writes while the next episode is decoded (`oxcart.shards.write_behind`), and records of a remote source
are prefetched. More threads were slower than one, which keeps frames in its caches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
from blake3 import blake3
from xxhash import xxh3_64_intdigest

from oxcart.compile.engines.processes import Advance
from oxcart.compile.frames import EncodedFrames, encode_frames
from oxcart.compile.images import Frame, ImageError, Resize
from oxcart.compile.moments import Moments, merge, moments
from oxcart.compile.plan import Shard
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import Floats, Source, SourceConfig, SourceEpisode, episode_error
from oxcart.compile.workspace import Done, claimed_writer, read_done, write_done
from oxcart.manifests.canonical import canonical_json
from oxcart.manifests.columns import ARRAYS, acting
from oxcart.manifests.manifest import episode_digest
from oxcart.manifests.metadata import make_metadata
from oxcart.manifests.tables import CHUNKS_SCHEMA, episodes_schema, table_bytes
from oxcart.manifests.values import counted, merged
from oxcart.shards.codec import EXTENSIONS, Encoding, npy_header
from oxcart.shards.names import chunks_name, tar_name
from oxcart.shards.prefetch import prefetch
from oxcart.shards.store import Store
from oxcart.shards.tar import TarWriter

READERS = 4
"""Records of a remote source that are read at a time."""
JOINED_ROWS = 1 << 14
"""Steps whose values are counted at once: a call takes as long for those of one episode as of fifty."""


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """Data shared by the tasks of a compile."""

    source: SourceConfig
    """How to read the source."""
    out: str
    """Directory or URL of the compiled dataset."""
    plan: str
    """Hash of the plan; results of other plans are ignored."""
    resize: Resize
    """How frames get their size."""
    encodings: Mapping[str, Encoding] = field(hash=False)
    """Camera -> how its frames are stored."""
    reject: bool
    """Whether an episode that cannot be decoded is rejected instead of ending the compile."""

    @cached_property
    def opened(self) -> Source:
        """The source; each process opens it once."""
        return open_source(self.source)


class _NoEpisodesError(Exception):
    """Abandons a tar whose episodes were all rejected, so that it never gets a name."""


def write_shard(job: ShardJob, shard: Shard, advance: Advance) -> None:
    """Write one shard, its chunk table and its rows, unless they already exist.

    Raises:
        SourceError: an episode cannot be compiled, and `job.reject` is not set; or the source has changed.
        StoreError: the output cannot be written.
    """
    store = Store(job.out)
    if read_done(store, shard.name, job.plan) is not None:
        return
    source = job.opened
    name, chunk_table = tar_name(shard.name), chunks_name(shard.name)
    rows: list[dict[str, Any]] = []
    chunks: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    found: dict[str, list[Moments | None]] = {name: [] for name in ARRAYS}
    counting: dict[str, list[Floats]] = {name: [] for name in ARRAYS}
    cameras = [camera.name for camera in source.cameras]
    buffers: dict[str, Frame] = {}
    again = swapped = 0
    writer = claimed_writer(store, name, job.plan)
    with (
        contextlib.suppress(_NoEpisodesError),
        writer as file,
        contextlib.closing(_read(source, shard)) as episodes,
    ):
        tar = TarWriter(file)
        for row, episode in episodes:
            start = tar.offset
            try:
                frames = {
                    camera: encode_frames(
                        camera,
                        episode.images[camera],
                        row,
                        job.resize,
                        job.encodings[camera],
                        buffers,
                        bgr=camera in episode.bgr,
                    )
                    for camera in cameras
                }
            except ImageError as error:
                if not job.reject:
                    raise episode_error(
                        f"{error}; --on-error reject compiles the rest and lists what it left out", row
                    ) from error
                rejected.append({**_place(row), "reason": str(error)})
            else:
                again += sum(one.again for one in frames.values())
                swapped += sum(one.swapped for one in frames.values())
                rows.append(_write_episode(tar, source, shard, row, episode, frames, job.encodings, chunks))
                if shard.split == "train":
                    acts = slice(rows[-1].get("action.start"), rows[-1].get("action.stop"))
                    for what, array in episode.arrays.items():
                        some = array[acts] if what == "action" else array
                        found[what].append(moments(some))
                        counting[what].append(some)
            advance(row["steps"] * len(cameras), tar.offset - start)
        digest = tar.finish()
        if not rows:
            raise _NoEpisodesError
    steps = sum(row["steps"] for row in rows)
    entry: dict[str, Any] = {
        "name": name,
        "split": shard.split,
        "episodes": len(rows),
        "steps": steps,
        "frames": steps * len(cameras),
        "bytes": tar.offset,
        "blake3": digest,
    }
    table = table_bytes(pa.Table.from_pylist(chunks, CHUNKS_SCHEMA))
    entry |= {"chunks": chunk_table, "chunks_bytes": len(table), "chunks_blake3": blake3(table).hexdigest()}
    if rows:
        with claimed_writer(store, chunk_table, job.plan) as file:
            file.write(table)
    done = Done(
        shard=entry,
        episodes=pa.Table.from_pylist(rows, episodes_schema(cameras)),
        rejected=rejected,
        again=again,
        swapped=swapped,
        moments={name: merge(parts) for name, parts in found.items()},
        values=merged(counted(what, part) for what, some in counting.items() for part in _joined(some)),
    )
    write_done(store, shard.name, job.plan, done)


def _read(source: Source, shard: Shard) -> Generator[tuple[Mapping[str, Any], SourceEpisode], None, None]:
    """Yield the census row and episode of every row of a shard, in order."""
    rows = shard.rows.to_pylist()
    if not source.remote:
        yield from zip(rows, source.read_many(rows), strict=True)
        return
    pool = ThreadPoolExecutor(READERS)
    try:
        episodes = prefetch(pool, (partial(source.read, row) for row in rows), READERS)
        with contextlib.closing(episodes):
            yield from zip(rows, episodes, strict=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # a request that hangs is not waited for


def _joined(arrays: Sequence[Floats]) -> Iterator[Floats]:
    """The rows of arrays of one width, `JOINED_ROWS` at a time."""
    if arrays:
        rows = np.concatenate(arrays)
        yield from (rows[at : at + JOINED_ROWS] for at in range(0, len(rows), JOINED_ROWS))


def _write_episode(
    tar: TarWriter,
    source: Source,
    shard: Shard,
    row: Mapping[str, Any],
    episode: SourceEpisode,
    cameras: Mapping[str, EncodedFrames],
    encodings: Mapping[str, Encoding],
    chunks: list[dict[str, Any]],
) -> dict[str, Any]:
    """Append the members of one episode to the tar and the rows of its chunks to `chunks`.

    Returns its row of the episode table.
    """
    key, start = row["key"], tar.offset
    known: dict[str, Any] = {
        "control_rate": source.control_rate["hz"] if source.control_rate else None,
        "instruction": episode.texts[0] if episode.texts else "",
        **{name: row[name] for name in ("environment", "environment_known", "session", "steps")},
    }
    arrays = episode.arrays
    shaped: dict[str, Floats | EncodedFrames] = {**arrays, **cameras}
    told = {
        **known,
        "attribution": episode.attribution,
        "dataset": source.name,
        "key": key,
        "source": {name: row[f"source_{name}"] for name in ("split", "file", "record")},
    }
    shapes = {name: one.shape for name, one in shaped.items()}
    metadata = canonical_json(make_metadata(told, episode.instructions, shapes))
    tar.add(f"{key}.json", [metadata])
    pieces = {"json.digest": xxh3_64_intdigest(metadata)}
    members = {"json": [pieces["json.digest"]]}
    for name, array in arrays.items():
        header, values = npy_header(array.shape, array.dtype), np.ascontiguousarray(array).tobytes()
        at = tar.add(f"{key}.{name}.npy", [header, values])
        pieces |= {f"{name}.offset": at + len(header), f"{name}.digest": xxh3_64_intdigest(values)}
        members[f"{name}.npy"] = [pieces[f"{name}.digest"]]
    if episode.action is not None:
        start_stop = acting(episode.action, source.array_columns["action"], source.no_action)
        pieces |= dict(zip(("action.start", "action.stop"), start_stop, strict=True))
    for camera, frames in cameras.items():
        encoded, member = frames.encoded, f"{camera}.{EXTENSIONS[encodings[camera].codec]}"
        at = tar.add(f"{key}.{member}", [encoded.header, *encoded.chunks])
        _, height, width, _ = frames.shape
        pieces |= {f"{camera}.offset": at + len(encoded.header)}
        pieces |= {f"{camera}.height": height, f"{camera}.width": width}
        members[member] = frames.digests
        stored = {"digests": frames.digests, "sizes": encoded.sizes(), "frames": encoded.frames}
        chunks.append({"key": key, "camera": camera, **stored})
    return {
        **_place(row),
        **known,
        **pieces,
        "split": shard.split,
        "shard": shard.name,
        **{name: row[name] for name in ("success", "terminal", "source_digest")},
        "digest": episode_digest(members),
        "offset": start,
        "bytes": tar.offset - start,
    }


def _place(row: Mapping[str, Any]) -> dict[str, Any]:
    """Key and source location of a census row."""
    names = ("key", "source_split", "source_file", "source_record", "source_offset", "source_length")
    return {name: row[name] for name in names}
