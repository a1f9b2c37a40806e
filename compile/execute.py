"""Execute a plan: one task a shard, each of which reads, decodes and writes on its own.

A task leaves three files, each written to a temporary name, fsynced and renamed, in this order:

    shards/train-00000.tar               the shard
    shards/train-00000.chunks.parquet    digests of its chunks
    .oxcart/rows/train-00000.parquet     rows of its episodes: the mark that the task is done

Killed anywhere it leaves nothing that counts, and run again it writes the same bytes. Memory is one
episode: its record and its frames. The disk stores while the next episode is decoded
(`oxcart.shards.write_behind`), and a remote source is read ahead; more threads than that were slower than
one, which keeps frames in its caches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from oxcart.compile.sources.base import Episode, Floats, Source, SourceConfig
from oxcart.compile.workspace import Done, claimed_writer, read_done, write_done
from oxcart.manifests.canonical import canonical_json
from oxcart.manifests.manifest import episode_digest
from oxcart.manifests.tables import CHUNKS_SCHEMA, episodes_schema, table_bytes
from oxcart.shards.codec import EXTENSIONS, Encoding, npy_header
from oxcart.shards.errors import SourceError
from oxcart.shards.names import chunks_name, tar_name
from oxcart.shards.prefetch import prefetch
from oxcart.shards.store import Store
from oxcart.shards.tar import TarWriter

READERS = 4
"""Records of a remote source that are read at a time."""


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """What is the same for every task."""

    source: SourceConfig
    out: str
    """The directory or URL of the compiled dataset."""
    plan: str
    """The hash of the plan; what other plans left does not count."""
    resize: Resize
    encoding: Encoding
    reject: bool
    """An episode that cannot be decoded is rejected, instead of ending the compile."""

    @cached_property
    def opened(self) -> Source:
        """The source; each process opens it once."""
        return open_source(self.source)


def write_shard(job: ShardJob, shard: Shard, advance: Advance) -> None:
    """Write one shard, its chunk table and its rows, unless they are there.

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
    action: list[Moments] = []
    state: list[Moments] = []
    cameras = [camera.name for camera in source.cameras]
    buffers: dict[str, Frame] = {}
    again = 0
    writer = claimed_writer(store, name, job.plan)
    with writer as file, contextlib.closing(_read(source, shard)) as episodes:
        tar = TarWriter(file)
        for row, episode in episodes:
            frames = row["steps"] * len(cameras)
            try:
                pictures = {
                    camera: encode_frames(
                        camera, episode.images[camera], row, job.resize, job.encoding, buffers
                    )
                    for camera in cameras
                }
            except ImageError as error:
                if not job.reject:
                    raise SourceError(
                        f"{error}; --on-error reject compiles the rest and lists what it left out",
                        file=row["source_file"],
                        record=row["source_record"],
                        offset=row["source_offset"],
                    ) from error
                rejected.append({**_place(row), "reason": str(error)})
                advance(frames, 0)
                continue
            again += sum(one.again for one in pictures.values())
            start = tar.offset
            rows.append(_write_episode(tar, source, shard, row, episode, pictures, job.encoding, chunks))
            if episode.action is not None:
                action.append(moments(episode.action))
            if episode.state is not None:
                state.append(moments(episode.state))
            advance(frames, tar.offset - start)
        digest = tar.finish()
    entry: dict[str, Any] = {
        "name": name,
        "split": shard.split,
        "episodes": len(rows),
        "steps": sum(row["steps"] for row in rows),
        "frames": sum(row["steps"] for row in rows) * len(cameras),
        "bytes": tar.offset,
        "blake3": digest,
    }
    table = table_bytes(pa.Table.from_pylist(chunks, CHUNKS_SCHEMA))
    entry |= {"chunks": chunk_table, "chunks_bytes": len(table), "chunks_blake3": blake3(table).hexdigest()}
    if rows:
        with claimed_writer(store, chunk_table, job.plan) as file:
            file.write(table)
    else:
        store.delete(name)
    done = Done(
        shard=entry,
        episodes=pa.Table.from_pylist(rows, episodes_schema(cameras)),
        rejected=rejected,
        again=again,
        action=merge(action),
        state=merge(state),
    )
    write_done(store, shard.name, job.plan, done)


