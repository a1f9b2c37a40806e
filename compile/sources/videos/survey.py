"""One pass over a video at low resolution: where its shots begin, where nothing moves, what it shows.

This is the census's share of decoding. Every frame is decoded and converted to a small picture; the shot
detector sees each, and at the pace of the steps to come each is compared with the one before. What is
returned is a few numbers a frame, so an hour of video takes some megabytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from scenedetect.detectors import AdaptiveDetector, ContentDetector

from oxcart.compile.images import Frame
from oxcart.compile.sources.videos.config import VideoConfig
from oxcart.compile.sources.videos.decode import Int64, Packet, Reel, VideoError
from oxcart.compile.sources.videos.files import Scene
from oxcart.compile.sources.videos.phash import Uint64, look_at
from oxcart.compile.sources.videos.pixels import Painter
from oxcart.shards.errors import SourceError
from oxcart.shards.store import Store

LOOKS_S = 0.25
"""Seconds between two pictures that are hashed, from the beginning of a shot on."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What one pass over (parts of) a video saw."""

    height: int
    """Of its pictures as they are shown."""
    width: int
    time_base: Fraction
    """Seconds of a unit of `pts`."""
    pts: Int64
    """Of every frame that was decoded."""
    ends: Int64
    """[parts]: pts behind the last frame of each part."""
    parts: Int64
    """Number of each part's first frame: one part, or one a scene."""
    cuts: Int64
    """Numbers of the frames that begin a shot, the first frame of every part among them."""
    moved: npt.NDArray[np.float64]
    """Mean difference of grey levels from the step before, of the frame that is a step's; NaN of others."""
    brightest: npt.NDArray[np.uint8]
    """The brightest grey level of a step's frame."""
    looks: list[tuple[int, Uint64]]
    """Numbers of frames, and the hashes of what they show."""
    packets: list[Packet]
    """Of all parts, in the order of the file."""


def survey(store: Store, name: str, config: VideoConfig, scenes: Sequence[Scene] | None) -> Survey:
    """Decode a video, or the scenes of it alone.

    Raises:
        SourceError: it cannot be decoded, or a scene is beyond its end.
    """
    try:
        with Reel(store, name, glance=True) as reel:
            return _survey(reel, config, scenes)
    except VideoError as error:
        raise SourceError(str(error), file=name) from error


def _survey(reel: Reel, config: VideoConfig, scenes: Sequence[Scene] | None) -> Survey:
    spans = [(None, None)] if scenes is None else _spans(reel, scenes)
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
        cuts += [parts[-1], *(parts[-1] + one for one in (eye.shots.cuts() if scenes is None else ()))]
        ends.append(_end(eye.pts[parts[-1] :], stop))
        packets += [one for one in reel.packets if _inside(one.pts, start, stop)]
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


class _Eye:
    """Looks at one frame after another."""

    def __init__(self, reel: Reel, config: VideoConfig) -> None:
        self._reel, self._config, self._painter = reel, config, Painter()
        self.pts: list[int] = []
        self.moved: list[float] = []
        self.brightest: list[int] = []
        self.looks: list[tuple[int, Uint64]] = []
        self._pace = config.rate * reel.time_base
        self._look_every = round(Fraction(LOOKS_S) / reel.time_base)

    def begin(self) -> None:
        """What comes has nothing to do with what came."""
        self.shots = ShotDetector(self._config)
        self._before: Frame | None = None
        self._step, self._look = -1, 0
        self._first: int | None = None

    def see(self, frame: VideoFrame) -> None:
        """The next frame."""
        assert frame.pts is not None
        if self._first is None:
            self._first = self._look = frame.pts
        picture = self._painter.small(frame)
        cut = self.shots.see(picture.rgb())
        self.pts.append(frame.pts)
        step = math.floor((frame.pts - self._first) * self._pace)
        moved, brightest = np.nan, 0
        if step != self._step or cut:
            grey = picture.grey()
            if step != self._step:
                moved = 0.0 if self._before is None else _difference(grey, self._before)
                brightest, self._before, self._step = int(grey.max()), grey, step
            if cut or frame.pts >= self._look:
                self._look = frame.pts + self._look_every
                found = look_at(np.rot90(grey, self._reel.rotation // 90))
                if found is not None:
                    self.looks.append((len(self.pts) - 1, found))
        self.moved.append(moved)
        self.brightest.append(brightest)


def _difference(one: Frame, other: Frame) -> float:
    """Mean absolute difference of two pictures."""
    return cv2.norm(one, other, cv2.NORM_L1) / one.size


def _inside(pts: int, start: int | None, stop: int | None) -> bool:
    """Whether a packet is of a part, and not read on the way to it or behind it."""
    return (start is None or pts >= start) and (stop is None or pts < stop)


def _end(pts: Sequence[int], stop: int | None) -> int:
    """Where the last of some frames ends: where the next begins, else after the usual time."""
    if stop is not None:
        return stop
    gaps = np.diff(np.array(pts, np.int64))
    return pts[-1] + (max(1, int(np.median(gaps))) if len(gaps) else 1)


def _spans(reel: Reel, scenes: Sequence[Scene]) -> Iterator[tuple[int | None, int | None]]:
    """First pts of each scene, and the first behind it; found without decoding."""
    stamps = [one.pts for one in reel.index()]
    spans: list[tuple[int | None, int | None]] = []
    for scene in scenes:
        if scene.stop > len(stamps):
            raise VideoError(f"has {len(stamps)} frames; a scene is said to be {scene.start} to {scene.stop}")
        spans.append((stamps[scene.start], stamps[scene.stop] if scene.stop < len(stamps) else None))
    return iter(spans)


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
