"""What a run was trained on: a record that its checkpoints keep, and that says what is held out from it.

    record = TrainedOn.of(loader)                       # of the training loader, limits included
    record.places(dataset, ["toykitchen2", None])       # ["seen", "unknown"]

A split says what a dataset holds out, and not what a run has seen: the same source compiled with another salt
holds out other kitchens, and another dataset of the run may have them in train. So held out means that no
episode of the environment was trained on, under any of the names that the datasets give its place. An
environment of a dataset that the run never saw is held out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from oxcart.manifests.dataset import Dataset
from oxcart.manifests.places import place_names
from oxcart.shards.errors import CorruptError
from oxcart.train.data.loader import Loader

SEEN, HELD_OUT, UNKNOWN = "seen", "held out", "unknown"
PLACES = (HELD_OUT, SEEN, UNKNOWN)
"""Where a sample was recorded, as a run knows it: where it never trained, where it did, or nobody knows."""

Strings = npt.NDArray[np.str_]


@dataclass(frozen=True, kw_only=True)
class TrainedDataset:
    """The episodes of one source dataset that a run was trained on."""

    environments: tuple[str, ...]
    """Sorted names of their environments, and all other names of the same places."""
    episodes: int
    """Number of episodes."""
    unknown: int
    """Number of episodes whose environment is unknown."""
    keys: str
    """BLAKE3 of their sorted keys, one per line."""


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """The episodes that a run was trained on, by the name of their source dataset."""

    datasets: Mapping[str, tuple[TrainedDataset, ...]]
    """Name of a source dataset -> one entry for each compile of it, limit and stretch of the run."""

    @classmethod
    def of(cls, loader: Loader) -> TrainedOn:
        """The episodes of a training loader."""
        found: dict[str, tuple[TrainedDataset, ...]] = {}
        for stream in loader.streams:
            index = stream.index
            texts = index.texts["environment"]
            own = {texts.values[code] for code in np.unique(texts.codes).tolist() if code >= 0}
            place = place_names(index.dataset)
            places = {place.get(name, name) for name in own}
            names = own | {name for name, stands in place.items() if stands in places}
            keys = "\n".join(sorted(index.keys.to_pylist()))
            entry = TrainedDataset(
                environments=tuple(sorted(names)),
                episodes=len(index),
                unknown=int((texts.codes < 0).sum()),
                keys=blake3(keys.encode()).hexdigest(),
            )
            name = index.dataset.manifest.dataset["name"]
            found[name] = (*found.get(name, ()), entry)
        return cls(datasets=found)

    def plain(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {name: [asdict(entry) for entry in entries] for name, entries in self.datasets.items()}

    def joined(self, earlier: TrainedOn) -> TrainedOn:
        """This record and that of an earlier stretch of the run."""
        names = dict.fromkeys((*earlier.datasets, *self.datasets))
        return TrainedOn(
            datasets={
                name: tuple(dict.fromkeys((*earlier.datasets.get(name, ()), *self.datasets.get(name, ()))))
                for name in names
            }
        )

    def places(self, dataset: Dataset, environments: Sequence[str | None]) -> Strings:
        """Whether each of these environments of a dataset was trained on, one of `PLACES` each."""
        entries = self.datasets.get(dataset.manifest.dataset["name"])
        if entries is None:
            return np.full(len(environments), HELD_OUT)
        seen = {name for entry in entries for name in entry.environments}
        place = place_names(dataset)
        seen_places = {place.get(name, name) for name in seen}
        of_name = {
            name: UNKNOWN
            if not name
            else SEEN
            if {name, place.get(name, name)} & (seen | seen_places)
            else HELD_OUT
            for name in set(environments)
        }
        return np.array([of_name[name] for name in environments], dtype=f"<U{len(HELD_OUT)}")

    def share_held_out(self, loader: Loader) -> float:
        """Share of the samples of a loader that are held out from the run."""
        held = total = 0
        for stream in loader.streams:
            texts = stream.index.texts["environment"]
            place = self.places(stream.index.dataset, [*texts.values, None])
            counts = stream.order.counts
            held += int(counts[(place == HELD_OUT)[texts.codes]].sum())
            total += int(counts.sum())
        return held / total


def read_record(path: Path, state: Mapping[str, Any]) -> TrainedOn | None:
    """The record in the state of a checkpoint; None if the run kept none.

    Raises:
        CorruptError: it is not such a record.
    """
    value = state.get("trained_on")
    if value is None:
        return None
    try:
        datasets = {
            str(name): tuple(
                TrainedDataset(
                    environments=tuple(map(str, entry["environments"])),
                    episodes=int(entry["episodes"]),
                    unknown=int(entry["unknown"]),
                    keys=str(entry["keys"]),
                )
                for entry in entries
            )
            for name, entries in value.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path}: trained_on: expected episodes by dataset, got {value!r:.80}") from error
    return TrainedOn(datasets=datasets)
