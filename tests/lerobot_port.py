"""A LeRobot port of an RLDS dataset, as converters make it: without environments, perhaps with other numbers.

write_port(tmp_path / "port", source, census_of(rlds).table.to_pylist()[::-1])
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot_writer import DATA, EPISODES, TASKS

from oxcart.compile.sources.base import Floats, Source

Numbers = dict[str, Floats]
"""`action` and `state` of an episode, [T, A] and [T, S]."""
CAMERA, FPS = "observation.images.image_0", 5


def as_it_is(numbers: Numbers) -> Numbers:
    return numbers


def write_port(
    root: Path,
    source: Source,
    census: Sequence[Mapping[str, Any]],
    convert: Callable[[Numbers], Numbers] = as_it_is,
    first: int = 0,
) -> None:
    """Write a dataset of version 3.0 with the encoded images of one camera.

    Args:
        root: its directory.
        source: the open RLDS dataset, of one camera.
        census: the episodes to write, in their order.
        convert: changes the numbers of an episode.
        first: steps of each episode that are dropped.
    """
    tables, rows, index = [], [], 0
    for number, row in enumerate(census):
        episode = source.read(row)
        assert episode.action is not None
        assert episode.state is not None
        numbers = convert({"action": episode.action[first:], "state": episode.state[first:]})
        steps = len(numbers["action"])
        images = [{"bytes": bytes(one), "path": ""} for one in list(episode.images["image_0"])[first:]]  # type: ignore[arg-type]
        every = np.arange(steps)
        tables.append(
            pa.table(
                {
                    "action": _rows(numbers["action"]),
                    "observation.state": _rows(numbers["state"]),
                    CAMERA: pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
                    "timestamp": (every / FPS).astype(np.float32),
                    "frame_index": every,
                    "episode_index": np.full(steps, number),
                    "index": index + every,
                    "task_index": np.zeros(steps, np.int64),
                }
            )
        )
        rows.append({"episode_index": number, "length": steps, "data/chunk_index": 0, "data/file_index": 0})
        index += steps
    shapes = {name: [tables[0][name].type.list_size] for name in ("action", "observation.state")}
    single = ("timestamp", "frame_index", "episode_index", "index", "task_index")
    features = {
        **{name: {"dtype": "float32", "shape": shape} for name, shape in shapes.items()},
        CAMERA: {"dtype": "image", "shape": [96, 96, 3]},
        **{name: {"dtype": "int64", "shape": [1]} for name in single},
    }
    info = {"codebase_version": "v3.0", "fps": FPS, "features": features, "video_path": None}
    info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    for name in (DATA, EPISODES, TASKS):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    pq.write_table(pa.table({"task_index": [0], "task": ["play"]}), root / TASKS)
    pq.write_table(pa.Table.from_pylist(rows), root / EPISODES)
    pq.write_table(pa.concat_tables(tables), root / DATA)


def _rows(array: Floats) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(array.astype(np.float32).ravel()), array.shape[1])
