"""Actions and states brought to a common scale, by the statistics of train that a manifest holds, and back.

    normalizer = Normalizer.of(loader, "action", "quantile")
    scaled = normalizer(batch.action, batch.dataset)        # q01 to q99 become -1 to 1
    action = normalizer.inverse(predicted, "bridge")
    torch.save({"model": model.state_dict(), "normalizer": normalizer.to_json()}, path)

Each dataset of a mixture has columns and a scale of its own. Grippers and columns of kind `other` stay as
they are: 0 and 1 already mean something to them. The columns that `pad_to` adds to a dataset are 0 in both
directions, even where a model predicts something else.

Masked steps are scaled like all others. A repeated value is repeated still, and the zeros of a step that
holds no action become whatever 0 becomes: only the mask tells that they are none.

Keep `to_json()` in the checkpoint, with the weights that were trained on these scales.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from oxcart.manifests.canonical import read_json
from oxcart.manifests.columns import parse_columns
from oxcart.shards.choices import did_you_mean, one_of
from oxcart.shards.errors import ConfigError
from oxcart.train.data.loader import Loader
from oxcart.train.data.stream import DatasetStream

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
class Scale:
    """How the A columns of one dataset are scaled: a value becomes (value - shift) / scale.

    Raises:
        ConfigError: there is not one finite shift and scale for each column.
    """

    columns: tuple[str, ...]
    """Names of the columns."""
    shift: tuple[float, ...]
    """Value of each column that becomes 0."""
    scale: tuple[float, ...]
    """What becomes 1, above `shift`; 0 for a column that never varies, which becomes 0."""
    left_alone: tuple[bool, ...]
    """Which columns stay as they are."""

    def __post_init__(self) -> None:
        parts = (self.shift, self.scale, self.left_alone)
        if {*map(len, parts)} != {len(self.columns)} or not all(map(math.isfinite, self.shift + self.scale)):
            raise ConfigError("normalizer: expected a finite shift and scale for each column, got others")


@dataclass(frozen=True, kw_only=True)
class Normalizer:
    """Scales values [..., W] by dataset and column.

    Raises:
        ConfigError: the method is unknown, or a dataset has more than W columns.
    """

    method: str
    """One of `METHODS`."""
    width: int
    """W, the number of columns of the values; a dataset that has fewer is padded with zeros."""
    scales: Mapping[str, Scale]
    """Name of each dataset -> how its columns are scaled."""

    def __post_init__(self) -> None:
        one_of("normalisation", self.method, METHODS)
        for name, one in self.scales.items():
            if len(one.columns) > self.width:
                raise ConfigError(
                    f"normalizer: expected at most {self.width} columns, got {len(one.columns)} of {name}"
                )

    @classmethod
    def of(
        cls,
        loader: Loader,
        array: str = "action",
        method: str = "quantile",
        statistics: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Normalizer:
        """The normalizer of what a loader reads, by the statistics of train of each of its datasets.

        Args:
            loader: its `action_columns` and `pad_to` count as well.
            array: `action` or `state`.
            method: one of `METHODS`.
            statistics: name of each dataset -> statistics of all of its columns, as `statistics_of` makes
                them, in place of those of the manifest.

        Raises:
            ConfigError: the method is unknown; the loader does not read the array, or sums it, and a sum
                has no statistics; a dataset has no statistics, or a column of unknown kind.
        """
        one_of("normalisation", method, METHODS)
        if array == "action" and loader.config.action == "sum":
            raise ConfigError(
                "normalisation: statistics are of single steps, not of sums; use action='steps'"
            )
        scales: dict[str, Scale] = {}
        for stream in loader.streams:
            if array not in stream.columns:
                raise ConfigError(f"normalisation: the loader does not read {array}; pass {array}= to it")
            name = stream.index.dataset.manifest.dataset["name"]
            mine = _scale_of(stream, array, method, None if statistics is None else statistics[name])
            if scales.setdefault(name, mine) != mine:
                raise ConfigError(
                    f"normalisation: two datasets are called {name!r}, with different columns or statistics"
                )
        width = loader.config.width(array) or max(len(one.columns) for one in scales.values())
        return cls(method=method, width=width, scales=scales)

    def __call__(self, values: Tensor, dataset: str | Sequence[str]) -> Tensor:
        """Scale values.

        Args:
            values: [B, ..., W] floats.
            dataset: name of the dataset of all values, or of each of the B.

        Raises:
            ConfigError: a dataset is unknown, or the values are not of W columns.
        """
        shift, scale, left_alone = self._of(values, dataset)
        scaled = torch.where(scale == 0, 0, (values - shift) / torch.where(scale == 0, 1, scale))
        if self.method == "quantile":
            scaled = scaled.clamp(-1, 1)
        return torch.where(left_alone > 0, values, scaled)

    def inverse(self, values: Tensor, dataset: str | Sequence[str]) -> Tensor:
        """Values [B, ..., W] that were scaled, as they were, except for what was clipped.

        Raises:
            ConfigError: a dataset is unknown, or the values are not of W columns.
        """
        shift, scale, left_alone = self._of(values, dataset)
        return torch.where(left_alone > 0, values, values * scale + shift)

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
            scales = {
                name: Scale(
                    columns=tuple(one["columns"]),
                    shift=tuple(map(float, one["shift"])),
                    scale=tuple(map(float, one["scale"])),
                    left_alone=tuple(it is True for it in one["left_alone"]),
                )
                for name, one in value["scales"].items()
            }
            return cls(method=value["method"], width=int(value["width"]), scales=scales)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"normalizer: not a normalizer's JSON: {error}") from None

    def _of(self, values: Tensor, dataset: str | Sequence[str]) -> tuple[Tensor, ...]:
        """Shift, scale, and 1 for what is left alone, each [W] or [B, 1, ..., W]."""
        if values.shape[-1] != self.width:
            raise ConfigError(f"normalizer: expected {self.width} columns, got {values.shape[-1]}")
        if not values.is_floating_point():
            raise ConfigError(f"normalizer: expected floats, got {values.dtype}")
        if not isinstance(dataset, str) and len(dataset) != len(values):
            raise ConfigError(f"normalizer: expected a dataset for each of {len(values)}, got {len(dataset)}")
        names = [dataset] if isinstance(dataset, str) else list(dict.fromkeys(dataset))
        for name in names:
            if name not in self.scales:
                known = ", ".join(self.scales)
                hint = did_you_mean(name, self.scales)
                raise ConfigError(f"normalizer: no dataset {name!r}; there are {known}{hint}")
        table = values.new_tensor([self._padded(self.scales[name]) for name in names])
        if isinstance(dataset, str):
            return table[0].unbind()
        rows = torch.tensor([names.index(name) for name in dataset], device=values.device)
        return table[rows].view(len(rows), 3, *[1] * (values.ndim - 2), self.width).unbind(1)

    def _padded(self, one: Scale) -> list[list[float]]:
        """Shift, scale and what is left alone, [3, W]; added columns are like those that are always 0."""
        rest = [0.0] * (self.width - len(one.columns))
        return [[*part, *rest] for part in (one.shift, one.scale, one.left_alone)]


def statistics_of(values: npt.NDArray[np.float32]) -> dict[str, Any]:
    """The statistics of values [N, A] that a scale needs, as a manifest states them."""
    low, high = np.quantile(values.astype(np.float64), [0.01, 0.99], axis=0)
    found = {"q01": low, "q99": high, "min": values.min(0), "max": values.max(0)}
    return found | {"mean": values.mean(0, np.float64), "std": values.std(0, np.float64)}


def _scale_of(stream: DatasetStream, array: str, method: str, given: Mapping[str, Any] | None) -> Scale:
    """How the columns that are read of one dataset are scaled."""
    url, stored = stream.index.dataset.store.url, getattr(stream.index.dataset.manifest, array)
    columns, stated = stream.columns[array], stored["statistics"] if given is None else given
    if stated is None and METHODS[method]:
        raise ConfigError(f"normalisation: {url} has no statistics, as no step of its train has {array}s")
    for one in columns:
        if one.kind == "unknown" and METHODS[method]:
            leave = ", or leave it out with action_columns" if array == "action" else ""
            raise ConfigError(
                f"normalisation: column {one.name!r} of {url} is of unknown kind; "
                f"say it with --{array}-kind when you compile{leave}"
            )
    every = [one.name for one in parse_columns(stored)]
    found = [_shift_and_scale(method, stated, every.index(one.name)) for one in columns]
    return Scale(
        columns=tuple(one.name for one in columns),
        shift=tuple(shift for shift, _ in found),
        scale=tuple(scale for _, scale in found),
        left_alone=tuple(one.kind in LEFT_ALONE for one in columns),
    )


def _shift_and_scale(method: str, stated: Any, place: int) -> tuple[float, float]:
    """Shift and scale of one column."""
    if not METHODS[method]:
        return 0.0, 1.0
    low, high = float(stated["min"][place]), float(stated["max"][place])
    if low == high:  # the standard deviation may be a rounding error away from 0
        return low, 0.0
    first, second = (float(stated[what][place]) for what in METHODS[method])
    if method == "gaussian":
        return first, second
    if first < second:
        low, high = first, second
    return (low + high) / 2, (high - low) / 2
