"""One pass over a video at low resolution: where its shots begin, where nothing moves, what it shows.

This is all the decoding that a census does. Every frame is decoded and made small, and the shot detector sees
it. At the rate of the steps to come, a frame is compared with the frame of the step before. The result is a
few numbers per frame, so an hour of video takes some megabytes.

Shots are PySceneDetect's: frames reach its detector as its own manager shows them, and every cut that it
finds counts. A minimum length would merge short shots across their cuts, and no clip may cross a cut; shots
that are too short are left out later, with their length as the reason. Only how much two frames differ is
summed here, to the same number in a quarter of the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from scenedetect.detectors import AdaptiveDetector, ContentDetector

from oxcart.compile.images import Frame
from oxcart.compile.sources.videos.config import VideoConfig
from oxcart.compile.sources.videos.decode import Int64, Packet, Reel, VideoError, decoder_versions
from oxcart.compile.sources.videos.files import Scene
from oxcart.compile.sources.videos.phash import Uint64, look_at
from oxcart.compile.sources.videos.pixels import Painter
from oxcart.shards.errors import SourceError
from oxcart.shards.store import Store

LOOKS_S = 0.25
"""Seconds between two hashed frames, counted from the beginning of a shot."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The results of one pass over a video, or over its scenes."""

    height: int
    """Height of the frames as they are shown, in pixels."""
    width: int
    """Width of the frames as they are shown, in pixels."""
    time_base: Fraction
    """Seconds per unit of `pts`."""
    pts: Int64
    """[frames]: time (pts) of every decoded frame."""
    ends: Int64
    """[parts]: time (pts) at which the last frame of each part ends."""
    parts: Int64
    """[parts]: number of each part's first frame. A scene is a part; without scenes the video is."""
    cuts: Int64
    """Numbers of the frames that begin a shot; the first frame of every part is one."""
    moved: npt.NDArray[np.float64]
    """[frames]: mean difference of grey levels from the previous step; NaN if no step begins here."""
    brightest: npt.NDArray[np.uint8]
    """[frames]: brightest grey level of a frame at which a step begins."""
    looks: list[tuple[int, Uint64]]
    """(number of a frame, its perceptual hashes) of each hashed frame."""
    packets: list[Packet]
    """Packets of all parts, in the order of the file."""


def survey(store: Store, name: str, config: VideoConfig, scenes: Sequence[Scene] | None) -> Survey:
    """Decode a video, or only its scenes, and measure it.

    Raises:
        SourceError: the video cannot be decoded, or a scene is beyond its end.
    """
    try:
        with Reel(store, name, glance=True) as reel:
            return _survey(reel, config, scenes)
    except VideoError as error:
        raise SourceError(str(error), file=name) from error


def _survey(reel: Reel, config: VideoConfig, scenes: Sequence[Scene] | None) -> Survey:
    spans: list[tuple[int | None, int | None]] = [(None, None)] if scenes is None else _spans(reel, scenes)
    eye = _Eye(reel, config)
    packets: list[Packet] = []
    parts, ends, cuts = [], [], []
    for start, stop in spans:
        parts.append(len(eye.pts))
        eye.begin()
        for frame in reel.frames(start, stop):
            eye.see(frame)
        if len(eye.pts) == parts[-1]:
            raise VideoError("holds no frame")
        inside = eye.shots.cuts() if scenes is None else []
        cuts += [parts[-1] + one for one in (0, *inside)]
        ends.append(_end(eye.pts[parts[-1] :], stop))
        # Not those that were read on the way to the part, or behind it.
        after = (one for one in reel.packets if start is None or one.pts >= start)
        packets += [one for one in after if stop is None or one.pts < stop]
    if scenes is None:
        reel.check_whole(len(eye.pts), ends[-1])
    height, width = reel.shown_size
    return Survey(
        height=height,
        width=width,
        time_base=reel.time_base,
        pts=np.array(eye.pts, np.int64),
        ends=np.array(ends, np.int64),
        parts=np.array(parts, np.int64),
        cuts=np.array(cuts, np.int64),
        moved=np.array(eye.moved, np.float64),
        brightest=np.array(eye.brightest, np.uint8),
        looks=eye.looks,
        packets=packets,
    )


