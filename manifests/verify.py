"""Verify a compiled dataset: every byte against its digest, every count against its table.

The manifest names each file's digest; the chunk tables say which piece of a damaged shard is the damaged one.
Each shard is read once, an episode at a time.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3
from xxhash import xxh3_64_intdigest

from oxcart.manifests.counts import frame_size, per_environment, per_split
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import episode_digest, fingerprint
from oxcart.manifests.tables import CHUNKS_SCHEMA, EPISODES, REJECTED_SCHEMA, episodes_schema, parse_table
from oxcart.shards.errors import CorruptError, OxcartError
from oxcart.shards.store import Store


class Damage(NamedTuple):
    """Something that is not as the manifest says."""

    file: str
    """Relative to the dataset's directory."""
    reason: str
    """What is wrong with it, down to the key, camera and chunk where that can be told."""


def verify(
    dataset: Dataset, *, workers: int = 1, report: Callable[[int, int], None] = lambda done, size: None
) -> list[Damage]:
    """Everything that is wrong with a dataset; nothing is none.

    Args:
        dataset: what to verify.
        workers: shards to read at a time.
        report: told of frames and bytes verified so far.
    """
    manifest = dataset.manifest
    damage: list[Damage] = []
    tables: dict[str, pa.Table | None] = {}
    for name in manifest.tables:
        try:
            tables[name] = dataset.table(name)
        except OxcartError as error:
            tables[name] = None
            damage.append(Damage(name, str(error)))
    episodes = tables.get(EPISODES)
    if episodes is not None:
        damage += [Damage(name, reason) for name, reason in _wrong_counts(dataset, tables)]
    named = {shard[what] for shard in manifest.shards for what in ("name", "chunks")}
    damage += [
        Damage(name, "is not in the manifest") for name in dataset.store.list("shards") if name not in named
    ]
    done = [0, 0]

    def check(shard: Mapping[str, Any]) -> list[Damage]:
        rows = None
        if episodes is not None:
            stem = shard["name"].removeprefix("shards/").removesuffix(".tar")
            rows = episodes.filter(pc.equal(episodes["shard"], stem))
        found = _verify_shard(dataset.store, shard, rows, [camera["name"] for camera in manifest.cameras])
        done[0] += shard["frames"]
        done[1] += shard["bytes"]
        report(done[0], done[1])
        return found

    with ThreadPoolExecutor(workers) as pool:
        for found in pool.map(check, manifest.shards):
            damage += found
    return damage


def _wrong_counts(dataset: Dataset, tables: Mapping[str, pa.Table | None]) -> Iterator[tuple[str, str]]:
    """File and reason of every statement of the manifest that its tables do not bear out."""
    manifest, episodes = dataset.manifest, tables[EPISODES]
    cameras = [camera["name"] for camera in manifest.cameras]
    schemas = {"episodes.parquet": episodes_schema(cameras), "rejected.parquet": REJECTED_SCHEMA}
    for name, table in tables.items():
        if table is None:
            continue
        if table.num_rows != manifest.tables[name]["rows"]:
            yield name, f"has {table.num_rows} rows, the manifest says {manifest.tables[name]['rows']}"
        if not table.schema.equals(schemas[name]):
            yield name, "its columns are not those of the format"
            return
    assert episodes is not None
    counts = manifest.counts
    facts: dict[str, tuple[Any, Any]] = {
        "splits": (manifest.splits, per_split(episodes, len(cameras))),
        "environments": (manifest.environments, per_environment(episodes, len(cameras))),
        "counts.compiled": (counts["compiled"], episodes.num_rows),
        "counts.rejected": (counts["rejected"], manifest.tables["rejected.parquet"]["rows"]),
        "counts.source": (counts["source"], counts["compiled"] + counts["rejected"] + counts["limited"]),
        "fingerprint": (
            manifest.fingerprint,
            fingerprint(
                manifest.pixels,
                zip(*(episodes[name].to_pylist() for name in ("key", "split", "digest")), strict=True),
            ),
        ),
    }
    for camera in manifest.cameras:
        stated = {side: camera[side] for side in ("height", "width")}
        facts[f"cameras.{camera['name']}"] = (stated, frame_size(episodes, camera["name"]))
    for what, (stated, found) in facts.items():
        if stated != found:
            yield "manifest.json", f"{what}: the manifest says {stated}, the tables {found}"


