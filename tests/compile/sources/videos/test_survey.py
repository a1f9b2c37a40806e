"""Where shots begin: what PySceneDetect finds, for less."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector, ContentDetector

from oxcart.compile.sources.videos.config import VideoConfig
from oxcart.compile.sources.videos.survey import ShotDetector
from video_sources import scenes


@pytest.mark.parametrize("detector", ["content", "adaptive"])
def test_cuts_are_those_of_pyscenedetect(detector: str) -> None:
    images = list(scenes("shots", 12, 3, 25, 9, 1, 14))
    theirs = (
        ContentDetector(threshold=27.0, min_scene_len=0)
        if detector == "content"
        else AdaptiveDetector(adaptive_threshold=3.0, min_scene_len=0)
    )
    expected = []
    for i, image in enumerate(images):
        bgr = np.ascontiguousarray(image[..., ::-1])
        expected += [one.frame_num for one in theirs.process_frame(FrameTimecode(i, 25.0), bgr)]
    ours = ShotDetector(VideoConfig(detector=detector))
    for image in images:
        ours.see(image)
    assert ours.cuts() == expected
    if detector == "content":
        assert ours.cuts() == [12, 15, 40, 49, 50]


def test_the_score_is_that_of_pyscenedetect() -> None:
    theirs, ours = ContentDetector(), ShotDetector(VideoConfig())
    images = list(scenes("score", 5, 5))
    for image in images:
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        expected = theirs._calculate_frame_score(FrameTimecode(0, 25.0), bgr)
        assert ours._score(0, image) == pytest.approx(expected, rel=1e-12)


def test_a_cut_is_known_at_once() -> None:
    detector = ShotDetector(VideoConfig())
    known = [detector.see(image) for image in scenes("known", 4, 4)]
    assert known == [i == 4 for i in range(8)]


def test_nothing_seen_has_no_cut() -> None:
    assert ShotDetector(VideoConfig()).cuts() == []
