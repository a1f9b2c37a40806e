"""What LeRobot's metadata says of an export: features, types of columns, and the frame rate.

    observation.images.NAME    a camera: `video`, or `image` with the PNGs in the Parquet files
    observation.state, action  float32 [A], with the names of their columns
    next.reward, next.done     float32 and bool of each step, where the dataset knows them

Names of features come from these alone, so none holds a "/" or is one that LeRobot keeps for itself.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from oxcart.compile.export.statistics import QUANTILES
from oxcart.manifests.canonical import canonical_json
from oxcart.manifests.manifest import Manifest
from oxcart.manifests.roles import stored_bgr
from oxcart.shards.codec import VIDEO_EXTENSIONS
from oxcart.shards.errors import ConfigError

VERSION = "v3.0"
CAMERA = "observation.images."
"""Prefix of the feature of a camera."""
ARRAYS = {"state": "observation.state", "action": "action", "reward": "next.reward"}
"""Array -> its feature."""
DONE = "next.done"
INDICES = ("frame_index", "episode_index", "index", "task_index")
FILES_PER_FOLDER = 1000
DATA_MB, VIDEO_MB = 100, 200
"""Size that files of steps and videos grow to."""
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA, EPISODES = f"data/{FILE}.parquet", f"meta/episodes/{FILE}.parquet"
VIDEO = f"videos/{{video_key}}/{FILE}.mp4"
"""Names of files in the folder of a split, as `info.json` gives them."""
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"

OWN = {
    "oxcart/key": pa.string(),
    "oxcart/split": pa.string(),
    "oxcart/environment": pa.string(),
    "oxcart/environment_known": pa.string(),
    "oxcart/session": pa.string(),
    "success": pa.bool_(),
}
"""Columns that LeRobot's table of episodes does not have, and that its readers keep."""

QUALITY, GROUP, PRESET = 30, 2, 12
"""How videos are encoded here, as LeRobot does: rate factor, frames between key frames, and speed."""

Features = dict[str, dict[str, Any]]
_SINGLE = {"timestamp": "float32", **dict.fromkeys(INDICES, "int64")}
_ARROW = {"float32": pa.float32(), "int64": pa.int64(), "bool": pa.bool_()}


def passes(camera: Mapping[str, Any]) -> bool:
    """Whether the stored frames of a camera go into a video as they are coded.

    Those that hold BGR do not, since LeRobot would show them so.

    Args:
        camera: its entry of the manifest.
    """
    return camera["codec"] in VIDEO_EXTENSIONS and not stored_bgr(camera)


def frame_rate(rates: Iterable[float | None], given: int | None) -> int:
    """Frames per second: the control rate of all episodes, which LeRobot wants to be one whole number.

    Args:
        rates: control rate of each episode; None is unknown.
        given: what the user says, whatever the rates are.

    Raises:
        ConfigError: the rate is unknown, not a whole number, or not the same for all.
    """
    if given is not None:
        return given
    known = sorted({rate for rate in rates if rate is not None})
    needs = "LeRobot needs one whole number of frames per second"
    if len(known) < len({*rates}):
        raise ConfigError(f"control rate: unknown for some episodes, and {needs}; state it with --fps N")
    if len(known) > 1:
        raise ConfigError(
            f"control rate: from {known[0]:g} to {known[-1]:g} Hz, and {needs}; compile episodes of one "
            "rate, or label all frames with --fps N"
        )
    (rate,) = known
    if rate != int(rate) or rate < 1:
        near = max(1, round(rate))
        raise ConfigError(
            f"control rate: {rate:g} Hz, and {needs}; --fps {near} keeps all frames and labels them so, "
            f"which makes times wrong by {abs(near / rate - 1):.0%}"
        )
    return int(rate)


def make_features(manifest: Manifest, *, fps: int, images: bool, done: bool) -> Features:
    """The features of an export.

    Args:
        manifest: the dataset.
        fps: frames per second.
        images: whether cameras are images, not videos.
        done: whether the dataset knows for all episodes whether the last step is terminal.

    Raises:
        ConfigError: there are no actions, or frames of a camera differ in size.
    """
    if manifest.action is None:
        raise ConfigError(
            f"{manifest.dataset['name']}: has no actions, which LeRobot's policies learn; "
            "compile a source with --action"
        )
    found: Features = {}
    for camera in manifest.cameras:
        if camera["height"] is None:
            raise ConfigError(
                f"camera {camera['name']}: episodes differ in the size of its frames, and LeRobot takes one; "
                "bring them to one with oxcart transcode --size N"
            )
        found[CAMERA + camera["name"]] = {
            "dtype": "image" if images else "video",
            "shape": [camera["height"], camera["width"], 3],
            "names": ["height", "width", "channels"],
            **({} if images else {"info": _about_video(camera, fps)}),
        }
    for name, feature in ARRAYS.items():
        array = manifest.arrays[name]
        if array is not None:
            names = [column["name"] for column in array["columns"]]
            found[feature] = {"dtype": "float32", "shape": [array["size"]], "names": names}
    if done:
        found[DONE] = {"dtype": "bool", "shape": [1], "names": None}
    return found | {name: {"dtype": kind, "shape": [1], "names": None} for name, kind in _SINGLE.items()}


