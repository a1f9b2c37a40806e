"""LeRobot datasets that tests write themselves, as LeRobot's own writer lays them out.

root = write_lerobot(tmp_path / "set", [RobotTake(steps=5), RobotTake(steps=4, tasks=("open", "close"))])
edit_table(root / DATA, "index", lambda values: values[::-1])
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from av.codec.context import Flags
from PIL import Image

Frame = npt.NDArray[np.uint8]

SIZE = 32, 48
FPS = 10
TOP, WRIST = "observation.images.top", "observation.images.wrist"
VIDEOS: Mapping[str, str] = {TOP: "video", WRIST: "video"}
IMAGES: Mapping[str, str] = {TOP: "image", WRIST: "image"}
HELD_BACK = 2
"""Most frames by which an encoder delays one because others are coded before it."""
PER_FILE, PER_VIDEO = 2, 3
"""Episodes in a file of steps, and in a video, of version 3.0."""
EPISODES, TASKS = "meta/episodes/chunk-000/file-000.parquet", "meta/tasks.parquet"
DATA = "data/chunk-000/file-000.parquet"


@dataclass(frozen=True, kw_only=True)
class RobotTake:
    """An episode to write."""

    steps: int = 5
    tasks: tuple[str, ...] = ("pick",)
    """Tasks that follow each other, each for an equal part of the steps."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """More columns of the table of episodes."""
    frame_columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """More columns of the steps."""


def drawn(camera: str, episode: int, step: int) -> Frame:
    """A frame [H, W, 3] uint8 that no other episode, step or camera has."""
    height, width = SIZE
    frame = np.empty((height, width, 3), np.uint8)
    frame[:] = np.linspace(30, 200, width, dtype=np.uint8)[None, :, None]
    frame[:, :, 2] = 40 + 12 * (episode % 8) + (80 if camera == WRIST else 0)
    left = 3 * step % (width - 12)
    frame[8:24, left : left + 12] = (220, 40 + 20 * (episode % 8), 60)
    return frame


def task_at(take: RobotTake, step: int) -> str:
    return take.tasks[step * len(take.tasks) // take.steps]


def action_of(episode: int, step: int) -> list[float]:
    return [episode + step / 10, -step / 7, 0.5]


def write_lerobot(
    root: Path,
    takes: Sequence[RobotTake],
    *,
    version: str = "v3.0",
    cameras: Mapping[str, str] = VIDEOS,
    fps: int = FPS,
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    apart: bool = False,
    muxer: Mapping[str, str] | None = None,
) -> Path:
    """Write a dataset.

    Args:
        root: its directory.
        takes: its episodes.
        version: `v3.0` or `v2.1`.
        cameras: feature -> `video` or `image`.
        fps: steps per second.
        codec: encoder of the videos.
        options: options of the encoder; key frames are two frames apart by default.
        apart: whether each episode is encoded by itself, as LeRobot does, and so begins with a key frame.
        muxer: options of the container of the videos.
    """
    v3 = version == "v3.0"
    options = options or {"g": "2", "bf": "0", "crf": "12"}
    tasks = list(dict.fromkeys(task for take in takes for task in take.tasks))
    starts = np.cumsum([0, *(take.steps for take in takes)]).tolist()
    tables = [_steps(take, e, starts[e], tasks, cameras, fps) for e, take in enumerate(takes)]
    rows: list[dict[str, Any]] = [
        {
            "episode_index": e,
            "tasks": list(take.tasks),
            "length": take.steps,
            **take.columns,
            **({"dataset_from_index": starts[e], "dataset_to_index": starts[e + 1]} if v3 else {}),
            **({"data/chunk_index": 0, "data/file_index": e // PER_FILE} if v3 else {}),
            **({"stats/action/min": [0.0]} if v3 else {}),
        }
        for e, take in enumerate(takes)
    ]
    per_file, per_video = (PER_FILE, PER_VIDEO) if v3 else (1, 1)
    for start in range(0, len(takes), per_file):
        name = f"file-{start // per_file:03d}" if v3 else f"episode_{start:06d}"
        _write_parquet(root / f"data/chunk-000/{name}.parquet", tables[start : start + per_file])
    for camera in (name for name, dtype in cameras.items() if dtype == "video"):
        for start in range(0, len(takes), per_video):
            inside = range(start, min(start + per_video, len(takes)))
            name = (
                f"videos/{camera}/chunk-000/file-{start // per_video:03d}.mp4"
                if v3
                else f"videos/chunk-000/{camera}/episode_{start:06d}.mp4"
            )
            clips = [map(partial(drawn, camera, e), range(takes[e].steps)) for e in inside]
            clips = clips if apart else [itertools.chain(*clips)]
            write_videos(root / name, clips, fps, options, codec, muxer)
            for e in inside if v3 else ():
                rows[e] |= {
                    f"videos/{camera}/chunk_index": 0,
                    f"videos/{camera}/file_index": start // per_video,
                    f"videos/{camera}/from_timestamp": (starts[e] - starts[start]) / fps,
                    f"videos/{camera}/to_timestamp": (starts[e + 1] - starts[start]) / fps,
                }
    if v3:
        _write_parquet(root / EPISODES, [pa.Table.from_pylist(rows)])
        table = {"task_index": range(len(tasks)), "task": tasks}
        _write_parquet(root / TASKS, [pa.table({name: list(one) for name, one in table.items()})])
    else:
        _write_lines(root / "meta/episodes.jsonl", rows)
        _write_lines(
            root / "meta/tasks.jsonl", [{"task_index": i, "task": task} for i, task in enumerate(tasks)]
        )
    info = {
        "codebase_version": version,
        "fps": fps,
        "features": _features(takes[0], cameras),
        "total_episodes": len(takes),
        "total_frames": starts[-1],
        "total_tasks": len(tasks),
        "chunks_size": 1000,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        if v3
        else "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        if v3
        else "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "splits": {"train": f"0:{len(takes)}"},
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def write_video(
    path: Path,
    frames: Iterator[Frame],
    fps: int,
    options: Mapping[str, str],
    codec: str = "libx264",
    muxer: Mapping[str, str] | None = None,
) -> None:
    write_videos(path, [frames], fps, options, codec, muxer)


def write_videos(
    path: Path,
    clips: Sequence[Iterator[Frame]],
    fps: int,
    options: Mapping[str, str],
    codec: str = "libx264",
    muxer: Mapping[str, str] | None = None,
) -> None:
    """Write a file of clips, each of which is encoded by itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=dict(muxer or {})) as out:
        stream: Any = out.add_stream(codec, rate=fps, options=dict(options))
        _set_up(stream.codec_context)
        first = 0
        for i, clip in enumerate(clips):
            encoder: Any = stream
            if i:
                encoder = av.CodecContext.create(codec, "w")
                encoder.options, encoder.framerate = dict(options), fps
                encoder.time_base = Fraction(1, fps)
                encoder.flags |= Flags.global_header
                _set_up(encoder)
            packets, count = [], 0
            for count, frame in enumerate(clip, 1):
                picture = av.VideoFrame.from_ndarray(frame)
                picture.pts, picture.time_base = count - 1, Fraction(1, fps)
                packets += encoder.encode(picture)
            for place, packet in enumerate([*packets, *encoder.encode()], first):
                if len(clips) > 1:
                    packet.stream, packet.time_base = stream, Fraction(1, fps)
                    packet.pts, packet.dts = packet.pts + first, place - HELD_BACK
                out.mux(packet)
            first += count


