"""Ways to break a compiled dataset, and what verify then says.

    with holding(root / SHARDS[0], flipped(data, 100)):
        assert reasons(root, SHARDS[0]) == ["..."]

The names are those of `six_episodes`.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from blake3 import blake3

from oxcart.manifests.columns import ARRAYS
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import encoded_as, fingerprint, order
from oxcart.manifests.verify import Damage, verify

MANIFEST = "manifest.json"
FILES = (
    "episodes.parquet",
    "rejected.parquet",
    "values.parquet",
    "shards/train-00000.tar",
    "shards/train-00000.chunks.parquet",
    "shards/train-00001.tar",
    "shards/train-00001.chunks.parquet",
    "shards/val-00000.tar",
    "shards/val-00000.chunks.parquet",
)
"""All that the dataset consists of, but for the manifest."""
SHARDS = tuple(name for name in FILES if name.endswith(".tar"))
TABLES = tuple(name for name in FILES if name.endswith(".parquet"))


def found(root: Path) -> list[Damage]:
    return verify(Dataset.open(str(root)))


def names(damage: list[Damage]) -> set[str]:
    return {one.file for one in damage}


def reasons(root: Path, file: str) -> list[str]:
    """What is wrong with the file, which is all that is wrong."""
    damage = found(root)
    assert names(damage) == {file}, damage
    return [one.reason for one in damage]


@contextlib.contextmanager
def holding(path: Path, data: bytes) -> Iterator[None]:
    """The file holds `data` for a while."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def flipped(data: bytes, position: int, bits: int = 1) -> bytes:
    return data[:position] + bytes([data[position] ^ bits]) + data[position + 1 :]


def read_manifest(root: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((root / MANIFEST).read_text())
    return value


def write_manifest(root: Path, value: object) -> None:
    (root / MANIFEST).write_text(json.dumps(value))


def seal(root: Path, *, fingerprinted: bool = True) -> None:
    """Make the manifest state the digests that the files now have, as a forger would."""
    manifest = read_manifest(root)
    for name, table in manifest["tables"].items():
        data = (root / name).read_bytes()
        table |= {"bytes": len(data), "blake3": blake3(data).hexdigest()}
        table["rows"] = pq.read_table(io.BytesIO(data)).num_rows
    for shard in manifest["shards"]:
        data, chunks = (root / shard["name"]).read_bytes(), (root / shard["chunks"]).read_bytes()
        shard |= {"bytes": len(data), "blake3": blake3(data).hexdigest()}
        shard |= {"chunks_bytes": len(chunks), "chunks_blake3": blake3(chunks).hexdigest()}
    if fingerprinted:
        rows = pq.read_table(root / "episodes.parquet").to_pylist()
        episodes = ((row["key"], row["split"], row["digest"]) for row in rows)
        shaped = encoded_as(manifest["pixels"], manifest["cameras"])
        arrays, no_action = (
            {name: manifest[name] for name in ARRAYS},
            manifest["config"]["source"]["no_action"],
        )
        manifest["fingerprint"] = fingerprint(shaped, arrays, no_action, episodes)
        samples = ((row["key"], row["split"], row["steps"], row["source_digest"]) for row in rows)
        manifest["order"] = order(samples)
    write_manifest(root, manifest)
