"""Write the frames of an episode to a video that browsers play: H.264, 4:2:0, in an MP4 file.

Codecs of video work on blocks of two by two pixels, so an odd side repeats its last row or column. Quality is
high (crf 18) but not lossless: a video is for looking at. For pixels read the frames.
"""

from __future__ import annotations

import os
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.manifests.frames import CameraFrames
from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.files import naming, replacing

SLOWEST, FASTEST = 0.1, 1000
"""Least and greatest frames per second of a video."""
BT601 = 6
"""FFmpeg's number of the matrix by which RGB becomes YUV (SMPTE 170M), which players must know."""


def write_video(
    path: str | os.PathLike[str], frames: CameraFrames | npt.NDArray[np.uint8], fps: float
) -> Path:
    """Write frames as a video.

    Args:
        path: the MP4 file, which is replaced if it exists. If writing fails, what was there is unchanged.
        frames: uint8 [T, H, W, 3], or all frames of a camera of an episode.
        fps: frames per second.

    Returns:
        The path.

    Raises:
        ConfigError: the path is a URL or does not end in .mp4, the frame rate is impossible, or PyAV is not
            installed.
        CorruptError: a chunk does not match its digest.
        StoreError: the file cannot be written, or the frames cannot be encoded.
    """
    if "://" in os.fspath(path) or Path(path).suffix.lower() != ".mp4":
        raise ConfigError(f"path: expected a file on this machine that ends in .mp4, got {os.fspath(path)!r}")
    path = Path(path)
    if not isinstance(fps, Real) or not SLOWEST <= fps <= FASTEST:
        raise ConfigError(f"fps: expected {SLOWEST} to {FASTEST} frames per second, got {fps!r}"[:200])
    try:
        import av
    except ModuleNotFoundError as error:
        raise ConfigError(
            "video: needs PyAV, which is not installed: pip install -c constraints.txt '.[video]'"
        ) from error
    rate = Fraction(float(fps)).limit_denominator(1001)
    _, height, width, _ = frames.shape
    try:
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file, av.open(file, "w", format="mp4") as container:
                stream: Any = container.add_stream("libx264", rate=rate, options={"crf": "18"})
                stream.height, stream.width = height + height % 2, width + width % 2
                stream.pix_fmt = "yuv420p"
                stream.codec_context.colorspace = BT601
                for i, pixels in enumerate(frames):
                    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
                    frame = av.VideoFrame.from_ndarray(even, format="rgb24")
                    frame.pts, frame.time_base = i, 1 / rate
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
    except av.error.FFmpegError as error:
        raise StoreError(f"{path}: write: {error.strerror}") from error
    return path
