"""Exact counts of a table of episodes, as a manifest states them and `verify` checks them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from oxcart.manifests.split import SPLITS

Count = dict[str, int]
"""`episodes`, `steps`, `frames` (summed over cameras) and `bytes` (of the episodes' members in the tar)."""


def per_split(episodes: pa.Table, cameras: int) -> dict[str, Count]:
    """Split -> counts, for splits that have episodes."""
    counts = _grouped(episodes, ["split"], cameras)
    return {split: counts[(split,)] for split in SPLITS if (split,) in counts}


def per_environment(episodes: pa.Table, cameras: int) -> list[dict[str, Any]]:
    """Name of each environment, how it is known, and counts per split; the unknown one is null and last."""
    found: dict[tuple[bool, str, str], dict[str, Count]] = {}
    for (name, known, split), count in _grouped(
        episodes, ["environment", "environment_known", "split"], cameras
    ).items():
        found.setdefault((name is None, name or "", known), {})[split] = count
    return [
        {
            "name": None if unknown else name,
            "known": known,
            "splits": {split: counts[split] for split in SPLITS if split in counts},
        }
        for (unknown, name, known), counts in sorted(found.items())
    ]


def _grouped(episodes: pa.Table, by: list[str], cameras: int) -> dict[tuple[Any, ...], Count]:
    sums = episodes.group_by(by).aggregate([("key", "count"), ("steps", "sum"), ("bytes", "sum")])
    return {
        tuple(row[name] for name in by): {
            "episodes": row["key_count"],
            "steps": row["steps_sum"],
            "frames": row["steps_sum"] * cameras,
            "bytes": row["bytes_sum"],
        }
        for row in sums.to_pylist()
    }


def frame_size(episodes: pa.Table, camera: str) -> dict[str, int | None]:
    """Height and width of a camera's frames; null if episodes differ."""
    sides = {side: pc.unique(episodes[f"{camera}.{side}"]).to_pylist() for side in ("height", "width")}
    same = all(len(values) == 1 for values in sides.values())
    return {side: values[0] if same else None for side, values in sides.items()}