class ShotDetector:
    """Finds the frames that begin a shot."""

    def __init__(self, config: VideoConfig) -> None:
        kind = ContentDetector if config.detector == "content" else AdaptiveDetector
        self._detector: Any = kind(config.cut_threshold, min_scene_len=0)
        self._detector._calculate_frame_score = self._score
        self._before: Frame | None = None
        self._count = 0
        self._cuts: list[int] = []

    def see(self, frame: Frame) -> bool:
        """Process the next frame, [H, W, 3] uint8 RGB, and return whether it certainly begins a shot.

        The adaptive detector finds a cut only some frames later; `cuts` returns all.
        """
        cuts = self._detector.process_frame(self._count, frame)
        self._cuts += cuts
        self._count += 1
        return self._count - 1 in cuts

    def cuts(self) -> list[int]:
        """Numbers of the frames that begin a shot, without the first, once all frames have been seen."""
        if self._count:
            self._cuts += self._detector.post_process(self._count - 1)
        return sorted({one for one in self._cuts if 0 < one < self._count})

    def _score(self, number: int, frame: Frame) -> float:
        """PySceneDetect's score: the mean difference of hue, saturation and value from the frame before."""
        now = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV), np.uint8)
        before, self._before = self._before, now
        if before is None:
            return 0.0
        hue, saturation, value, _ = cv2.sumElems(cv2.absdiff(now, before))
        pixels = now.shape[0] * now.shape[1]
        return float(hue / pixels + saturation / pixels + value / pixels) / 3


class _Eye:
    """The measurements of the frames seen so far."""

    def __init__(self, reel: Reel, config: VideoConfig) -> None:
        self._reel, self._config, self._painter = reel, config, Painter()
        self.pts: list[int] = []
        self.moved: list[float] = []
        self.brightest: list[int] = []
        self.looks: list[tuple[int, Uint64]] = []
        self._pace = config.rate * reel.time_base
        self._look_every = round(Fraction(LOOKS_S) / reel.time_base)

    def begin(self) -> None:
        """Begin a part, which is independent of the previous one."""
        self.shots = ShotDetector(self._config)
        self._before: Frame | None = None
        self._step, self._look = -1, 0
        self._first: int | None = None

    def see(self, frame: VideoFrame) -> None:
        """Process the next frame."""
        assert frame.pts is not None
        if self._first is None:
            self._first = self._look = frame.pts
        small = self._painter.small(frame)
        cut = self.shots.see(small.rgb())
        self.pts.append(frame.pts)
        step = math.floor((frame.pts - self._first) * self._pace)
        moved, brightest = np.nan, 0
        if step != self._step or cut:
            grey = small.grey()
            if step != self._step:
                moved = 0.0
                if self._before is not None:
                    moved = cv2.norm(grey, self._before, cv2.NORM_L1) / grey.size
                brightest, self._before, self._step = int(grey.max()), grey, step
            if cut or frame.pts >= self._look:
                self._look = frame.pts + self._look_every
                found = look_at(np.rot90(grey, self._reel.rotation // 90))
                if found is not None:
                    self.looks.append((len(self.pts) - 1, found))
        self.moved.append(moved)
        self.brightest.append(brightest)


def _end(pts: Sequence[int], stop: int | None) -> int:
    """`pts` at which the last of some frames ends: at `stop`, else after the median time of a frame."""
    if stop is not None:
        return stop
    gaps = np.diff(np.array(pts, np.int64))
    return pts[-1] + (max(1, int(np.median(gaps))) if len(gaps) else 1)


def _spans(reel: Reel, scenes: Sequence[Scene]) -> list[tuple[int | None, int | None]]:
    """First `pts` of each scene, and the first behind the scene; found without decoding."""
    stamps = sorted(one.pts for one in reel.index())
    spans: list[tuple[int | None, int | None]] = []
    for scene in scenes:
        if scene.stop > len(stamps):
            raise VideoError(
                f"has {len(stamps)} frames; scenes.csv has a scene from {scene.start} to {scene.stop}"
            )
        spans.append((stamps[scene.start], stamps[scene.stop] if scene.stop < len(stamps) else None))
    return spans


def video_versions() -> dict[str, str]:
    """Versions of the libraries that determine clips and their pixels."""
    return {**decoder_versions(), "scenedetect": detector_version()}


def detector_version() -> str:
    """Version of PySceneDetect, which two packages install."""
    try:
        return version("scenedetect-headless")
    except PackageNotFoundError:
        return version("scenedetect")
