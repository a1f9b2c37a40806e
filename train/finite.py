"""Handle numbers that are not finite: keep them from native code, and refuse them with the names of samples.

A GPU runs ahead of the host, so a loss that is NaN is noticed one step late. Until then NaN travels through
the model. Native code that turns numbers into addresses must not see it: on a CPU, `grid_sample` would read
from an arbitrary address. So such code is given 0 for the rows that are lost, and its result for them becomes
NaN again. `lost` and `filled` do not wait for the device; `not_finite` and `refuse` do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from oxcart.shards.errors import NotFiniteError
from oxcart.train.data.batch import Batch

SHOWN = 4
"""Maximum number of samples named in a message."""


def lost(values: Tensor) -> Tensor:
    """Rows of values [B, ...] with a number that is not finite, or too large to square: bool [B]."""
    return ~values.detach().float().square().flatten(1).sum(1).isfinite()


def filled(values: Tensor, rows: Tensor, number: float) -> Tensor:
    """Values [B, ...] with some rows, bool [B], set to a number; the others are unchanged."""
    return values.masked_fill(rows.view(-1, *[1] * (values.ndim - 1)), number)


def local(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that this rank holds; the tensor itself if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def first_row(tensor: Tensor) -> int:
    """The row of a sharded tensor at which the part of this rank begins; 0 if it is not sharded."""
    if not isinstance(tensor, DTensor):
        return 0
    return tensor.device_mesh.get_local_rank() * -(-len(tensor) // tensor.device_mesh.size())


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that holds NaN or infinity; of a sharded one, in the part of this rank. Each
    tensor is read once on its own device, and the host waits once per device."""
    bounds: dict[torch.device, dict[str, Tensor]] = {}
    for name, whole in tensors.items():
        tensor = local(whole)
        if tensor.is_floating_point() and tensor.numel():
            found = torch.stack(tensor.detach().aminmax()).isfinite().all()  # NaN is both of its bounds
            bounds.setdefault(tensor.device, {})[name] = found
    for of_device in bounds.values():
        sound = torch.stack(list(of_device.values())).tolist()
        if not all(sound):
            return list(of_device)[sound.index(False)]
    return None


def refuse(rows: Tensor, batch: Batch, what: str) -> None:
    """Refuse a batch in which some rows, bool [B], are not finite.

    Raises:
        NotFiniteError: a row is not finite; the message names its sample.
    """
    if rows.any():
        names = samples(batch.key, batch.t)
        wrong = [names[row] for row in rows.nonzero().flatten().tolist()]
        raise NotFiniteError(f"{what} of {some(wrong)} are not finite")


def samples(keys: Sequence[str], steps: Tensor) -> list[str]:
    """Names of samples: the key of the episode and the step."""
    return [f"{key} t={t}" for key, t in zip(keys, steps.tolist(), strict=True)]


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
