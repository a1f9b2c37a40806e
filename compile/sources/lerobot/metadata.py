"""What a LeRobot dataset says of itself, checked: its features, its tasks, and where each episode lies.

    version 3.0                                         version 2.1
    meta/info.json                                      meta/info.json
    meta/tasks.parquet                                  meta/tasks.jsonl
    meta/episodes/chunk-000/file-000.parquet            meta/episodes.jsonl
    data/chunk-000/file-000.parquet                     data/chunk-000/episode_000000.parquet
    videos/CAMERA/chunk-000/file-000.mp4                videos/chunk-000/CAMERA/episode_000000.mp4

In 3.0 a file holds many episodes, in the order of the dataset. So the place of an episode in a file is the
number of steps before it, and the times that the metadata says are only compared with it: a time of float32
cannot tell frames apart in a long video.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from oxcart.manifests.ownership import LEROBOT
from oxcart.shards.errors import ConfigError, SourceError
from oxcart.shards.store import Store

INFO = LEROBOT[0]
VERSIONS = ("v3.0", "v2.1")
TASK, SUBTASK = "task", "subtask"
"""What `task_index` and `subtask_index` of a step name."""
SUBTASKS = "meta/subtasks.parquet"
MOST_BYTES = 256 << 20
"""Size limit of a file of metadata, in bytes."""

Number = TypeVar("Number", int, float)

_STATISTICS = "stats/"
"""Prefix of columns of the episodes' table that are not read; they are nearly all of it."""
_EPISODES = "meta/episodes/chunk-{:03d}/file-{:03d}.parquet"
"""Name of a file of the table of episodes, by the numbers of its folder and in it."""
_TEMPLATE = re.compile(r"(?:[^{}]|\{[a-z_]+(?::0?\dd)?\})+")


@dataclass(frozen=True, kw_only=True)
class RobotFeature:
    """A feature as `info.json` describes it."""

    dtype: str
    """`video`, `image`, `string`, or the dtype of numbers."""
    shape: tuple[int, ...]
    names: tuple[str, ...] | None
    """A name for each value, if the dataset has them."""
    depth: bool
    """Whether it is a depth map."""


@dataclass(frozen=True, kw_only=True)
class VideoSpan:
    """Where the frames of an episode lie in a video."""

    file: str
    first: int
    """Frames of the video that come before."""
    needed: int
    """Frames of all episodes that lie in the video."""
    said: float | None
    """Time of the first frame, in seconds, as the metadata says it."""


@dataclass(frozen=True, kw_only=True)
class EpisodeEntry:
    """An episode as the metadata lists it."""

    number: int
    steps: int
    file: str
    """The Parquet file of its steps."""
    row: int
    """Rows of the file that come before."""
    index: int
    """Steps of the dataset that come before."""
    said_index: int | None
    """The same, as the metadata says it."""
    tasks: frozenset[str]
    """Its tasks, as the metadata lists them."""
    videos: Mapping[str, VideoSpan]
    """Feature of dtype `video` -> where its frames are."""
    columns: Mapping[str, Any]
    """What else the metadata says of it: column -> value."""


@dataclass(frozen=True, kw_only=True)
class RobotDataset:
    """A dataset as it describes itself."""

    version: str
    fps: int
    features: Mapping[str, RobotFeature]
    texts: Mapping[str, tuple[str, ...]]
    """`task`, and `subtask` if there are any -> the text of each `task_index` or `subtask_index`."""
    episodes: tuple[EpisodeEntry, ...]
    files: tuple[str, ...]
    """The files of metadata that were read."""


def read_dataset(store: Store) -> RobotDataset:
    """Read the metadata of a dataset, and check that it agrees with itself.

    Raises:
        ConfigError: the dataset is of a version that is not read.
        SourceError: its metadata is damaged or incomplete, or contradicts itself.
    """
    try:
        return _read_dataset(store)
    except SourceError as error:
        raise SourceError(error.reason, file=f"{store.url.rstrip('/')}/{error.file}") from error


