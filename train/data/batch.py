"""A batch of samples, with everything that training reads of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from oxcart.manifests.columns import Column
from oxcart.shards.text import cut
from oxcart.train.data.lerobot import lerobot

LONGEST = 100
"""Maximum letters of a line of a batch as text."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B samples. All tensors are on one device; frames stay uint8 until a model uses them."""

    frames: Any
    """uint8 RGB [B, k, H, W, 3], the frames at each of k steps, or [B, H, W, 3] for a single step: a tensor,
    or one for each camera by name if the sample names its cameras; None if no frames were asked for. Pairs
    are [B, 2, H, W, 3]: the frames at t and t + offset."""
    frames_is_pad: Any = None
    """bool [B, k] or [B], in the form of `frames`: whether a step lies beyond the episode, so that the frame
    repeats its first or last one, or the dataset has no such camera, so that the frame is 0."""
    cameras: tuple[str, ...] = ()
    """Names of the cameras, as they were asked for."""
    t: Tensor
    """int64 [B]: step of each sample in its episode, to which all others are relative."""
    offset: Tensor
    """int64 [B]: steps from the first frame of a sample to the last."""
    dataset: list[str]
    """Name of each sample's dataset."""
    key: list[str]
    """Key of each sample's episode."""
    environment: list[str | None]
    """Environment in which each sample was recorded; None if it is unknown."""
    instruction: list[str]
    """The episode's first instruction; "" if it has none."""
    action: Tensor | None = None
    """float32 [B, K, A], the actions at each of K steps, or [B, A] for a single step. For `action="steps"`
    these are the steps t to t + offset - 1 (t for single frames); for `action="sum"` it is [B, A], what the
    same actions change together."""
    action_is_pad: Tensor | None = None
    """bool [B, K] or [B]: whether a step holds no action, or lies beyond the episode, or (for
    `action="steps"` in a mixture) beyond the sample. Such actions are 0; those of windows that repeat
    (`pad="repeat"`) are the first or last that the episode holds. None for sums."""
    action_mask: Tensor | None = None
    """bool [B, A], for `action="sum"`: which columns are known, as all steps that they need hold an action.
    Elsewhere `action` is 0."""
    state: Tensor | None = None
    """float32 [B, k, S], the states at each of k steps, or [B, S] for a single step."""
    state_is_pad: Tensor | None = None
    """bool [B, k] or [B]: whether a step lies beyond the episode, whose first or last state it repeats."""
    instructions: list[list[str]] | None = None
    """Every instruction in force at t, the preferred first: one per field; [] if there is none."""
    columns: Mapping[str, Mapping[str, tuple[Column, ...]]] = field(default_factory=dict)
    """Name of each dataset -> `action`, `state` -> the columns as the manifest describes them, of the values
    that were read; with `pad_to`, values beyond them are 0."""
    annotations: dict[str, Tensor] = field(default_factory=dict)
    """Name of each annotation that was asked for -> values at t, [B] or [B, n]."""
    annotations_is_pad: dict[str, Tensor] = field(default_factory=dict)
    """Name of each annotation -> bool [B]: whether the values are of no use, as they describe the motion to a
    step beyond the episode. (`oxcart label` says how many steps its codes look ahead.)"""

    def __len__(self) -> int:
        return len(self.key)

    def __repr__(self) -> str:
        lines = [f"Batch of {len(self)} samples"]
        for name, value in vars(self).items():
            named = value.items() if isinstance(value, Mapping) else [("", value)]
            shown = [f"{one} {_told(each)}".strip() for one, each in named if isinstance(each, Tensor)]
            if shown:
                lines.append(f"  {name}: {cut(', '.join(shown), LONGEST)}")
        lines += [
            f"  {name}: {cut(', '.join(dict.fromkeys(values)), LONGEST)}"
            for name, values in (("dataset", self.dataset), ("key", self.key))
        ]
        return "\n".join(lines)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Copy the batch to a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Copy the batch to pinned memory, which a GPU can copy from directly."""
        return self._each(lambda tensor: tensor.pin_memory())

    def take(self, rows: slice | Tensor) -> Batch:
        """The samples of a slice, or at the indices of a tensor int64 [b]."""
        numbers = range(len(self))[rows] if isinstance(rows, slice) else rows.tolist()
        lists: dict[str, Any] = {
            name: [value[i] for i in numbers] for name, value in vars(self).items() if isinstance(value, list)
        }
        return replace(self._each(lambda tensor: tensor[rows]), **lists)

    def lerobot(self) -> dict[str, Any]:
        """The batch under LeRobot's names, frames as floats: `oxcart.train.data.lerobot`."""
        return lerobot(self)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tensors: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                tensors[name] = change(value)
            elif isinstance(value, dict) and name != "columns":
                tensors[name] = {key: change(one) for key, one in value.items()}
        return replace(self, **tensors)


def _told(tensor: Tensor) -> str:
    """Type and shape of a tensor, and its device if that is not the CPU: `uint8 [64, 2, 256, 256, 3]`."""
    where = "" if tensor.device.type == "cpu" else f" on {tensor.device}"
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}{where}"
