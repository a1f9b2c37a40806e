"""Which samples show motion: those of a dataset whose motion annotation says so.

`oxcart annotate motion` writes how much each step differs from the next. A sample moves by the mean of that
over its steps, from t to the step before t + k; of a single frame it is the value at t. The threshold is
configuration, so another one needs no compile and no new annotation, and the order of what is left is a
pure function of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.manifests.annotation import motion_url, read_annotation
from oxcart.shards.errors import ConfigError, StoreError
from oxcart.train.data.index import SplitIndex

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class MovingSteps:
    """The steps of one dataset at which a sample moves enough."""

    room: Int64
    """How many of each episode."""
    starts: Int64
    """Place of each episode's first one."""
    steps: Int64
    """They, episode after episode, in order."""
    before: int
    """Steps at which there would be a sample without the threshold."""
    described: dict[str, Any]
    """What decides which they are, as plain JSON."""

    def at(self, episodes: Int64, numbers: Int64) -> Int64:
        """The steps of some numbers among those of their episodes."""
        found: Int64 = self.steps[self.starts[episodes] + numbers]
        return found


def open_moving(
    index: SplitIndex, urls: Sequence[str], least: float | None, offset: int
) -> MovingSteps | None:
    """The steps at which samples of `offset` steps move by `least`; None if that is None, which means all.

    Args:
        index: episodes of the dataset.
        urls: motion annotations, of which one must be of this dataset; by default the one beside it.
        least: mean difference from step to step, in the annotation's unit.
        offset: steps between the frames of a sample.

    Raises:
        ConfigError: no annotation is of the dataset, or it lacks an episode or a step.
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
            f"min_motion: no annotation is of {place} ({fingerprint[:12]}); "
            f"run oxcart annotate motion {place}"
        )
    parts, room = [], np.zeros(len(index), np.int64)
    for i, (key, steps) in enumerate(zip(index.keys.to_pylist(), index.steps.tolist(), strict=True)):
        values = found.values.get(key)
        if values is None or values.shape != (steps,):
            raise ConfigError(f"min_motion: {url} has no value for each of the {steps} steps of {key}")
        parts.append(np.flatnonzero(_mean(values, offset) >= least))
        room[i] = len(parts[-1])
    return MovingSteps(
        room=room,
        starts=np.cumsum(room) - room,
        steps=np.concatenate([np.empty(0, np.int64), *parts]),
        before=int(np.maximum(index.steps.astype(np.int64) - offset, 0).sum()),
        described={"at_least": least, "producer": found.producer, "parameters": dict(found.parameters)},
    )


def _mean(values: npt.NDArray[Any], offset: int) -> npt.NDArray[np.float64]:
    """Mean of the values from each step t that a sample can begin at to the one before t + offset."""
    if not offset:
        return values.astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    means: npt.NDArray[np.float64] = (sums[offset:-1] - sums[: -offset - 1]) / offset
    return means