def _read_dataset(store: Store) -> RobotDataset:
    info = _read_info(store)
    try:
        fps = info["fps"]
        if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < 1e6 or fps != int(fps):
            raise ValueError(f"fps: expected a whole number of steps per second, got {fps!r}")
        features = {name: _feature(one) for name, one in info["features"].items()}
        v3 = info["codebase_version"] == "v3.0"
        total, chunk = int(info.get("total_episodes") or 0), int(info.get("chunks_size") or 1000)
        templates = _templates(info, any(one.dtype == "video" for one in features.values()))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise SourceError(_reason(error), file=INFO) from error
    tasks_file = "meta/tasks.parquet" if v3 else "meta/tasks.jsonl"
    texts = {TASK: _texts(store, tasks_file, TASK)}
    if f"{SUBTASK}_index" in features and store.exists(SUBTASKS):
        texts[SUBTASK] = _texts(store, SUBTASKS, SUBTASK)
    listed, files = _listed(store, v3, total, chunk)
    cameras = [name for name, one in features.items() if one.dtype == "video"]
    try:
        episodes = _entries(listed, cameras, templates, chunk)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise SourceError(f"cannot be read: {_reason(error)}", file=files[0]) from error
    found = {
        "total_episodes": len(episodes),
        "total_frames": sum(one.steps for one in episodes),
        "total_tasks": len(texts[TASK]),
    }
    for name, count in found.items():
        if info.get(name, count) != count:
            raise SourceError(f"says {name} {info[name]!r:.40}, its tables hold {count}", file=INFO)
    return RobotDataset(
        version=info["codebase_version"].removeprefix("v"),
        fps=int(fps),
        features=features,
        texts=texts,
        episodes=episodes,
        files=(INFO, tasks_file, *([SUBTASKS] if SUBTASK in texts else []), *files),
    )


def _read_info(store: Store) -> dict[str, Any]:
    there = store.found(LEROBOT)
    name = next(iter(there), INFO)
    try:
        info = json.loads(store.read(name, MOST_BYTES))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"cannot be parsed: {error}", file=name) from error
    version = info.get("codebase_version") if isinstance(info, dict) else None
    if version not in VERSIONS or name != INFO:
        raise ConfigError(
            f"{store.url}: expected a LeRobot dataset of version {' or '.join(VERSIONS)}, got "
            f"{str(version)[:20]!r}; LeRobot's scripts convert older ones"
        )
    assert isinstance(info, dict)
    return info


def _feature(value: Mapping[str, Any]) -> RobotFeature:
    shape = tuple(int(side) for side in value["shape"])
    about = value.get("info") or value.get("video_info") or {}
    names, size = _names(value.get("names")), 1
    for side in shape:
        size *= side
    return RobotFeature(
        dtype=str(value["dtype"]),
        shape=shape,
        names=names if names and len(names) == size and len({*names}) == size else None,
        depth=any(about.get(name) for name in ("is_depth_map", "video.is_depth_map")),
    )


def _names(names: Any) -> tuple[str, ...]:
    """Names of values: a list, or a dictionary of lists or of positions."""
    if isinstance(names, dict):
        parts = list(names.values())
        if all(isinstance(one, int) for one in parts):
            parts = [sorted(names, key=names.__getitem__)]
        names = [name for part in parts for name in part] if all(isinstance(p, list) for p in parts) else []
    texts = [name for name in names or () if isinstance(name, str) and name and name.isprintable()]
    return tuple(name.strip() for name in texts)


def _templates(info: Mapping[str, Any], videos: bool) -> dict[str, str]:
    """`data` and `video` -> how their files are called."""
    found = {"data": info["data_path"], **({"video": info["video_path"]} if videos else {})}
    for what, template in found.items():
        if not isinstance(template, str) or not _TEMPLATE.fullmatch(template):
            raise ValueError(f"{what}_path: expected a path such as data/chunk-{{chunk_index:03d}}")
    return found


def _texts(store: Store, name: str, what: str) -> tuple[str, ...]:
    """The text of every task or subtask (`what`), whose place is its number."""
    rows = _read_rows(store, name)
    texts = []
    for place, row in enumerate(rows):
        text = row.get(what, row.get("__index_level_0__"))
        if row.get(f"{what}_index") != place or not isinstance(text, str):
            raise SourceError(
                f"{what}s are out of order: expected a text with {what}_index {place} in row {place}, "
                f"got {what}_index {row.get(f'{what}_index')}",
                file=name,
            )
        texts.append(text.strip())
    return tuple(texts)


