"""An episode on its way into an export: its frames encoded, its steps as a table, its statistics."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from oxcart.compile.export.features import (
    ARRAYS,
    CAMERA,
    DONE,
    GROUP,
    OWN,
    QUALITY,
    Features,
    passes,
    steps_schema,
)
from oxcart.compile.export.files import Chunk
from oxcart.compile.export.statistics import Statistics, of_frames, of_values
from oxcart.manifests.dataset import Episode
from oxcart.shards.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ExportEpisode:
    """An episode that is read and encoded, wherever it will lie."""

    episode: Episode
    tasks: Sequence[tuple[int, str]]
    """(step at which it begins, text) of each task."""
    columns: Mapping[str, npt.NDArray[Any]]
    """Feature of numbers -> values [T, A]."""
    images: Mapping[str, list[bytes]]
    """Feature -> a PNG per step."""
    videos: Mapping[str, Sequence[Chunk]]
    """Feature -> its frames, in the codec that the feature names."""
    statistics: Mapping[str, Statistics]
    """Feature -> its statistics, of cameras and `columns`."""

    @property
    def texts(self) -> list[str]:
        """Each task once, in order."""
        return list(dict.fromkeys(text for _, text in self.tasks))


def take(episode: Episode, features: Features) -> ExportEpisode:
    """Read an episode and encode its frames.

    Raises:
        ConfigError: frames of this size cannot be encoded as video.
        CorruptError: a piece of the episode does not match its digest.
        StoreError: a shard cannot be read.
    """
    columns: dict[str, npt.NDArray[Any]] = {
        ARRAYS[name]: array for name in ARRAYS if (array := getattr(episode, name)) is not None
    }
    if DONE in features:
        columns[DONE] = np.zeros((episode.steps, 1), np.bool_)
        columns[DONE][-1] = episode.row["terminal"]
    statistics = {name: of_values(values) for name, values in columns.items()}
    images: dict[str, list[bytes]] = {}
    videos: dict[str, Sequence[Chunk]] = {}
    for camera in episode.dataset.manifest.cameras:
        feature, frames = CAMERA + camera["name"], episode.frames(camera["name"])
        if features[feature]["dtype"] == "video" and passes(camera):
            videos[feature] = frames.pieces(0, len(frames.track.digests))
            statistics[feature] = of_frames(frames)
            continue
        pixels = frames[:]
        statistics[feature] = of_frames(pixels)
        if features[feature]["dtype"] == "image":
            images[feature] = [_png(frame) for frame in pixels]
        else:
            videos[feature] = _coded(pixels, camera["name"])
    return ExportEpisode(
        episode=episode,
        tasks=_tasks(episode),
        columns=columns,
        images=images,
        videos=videos,
        statistics=statistics,
    )


def place(
    taken: ExportEpisode, features: Features, *, fps: int, tasks: Mapping[str, int], number: int, index: int
) -> tuple[pa.Table, dict[str, Statistics]]:
    """The steps of an episode as a table, and the statistics of all its features.

    Args:
        taken: the episode.
        features: features of the export.
        fps: frames per second.
        tasks: text -> number of each task.
        number: number of the episode in its split.
        index: steps of the split that come before.
    """
    count = taken.episode.steps
    every = np.arange(count)
    task = np.zeros(count, np.int64)
    for step, text in taken.tasks:
        task[step:] = tasks[text]
    columns: dict[str, npt.NDArray[Any]] = {
        **taken.columns,
        "timestamp": every / fps,
        "frame_index": every,
        "episode_index": np.full(count, number),
        "index": index + every,
        "task_index": task,
    }
    arrays, statistics = [], {}
    for name in features:
        statistics[name] = taken.statistics.get(name) or of_values(columns[name].reshape(count, -1))
    for one in steps_schema(features):
        if one.name in taken.images:
            paths = [f"frame-{step:06d}.png" for step in every]
            parts = [pa.array(taken.images[one.name], pa.binary()), pa.array(paths, pa.string())]
            arrays.append(pa.StructArray.from_arrays(parts, fields=list(one.type)))
            continue
        width = one.type.list_size if pa.types.is_fixed_size_list(one.type) else 1
        flat = pa.array(columns[one.name].reshape(-1), one.type.value_type if width > 1 else one.type)
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, width) if width > 1 else flat)
    return pa.Table.from_arrays(arrays, schema=steps_schema(features)), statistics


def own(episode: Episode) -> dict[str, Any]:
    """Values of the columns `OWN` of an episode."""
    return {name: episode.row[name.removeprefix("oxcart/")] for name in OWN}


def _tasks(episode: Episode) -> list[tuple[int, str]]:
    """The texts of the preferred field of instructions, from the first step on; "" says nothing."""
    said = episode.instructions
    runs = [(one.step, one.text) for one in said if one.field == said[0].field]
    return runs if runs and runs[0][0] == 0 else [(0, ""), *runs]


def _png(frame: npt.NDArray[np.uint8]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(frame).save(data, "PNG")
    return data.getvalue()


def _coded(pixels: npt.NDArray[np.uint8], camera: str) -> Sequence[Chunk]:
    """Frames [T, H, W, 3] uint8 as AV1."""
    from oxcart.shards.video import encode_av1  # PyAV is an extra

    try:
        return encode_av1(pixels, QUALITY, GROUP).chunks
    except ValueError as error:
        reason = str(error).partition(";")[0]
        raise ConfigError(f"camera {camera}: {reason}; pass --images") from error
