"""Annotations, arranged for fast look-up of the value at any step of any episode of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from oxcart.manifests.annotation import Annotation, StoredValues, read_annotation
from oxcart.shards.errors import ConfigError
from oxcart.train.data.index import SplitIndex

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class StepValues:
    """The values of one annotation for one of several datasets."""

    name: str
    dataset: int
    """Index of the dataset among those of the loader."""
    starts: Int64
    """Index of each episode's first value."""
    values: npt.NDArray[Any]
    ahead: int
    """Steps that each value looks ahead, such as to the second frame of its pair."""

    @classmethod
    def open(cls, url: str, indexes: Sequence[SplitIndex]) -> list[StepValues]:
        """Read an annotation, which must belong to one of the datasets and cover every step of the split.

        Returns:
            The values for each part of the dataset among the indexes.

        Raises:
            ConfigError: the annotation belongs to another dataset, or lacks an episode or a step.
        """
        found = read_annotation(url)
        prints = [index.dataset.manifest.fingerprint for index in indexes]
        if found.dataset not in prints:
            raise ConfigError(
                f"annotation {url}: belongs to the dataset {found.dataset[:12]}, "
                f"expected {' or '.join(one[:12] for one in prints)}"
            )
        return [cls._of(found, url, i, indexes[i]) for i, one in enumerate(prints) if one == found.dataset]

    @classmethod
    def _of(cls, found: Annotation, url: str, which: int, index: SplitIndex) -> StepValues:
        """The values of a file for one index."""
        stored = found.values
        assert isinstance(stored, StoredValues)
        begins = stored.bounds[rows_of(found, index, f"annotation {url}")]
        starts = np.concatenate([[0], np.cumsum(index.steps[:-1], dtype=np.int64)])
        values = stored.flat[np.repeat(begins - starts, index.steps) + np.arange(index.steps.sum())]
        said = found.parameters.get("offset")
        ahead = said if isinstance(said, int) and said > 0 else 0
        return cls(name=found.name, dataset=which, starts=starts, values=values, ahead=ahead)

    @property
    def form(self) -> tuple[Any, ...]:
        """dtype and shape of the values of one step."""
        return str(self.values.dtype), *self.values.shape[1:]

    def empty(self, count: int) -> npt.NDArray[Any]:
        """An uninitialised array for the values of a number of samples."""
        return np.empty((count, *self.values.shape[1:]), self.values.dtype)

    def at(self, episodes: Int64, steps: Int64) -> npt.NDArray[Any]:
        """The values of samples, each given by episode and step."""
        found: npt.NDArray[Any] = self.values[self.starts[episodes] + steps]
        return found


def rows_of(found: Annotation, index: SplitIndex, name: str) -> Int64:
    """The row of each episode of a split in an annotation.

    Args:
        found: the annotation, as it was read from its file.
        index: episodes of the split.
        name: what a message calls the annotation.

    Raises:
        ConfigError: an episode has no values, or not as many as steps.
    """
    stored = found.values
    assert isinstance(stored, StoredValues)
    places = pc.index_in(index.keys, value_set=stored.episodes)
    known = pc.is_valid(places).to_numpy(zero_copy_only=False)
    rows: Int64 = pc.fill_null(places, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = np.where(known, np.diff(stored.bounds)[rows] if len(stored) else 0, 0)
    wrong = np.flatnonzero(~known | (lengths != index.steps))
    if len(wrong):
        first = int(wrong[0])
        has = f"{lengths[first]} values" if known[first] else "no values"
        raise ConfigError(f"{name}: has {has} for episode {index.key(first)}, expected {index.steps[first]}")
    return rows


def by_name(found: Sequence[StepValues], indexes: Sequence[SplitIndex]) -> dict[str, dict[int, StepValues]]:
    """Name of each annotation -> index of the dataset -> values.

    Raises:
        ConfigError: a dataset has two annotations of one name, or lacks one; or the values of one name differ
            in type or number.
    """
    named: dict[str, dict[int, StepValues]] = {}
    for one in found:
        if one.dataset in named.setdefault(one.name, {}):
            raise ConfigError(
                f"annotations: two of one dataset share a name: {', '.join(each.name for each in found)}"
            )
        named[one.name][one.dataset] = one
    for name, own in named.items():
        for i, index in enumerate(indexes):
            if i not in own:
                raise ConfigError(
                    f"annotations: none of them is the {name!r} of {index.dataset.store.url}; "
                    "every dataset needs its own"
                )
        forms = {one.form for one in own.values()}
        if len(forms) > 1:
            said = ", ".join(sorted(str(form) for form in forms))
            raise ConfigError(f"annotations: values of {name!r} differ in type or number: {said}")
    return named
