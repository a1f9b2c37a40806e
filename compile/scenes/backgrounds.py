"""The static background of every episode: the temporal median of a few frames of the first camera.

The audit compares held-out episodes with train by the same thumbnails (`oxcart.manifests.audit.likeness`). Of
encoded images only those few are decoded, and of a video what they need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from oxcart.compile.engines.processes import Advance, Progress, run
from oxcart.compile.images import Frame, ImageError, Resize, decode_into
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import Film, Source, SourceConfig
from oxcart.manifests.audit.features import FRAMES, GRID, is_flat, spaced
from oxcart.shards.errors import SourceError

PER_TASK = 32
"""Episodes that a task looks at."""
SMALL = 4 * GRID
"""Height and width to which a video is decoded for thumbnails, in pixels."""
HEIGHT = 110
"""Height of a frame that a page shows, in pixels."""


class Background(NamedTuple):
    """What is seen of an episode."""

    median: Frame | None
    """[24, 24, 3] uint8; None if no frame shows anything, or one cannot be decoded."""
    reason: str | None
    """Why there is none."""


@dataclass(frozen=True)
class _LookJob:
    """Data shared by the tasks."""

    config: SourceConfig
    source: Source | None
    """The open source, in the process that opened it."""

    def __reduce__(self) -> tuple[type[_LookJob], tuple[SourceConfig, None]]:
        return _LookJob, (self.config, None)

    @cached_property
    def opened(self) -> Source:
        """The source; each process opens it once."""
        return self.source or open_source(self.config)


def read_backgrounds(
    config: SourceConfig, source: Source, rows: Sequence[Mapping[str, Any]], workers: int, report: Progress
) -> list[Background]:
    """Look at episodes.

    Args:
        config: how to read the source.
        source: the source that it opens.
        rows: the census rows of the episodes.
        workers: upper limit of processes.
        report: called with the number of episodes and 0 bytes so far.
    """
    tasks = [rows[at : at + PER_TASK] for at in range(0, len(rows), PER_TASK)]
    found = dict(run(_look, _LookJob(config, source), tasks, workers=workers, report=report))
    return [one for task in range(len(tasks)) for one in found[task]]


def middle_frame(source: Source, row: Mapping[str, Any]) -> Frame:
    """The frame [H, W, 3] uint8 in the middle of an episode.

    Raises:
        ImageError: it cannot be decoded.
        SourceError: the episode cannot be read.
    """
    height, width = _size(source, row)
    shown = Resize(size=(HEIGHT, max(1, round(width * HEIGHT / height))))
    return _frames(source, row, [row["steps"] // 2], shown)[0]


def _look(job: _LookJob, rows: Sequence[Mapping[str, Any]], advance: Advance) -> list[Background]:
    def each() -> Iterator[Background]:
        for row in rows:
            yield _background(job.opened, row)
            advance(1, 0)

    return list(each())


def _background(source: Source, row: Mapping[str, Any]) -> Background:
    try:
        frames = _frames(source, row, spaced(0, row["steps"], FRAMES), Resize(size=(SMALL, SMALL)))
    except (ImageError, SourceError) as error:
        return Background(None, str(error))
    images = [Image.fromarray(frame) for frame in frames]
    if all(is_flat(np.asarray(one.resize((32, 32), Image.Resampling.BOX))) for one in images):
        return Background(None, "no frame shows anything")
    thumbs = [np.asarray(one.resize((GRID, GRID), Image.Resampling.BOX)) for one in images]
    return Background(np.median(thumbs, axis=0).astype(np.uint8), None)


def _frames(
    source: Source, row: Mapping[str, Any], steps: Sequence[int], resize: Resize
) -> Frame | list[Frame]:
    """Frames of some steps of the first camera; of videos resized, else as large as they are."""
    camera, size = source.cameras[0].name, _size(source, row)
    episode = source.read(row)
    images, swap = episode.images[camera], camera in episode.bgr
    if isinstance(images, Film):
        shape = (*resize.output_size(*size), 3)
        if images.pick is not None:
            found = np.empty((len(steps), *shape), np.uint8)
            images.pick(steps, found, resize)
        else:
            whole = np.empty((len(images), *shape), np.uint8)
            images.play(whole, resize)
            found = whole[list(steps)]
        return np.ascontiguousarray(found[..., ::-1]) if swap else found
    if isinstance(images, np.ndarray):
        return images[list(steps)]
    return [_decoded(images[step], size, swap) for step in steps]


def _decoded(data: bytes | memoryview, size: tuple[int, int], swap: bool) -> Frame:
    frame = np.empty((*size, 3), np.uint8)
    decode_into(frame, data, size, Resize(), bgr=swap)
    return frame


def _size(source: Source, row: Mapping[str, Any]) -> tuple[int, int]:
    camera = source.cameras[0].name
    return row[f"{camera}.height"], row[f"{camera}.width"]
