"""What a policy sees and does: its cameras, the columns of its state and action, its rate and horizon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from oxcart.manifests.columns import Column
from oxcart.shards.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PolicySpec:
    """The interface of a policy, which its checkpoints keep."""

    cameras: tuple[tuple[str, tuple[int, int]], ...]
    """Name of each camera, as the dataset stores it, and height and width of the frames that the policy
    takes; empty for a decoder of codes."""
    state: tuple[str, ...]
    """Names of the state's columns; empty if the policy does not read it."""
    action: tuple[Column, ...]
    """Columns of the action."""
    control_rate: float
    """Steps per second."""
    horizon: int
    """Actions that are predicted at once."""
    execute: int
    """Actions that are carried out before the next prediction."""
    frames: tuple[int, ...] = (0,)
    """Steps of the frames of each camera, relative to the step at which it acts."""
    codes: tuple[int, int] = (0, 0)
    """Codes per step that the policy learns as well, or decodes, and entries of their codebook; 0 and 0 for
    none."""
    datasets: tuple[str, ...] = ()
    """Names of the datasets that it was trained on, each with a scale of its own."""

    def plain(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            **asdict(self),
            "cameras": [[name, list(size)] for name, size in self.cameras],
            "state": list(self.state),
            "action": [asdict(one) for one in self.action],
            "frames": list(self.frames),
            "codes": list(self.codes),
            "datasets": list(self.datasets),
        }

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> PolicySpec:
        """The value that `plain` wrote.

        Raises:
            ConfigError: it is something else.
        """
        try:
            tokens, codes = value["codes"]
            return cls(
                cameras=tuple(
                    (str(name), (int(height), int(width))) for name, (height, width) in value["cameras"]
                ),
                state=tuple(map(str, value["state"])),
                action=tuple(Column(**one) for one in value["action"]),
                control_rate=float(value["control_rate"]),
                horizon=int(value["horizon"]),
                execute=int(value["execute"]),
                frames=tuple(map(int, value["frames"])),
                codes=(int(tokens), int(codes)),
                datasets=tuple(map(str, value["datasets"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"spec: not that of a policy: {error}") from None
