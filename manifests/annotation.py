"""Annotations: values for every step of a dataset, beside it in a Parquet file.

    key       string                             one row per episode
    value     list<float32|int64|...>, or        one value per step
              list<fixed_size_list<..., n>>      n values per step

The file's metadata, under `oxcart.annotation`, is JSON: name, fingerprint of the producer, fingerprint of the
dataset, parameters. What follows from the values (thresholds, selections) is configuration and not stored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from oxcart.manifests.canonical import canonical_json, read_json
from oxcart.manifests.tables import parse_table, table_bytes
from oxcart.shards.errors import CorruptError
from oxcart.shards.files import write_file
from oxcart.shards.store import Store, store_of

MOTION, ACTION = "motion", "action"
"""Names of the annotations that `oxcart annotate` writes."""
MOST_BYTES = 2 << 30
"""Size limit of the file, in bytes."""
FOLD = 64
"""Maximum ratio of size in memory to size in the file: a one-bit code becomes a 64-bit number."""
_METADATA = b"oxcart.annotation"
_ABOUT = ("name", "producer", "dataset", "parameters")
"""Fields of an annotation that are stored in the metadata of its file."""


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """Values for every step of some episodes of one dataset."""

    name: str
    producer: str
    """Fingerprint of the program or model that made the values."""
    dataset: str
    """Fingerprint of the annotated dataset."""
    parameters: Mapping[str, Any]
    values: Mapping[str, npt.NDArray[Any]]
    """Key of each episode -> values [T] or [T, n]; all have the same dtype and n. Those of a file are
    `StoredValues`."""


class StoredValues(Mapping[str, npt.NDArray[Any]]):
    """The values of a file: one array of all of them, which a million episodes do not cut into pieces.

    Args:
        episodes: key of each of N episodes, none twice.
        bounds: int64 [N + 1], where the values of each begin and the last ones end.
        flat: the values of all episodes, [sum of T] or [sum of T, n].
    """

    def __init__(self, episodes: pa.Array, bounds: npt.NDArray[np.int64], flat: npt.NDArray[Any]) -> None:
        self.episodes, self.bounds, self.flat = episodes, bounds, flat

    def __len__(self) -> int:
        return len(self.episodes)

    def __iter__(self) -> Iterator[str]:
        return iter(self.episodes.to_pylist())

    @cached_property
    def _places(self) -> dict[str, int]:
        return {key: i for i, key in enumerate(self)}

    def __getitem__(self, key: str) -> npt.NDArray[Any]:
        place = self._places[key]
        found: npt.NDArray[Any] = self.flat[self.bounds[place] : self.bounds[place + 1]]
        return found


def beside(dataset: str, name: str) -> str:
    """URL of an annotation of a dataset: beside the dataset, which is never changed.

    That of a dataset on the Hub, where only its repository can be written, is in the current directory.
    """
    place = dataset.rstrip("/")
    if place.startswith("hf://"):
        place = Store(place).folder
    if "://" not in place and os.path.basename(place) in ("", ".", ".."):
        place = os.path.realpath(dataset)
    return f"{place}.{name}.parquet"


def write_annotation(url: str, annotation: Annotation) -> None:
    """Write an annotation file atomically; the same values give the same bytes."""
    store, name = store_of(url)
    rows = [annotation.values[key] for key in sorted(annotation.values)]
    width = None if not rows or rows[0].ndim == 1 else rows[0].shape[1]
    flat = pa.array(np.concatenate([row.reshape(-1) for row in rows]) if rows else np.empty(0, np.float32))
    if width is not None:
        flat = pa.FixedSizeListArray.from_arrays(flat, width)
    offsets = np.cumsum([0, *(len(row) for row in rows)])
    lists = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)
    about = {name: getattr(annotation, name) for name in _ABOUT}
    table = pa.table({"key": pa.array(sorted(annotation.values), pa.string()), "value": lists})
    table = table.replace_schema_metadata({_METADATA: canonical_json(about)})
    data = table_bytes(table, plain="value" if pa.types.is_floating(_inner(lists.type)) else None)
    if "://" in url:
        store.put(name, data)
    else:
        write_file(Path(url), data)


def _inner(kind: pa.DataType) -> pa.DataType:
    """Type of the numbers in lists, or in lists of lists."""
    while pa.types.is_nested(kind):
        kind = kind.value_type
    return kind


def read_annotation(url: str) -> Annotation:
    """Read an annotation file.

    Raises:
        CorruptError: the file is not an annotation.
        StoreError: the file cannot be read.
    """
    store, name = store_of(url)
    table = parse_table(store.read(name, MOST_BYTES), url, fold=FOLD)
    try:
        about = read_json(table.schema.metadata[_METADATA])
        lists = table["value"].combine_chunks()
        inner = lists.flatten()
        values = (inner.flatten() if pa.types.is_fixed_size_list(inner.type) else inner).to_numpy(
            zero_copy_only=False
        )
        if pa.types.is_fixed_size_list(inner.type):
            values = values.reshape(-1, inner.type.list_size)
        keys = pc.cast(table["key"], pa.large_string()).combine_chunks()
        if keys.null_count or lists.null_count:
            raise ValueError("it has an episode without key or values")
        # Ours are sorted, which is soon seen.
        if not pc.all(pc.less(keys[:-1], keys[1:])).as_py() and pc.count_distinct(keys).as_py() < len(keys):
            raise ValueError("it has an episode twice")
        bounds = np.zeros(len(keys) + 1, np.int64)
        np.cumsum(lists.value_lengths().to_numpy(), out=bounds[1:])
        if bounds[-1] != len(values):
            raise ValueError("it has values of no episode")
        return Annotation(**{name: about[name] for name in _ABOUT}, values=StoredValues(keys, bounds, values))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptError(f"{url}: not an annotation: {error}") from error