def _read(source: Source, shard: Shard) -> Generator[tuple[Mapping[str, Any], Episode], None, None]:
    """The shard's census rows and episodes."""
    rows = shard.rows.to_pylist()
    if not source.remote:
        yield from ((row, source.read(row)) for row in rows)
        return
    pool = ThreadPoolExecutor(READERS)
    try:
        episodes = prefetch(pool, (partial(source.read, row) for row in rows), READERS)
        with contextlib.closing(episodes):
            yield from zip(rows, episodes, strict=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # a request that hangs is not waited for


def _write_episode(
    tar: TarWriter,
    source: Source,
    shard: Shard,
    row: Mapping[str, Any],
    episode: Episode,
    cameras: Mapping[str, EncodedFrames],
    encoding: Encoding,
    chunks: list[dict[str, Any]],
) -> dict[str, Any]:
    """Append the members of one episode and the rows of its chunks; returns its row of the episode table."""
    key, start = row["key"], tar.offset
    rate = source.control_rate["hz"] if source.control_rate else None
    known: dict[str, Any] = {
        "control_rate": rate,
        "environment": row["environment"],
        "environment_known": row["environment_known"],
        "instruction": episode.texts[0] if episode.texts else "",
        "session": row["session"],
        "steps": row["steps"],
    }
    arrays = {"action": episode.action, "state": episode.state}
    metadata = canonical_json(
        {
            **known,
            **({"attribution": dict(episode.attribution)} if episode.attribution is not None else {}),
            "dataset": source.name,
            "instructions": episode.instructions,
            "key": key,
            "shapes": {
                name: list(array.shape) for name, array in {**arrays, **cameras}.items() if array is not None
            },
            "source": {name: row[f"source_{name}"] for name in ("split", "file", "record")},
        }
    )
    members = {"json": [xxh3_64_intdigest(metadata)]}
    tar.add(f"{key}.json", [metadata])
    pieces: dict[str, int | None] = {"json.digest": members["json"][0]}
    for name, array in arrays.items():
        start_of, digest = None, None
        if array is not None:
            start_of, digest = _write_array(tar, f"{key}.{name}.npy", array)
            members[f"{name}.npy"] = [digest]
        pieces |= {f"{name}.offset": start_of, f"{name}.digest": digest}
    places: dict[str, int] = {}
    for camera, pictures in cameras.items():
        encoded, member = pictures.encoded, f"{camera}.{EXTENSIONS[encoding.codec]}"
        data = tar.add(f"{key}.{member}", [encoded.header, *encoded.chunks])
        members[member] = pictures.digests
        chunks.append({"key": key, "camera": camera, "digests": pictures.digests, "sizes": encoded.sizes()})
        places[f"{camera}.offset"] = data + len(encoded.header)
        places |= {f"{camera}.height": pictures.shape[1], f"{camera}.width": pictures.shape[2]}
    return {
        **_place(row),
        **known,
        "split": shard.split,
        "shard": shard.name,
        "source_digest": row["source_digest"],
        "digest": episode_digest(members),
        "offset": start,
        "bytes": tar.offset - start,
        **pieces,
        **places,
    }


def _write_array(tar: TarWriter, name: str, array: Floats) -> tuple[int, int]:
    """Append a `.npy` member; returns the offset of its first value and its digest."""
    header = npy_header(array.shape, array.dtype)
    values = np.ascontiguousarray(array).tobytes()
    start = tar.add(name, [header, values])
    return start + len(header), xxh3_64_intdigest(values)


def _place(row: Mapping[str, Any]) -> dict[str, Any]:
    """Key and source location of a census row."""
    names = ("key", "source_split", "source_file", "source_record", "source_offset", "source_length")
    return {name: row[name] for name in names}
