"""A batch of samples, with everything that training reads of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from oxcart.manifests.columns import Column


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B samples. All tensors are on one device; frames stay uint8 until a model uses them."""

    frames: Tensor
    """uint8 RGB: pairs [B, 2, H, W, 3], the frames at t and at t + offset; single frames [B, H, W, 3]."""
    t: Tensor
    """int64 [B]: step of the (first) frame in its episode."""
    offset: Tensor
    """int64 [B]: steps between the frames of a pair; 0 for single frames."""
    dataset: list[str]
    """Name of each sample's dataset."""
    key: list[str]
    """Key of each sample's episode."""
    environment: list[str | None]
    """Environment in which each sample was recorded; None if it is unknown."""
    instruction: list[str]
    """The episode's first instruction; "" if it has none."""
    action: Tensor | None = None
    """float32. `action="steps"`: [B, K, A], the actions of steps t to t + offset - 1 (of step t for
    single frames), padded with zeros; `action="sum"`: [B, A], what these actions change together."""
    action_mask: Tensor | None = None
    """bool. `action="steps"`: [B, K], which steps of `action` belong to the sample and hold an action;
    `action="sum"`: [B, A], which columns are known, as all steps that they need hold one. Elsewhere
    `action` is 0."""
    state: Tensor | None = None
    """float32 [B, S]: the state at t."""
    instructions: list[list[str]] | None = None
    """Every instruction in force at t: one per field that has instructions; [] if there is none."""
    columns: Mapping[str, Mapping[str, tuple[Column, ...]]] = field(default_factory=dict)
    """Name of each dataset -> `action`, `state` -> the columns as the manifest describes them, of the values
    that were read."""
    annotations: dict[str, Tensor] = field(default_factory=dict)
    """Name of each annotation that was asked for -> values at t, [B] or [B, n]."""

    def __len__(self) -> int:
        return len(self.key)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Copy the batch to a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Copy the batch to pinned memory, which a GPU can copy from directly."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tensors: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        annotations = {name: change(value) for name, value in self.annotations.items()}
        return replace(self, **tensors, annotations=annotations)
