"""A dataset of a million episodes of 40 steps for bench/read.py: real tables, shards that are holes.

Every frame is black, so a shard of a thousand episodes takes no room on the disk and all chunks are the same.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
from blake3 import blake3
from xxhash import xxh3_64_intdigest

from oxcart.manifests.annotation import MOTION, Annotation, StoredValues, beside, write_annotation
from oxcart.manifests.columns import ARRAYS
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import FORMAT
from oxcart.manifests.tables import (
    CHUNKS_SCHEMA,
    EPISODES,
    REJECTED,
    REJECTED_SCHEMA,
    VALUES,
    VALUES_SCHEMA,
    episodes_schema,
    table_bytes,
)
from oxcart.shards.names import SHARDS, chunks_name, make_stem, tar_name

EPISODES_OF_SHARD = 1000
STEPS, SIDE = 40, 64
CAMERAS = {"image_0": "primary", "wrist": "wrist"}
"""Name of each camera -> its role."""
FRAME = SIDE * SIDE * 3


def annotate_motion(dataset: Path) -> None:
    """Write random motion for every step of a dataset beside it, once."""
    url = beside(str(dataset), MOTION)
    if Path(url).exists():
        return
    opened = Dataset.open(str(dataset))
    keys = sorted(opened.table(EPISODES, ["key"])["key"].to_pylist())
    flat = np.random.default_rng(0).random(len(keys) * STEPS, dtype=np.float32)
    bounds = np.arange(len(keys) + 1) * STEPS
    write_annotation(
        url,
        Annotation(
            name=MOTION,
            producer="0" * 64,
            dataset=opened.manifest.fingerprint,
            parameters={"camera": "image_0"},
            values=StoredValues(pa.array(keys, pa.large_string()), bounds, flat),
        ),
    )


def million_episodes(out: Path, count: int = 1_000_000) -> Path:
    """Write it, once."""
    if (out / "manifest.json").exists():
        return out
    shutil.rmtree(out, ignore_errors=True)
    (out / SHARDS).mkdir(parents=True)
    digest = xxh3_64_intdigest(bytes(FRAME))
    stride = 4096 + len(CAMERAS) * STEPS * FRAME
    shards, tables = [], []
    schema = episodes_schema(list(CAMERAS))
    for number in range(count // EPISODES_OF_SHARD):
        stem = make_stem("train", number)
        keys = [f"million_episodes-train-{number:05d}-{i:06d}" for i in range(EPISODES_OF_SHARD)]
        tracks = len(keys) * len(CAMERAS)
        with open(out / tar_name(stem), "wb") as file:
            os.truncate(file.fileno(), EPISODES_OF_SHARD * stride)
        chunks = pa.table(
            {
                "key": [key for key in keys for _ in CAMERAS],
                "camera": list(CAMERAS) * len(keys),
                "digests": [[digest] * STEPS] * tracks,
                "sizes": pa.nulls(tracks, pa.list_(pa.uint32())),
                "frames": pa.nulls(tracks, pa.list_(pa.uint32())),
            },
            schema=CHUNKS_SCHEMA,
        )
        data = table_bytes(chunks)
        (out / chunks_name(stem)).write_bytes(data)
        counts = {
            "episodes": len(keys),
            "steps": len(keys) * STEPS,
            "frames": tracks * STEPS,
            "bytes": EPISODES_OF_SHARD * stride,
        }
        chunks_of = {
            "chunks": chunks_name(stem),
            "chunks_bytes": len(data),
            "chunks_blake3": blake3(data).hexdigest(),
        }
        shards.append({"name": tar_name(stem), "split": "train", **counts, "blake3": "0" * 64, **chunks_of})
        places = np.arange(EPISODES_OF_SHARD, dtype=np.int64) * stride
        known = {
            "key": keys,
            "split": ["train"] * len(keys),
            "shard": [stem] * len(keys),
            "environment": [f"kitchen {(number * 7 + i) % 500}" for i in range(len(keys))],
            "environment_known": ["declared"] * len(keys),
            "instruction": [f"do the thing number {(number * 13 + i) % 20_000}" for i in range(len(keys))],
            "steps": np.full(len(keys), STEPS, np.int32),
            "offset": places,
            "bytes": np.full(len(keys), stride, np.int64),
            "digest": [f"{number:016x}{i:016x}" for i in range(len(keys))],
        }
        for i, camera in enumerate(CAMERAS):
            known[f"{camera}.offset"] = places + 4096 + i * STEPS * FRAME
            known[f"{camera}.height"] = known[f"{camera}.width"] = np.full(len(keys), SIDE, np.int32)
        columns = [known.get(field.name, pa.nulls(len(keys), field.type)) for field in schema]
        tables.append(
            pa.table(
                [
                    pa.array(c, f.type) if not isinstance(c, pa.Array) else c
                    for c, f in zip(columns, schema, strict=True)
                ],
                schema=schema,
            )
        )
    described = {}
    schemas = {REJECTED: REJECTED_SCHEMA, VALUES: VALUES_SCHEMA}
    empty = {name: schema.empty_table() for name, schema in schemas.items()}
    for name, table in {EPISODES: pa.concat_tables(tables), **empty}.items():
        data = table_bytes(table)
        (out / name).write_bytes(data)
        described[name] = {"rows": table.num_rows, "bytes": len(data), "blake3": blake3(data).hexdigest()}
    total = {what: sum(shard[what] for shard in shards) for what in ("episodes", "steps", "frames", "bytes")}
    source = {
        "kind": "none",
        "name": "million_episodes",
        "version": "1.0.0",
        "licence": None,
        **{name: [] for name in ("source_splits", "instruction", *ARRAYS, "no_action")},
        "cameras": {camera: camera for camera in CAMERAS},
        "columns": {name: [] for name in ARRAYS},
    }
    manifest = {
        "format": FORMAT,
        "fingerprint": "0" * 64,
        "order": "0" * 64,
        "dataset": {
            "name": "million_episodes",
            "version": "1.0.0",
            "kind": "none",
            **dict.fromkeys(("licence", "citation")),
        },
        "plan": "0" * 64,
        "counts": {"source": count, "compiled": count, "rejected": 0, "limited": 0},
        "splits": {"train": total},
        "environments": [],
        "cameras": [
            {
                "name": camera,
                "source": camera,
                "height": SIDE,
                "width": SIDE,
                "role": role,
                "channels": "rgb",
                "codec": "raw",
                "quality": None,
                "chunk": 1,
            }
            for camera, role in CAMERAS.items()
        ],
        "action": None,
        "state": None,
        "reward": None,
        "control_rate": None,
        "pixels": {"cameras": list(CAMERAS)},
        "shards": shards,
        "tables": described,
        "config": {"source": source},
        "versions": {},
    }
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out
