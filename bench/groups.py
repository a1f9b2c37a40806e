"""What a video frame costs a reader: decoding a group of pictures, and YUV to RGB. One thread, 256x256.

    python bench/groups.py                                  # simulated kitchens, encoded as LeRobot encodes
    python bench/groups.py lerobot/web_video/videos         # frames of real videos, resized and encoded anew

Microseconds of one thread's CPU time, the least of several rounds, so they are those of a core whatever else
the machine does. `bare` is PyAV alone: one decoder kept open, and `to_ndarray`, which LeRobot's reader calls.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from oxcart.compile import census
from oxcart.compile.images import Resize, decode_into
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.sources.videos.pixels import Planes
from oxcart.shards.video import access_units, decode_frames, decode_group, encode_av1
from oxcart.shards.video.pixels import _by_swscale, _by_tables, _kind, paint

Frames = npt.NDArray[np.uint8]

SIZE, FRAMES, ROUNDS = 256, 240, 7
EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT
"""Flags with which swscale promises the same integers everywhere."""


def main() -> None:
    """Print a table of conversions and one of groups of 2 and of 8 frames."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("folder", nargs="?", type=Path)
    folder = options.parse_args().folder
    frames = simulated() if folder is None else recorded(folder)
    cv2.setNumThreads(1)
    conversions(frames)
    for most in (2, 8):
        groups(frames, most)


def simulated(folder: Path = Path("scratch/bench/codecs")) -> Frames:
    """Frames [T, H, W, 3] of simulated kitchens, which are written once."""
    root = folder / "oxcart_kitchens" / "1.0.0"
    if not (root / "dataset_info.json").exists():
        write_rlds(folder, RldsSampleConfig(kitchens=4, sessions=1, episodes=2, steps=38, size=SIZE, files=1))
    config = SourceConfig(url=str(root))
    source = open_source(config)
    camera = source.cameras[0].name
    rows = census.take(config, workers=1, report=lambda done, size: None).usable.slice(0, 7).to_pylist()
    images = [image for row in rows for image in source.read(row).images[camera]][:FRAMES]
    frames = np.empty((len(images), SIZE, SIZE, 3), np.uint8)
    for frame, image in zip(frames, images, strict=True):
        decode_into(frame, image, (SIZE, SIZE), Resize())
    return frames


def recorded(folder: Path) -> Frames:
    """The first frames [T, H, W, 3] of the videos in a folder, resized."""
    found: list[Frames] = []
    for path in sorted(folder.rglob("*.mp4")):
        with av.open(str(path)) as file:
            for frame in file.decode(video=0):
                found.append(frame.to_ndarray(width=SIZE, height=SIZE, format="rgb24"))
                if len(found) == FRAMES:
                    return np.stack(found)
    return np.stack(found)


def conversions(frames: Frames) -> None:
    """Print what each way to RGB takes, and how far it is from what LeRobot reads."""
    sample = VideoFrame.from_ndarray(frames[0]).reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG
    )
    kind, out, reference = _kind(sample), np.empty_like(frames[0]), sample.to_ndarray(format="rgb24")
    convert = VideoReformatter()

    def swscale(flags: Interpolation) -> None:
        found = convert.reformat(sample, format="rgb24", interpolation=flags, threads=1)
        out[:] = np.ndarray(
            out.shape, np.uint8, memoryview(found.planes[0]), 0, (found.planes[0].line_size, 3, 1)
        )

    def opencv() -> None:
        levels = [
            np.ndarray((one.height, one.width), np.uint8, memoryview(one), 0, (one.line_size, 1))
            for one in sample.planes
        ]
        Planes(*levels, "601", False).rgb(out)

    ways: dict[str, Callable[[], object]] = {
        "paint": partial(paint, sample, out),
        "tables": partial(_by_tables, sample, kind, out),
        "swscale as LeRobot calls it": partial(_by_swscale, sample, kind, out, Interpolation.BILINEAR),
        "swscale, exact, bilinear": partial(swscale, EXACT | Interpolation.BILINEAR),
        "swscale, exact, point": partial(swscale, EXACT | Interpolation.POINT),
        "OpenCV, sums of 512ths": opencv,
    }
    print("| conversion | us | levels off: most | mean |\n| --- | --- | --- | --- |")
    for name, way in ways.items():
        spent = least(way, 1)
        off = np.abs(out.astype(int) - reference)
        print(f"| {name} | {spent:.0f} | {off.max()} | {off.mean():.2f} |")


def groups(frames: Frames, most: int) -> None:
    """Print what frames of groups of `most` take to decode and convert."""
    started = time.process_time()
    encoded = encode_av1(frames, 30, most)
    encoding = (time.process_time() - started) / len(frames)
    size = sum(map(len, encoded.chunks)) / len(frames)
    print(f"\ngroups of {most}: {size:,.0f} bytes per frame, {encoding * 1e3:.1f} ms to encode\n")
    assert encoded.frames is not None
    chunks = list(zip(encoded.chunks, encoded.frames, strict=True))
    out = np.empty((most, *frames.shape[1:]), np.uint8)
    wanted = np.random.default_rng(0).integers(0, encoded.frames).tolist()
    units = [access_units("av1", chunk) for chunk in encoded.chunks]
    opened = av.CodecContext.create("libdav1d", "r")
    assert isinstance(opened, VideoCodecContext)
    opened.thread_count, opened.options = 1, {"max_frame_delay": "1"}

    def bare(last: list[int], rgb: bool) -> None:
        for packets, number in zip(units, last, strict=True):
            for packet in packets[: number + 1]:
                (frame,) = opened.decode(av.Packet(packet))
            if rgb:
                frame.to_ndarray(format="rgb24", threads=1)

    def all_bare() -> None:
        for packets in units:
            for packet in packets:
                for frame in opened.decode(av.Packet(packet)):
                    frame.to_ndarray(format="rgb24", threads=1)

    def all_frames() -> None:
        for chunk, count in chunks:
            decode_group("av1", chunk, out[:count])

    def one_each() -> None:
        for (chunk, _), number in zip(chunks, wanted, strict=True):
            decode_frames("av1", chunk, {number: out[0]})

    ends = [count - 1 for _, count in chunks]
    print("| frames | us per frame | bare |\n| --- | --- | --- |")
    for name, mine, theirs, number in (
        ("all, decoded", None, partial(bare, ends, False), len(frames)),
        ("all, as RGB", all_frames, all_bare, len(frames)),
        ("one per group, as RGB", one_each, partial(bare, wanted, True), len(chunks)),
    ):
        spent = "" if mine is None else f"{least(mine, number):.0f}"
        print(f"| {name} | {spent} | {least(theirs, number):.0f} |")


def least(work: Callable[[], object], number: int) -> float:
    """Microseconds of CPU time for one of `number` things done at a time, the least of all rounds."""
    rounds = []
    for _ in range(ROUNDS if number > 1 else 100 * ROUNDS):
        started = time.thread_time()
        work()
        rounds.append((time.thread_time() - started) / number * 1e6)
    return min(rounds)


if __name__ == "__main__":
    main()
