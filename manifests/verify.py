"""Verify a compiled dataset: every byte against its digest, every count against its table.

The manifest states each file's digest; the chunk tables identify the damaged piece of a damaged shard. Each
shard is read once, one episode at a time. A digest proves that the bytes are the ones that were written.
Frames encoded here are then known to be images; JPEGs taken from a source are known to be only once they are
decoded.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3
from xxhash import xxh3_64_intdigest

from oxcart.manifests.columns import ARRAYS
from oxcart.manifests.counts import frame_size, per_environment, per_split
from oxcart.manifests.dataset import Dataset, most_chunks, read_chunks
from oxcart.manifests.episode import members
from oxcart.manifests.manifest import (
    NAME,
    Manifest,
    encoded_as,
    episode_digest,
    fingerprint,
    order,
    read_claim,
)
from oxcart.manifests.tables import (
    ATTRIBUTION,
    EPISODES,
    REJECTED,
    VALUES,
    rows_of,
)
from oxcart.manifests.values import problem
from oxcart.shards.codec import EXTENSIONS, VIDEO_EXTENSIONS
from oxcart.shards.codec import decode as decode_chunks
from oxcart.shards.errors import CorruptError, OxcartError
from oxcart.shards.names import SHARDS, chunks_name, stem_of, tar_name
from oxcart.shards.prefetch import in_threads
from oxcart.shards.store import Store

MANY_CHUNKS = 2 << 20
"""Chunks above which a shard is verified alone, so that memory does not grow with the workers."""

_StatedChunks = Mapping[tuple[str, str], "_Stated"]
"""(key, camera) -> the statements of a shard's chunk table."""


class Damage(NamedTuple):
    """A file that does not match the manifest."""

    file: str
    """Path of the file, relative to the dataset's directory."""
    reason: str
    """What is wrong with the file, down to the key, camera and chunk if these are known."""


class _Stated(NamedTuple):
    """The statements of a chunk table about one camera of an episode."""

    digests: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.uint32] | None
    frames: npt.NDArray[np.uint32] | None

    def lengths(self, steps: int, camera: Mapping[str, Any]) -> list[int] | None:
        """Frames of each chunk that the episode must have; None if the table contradicts that."""
        most = camera["chunk"]
        if (camera["codec"] in VIDEO_EXTENSIONS) != (self.frames is not None):
            return None
        if self.frames is None:
            return [min(most, steps - start) for start in range(0, steps, most)]
        lengths: list[int] = self.frames.tolist()
        return lengths if all(1 <= one <= most for one in lengths) and sum(lengths) == steps else None


def verify(
    dataset: Dataset,
    *,
    decode: bool = False,
    workers: int = 1,
    report: Callable[[int, int], None] = lambda done, size: None,
) -> list[Damage]:
    """Find everything that is wrong with a dataset; an empty list if nothing is.

    Args:
        dataset: the dataset to verify.
        decode: whether to decode every frame as well.
        workers: shards to read at a time.
        report: called with the frames and bytes verified so far.
    """
    manifest = dataset.manifest
    damage: list[Damage] = []
    tables: dict[str, pa.Table | None] = {}
    for name in (EPISODES, REJECTED, VALUES, *([ATTRIBUTION] if ATTRIBUTION in manifest.tables else [])):
        try:
            tables[name] = dataset.table(name)
        except OxcartError as error:
            tables[name] = None
            damage.append(Damage(manifest.file(name), str(error)))
    episodes = tables[EPISODES]
    damage += [Damage(NAME, reason) for reason in _wrong_statements(dataset, tables)]
    named = {shard[what] for shard in manifest.shards for what in ("name", "chunks")}
    there = dataset.store.list(SHARDS) if dataset.store.listable else []
    named |= _to_come(dataset.store) if set(there) - named else set()
    damage += [Damage(name, "is not in the manifest") for name in there if name not in named]

    places = {} if episodes is None else _places(episodes)

    def check(shard: Mapping[str, Any]) -> list[Damage]:
        rows = (
            None
            if episodes is None
            else episodes.take(places.get(stem_of(shard["name"]), np.zeros(0, np.intp)))
        )
        try:
            bounds = _bounds(dataset, shard, rows)
        except OxcartError as error:
            return [Damage(shard["name"], str(error))]
        with one_at_a_time if most_chunks(bounds) > MANY_CHUNKS else contextlib.nullcontext():
            return list(_verify_shard(dataset, shard, bounds, rows, decode))

    one_at_a_time = threading.Lock()
    frames = size = 0
    checks = in_threads(workers, [partial(check, shard) for shard in manifest.shards])
    for shard, found in zip(manifest.shards, checks, strict=True):
        damage += found
        frames, size = frames + shard["frames"], size + shard["bytes"]
        report(frames, size)
    return damage


