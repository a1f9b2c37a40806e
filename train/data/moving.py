"""Find the samples that show motion, by the motion annotation of the dataset.

`oxcart annotate motion` writes how much each step differs from the next, as one camera sees it. The motion of
a sample is the mean of these values from its first frame to the step before its last; that of a single frame
is the value at its step. The threshold is configuration, so changing it needs neither a compile nor a new
annotation, and the order of the samples that remain is a pure function of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.manifests.annotation import motion_url, read_annotation
from oxcart.shards.errors import ConfigError, StoreError
from oxcart.train.data.annotations import values_of
from oxcart.train.data.index import SplitIndex

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class MovingSteps:
    """The steps of one dataset at which a sample moves enough."""

    room: Int64
    """Number of moving steps in each episode."""
    starts: Int64
    """Index in `steps` of each episode's first moving step."""
    steps: Int64
    """All moving steps, in order, episode by episode."""
    before: int
    """Number of anchors if there were no threshold."""
    camera: str
    """Camera whose motion counts; "?" if the annotation does not say."""
    described: dict[str, Any]
    """Everything that determines the moving steps, as plain JSON."""

    def at(self, episodes: Int64, numbers: Int64) -> Int64:
        """The steps with given numbers among the moving steps of their episodes."""
        found: Int64 = self.steps[self.starts[episodes] + numbers]
        return found


def open_moving(
    index: SplitIndex,
    urls: Sequence[str],
    least: float | None,
    first: Int64,
    room: Int64,
    seen: tuple[int, int],
) -> MovingSteps | None:
    """The anchors at which samples move at least by `least`; None, for all, if that is None.

    Args:
        index: episodes of the dataset.
        urls: motion annotations, of which one must be of this dataset; by default the one beside it.
        least: mean difference from step to step, in the annotation's unit.
        first: [N], first anchor of each episode.
        room: [N], number of anchors of each episode.
        seen: first and last step of the frames of a sample, relative to its anchor.

    Raises:
        ConfigError: no annotation belongs to the dataset, or it lacks an episode or a step.
    """
    if least is None:
        return None
    fingerprint, place = index.dataset.manifest.fingerprint, index.dataset.store.url
    for url in urls or [motion_url(place)]:
        try:
            found = read_annotation(url)
        except StoreError as error:
            raise ConfigError(
                f"min_motion: {url} cannot be read; run oxcart annotate motion {place}"
            ) from error
        if found.dataset == fingerprint:
            break
    else:
        raise ConfigError(
            f"min_motion: no annotation belongs to {place} ({fingerprint[:12]}); "
            f"run oxcart annotate motion {place}"
        )
    values = values_of(found, index, f"min_motion: {url}")
    if any(one.ndim > 1 for one in values):
        raise ConfigError(f"min_motion: {url}: expected one value per step, got several")
    parts = [
        begin + np.flatnonzero(_motion(one, np.arange(begin, begin + count), seen) >= least)
        for one, begin, count in zip(values, first.tolist(), room.tolist(), strict=True)
    ]
    left = np.array([len(part) for part in parts], np.int64)
    parameters = dict(found.parameters)
    return MovingSteps(
        room=left,
        starts=np.cumsum(left) - left,
        steps=np.concatenate([np.empty(0, np.int64), *parts]),
        before=int(room.sum()),
        camera=str(parameters.get("camera", "?")),
        described={"at_least": least, "producer": found.producer, "parameters": parameters},
    )


def _motion(values: npt.NDArray[Any], anchors: Int64, seen: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Mean of the values from the first frame to the step before the last, for each anchor."""
    begin, end = (np.clip(anchors + step, 0, len(values) - 1) for step in seen)
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    means: npt.NDArray[np.float64] = (sums[end] - sums[begin]) / np.maximum(end - begin, 1)
    return np.where(begin == end, values[begin], means)
