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
        """Read an annotation, which must be of one of the datasets and have all steps of its split.

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

    @property
    def form(self) -> tuple[Any, ...]:
        """Type of the values and how many a step has."""
        return str(self.values.dtype), *self.values.shape[1:]

    def empty(self, count: int) -> npt.NDArray[Any]:
        """Room for the values of so many samples."""
        return np.empty((count, *self.values.shape[1:]), self.values.dtype)

    def at(self, dataset: int, episodes: Int64, steps: Int64) -> npt.NDArray[Any]:
        """The values at steps of episodes."""
        assert dataset == self.dataset
        found: npt.NDArray[Any] = self.values[self.starts[episodes] + steps]
        return found


def by_name(found: Sequence[StepValues], indexes: Sequence[SplitIndex]) -> dict[str, dict[int, StepValues]]:
    """Name of each annotation -> dataset -> its values.

    Raises:
        ConfigError: two are of one name and dataset; a dataset has none of a name, or values of another form.
    """
    named: dict[str, dict[int, StepValues]] = {}
    for one in found:
        if one.dataset in named.setdefault(one.name, {}):
            raise ConfigError(
                f"annotations: two of one dataset have one name, of {', '.join(each.name for each in found)}"
            )
        named[one.name][one.dataset] = one
    for name, own in named.items():
        for i, index in enumerate(indexes):
            if i not in own:
                raise ConfigError(
                    f"annotations: none that are given is the {name!r} of {index.dataset.store.url}; "
                    "every dataset needs its own"
                )
        forms = {one.form for one in own.values()}
        if len(forms) > 1:
            said = ", ".join(sorted(str(form) for form in forms))
            raise ConfigError(f"annotations: values of {name!r} differ in type or number: {said}")
    return named