def _verify_shard(
    store: Store, shard: Mapping[str, Any], rows: pa.Table | None, cameras: list[str]
) -> list[Damage]:
    name = shard["name"]
    try:
        size = store.size(name)
    except OxcartError as error:
        return [Damage(name, str(error))]
    damage = []
    if size != shard["bytes"]:
        damage.append(Damage(name, f"has {size} bytes, the manifest says {shard['bytes']}"))
    digests: dict[tuple[str, str], Mapping[str, Any]] = {}
    try:
        digests = _read_chunks(store, shard)
    except OxcartError as error:
        damage.append(Damage(shard["chunks"], str(error)))
    whole = blake3()
    position = 0
    if rows is not None:
        counted = {"episodes": rows.num_rows, "steps": pc.sum(rows["steps"]).as_py() or 0}
        for what, count in counted.items():
            if count != shard[what]:
                damage.append(
                    Damage(name, f"has {count} {what} in {EPISODES}, the manifest says {shard[what]}")
                )
        for row in rows.to_pylist():
            if row["offset"] != position:
                damage.append(Damage(name, f"{row['key']}: begins at {row['offset']}, expected {position}"))
            position = row["offset"] + row["bytes"]
            if position > size:
                damage.append(Damage(name, f"{row['key']}: cut off, and whatever follows it"))
                return damage
            data = store.read_range(name, row["offset"], row["bytes"])
            whole.update(data)
            damage += [
                Damage(name, f"{row['key']}: {wrong}") for wrong in _wrong_pieces(data, row, digests, cameras)
            ]
    for start in range(position, size, 8 << 20):
        whole.update(store.read_range(name, start, min(8 << 20, size - start)))
    if whole.hexdigest() != shard["blake3"] and not any(one.file == name for one in damage):
        damage.append(
            Damage(name, "does not match its digest; no member is damaged, so padding or a header is")
        )
    return damage


def _read_chunks(store: Store, shard: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """(key, camera) -> row of the chunk table of a shard."""
    data = store.read(shard["chunks"])
    if blake3(data).hexdigest() != shard["chunks_blake3"]:
        raise CorruptError("does not match its digest in the manifest")
    table = parse_table(data, shard["chunks"])
    if not table.schema.equals(CHUNKS_SCHEMA):
        raise CorruptError("its columns are not those of the format")
    return {(row["key"], row["camera"]): row for row in table.to_pylist()}


def _wrong_pieces(
    data: bytes,
    row: Mapping[str, Any],
    chunks: Mapping[tuple[str, str], Mapping[str, Any]],
    cameras: list[str],
) -> Iterator[str]:
    """What is wrong with the bytes of one episode."""
    members = _members(data, row["key"])
    if members is None:
        yield "a tar header is damaged"
        return
    digests: dict[str, list[int]] = {}
    broken = False
    for suffix, (start, content) in members.items():
        name = suffix.partition(".")[0]
        if name in cameras:
            first = row[f"{name}.offset"] - row["offset"] - start
            pieces = list(_pieces(content, first, chunks.get((row["key"], name)), row, name))
            digests[suffix] = [xxh3_64_intdigest(piece) for piece in pieces]
            stated = chunks.get((row["key"], name), {}).get("digests")
            bad = [i for i, digest in enumerate(digests[suffix]) if stated and stated[i : i + 1] != [digest]]
            if bad:
                broken = True
                more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
                yield f"camera {name}, chunk {bad[0]}{more} does not match its digest"
        elif suffix == "json":
            digests[suffix] = [xxh3_64_intdigest(content)]
        else:
            first = (row[f"{name}.offset"] or 0) - row["offset"] - start
            digests[suffix] = [xxh3_64_intdigest(content[max(first, 0) :])]
    if not broken and episode_digest(digests) != row["digest"]:
        yield "metadata, action or state does not match the episode's digest"


def _members(data: bytes, key: str) -> dict[str, tuple[int, memoryview]] | None:
    """Suffix -> (offset of its data, data) of the members of one episode, None where a header is damaged."""
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                name, _, suffix = member.name.partition(".")
                if name != key or not member.isfile():
                    return None
                start = member.offset_data
                found[suffix] = start, memoryview(data)[start : start + member.size]
    except (tarfile.TarError, ValueError, UnicodeError):
        return None
    ends = [start + len(content) for start, content in found.values()]
    return found if ends and max(ends) + -max(ends) % 512 == len(data) else None


def _pieces(
    content: memoryview, first: int, chunk: Mapping[str, Any] | None, row: Mapping[str, Any], camera: str
) -> Iterator[memoryview]:
    """The chunks of a camera's member: of the sizes that its table states, else one a frame."""
    stated = chunk["sizes"] if chunk else None
    sizes = stated or [row[f"{camera}.height"] * row[f"{camera}.width"] * 3] * row["steps"]
    for size in sizes:
        yield content[first : first + size]
        first += size
