"""What a compile of videos does beside decoding: the census, and the execution, against PyAV decoding alone.

    python bench/video.py                          # a drawn set, as web video of 240, 480 and 1080 lines
    python bench/video.py DIR                      # a folder of videos, as they are
    python bench/video.py DIR --lines 480 1080     # and made as large as web video usually is
    python bench/video.py --memory 24 --lines 1080 # the peak memory for a long video
    python bench/video.py --memory 3600 --lines 240

Both are measured in one process and with one thread, which is how each worker of a compile runs, and
alternately with decoding. What counts is the processor's time, of all threads: on a machine that does other
work, too, the clock measures that. A ratio is that of the best passes. Bars: 85% of the frames/s of decoding
for the execution, 70% for the census.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from oxcart.compile import census as census_module
from oxcart.compile.images import Frame, Resize
from oxcart.compile.pipeline import CompileConfig, execute, prepare
from oxcart.compile.plan import Settings
from oxcart.compile.sample.videos import VideoSampleConfig, draw_scene, write_video, write_videos
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.sources.videos.config import VideoConfig
from oxcart.compile.sources.videos.survey import survey
from oxcart.manifests.split import SplitRule
from oxcart.shards.store import Store

LINES = (240, 480, 1080)
BITS_PER_PIXEL = 0.08
"""Bits per pixel of web video in H.264: 1 Mb/s for 480 lines, 5 Mb/s for 1080."""
GRAIN = 4
"""Standard deviation of the noise added to enlarged frames, whose cameras' own noise is lost with detail."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", nargs="?", help="a folder of videos instead of drawn ones")
    parser.add_argument("--size", type=int, default=256, help="pixels of a side of the compiled frames")
    parser.add_argument("--lines", type=int, nargs="+", help="lines of the videos; none keeps those of DIR")
    parser.add_argument("--frames", type=int, default=160, help="of each enlarged video")
    parser.add_argument("--copies", type=int, default=4, help="of each video, so that there is enough to do")
    parser.add_argument("--rate", type=Fraction, default=Fraction(10), help="steps per second")
    parser.add_argument("--passes", type=int, default=3, help="of everything")
    parser.add_argument(
        "--memory", type=int, metavar="SECONDS", help="the peak memory for one video this long"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oxcart-bench-") as folder:
        if options.memory:
            _memory(Path(folder), options.memory, (options.lines or [1080])[0], options.size)
            return
        source = Path(options.directory) if options.directory else Path(folder) / "drawn"
        if not options.directory:
            write_videos(source, VideoSampleConfig(channels=3, videos=1, shots=3, height=240))
        for lines in options.lines or ([None] if options.directory else LINES):
            videos = Path(folder) / f"videos-{lines}"
            _copy(source, videos, lines, options.frames, options.copies)
            _measure(videos, Path(folder), options.size, options.rate, options.passes)


def _copy(source: Path, videos: Path, lines: int | None, frames: int, copies: int) -> None:
    """The usable videos of a folder, several times, enlarged to so many lines."""
    census = _census(SourceConfig(url=str(source), kind="videos"))
    for name in sorted(set(census.usable["source_file"].to_pylist())):
        path = source / name
        if lines is not None:
            path = videos / "0" / f"{Path(name).stem.replace('[', '').replace(']', '')}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            _enlarge(source / name, path, lines, frames)
        for copy in range(copies if lines is None else copies - 1):
            other = videos / str(copy + 1) / f"{copy + 1} {path.name.replace('[', '').replace(']', '')}"
            other.parent.mkdir(parents=True, exist_ok=True)
            other.write_bytes(path.read_bytes())


def _enlarge(source: Path, path: Path, lines: int, frames: int) -> None:
    """Encode the beginning of a video anew, larger and with grain, at the bit rate of web video."""
    grain = np.random.Generator(np.random.PCG64(0)).normal(0, GRAIN, (lines + 64, lines * 4)).astype(np.int16)
    with av.open(str(source)) as container, av.open(str(path), "w") as made:
        stream = container.streams.video[0]
        rate = stream.average_rate or Fraction(25)
        out: Any = made.add_stream("libx264", rate=rate)
        out.height, out.width = lines, stream.width * lines // stream.height // 2 * 2
        out.pix_fmt, out.bit_rate = "yuv420p", int(out.height * out.width * float(rate) * BITS_PER_PIXEL)
        out.codec_context.time_base = 1 / rate
        out.options = {"preset": "fast", "g": "150"}
        for i, frame in zip(range(frames), container.decode(stream), strict=False):
            planes = frame.reformat(out.width, lines, "yuv420p", interpolation="BICUBIC").to_ndarray()
            top = i * 29 % 64
            light = planes[:lines] + grain[top : top + lines, : out.width]
            planes[:lines] = np.clip(light, 0, 255)
            larger = av.VideoFrame.from_ndarray(planes, "yuv420p")
            larger.pts, larger.time_base = i, 1 / rate
            made.mux(out.encode(larger))
        made.mux(out.encode(None))


def _measure(source: Path, folder: Path, size: int, rate: Fraction, passes: int) -> None:
    video = VideoConfig(rate=rate)
    config = SourceConfig(url=str(source), kind="videos", video=video)
    files = open_source(config).files()
    census = _census(config)
    (folder / "census.parquet").write_bytes(census.to_bytes())
    store = Store(source)
    best: dict[str, float] = {}
    frames = covered = 0
    for number in range(passes):
        began = time.process_time()
        frames = sum(_decode(source / name) for name in files)
        _keep(best, "decode", began)
        began = time.process_time()
        for name in files:
            survey(store, name, video, None)
        _keep(best, "census", began)
        out = CompileConfig(
            source=config,
            out=str(folder / f"{source.name}-{number}"),
            settings=Settings(rule=SplitRule(val=None), resize=Resize(size=(size, size), fit="crop")),
            census=str(folder / "census.parquet"),
            on_error="reject",
            workers=1,
        )
        prepared = prepare(out)
        began = time.process_time()
        execute(prepared)
        _keep(best, "execute", began)
        covered = prepared.frames
    sizes = {f"{row['video.height']}x{row['video.width']}" for row in census.usable.to_pylist()}
    print(
        f"{len(files)} videos of {', '.join(sorted(sizes))}, {frames:,} frames; "
        f"made {covered:,} of {size}x{size} at {float(rate):g} Hz"
    )
    for name, seconds in best.items():
        share = best["decode"] / seconds
        print(f"{name:8} {frames / seconds:8,.0f} source frames/s  {share:5.0%} of decoding")


def _census(config: SourceConfig) -> census_module.Census:
    return census_module.take(config, workers=1, report=lambda done, size: None)


def _decode(path: Path) -> int:
    """What PyAV alone does, with one thread."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return sum(1 for _ in container.decode(stream))


def _keep(best: dict[str, float], name: str, began: float) -> None:
    best[name] = min(best.get(name, float("inf")), time.process_time() - began)


def _memory(folder: Path, seconds: int, lines: int, size: int) -> None:
    """The peak of the processes that compile one long video, all of it and then two scenes of it."""
    (folder / "vids").mkdir()
    video = folder / "vids" / "long.mp4"
    write_video(video, _long(seconds, lines), fps=10, keys=100, options={"preset": "ultrafast"})
    for what in ("all of it", "two scenes of it"):
        command = [sys.executable, "-m", "oxcart.cli.main", "compile", f"videos:{folder / 'vids'}"]
        how = ["--val", "none", "--size", str(size), "--workers", "1", "--shard-size", "64MB", "--quiet"]
        began = time.perf_counter()
        process = subprocess.Popen([*command, str(folder / what.replace(" ", "-")), *how])
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, f"the compile ended with {status}"
        took, peak = time.perf_counter() - began, usage.ru_maxrss >> 10
        print(f"{seconds} s of {lines} lines, {what}: {peak} MiB in the largest process, {took:.1f} s")
        middle = seconds * 5
        scenes = f"start_frame,end_frame\n{middle},{middle + 50}\n{2 * middle - 50},{2 * middle}\n"
        (video.parent / "scenes.csv").write_text(scenes)


def _long(seconds: int, lines: int) -> Iterator[Frame]:
    """Ten frames a second; a new scene, drawn to and fro, every minute."""
    for minute in range(-(-seconds // 60)):
        some = list(draw_scene(f"minute {minute}", 20, (lines, lines * 16 // 9 // 2 * 2)))
        for i in range(min(600, 10 * (seconds - 60 * minute))):
            yield (some + some[::-1])[i % 40]


if __name__ == "__main__":
    main()
