"""Annotations, laid out for look-ups of any step of any episode of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.manifests.annotation import read_annotation
from oxcart.shards.errors import ConfigError
from oxcart.train.data.index import SplitIndex

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class StepValues:
    """The values of one annotation for one of several datasets."""

    name: str
    dataset: int
    """Which of the datasets."""
    starts: Int64
    """Place of each episode's first value."""
    values: npt.NDArray[Any]

    @classmethod
    def open(cls, url: str, indexes: Sequence[SplitIndex]) -> StepValues:
        """Read an annotation, which must be of one of the datasets and have all of its split's steps.

        Raises:
            ConfigError: it is of another dataset, or lacks an episode or a step.
        """
        found = read_annotation(url)
        prints = [index.dataset.manifest.fingerprint for index in indexes]
        if found.dataset not in prints:
            raise ConfigError(
                f"annotation {url}: is of the dataset {found.dataset[:12]}, "
                f"expected {' or '.join(one[:12] for one in prints)}"
            )
        if len(indexes) > 1:
            raise ConfigError(f"annotation {url}: annotations need a single dataset, got {len(indexes)}")
        which = prints.index(found.dataset)
        index = indexes[which]
        parts = []
        for key, steps in zip(index.keys.to_pylist(), index.steps.tolist(), strict=True):
            values = found.values.get(key)
            if values is None or len(values) != steps:
                has = "no values" if values is None else f"{len(values)} values"
                raise ConfigError(f"annotation {url}: has {has} for episode {key}, expected {steps}")
            parts.append(values)
        starts = np.concatenate([[0], np.cumsum(index.steps[:-1], dtype=np.int64)])
        return cls(name=found.name, dataset=which, starts=starts, values=np.concatenate(parts))

    def empty(self, count: int) -> npt.NDArray[Any]:
        """Room for the values of so many samples."""
        return np.empty((count, *self.values.shape[1:]), self.values.dtype)

    def at(self, dataset: int, episodes: Int64, steps: Int64) -> npt.NDArray[Any]:
        """The values at steps of episodes."""
        assert dataset == self.dataset
        found: npt.NDArray[Any] = self.values[self.starts[episodes] + steps]
        return found
