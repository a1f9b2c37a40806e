"""Actions and states brought to a common scale, by the statistics of train that a manifest holds, and back.

    normalizer = Normalizer.of(loader, "action", "quantile")
    scaled = normalizer(batch.action, batch.dataset)        # q01 to q99 become -1 to 1
    action = normalizer.inverse(predicted, "bridge")

Each dataset of a mixture has a scale of its own. Grippers and columns of kind `other` stay as they are: 0 and
1 already mean something to them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from oxcart.manifests.canonical import read_json
from oxcart.manifests.columns import Column, parse_columns
from oxcart.shards.choices import did_you_mean, one_of
from oxcart.shards.errors import ConfigError
from oxcart.train.data.loader import Loader

METHODS = {
    "quantile": ("q01", "q99"),
    "min_max": ("min", "max"),
    "gaussian": ("mean", "std"),
    "none": (),
}
"""Method -> the statistics that it uses. `quantile` and `min_max` map the first to -1 and the second to 1;
`quantile` clips what lies beyond, and takes min and max of a column that moves so rarely that its quantiles
are one. `gaussian` maps the mean to 0 and a standard deviation to 1."""
LEFT_ALONE = ("gripper_absolute", "gripper_delta", "other")
"""Kinds of columns that are not scaled."""


@dataclass(frozen=True, kw_only=True)
class Normalizer:
    """Scales values [..., A] to (value - shift) / scale, by dataset and column.

    Raises:
        ConfigError: the method is unknown, or a dataset has other columns than the first.
    """

    method: str
    """One of `METHODS`."""
    columns: tuple[str, ...]
    """Names of the A columns."""
    shift: Mapping[str, tuple[float, ...]]
    """Name of each dataset -> A values that become 0."""
    scale: Mapping[str, tuple[float, ...]]
    """Name of each dataset -> A values: what becomes 1, above `shift`; 0 for a column that never varies."""
    left_alone: tuple[bool, ...]
    """Which of the A columns stay as they are."""

    def __post_init__(self) -> None:
        one_of("normalisation", self.method, METHODS)
        numbers = (*self.shift.values(), *self.scale.values())
        sound = all(math.isfinite(value) for values in numbers for value in values)
        lengths = {len(values) for values in (*numbers, self.left_alone)}
        if lengths - {len(self.columns)} or self.shift.keys() != self.scale.keys() or not sound:
            raise ConfigError(
                "normalizer: expected a finite shift and scale of every dataset and column, got others"
            )

    @classmethod
    def of(cls, loader: Loader, array: str = "action", method: str = "quantile") -> Normalizer:
        """The normalizer of what a loader reads, by the statistics of train of each of its datasets.

        Args:
            loader: its `action_columns` count as well.
            array: `action` or `state`.
            method: one of `METHODS`.

        Raises:
            ConfigError: the method is unknown; the loader does not read the array, or sums it, and a sum
                has no statistics; a dataset has no statistics, or other columns than the first.
        """
        one_of("normalisation", method, METHODS)
        if array == "action" and loader.config.action == "sum":
            raise ConfigError(
                "normalisation: statistics are of single steps, not of sums; use action='steps'"
            )
        shift: dict[str, tuple[float, ...]] = {}
        scale: dict[str, tuple[float, ...]] = {}
        first: tuple[Column, ...] = ()
        for stream in loader.streams:
            manifest, url = stream.index.dataset.manifest, stream.index.dataset.store.url
            if array not in stream.columns:
                raise ConfigError(f"normalisation: the loader does not read {array}; pass {array}= to it")
            columns = stream.columns[array]
            first = first or columns
            if [*map(_alike, columns)] != [*map(_alike, first)]:
                said, other = (", ".join(f"{c.name} ({c.kind})" for c in some) for some in (columns, first))
                raise ConfigError(
                    f"normalisation: {url} has columns {said}, not {other}; choose action_columns"
                )
            stated = getattr(manifest, array)["statistics"]
            if stated is None and METHODS[method]:
                raise ConfigError(
                    f"normalisation: {url} has no statistics, as no step of its train has {array}s"
                )
            every = [one.name for one in parse_columns(getattr(manifest, array))]
            found = [_scale(method, stated, every.index(one.name)) for one in columns]
            mine = tuple(one[0] for one in found), tuple(one[1] for one in found)
            name = manifest.dataset["name"]
            if (shift.setdefault(name, mine[0]), scale.setdefault(name, mine[1])) != mine:
                raise ConfigError(
                    f"normalisation: two datasets are called {name!r}, with different statistics"
                )
        return cls(
            method=method,
            columns=tuple(one.name for one in first),
            shift=shift,
            scale=scale,
            left_alone=tuple(one.kind in LEFT_ALONE for one in first),
        )

    def __call__(self, values: Tensor, dataset: str | Sequence[str]) -> Tensor:
        """Scale values.

        Args:
            values: [B, ..., A] floats.
            dataset: name of the dataset of all values, or of each of the B.

        Raises:
            ConfigError: a dataset is unknown, or the values are not of A columns.
        """
        shift, scale = self._of(values, dataset)
        scaled = torch.where(scale == 0, 0, (values - shift) / torch.where(scale == 0, 1, scale))
        if self.method == "quantile":
            scaled = scaled.clamp(-1, 1)
        return torch.where(self._kept(values), values, scaled)

    def inverse(self, values: Tensor, dataset: str | Sequence[str]) -> Tensor:
        """Values [B, ..., A] that were scaled, as they were, except for what was clipped.

        Raises:
            ConfigError: a dataset is unknown, or the values are not of A columns.
        """
        shift, scale = self._of(values, dataset)
        return torch.where(self._kept(values), values, values * scale + shift)

    def to_json(self) -> str:
        """As JSON, to be kept with a run."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Normalizer:
        """The normalizer that `to_json` wrote.

        Raises:
            ConfigError: the text is something else.
        """
        try:
            value = read_json(text.encode())
            return cls(
                method=value["method"],
                columns=tuple(value["columns"]),
                shift={name: tuple(map(float, one)) for name, one in value["shift"].items()},
                scale={name: tuple(map(float, one)) for name, one in value["scale"].items()},
                left_alone=tuple(one is True for one in value["left_alone"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"normalizer: not a normalizer's JSON: {error}") from None

    def _of(self, values: Tensor, dataset: str | Sequence[str]) -> tuple[Tensor, Tensor]:
        """Shift and scale of the values, each [A] or [B, 1, ..., A]."""
        if values.shape[-1] != len(self.columns):
            raise ConfigError(
                f"normalizer: expected {len(self.columns)} columns ({', '.join(self.columns)}), "
                f"got {values.shape[-1]}"
            )
        if not values.is_floating_point():
            raise ConfigError(f"normalizer: expected floats, got {values.dtype}")
        if not isinstance(dataset, str) and len(dataset) != len(values):
            raise ConfigError(f"normalizer: expected a dataset for each of {len(values)}, got {len(dataset)}")
        names = [dataset] if isinstance(dataset, str) else list(dict.fromkeys(dataset))
        for name in names:
            if name not in self.shift:
                known = ", ".join(self.shift)
                hint = did_you_mean(name, self.shift)
                raise ConfigError(f"normalizer: no dataset {name!r}; there are {known}{hint}")
        tables = [values.new_tensor([one[name] for name in names]) for one in (self.shift, self.scale)]
        if isinstance(dataset, str):
            return tables[0][0], tables[1][0]
        rows = torch.tensor([names.index(name) for name in dataset], device=values.device)
        shape = (len(rows), *[1] * (values.ndim - 2), len(self.columns))
        return tables[0][rows].reshape(shape), tables[1][rows].reshape(shape)

    def _kept(self, values: Tensor) -> Tensor:
        return torch.tensor(self.left_alone, device=values.device)


def _alike(column: Column) -> tuple[str, bool]:
    """What a column of another dataset must have in common with it."""
    return column.name, column.kind in LEFT_ALONE


def _scale(method: str, stated: Any, place: int) -> tuple[float, float]:
    """Shift and scale of one column."""
    if not METHODS[method]:
        return 0.0, 1.0
    first, second = (float(stated[what][place]) for what in METHODS[method])
    if method == "gaussian":
        return first, second
    if first == second:
        first, second = (float(stated[what][place]) for what in ("min", "max"))
    return (first + second) / 2, (second - first) / 2