def _listed(store: Store, v3: bool, total: int, chunk: int) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of the table of episodes, and its files.

    Args:
        store: the store of the dataset.
        v3: whether the dataset is of version 3.0, in which the table may have several files.
        total: number of episodes, as the description says it.
        chunk: most files in a folder.
    """
    counted = v3 and not store.listable
    names: Iterable[str] = ["meta/episodes.jsonl"]
    if counted:
        names = (_EPISODES.format(*divmod(number, chunk)) for number in range(total))
    elif v3:
        names = [name for name in store.list("meta/episodes") if name.endswith(".parquet")]
    files: list[str] = []
    rows: list[dict[str, Any]] = []
    for name in names:
        if counted and len(rows) >= total:
            break
        files.append(name)
        for row in _read_rows(store, name):
            if row.get("episode_index") != len(rows):
                raise SourceError(
                    f"episodes are out of order: expected episode_index {len(rows)}, "
                    f"got {row.get('episode_index')}",
                    file=name,
                )
            rows.append(row)
    if not files:
        raise SourceError("holds no table of episodes; is the copy complete?", file="meta/episodes")
    return rows, files


def _entries(
    rows: Sequence[Mapping[str, Any]], cameras: Sequence[str], templates: Mapping[str, str], chunk: int
) -> tuple[EpisodeEntry, ...]:
    """The episodes, each with its place: behind those before it in the same file."""
    lengths = [int(row["length"]) for row in rows]
    if min(lengths, default=0) < 0:
        number = next(number for number, steps in enumerate(lengths) if steps < 0)
        raise ValueError(f"episode {number} has length {lengths[number]}")
    files = _files(rows, "data", templates["data"], {}, chunk)
    films = [
        _files(rows, f"videos/{camera}", templates["video"], {"video_key": camera}, chunk)
        for camera in cameras
    ]
    needed: dict[str, int] = defaultdict(int)
    before: list[list[int]] = []
    for steps, *names in zip(lengths, files, *films, strict=True):
        before.append([needed[name] for name in names])
        for name in {*names}:
            needed[name] += steps
    said = [f"videos/{camera}/from_timestamp" for camera in cameras]
    entries, index = [], 0
    for number, (row, steps, (first, *firsts), file, *names) in enumerate(
        zip(rows, lengths, before, files, *films, strict=True)
    ):
        videos = {
            camera: VideoSpan(file=name, first=start, needed=needed[name], said=_number(row, column, float))
            for camera, name, start, column in zip(cameras, names, firsts, said, strict=True)
        }
        entries.append(
            EpisodeEntry(
                number=number,
                steps=steps,
                file=file,
                row=first,
                index=index,
                said_index=_number(row, "dataset_from_index", int),
                tasks=frozenset([str(task).strip() for task in row.get("tasks") or ()]),
                videos=videos,
                columns=row,
            )
        )
        index += steps
    return tuple(entries)


def _files(
    rows: Sequence[Mapping[str, Any]], what: str, template: str, values: Mapping[str, Any], chunk: int
) -> list[str]:
    """The file of the steps or of a video of each episode; in version 2.1, each has its own."""
    columns = {name: f"{what}/{name}" for name in ("chunk_index", "file_index")}
    own = "{episode_" in template
    known: dict[tuple[Any, ...], str] = {}
    names = []
    for number, row in enumerate(rows):
        key = (number if own else 0, *map(row.get, columns.values()))
        if key not in known:
            place = {name: int(row[column]) for name, column in columns.items() if column in row}
            episode = {"episode_chunk": number // chunk, "episode_index": number}
            known[key] = _path(template, {**episode, **values, **place})
        names.append(known[key])
    return names


def _number(row: Mapping[str, Any], column: str, kind: Callable[[Any], Number]) -> Number | None:
    value = row.get(column)
    return None if value is None else kind(value)


def _path(template: str, values: Mapping[str, Any]) -> str:
    path = template.format(**values)
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} lies outside of the dataset")
    if not path.isprintable():
        raise ValueError(f"expected the name of a file, got {path!r:.80}")
    return path


def _read_rows(store: Store, name: str) -> list[dict[str, Any]]:
    """The rows of a table of metadata."""
    if not store.exists(name):
        raise SourceError("is missing; is the copy complete?", file=name)
    data = store.read(name, MOST_BYTES)
    try:
        if name.endswith(".jsonl"):
            return list(_json_lines(data))
        table = pq.ParquetFile(pa.BufferReader(data))
        wanted = [column for column in table.schema_arrow.names if not column.startswith(_STATISTICS)]
        rows: list[dict[str, Any]] = table.read(wanted).to_pylist()
        return rows
    except (ValueError, RecursionError, OSError, pa.ArrowException) as error:
        raise SourceError(f"cannot be parsed: {_reason(error)}", file=name) from error


def _json_lines(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"expected an object in each line, got {line[:20]!r}")
            yield row


def _reason(error: Exception) -> str:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"has no {said}" if isinstance(error, KeyError) else said
