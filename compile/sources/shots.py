"""Where shots begin, by PySceneDetect, one frame after another.

The detector sees small pictures, as PySceneDetect's own manager shows it, and every cut that it finds
counts: a minimum length would merge short shots across their cuts, and no clip may cross one. Shots that
are too short are left out later, with their length as the reason.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import av
import cv2
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector, ContentDetector

from oxcart.compile.images import Frame
from oxcart.compile.sources.video_config import VideoConfig

_FPS = 25.0
"""Of the numbers that the detector calls frames by; nothing here is a time."""


class ShotDetector:
    """Finds the frames that begin a shot."""

    def __init__(self, config: VideoConfig) -> None:
        self._detector: Any
        if config.detector == "content":
            self._detector = ContentDetector(threshold=config.cut_threshold, min_scene_len=0)
        else:
            self._detector = AdaptiveDetector(adaptive_threshold=config.cut_threshold, min_scene_len=0)
        self._count = 0
        self._cuts: list[int] = []
        cv2.setNumThreads(1)

    def see(self, picture: Frame) -> bool:
        """The next frame, [H, W, 3] uint8, BGR; says whether it is known already that it begins a shot."""
        found = self._detector.process_frame(FrameTimecode(self._count, _FPS), picture)
        cuts = [int(one.frame_num) for one in found]
        self._cuts += cuts
        self._count += 1
        return self._count - 1 in cuts

    def cuts(self) -> list[int]:
        """Numbers of the frames that begin a shot, without the first, once all were seen."""
        if self._count:
            found = self._detector.post_process(FrameTimecode(self._count - 1, _FPS))
            self._cuts += [int(one.frame_num) for one in found]
        return sorted({one for one in self._cuts if 0 < one < self._count})


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
