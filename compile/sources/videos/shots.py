"""Where shots begin, by PySceneDetect, one frame after another.

The detector sees small pictures, as PySceneDetect's own manager shows it, and every cut that it finds
counts: a minimum length would merge short shots across their cuts, and no clip may cross one. Shots that
are too short are left out later, with their length as the reason. What it decides is PySceneDetect's; how
much two pictures differ is summed here, to the same number in a quarter of the time.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import av
import cv2
import numpy as np
from scenedetect.detectors import AdaptiveDetector, ContentDetector

from oxcart.compile.images import Frame
from oxcart.compile.sources.videos.config import VideoConfig


class ShotDetector:
    """Finds the frames that begin a shot."""

    def __init__(self, config: VideoConfig) -> None:
        self._detector: Any
        if config.detector == "content":
            self._detector = ContentDetector(threshold=config.cut_threshold, min_scene_len=0)
        else:
            self._detector = AdaptiveDetector(adaptive_threshold=config.cut_threshold, min_scene_len=0)
        self._detector._calculate_frame_score = self._score
        self._before: Frame | None = None
        self._count = 0
        self._cuts: list[int] = []

    def see(self, picture: Frame) -> bool:
        """The next frame, [H, W, 3] uint8, RGB; says whether it is known already that it begins a shot."""
        cuts = self._detector.process_frame(self._count, picture)
        self._cuts += cuts
        self._count += 1
        return self._count - 1 in cuts

    def cuts(self) -> list[int]:
        """Numbers of the frames that begin a shot, without the first, once all were seen."""
        if self._count:
            self._cuts += self._detector.post_process(self._count - 1)
        return sorted({one for one in self._cuts if 0 < one < self._count})

    def _score(self, number: int, picture: Frame) -> float:
        """Mean of the mean differences of hue, saturation and value from the frame before, as it is there."""
        now = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2HSV), np.uint8)
        before, self._before = self._before, now
        if before is None:
            return 0.0
        hue, saturation, value, _ = cv2.sumElems(cv2.absdiff(now, before))
        pixels = now.shape[0] * now.shape[1]
        return float(hue / pixels + saturation / pixels + value / pixels) / 3


def video_versions() -> dict[str, str]:
    """Of what decides clips and their pixels."""
    libraries = {name: av.library_versions[name] for name in ("libavcodec", "libavformat", "libswscale")}
    return {
        "av": av.__version__,
        **{name: ".".join(map(str, numbers)) for name, numbers in libraries.items()},
        "opencv": cv2.__version__,
        "scenedetect": detector_version(),
    }


def detector_version() -> str:
    """Of PySceneDetect, under either of the names that it is installed by."""
    for package in ("scenedetect-headless", "scenedetect"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    raise PackageNotFoundError("scenedetect-headless")