def _to_come(store: Store) -> set[str]:
    """Files that an unfinished extension has written or will write."""
    try:
        shards = list((read_claim(store) or {})["shards"])
    except (CorruptError, KeyError, TypeError):
        return set()
    return {name(shard) for shard in shards for name in (tar_name, chunks_name)}


def _places(episodes: pa.Table) -> dict[str, npt.NDArray[np.intp]]:
    """Name of each shard in the episode table -> its rows there."""
    coded = episodes["shard"].combine_chunks().dictionary_encode()
    codes = coded.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(1, len(coded.dictionary)))
    return dict(zip(coded.dictionary.to_pylist(), np.split(order, bounds), strict=True))


def _wrong_statements(dataset: Dataset, tables: Mapping[str, pa.Table | None]) -> Iterator[str]:
    """Statements of the manifest that contradict its tables or its other statements."""
    manifest, episodes = dataset.manifest, tables[EPISODES]
    counts = manifest.counts
    facts: dict[str, tuple[Any, Any]] = {
        "counts.rejected": (counts["rejected"], manifest.tables[REJECTED]["rows"]),
        "pixels.cameras": (manifest.pixels["cameras"], manifest.camera_names),
        "counts.source": (counts["source"], counts["compiled"] + counts["rejected"] + counts["limited"]),
    }
    for name, table in tables.items():
        if table is not None:
            stated = manifest.tables[name]
            facts[f"tables.{name}.rows"] = stated["rows"], table.num_rows
            facts[f"tables.{name}.bytes"] = stated["bytes"], dataset.store.size(manifest.file(name))
    if episodes is not None:
        held = ((row["shard"], row["split"]) for row in rows_of(episodes.select(["shard", "split"])))
        shards = [{"shard": shard, "split": split} for shard, split in dict.fromkeys(held)]
        content, samples = ["key", "split", "digest"], ["key", "split", "steps", "source_digest"]
        shaped = encoded_as(manifest.pixels, manifest.cameras)
        facts |= {
            "counts.compiled": (counts["compiled"], episodes.num_rows),
            "splits": (manifest.splits, per_split(episodes, len(manifest.cameras))),
            "environments": (manifest.environments, per_environment(episodes, len(manifest.cameras))),
            "shards": (
                [{"shard": stem_of(one["name"]), "split": one["split"]} for one in manifest.shards],
                shards,
            ),
            "keys": (episodes.num_rows, pc.count_distinct(episodes["key"]).as_py()),
            "fingerprint": (
                manifest.fingerprint,
                fingerprint(shaped, manifest.arrays, manifest.no_action, _tuples(episodes, content)),
            ),
            "order": (manifest.order, order(_tuples(episodes, samples))),
        }
        owners = tables.get(ATTRIBUTION)
        if owners is not None and not owners["key"].equals(episodes["key"]):
            yield f"{ATTRIBUTION}: is not of the episodes of {EPISODES}, in their order"
        for camera in manifest.cameras:
            sides = {side: camera[side] for side in ("height", "width")}
            facts[f"cameras.{camera['name']}"] = sides, frame_size(episodes, camera["name"])
    values = tables[VALUES]
    if values is not None and (wrong := problem(values, manifest.arrays)):
        yield f"{VALUES}: {wrong}"
    for what, (said, found) in facts.items():
        if said != found:
            where, said, found = _narrow(what, said, found)
            yield f"{where}: the manifest says {said}, the tables {found}"


