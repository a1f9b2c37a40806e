"""How web video is read: what makes a clip, and which clips are left out.

Every setting here decides which clips there are or what they show, so the manifest records all of them,
defaults included: the same settings give the same clips.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError

DETECTORS = {"content": 27.0, "adaptive": 3.0}
"""Detector of PySceneDetect -> its default threshold."""
INSTRUCTIONS = ("title", "chapter")
"""Texts of a video that can serve as the instruction of its clips."""

UNKNOWN = "unknown"
"""Licence of a video that states none."""
LICENCES = {"cc-by": "Creative Commons Attribution license (reuse allowed)"}
"""Short name of a licence -> YouTube's name for it."""


def licence_texts(names: Iterable[str]) -> list[str]:
    """Licences as sites call them, from names that may be short."""
    return [LICENCES.get(name, name) for name in names]


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """How videos become clips.

    Raises:
        ConfigError: a value is impossible.
    """

    rate: Fraction = Fraction(10)
    """Steps per second of every clip, whatever the video's own frame rate."""
    min_s: float = 1.0
    """Seconds of the shortest clip; shorter shots are left out."""
    max_s: float = 10.0
    """Seconds of the longest clip; longer shots are cut."""
    detector: str = "content"
    """Shot detector: `content` or `adaptive` of PySceneDetect."""
    threshold: float | None = None
    """Threshold of the shot detector; None uses its default."""
    still: float = 0.1
    """Largest mean difference of grey levels (0 to 255) between two steps that counts as no motion."""
    still_s: float = 1.0
    """Seconds above which a run of black or still steps is cut out of its shot."""
    black: int = 32
    """Largest grey level (0 to 255) that a black step may hold."""
    licences: tuple[str, ...] = ()
    """Licences to compile; `unknown` is that of a video that states none, and empty compiles all."""
    exclude: frozenset[str] = frozenset()
    """Ids of videos to leave out."""
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Column of `scenes.csv` -> values; only rows with one of these values are compiled."""
    reuploads: bool = True
    """Whether channels that share near-duplicate videos are merged."""

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1000:
            raise ConfigError(f"rate: expected 0 < rate <= 1000 steps per second, got {self.rate}")
        if not 0 < self.min_s <= self.max_s:
            raise ConfigError(
                f"clip length: expected 0 < shortest <= longest, got {self.min_s:g}:{self.max_s:g} seconds"
            )
        if self.min_s * self.rate < 2:
            raise ConfigError(
                f"clip length: a clip of {self.min_s:g} s has fewer than 2 steps at {float(self.rate):g} "
                "per second; raise the shortest length or the rate"
            )
        one_of("shot detector", self.detector, DETECTORS)
        for name in ("threshold", "still", "still_s"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"{name}: expected at least 0, got {value}")

    @property
    def cut_threshold(self) -> float:
        """Threshold of the shot detector."""
        return DETECTORS[self.detector] if self.threshold is None else self.threshold

    def allows(self, licence: str) -> bool:
        """Whether videos of this licence are compiled."""
        return not self.licences or licence in licence_texts(self.licences)

    @classmethod
    def described(cls, value: Mapping[str, Any]) -> VideoConfig:
        """The configuration from the output of `describe`, without the ids to leave out."""
        shots, still = value["shots"], value["still"]
        return cls(
            rate=Fraction(*value["rate"]),
            min_s=value["clip_s"][0],
            max_s=value["clip_s"][1],
            detector=shots["detector"],
            threshold=shots["threshold"],
            still=still["difference"],
            still_s=still["seconds"],
            black=still["black"],
            licences=tuple(value["licences"]),
            where=tuple((column, tuple(values)) for column, values in value["where"].items()),
            reuploads=value["reuploads"],
        )

    def describe(self) -> dict[str, Any]:
        """All settings as plain JSON; a digest stands for the ids to leave out."""
        exclude = hashlib.sha256("\n".join(sorted(self.exclude)).encode()).hexdigest()
        return {
            "rate": [self.rate.numerator, self.rate.denominator],
            "clip_s": [self.min_s, self.max_s],
            "shots": {"detector": self.detector, "threshold": self.cut_threshold},
            "still": {"difference": self.still, "seconds": self.still_s, "black": self.black},
            "licences": licence_texts(self.licences),
            "exclude": exclude if self.exclude else None,
            "where": {column: list(values) for column, values in self.where},
            "reuploads": self.reuploads,
        }


def parse_rate(text: str) -> Fraction:
    """Steps per second from `10`, `29.97` or `30000/1001`."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"--rate: expected steps per second like 10 or 30000/1001, got {text!r}") from None