def _about_video(camera: Mapping[str, Any], fps: int) -> dict[str, Any]:
    """What LeRobot keeps of a video: its stream and, if it was encoded here, how."""
    about = {
        "video.height": camera["height"],
        "video.width": camera["width"],
        "video.codec": camera["codec"] if passes(camera) else "av1",
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
        "is_depth_map": False,
    }
    if not passes(camera):
        about |= {"video.pix_fmt": "yuv420p", "video.g": GROUP, "video.crf": QUALITY, "video.preset": PRESET}
    return about


def steps_schema(features: Features) -> pa.Schema:
    """Columns of the files of steps; a video has none. The metadata is what Hugging Face `datasets` reads."""
    columns: list[tuple[str, pa.DataType]] = []
    told: dict[str, Any] = {}
    for name, one in features.items():
        if one["dtype"] == "image":
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            told[name] = {"_type": "Image"}
        elif one["dtype"] == "video":
            continue
        else:
            kind, (width,) = _ARROW[one["dtype"]], one["shape"]
            told[name] = {"dtype": one["dtype"], "_type": "Value"}
            if width > 1:
                kind = pa.list_(kind, width)
                told[name] = {"feature": told[name], "length": width, "_type": "List"}
        columns.append((name, kind))
    return pa.schema(columns, {"huggingface": json.dumps({"info": {"features": told}})})


def episodes_schema(features: Features) -> pa.Schema:
    """Columns of the table of episodes."""
    place = [("chunk_index", pa.int64()), ("file_index", pa.int64())]
    columns = [("episode_index", pa.int64()), ("tasks", pa.list_(pa.string())), ("length", pa.int64())]
    columns += [(f"data/{name}", kind) for name, kind in place]
    columns += [("dataset_from_index", pa.int64()), ("dataset_to_index", pa.int64())]
    for feature, one in features.items():
        if one["dtype"] == "video":
            times = [("from_timestamp", pa.float64()), ("to_timestamp", pa.float64())]
            columns += [(f"videos/{feature}/{name}", kind) for name, kind in (*place, *times)]
    for feature, one in features.items():
        kind = pa.list_(pa.float64())
        if one["dtype"] in ("image", "video"):
            kind = pa.list_(pa.list_(kind))
        names = ("min", "max", "mean", "std", "count", *QUANTILES)
        columns += [
            (f"stats/{feature}/{name}", pa.list_(pa.int64()) if name == "count" else kind) for name in names
        ]
    columns += [(f"meta/episodes/{name}", kind) for name, kind in place]
    return pa.schema([*columns, *OWN.items()])


def tasks_bytes(tasks: Sequence[str]) -> bytes:
    """The table of tasks as Parquet, of which pandas takes the texts for its index."""
    text = {"pandas_type": "unicode", "numpy_type": "object"}
    whole = {"pandas_type": "int64", "numpy_type": "int64"}
    about = {
        "index_columns": ["task"],
        "column_indexes": [{"name": None, "field_name": None, **text, "metadata": {"encoding": "UTF-8"}}],
        "columns": [
            {"name": name, "field_name": name, **kind, "metadata": None}
            for name, kind in (("task_index", whole), ("task", text))
        ],
        "attributes": {},
    }
    columns = {"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata({"pandas": canonical_json(about)}), buffer)
    return buffer.getvalue()


def make_info(
    split: str, features: Features, *, fps: int, episodes: int, frames: int, tasks: int
) -> dict[str, Any]:
    """What `info.json` says."""
    videos = any(one["dtype"] == "video" for one in features.values())
    return {
        "codebase_version": VERSION,
        "fps": fps,
        "features": features,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": FILES_PER_FOLDER,
        "data_files_size_in_mb": DATA_MB,
        "video_files_size_in_mb": VIDEO_MB,
        "data_path": DATA,
        "video_path": VIDEO if videos else None,
        "robot_type": None,
        "splits": {split: f"0:{episodes}"},
    }


def as_json(value: Mapping[str, Any]) -> bytes:
    """JSON as LeRobot writes it."""
    return json.dumps(value, indent=4, ensure_ascii=False).encode()
