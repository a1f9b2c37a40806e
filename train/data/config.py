"""All settings of a loader, in one value that is passed from the user down to the reader of frames.

    LoaderConfig(sample=Pairs(frames=5), batch_size=64, seed=1)

`Loader` takes the same fields as keyword arguments. Each field is read where it is needed, so no layer in
between can drop one. The trade-off: every layer sees all fields.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any, TypeAlias

import numpy as np

from oxcart.manifests.annotation import ACTION, MOTION
from oxcart.manifests.manifest import Manifest
from oxcart.manifests.where import Where
from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError
from oxcart.shards.text import cut
from oxcart.train.data.activity import Idle
from oxcart.train.data.order import BLOCK, LANES
from oxcart.train.data.sampling import SHOWN, Frames, Pairs, Window
from oxcart.train.data.selection import Selection
from oxcart.train.data.workers import THREADS

ACTIONS = (None, "steps", "sum")
BALANCES = (None, "instruction", "environment", "dataset")
READ_MODES = ("auto", "sparse", "sequential")

_COUNTS = ("batch_size", "lanes", "block", "prefetch", "memory", "limit", "threads", "cache_bytes")
_TYPES: dict[str, tuple[Any, str]] = {
    "sample": (Window | Pairs | Frames, "Window(...), Pairs(...) or Frames(...)"),
    **dict.fromkeys((*_COUNTS, "seed"), (Integral, "a whole number")),
    **dict.fromkeys(("min_motion", "min_action"), (Real, "a number")),
    "control_rate": (Real | Mapping, "steps per second, or some by name of the dataset"),
    "pad_to": (Integral | Mapping, "a number of columns, or some by name"),
    "where": (str, "an expression, such as 'steps >= 20'"),
    "keys": (str | os.PathLike, "a file or URL with a key per line"),
    "idle": (Idle, "Idle(...)"),
}
"""Field -> type of its values, and what a message calls it."""

Size: TypeAlias = int | tuple[int, int]
"""Side of square frames, or height and width."""


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """Settings of a loader: what it reads, in which order, and with which resources.

    Raises:
        ConfigError: a field has an invalid value.
    """

    sample: Window | Pairs | Frames
    """Kind of sample: `Window(...)`, `Pairs(...)` or `Frames(...)`."""
    batch_size: int
    """Samples per batch, over all ranks."""
    seed: int = 0
    """Random seed of the order."""
    size: Size | Mapping[str, Size] | None = None
    """Height and width that frames are resized to (bilinear), or one number for both; for all cameras, or by
    camera, as the sample names it. None keeps the stored size, which must then be the same for all frames of
    a camera."""
    camera: str = "primary"
    """Name or role of the camera to read, unless the sample names its cameras; a role is `primary`,
    `secondary` or `wrist`."""
    action: str | None = None
    """For samples that name no steps of the action. `steps`: the actions between the two frames; `sum`: what
    they change together, by the kind of each column (`oxcart.train.data.summing`); None: no actions."""
    action_columns: Sequence[str] | None = None
    """Names of the columns of the action to read, which all datasets must have; None reads all."""
    state: bool = False
    """For samples that name no steps of the state: whether to read the state at t."""
    pad_to: int | Mapping[str, int] | None = None
    """Number of columns of `action` and `state`, or of each by name, in a batch: those beyond the columns of
    a dataset are 0. So datasets of different columns can be mixed."""
    instructions: bool = False
    """Whether to read every instruction in force at t, not only the episode's first one."""
    annotations: Sequence[str] = ()
    """Files or URLs of annotations to read at t; each name needs one file for every dataset."""
    min_motion: float | None = None
    """Leave out samples whose mean motion per step is lower, in the unit of `oxcart annotate motion`, as the
    cameras that they read see it."""
    min_action: float | None = None
    """Leave out samples whose actions move less per step, in the unit of `oxcart annotate action`. With
    `min_motion` too, a sample stays if one of both says so."""
    idle: Idle = field(default_factory=Idle)
    """Which of the samples below these thresholds stay."""
    motion: Sequence[str] = ()
    """Files or URLs of annotations for `min_motion` and `min_action`; by default the files that
    `oxcart annotate` writes beside each dataset."""
    where: str | None = None
    """Read only episodes of which an expression holds, such as `success and environment ~ 'toy'`
    (`oxcart.manifests.where`)."""
    keys: str | os.PathLike[str] | None = None
    """Read only episodes whose keys are in this file or URL, one per line."""
    limit: int | None = None
    """Read only the first n of these episodes of each dataset, by the hash of their keys; episodes that
    `--extend` added come last."""
    balance: str | None = None
    """`instruction` or `environment`: take turns among the episodes of each, dataset by dataset, so that all
    are drawn equally often; `dataset`: take turns among the datasets. None draws all episodes alike."""
    control_rate: float | Mapping[str, float] | None = None
    """Steps per second, of all datasets or by name, in place of what a dataset says of itself."""
    rank: int | None = None
    """Rank of this process; None asks torch.distributed."""
    world_size: int | None = None
    """Number of ranks that share each batch; None asks torch.distributed."""
    repeat: bool = True
    """Begin the next epoch when one ends; otherwise stop there, with a smaller last batch."""
    lanes: int = LANES
    """Lanes of the shuffle (`oxcart.train.data.order`)."""
    block: int = BLOCK
    """Samples of a lane that are shuffled together (`oxcart.train.data.order`)."""
    read_mode: str = "auto"
    """`sparse` reads chunk by chunk, `sequential` in large pieces; `auto` decides by the share of chunks that
    is needed."""
    check: bool = True
    """Whether to compare every chunk with its digest."""
    memory: int = 1 << 30
    """Bytes of chunks that may be kept in memory because they are needed again soon; all loaders of a process
    share the largest such limit."""
    prefetch: int = 4
    """Number of batches read in advance."""
    threads: int | None = None
    """Threads that read, per process; None is its rank's share of the cores, and at least 32 if a dataset is
    remote."""
    cache: str | os.PathLike[str] | None = None
    """Local directory that caches data from remote datasets."""
    cache_bytes: int = 100 << 30
    """Size limit of the cache, in bytes."""
    pin: bool | None = None
    """Put batches in pinned memory, which a GPU can copy from directly; None does so if there is a GPU."""

    def __post_init__(self) -> None:
        self._check_types()
        one_of("action", self.action, ACTIONS)
        one_of("read_mode", self.read_mode, READ_MODES)
        one_of("balance", self.balance, BALANCES)
        _ = self.selection  # parses the expression
        self._check_arrays()
        if self.action_columns is not None:
            names = self.action_columns
            distinct = len({*map(str, names)}) == len(names) and all(isinstance(one, str) for one in names)
            if "action" not in self.arrays or not names or not distinct:
                got = repr(names) if "action" in self.arrays else "no action"
                raise ConfigError(f"action_columns: expected names that differ, and action=; got {got}")
        for name in _COUNTS:
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name}: expected at least 1, got {value}")
        if self.threads is not None and self.threads > THREADS:
            raise ConfigError(f"threads: expected at most {THREADS}, got {self.threads}")
        self._check_sizes()
        rates = self.control_rate if isinstance(self.control_rate, Mapping) else {"": self.control_rate}
        for name, rate in rates.items():
            if rate is not None and not 0 < rate < math.inf:
                raise ConfigError(
                    f"control_rate{f' of {name}' if name else ''}: expected more than 0, got {rate}"
                )
        for name, value in self.thresholds.items():
            if not 0 <= value < math.inf:
                raise ConfigError(f"min_{name}: expected at least 0, got {value}")
        if self.idle != Idle() and not self.thresholds:
            raise ConfigError("idle: says which samples below a threshold stay; pass min_motion, min_action")
        if (self.rank is None) != (self.world_size is None):
            raise ConfigError("rank, world_size: expected both or none of them")
        if self.rank is not None and self.world_size is not None and not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank: expected 0 to {self.world_size - 1}, got {self.rank}")

    def _check_types(self) -> None:
        """Refuse values of another type than they are read as, such as a text for a number."""
        for one in fields(self):
            kind, expected = _TYPES.get(one.name, (None, ""))
            value = getattr(self, one.name)
            if kind is None or (value is None and one.default is None):
                continue
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ConfigError(f"{one.name}: expected {expected}, got {cut(repr(value), SHOWN)}")
            if isinstance(value, np.generic):  # no JSON, and of limited range
                object.__setattr__(self, one.name, value.item())
        for name, kind, expected in (("pad_to", Integral, "columns"), ("control_rate", Real, "a number")):
            given = getattr(self, name)
            for key, value in given.items() if isinstance(given, Mapping) else ():
                if value is not None and not isinstance(value, kind):
                    raise ConfigError(f"{name} of {key}: expected {expected}, got {value!r}")
        for name in ("annotations", "motion", "action_columns"):
            if (given := getattr(self, name)) is None:
                continue
            # A set has another order in each process.
            if isinstance(given, str) or not isinstance(given, Sequence):
                raise ConfigError(f"{name}: expected a list, got {cut(repr(given), SHOWN)}")

    def _check_arrays(self) -> None:
        """Refuse arrays that are asked for twice, or widened although they are not read."""
        if isinstance(self.sample, Window):
            for name, given, instead in (
                ("action", self.action is not None, "action=range(16)"),
                ("state", self.state, "state=0"),
            ):
                if given:
                    raise ConfigError(f"{name}: a window says which steps it reads: Window({instead})")
        widths = self.pad_to if isinstance(self.pad_to, Mapping) else {}
        for name in widths:
            one_of("pad_to", name, self.arrays)
        if self.pad_to is not None and not self.arrays:
            raise ConfigError("pad_to: neither action nor state is read")

    def _check_sizes(self) -> None:
        if isinstance(self.size, Mapping):
            for name in self.size:
                one_of("size", name, self.cameras)
        given: Any = self.size
        for size in given.values() if isinstance(given, Mapping) else [given]:
            sides = size if isinstance(size, Sequence) and len(size) == 2 else [size]
            whole = all(isinstance(one, Integral) and not isinstance(one, bool) for one in sides)
            if size is not None and (not whole or min(sides) < 1):
                got = cut(repr(size), SHOWN)
                raise ConfigError(f"size: expected pixels, such as 224 or (height, width), got {got}")

    @property
    def selection(self) -> Selection:
        """Which episodes are read."""
        where = Where(self.where) if self.where is not None else None
        file = os.fspath(self.keys) if self.keys is not None else None
        return Selection(where=where, file=file, limit=self.limit)

    @property
    def thresholds(self) -> dict[str, float]:
        """`motion`, `action` -> the threshold, if there is one."""
        given = {MOTION: self.min_motion, ACTION: self.min_action}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names or roles of the cameras to read."""
        return tuple(self.sample.window.cameras(self.camera))

    def resize(self, camera: str) -> tuple[int, int] | None:
        """Height and width that frames of a camera are resized to; None keeps the stored size."""
        size: Any = self.size.get(camera) if isinstance(self.size, Mapping) else self.size
        if size is None:
            return None
        height, width = (size, size) if isinstance(size, Integral) else size
        return int(height), int(width)

    @property
    def arrays(self) -> tuple[str, ...]:
        """Arrays to read beside the frames: `action` and `state`, if requested."""
        window = self.sample.window
        asked = {
            "action": self.action or window.action is not None,
            "state": self.state or window.state is not None,
        }
        return tuple(name for name, wanted in asked.items() if wanted)

    def width(self, array: str) -> int | None:
        """Columns that an array is widened to; None keeps those of the datasets."""
        return self.pad_to.get(array) if isinstance(self.pad_to, Mapping) else self.pad_to


def rate_given(manifest: Manifest, given: float | Mapping[str, float] | None) -> float | None:
    """Steps per second as given for a dataset, or for all; None if nothing is."""
    return given.get(manifest.dataset["name"]) if isinstance(given, Mapping) else given


def rate_of(manifest: Manifest, given: float | Mapping[str, float] | None) -> Mapping[str, Any] | None:
    """`hz` and `verified` of a dataset: as given for it or for all, else as it says of itself."""
    hz = rate_given(manifest, given)
    return manifest.control_rate if hz is None else {"hz": hz, "verified": True}