def _tuples(table: pa.Table, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    return (tuple(row.values()) for row in rows_of(table.select(columns)))


def _narrow(where: str, stated: Any, found: Any) -> tuple[str, Any, Any]:
    """Reduce two lists to the first place at which they differ; return other values unchanged."""
    if not isinstance(stated, list):
        return where, stated, found
    i = next(i for i in range(len(stated) + 1) if stated[i : i + 1] != found[i : i + 1])
    said, held = (one[i] if i < len(one) else "nothing" for one in (stated, found))
    return f"{where}[{i}]", said, held


def _verify_shard(
    dataset: Dataset,
    shard: Mapping[str, Any],
    bounds: Mapping[str, Any],
    rows: pa.Table | None,
    decode: bool,
) -> Iterator[Damage]:
    chunks = None
    expected = None if rows is None else rows.num_rows * len(dataset.manifest.cameras)
    try:
        chunks = _chunk_rows(dataset.store, shard, bounds, expected)
    except OxcartError as error:
        yield Damage(shard["chunks"], str(error))
    try:
        for reason in _wrong_bytes(dataset, shard, rows, chunks, decode):
            yield Damage(shard["name"], reason)
    except OxcartError as error:
        yield Damage(shard["name"], str(error))


def _counted(dataset: Dataset, rows: pa.Table) -> dict[str, int]:
    """The counts of a shard according to the episode table, given the shard's rows there."""
    steps = pc.sum(rows["steps"]).as_py() or 0
    return {"episodes": rows.num_rows, "steps": steps, "frames": steps * len(dataset.manifest.cameras)}


def _bounds(dataset: Dataset, shard: Mapping[str, Any], rows: pa.Table | None) -> dict[str, int]:
    """Bounds for the counts of a shard, from its file and the episode table, whatever the manifest states.

    They limit how much of its chunk table is read.
    """
    counts = shard if rows is None else _counted(dataset, rows)
    size = dataset.store.found([shard["name"]]).get(shard["name"], shard["bytes"])
    return {"episodes": counts["episodes"], "frames": counts["frames"], "bytes": size}


def _chunk_rows(
    store: Store, shard: Mapping[str, Any], bounds: Mapping[str, Any], expected: int | None
) -> _StatedChunks | None:
    table = read_chunks(store, {**shard, **bounds})
    if store.size(shard["chunks"]) != shard["chunks_bytes"]:
        raise CorruptError(f"the manifest says it has {shard['chunks_bytes']} bytes")
    if expected is None:
        return None
    if table.num_rows != expected:
        raise CorruptError(f"has {table.num_rows} episodes and cameras, expected {expected}")
    digests, sizes, frames = (_lists(table[name]) for name in ("digests", "sizes", "frames"))
    coded, groups = (table[name].is_valid().to_pylist() for name in ("sizes", "frames"))
    chunks = {
        (row["key"], row["camera"]): _Stated(
            digests[i], sizes[i] if coded[i] else None, frames[i] if groups[i] else None
        )
        for i, row in enumerate(rows_of(table.select(["key", "camera"])))
    }
    if len(chunks) != table.num_rows:
        raise CorruptError("lists a camera of an episode twice")
    return chunks


def _lists(column: pa.ChunkedArray) -> list[npt.NDArray[Any]]:
    """The lists of a column, as views of its memory; empty if a value is null."""
    found: list[npt.NDArray[Any]] = []
    for part in column.chunks:
        ends = np.cumsum(pc.fill_null(part.value_lengths(), 0).to_numpy(), dtype=np.int64)
        found += np.split(part.flatten().to_numpy(), ends[:-1]) if len(ends) else []
    return found


def _wrong_bytes(
    dataset: Dataset,
    shard: Mapping[str, Any],
    rows: pa.Table | None,
    chunks: _StatedChunks | None,
    decode: bool,
) -> Iterator[str]:
    """Find what is wrong with the bytes of a shard."""
    store, name, whole, position, read, wrong = dataset.store, shard["name"], blake3(), 0, 0, False
    size = store.size(name)
    if size != shard["bytes"]:
        wrong = True
        yield f"has {size} bytes, the manifest says {shard['bytes']}"
    if rows is not None:
        for what, count in _counted(dataset, rows).items():
            if count != shard[what]:
                yield f"has {count} {what} in {EPISODES}, the manifest says {shard[what]}"
        for row in rows_of(rows):
            if row["offset"] != position:
                wrong = True
                yield f"{row['key']}: begins at {row['offset']}, expected {position}"
            position = row["offset"] + row["bytes"]
            if position > size:
                yield f"{row['key']}: cut off, and whatever follows it"
                return
            read += row["bytes"]
            if read > size:
                yield f"{row['key']}: overlaps another, as whatever follows it may"
                return
            data = store.read_range(name, row["offset"], row["bytes"])
            whole.update(data)
            for reason in _wrong_pieces(data, row, chunks, dataset.manifest, decode):
                wrong = True
                yield f"{row['key']}: {reason}"
    for start in range(position, size, 8 << 20):
        whole.update(store.read_range(name, start, min(8 << 20, size - start)))
    if whole.hexdigest() != shard["blake3"] and not wrong:
        reason = "does not match its digest"
        yield reason if rows is None else f"{reason}; no member is damaged, so padding or a header is"


def _wrong_pieces(
    data: bytes,
    row: Mapping[str, Any],
    chunks: _StatedChunks | None,
    manifest: Manifest,
    decode: bool,
) -> Iterator[str]:
    """Find what is wrong with the bytes of one episode."""
    try:
        found = members(data, row["key"])
    except CorruptError as error:
        yield str(error)
        return
    arrays = [name for name in ARRAYS if row[f"{name}.offset"] is not None]
    cameras = {camera["name"]: camera for camera in manifest.cameras}
    movies = [f"{name}.{EXTENSIONS[camera['codec']]}" for name, camera in cameras.items()]
    expected = ["json", *(f"{name}.npy" for name in arrays), *movies]
    if list(found) != expected:
        yield f"expected {', '.join(expected)}; has {', '.join(found)}"
        return
    digests: dict[str, list[int]] = {}
    found_wrong = False
    for name, (suffix, (start, content)) in zip(["", *arrays, *cameras], found.items(), strict=True):
        first = row[f"{name}.offset"] - row["offset"] - start if name else 0
        if name not in cameras:
            digests[suffix] = [xxh3_64_intdigest(content[max(first, 0) :])]
            if digests[suffix] != [row[f"{name or suffix}.digest"]]:
                found_wrong = True
                yield f"{suffix} does not match its digest"
            elif name == "action" and (wrong := _wrong_steps(content[max(first, 0) :], row, manifest)):
                found_wrong = True
                yield f"{suffix} {wrong}"
            continue
        stated = chunks.get((row["key"], name)) if chunks is not None else None
        pieces = list(_pieces(content, first, stated, row, name))
        digests[suffix] = [xxh3_64_intdigest(one) for one in pieces]
        if chunks is None:
            continue
        wrong = _wrong_chunks(digests[suffix], stated, row["steps"], cameras[name])
        if wrong is None and decode and stated is not None:
            wrong = _undecodable(
                pieces, stated.lengths(row["steps"], cameras[name]) or [], row, cameras[name]
            )
        if wrong is not None:
            found_wrong = True
            yield f"camera {name}, {wrong}"
    # Where a piece does not match its own digest, that of the episode cannot match and tells nothing more.
    if not found_wrong and episode_digest(digests) != row["digest"]:
        yield "does not match its digest, though its pieces match theirs"


def _wrong_steps(values: memoryview, row: Mapping[str, Any], manifest: Manifest) -> str | None:
    """What is wrong with the steps of an episode that are said to hold an action."""
    shape = row["steps"], manifest.widths.get("action", 0)
    if len(values) != 4 * math.prod(shape):
        return f"has {len(values)} bytes of values, its steps need {4 * math.prod(shape)}"
    start, stop = manifest.acting(np.frombuffer(values, "<f4").reshape(shape))
    if (row["action.start"], row["action.stop"]) != (start, stop):
        said = f"{row['action.start']} to {row['action.stop']}"
        return f"holds actions from step {start} to before {stop}, {EPISODES} says {said}"
    return None


def _undecodable(
    pieces: list[memoryview], lengths: list[int], row: Mapping[str, Any], camera: Mapping[str, Any]
) -> str | None:
    """The first chunk that cannot be decoded although it matches its digest, and why."""
    name = camera["name"]
    for i, (piece, frames) in enumerate(zip(pieces, lengths, strict=True)):
        out = np.empty((frames, row[f"{name}.height"], row[f"{name}.width"], 3), np.uint8)
        try:
            decode_chunks(camera["codec"], [piece], frames, out)
        except CorruptError as error:
            return f"chunk {i} {error.__cause__}"
    return None


def _wrong_chunks(
    digests: list[int], stated: _Stated | None, steps: int, camera: Mapping[str, Any]
) -> str | None:
    """The differences between the chunks of a camera's member and its table."""
    if stated is None:
        return "is not in the chunk table"
    if len(digests) != len(stated.digests):
        return f"has {len(digests)} chunks, its table says {len(stated.digests)}"
    lengths = stated.lengths(steps, camera)
    if lengths is None:
        return "its table does not state as many frames in chunks as there are steps"
    if len(digests) != len(lengths):
        return f"has {len(digests)} chunks, its steps need {len(lengths)}"
    bad = [i for i, digest in enumerate(digests) if digest != stated.digests[i]]
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    return f"chunk {bad[0]}{more} does not match its digest" if bad else None


def _pieces(
    content: memoryview, first: int, chunk: _Stated | None, row: Mapping[str, Any], camera: str
) -> Iterator[memoryview]:
    """Divide a camera's member into chunks of the sizes in its table, or into one per frame."""
    frame = row[f"{camera}.height"] * row[f"{camera}.width"] * 3
    sizes = chunk.sizes if chunk is not None else None
    start = max(first, 0)
    for size in repeat(frame, row["steps"]) if sizes is None else map(int, sizes):
        if not 0 < size <= len(content) - start:
            return
        yield content[start : start + size]
        start += size
    if start != len(content):
        yield content[start:]