def _set_up(context: Any) -> None:
    context.height, context.width = SIZE
    context.pix_fmt, context.thread_count = "yuv420p", 1


def edit_info(root: Path, **changes: Any) -> None:
    """Change fields of `info.json`; None removes one."""
    path = root / "meta/info.json"
    info = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in info.items() if value is not None}))


def edit_table(path: Path, column: str, change: Callable[[list[Any]], list[Any]]) -> None:
    """Change the values of a column of a Parquet file."""
    table = pq.read_table(path)
    kind = table.schema.field(column).type
    values = pa.array(change(table[column].to_pylist()), kind)
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, values), path)


def _steps(
    take: RobotTake, episode: int, start: int, tasks: Sequence[str], cameras: Mapping[str, str], fps: int
) -> pa.Table:
    steps = range(take.steps)
    actions = [action_of(episode, step) for step in steps]
    columns: dict[str, pa.Array] = {
        "action": pa.array(actions, pa.list_(pa.float32(), 3)),
        "observation.state": pa.array([one[:2] for one in actions], pa.list_(pa.float32())),
        "next.reward": pa.array([float(step) for step in steps], pa.float32()),
        "next.done": pa.array([step == take.steps - 1 for step in steps]),
        "timestamp": pa.array([step / fps for step in steps], pa.float32()),
        "frame_index": pa.array(steps, pa.int64()),
        "episode_index": pa.array([episode] * take.steps, pa.int64()),
        "index": pa.array([start + step for step in steps], pa.int64()),
        "task_index": pa.array([tasks.index(task_at(take, step)) for step in steps], pa.int64()),
        **{name: pa.array(values) for name, values in take.frame_columns.items()},
    }
    for camera in (name for name, dtype in cameras.items() if dtype == "image"):
        images = [{"bytes": png(drawn(camera, episode, step)), "path": f"{step}.png"} for step in steps]
        columns[camera] = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    return pa.table(columns)


def png(frame: Frame) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _features(take: RobotTake, cameras: Mapping[str, str]) -> dict[str, Any]:
    plain = {"dtype": "int64", "shape": [1], "names": None}
    more = {
        name: {**plain, "dtype": pa.array(values).type.__str__()}
        for name, values in take.frame_columns.items()
    }
    return {
        **{
            name: {"dtype": dtype, "shape": [*SIZE, 3], "names": ["height", "width", "channels"]}
            for name, dtype in cameras.items()
        },
        "action": {"dtype": "float32", "shape": [3], "names": {"motors": ["dx", "dy", "grip"]}},
        "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
        "next.reward": {**plain, "dtype": "float32"},
        "next.done": {**plain, "dtype": "bool"},
        "timestamp": {**plain, "dtype": "float32"},
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), plain),
        **more,
    }


def _write_parquet(path: Path, tables: Sequence[pa.Table]) -> None:
    """A row group per table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
