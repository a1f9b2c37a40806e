"""What a compile of videos does beside decoding: the census, and the execution, against PyAV decoding alone.

    python bench/video.py                          # a drawn set, written to a temporary folder
    python bench/video.py DIR --size 256           # a folder of videos

Both are measured in one process and with one thread, which is how each worker of a compile runs, and
alternately with decoding, so that whatever else the machine does falls on all of them; a ratio is that of
the best runs. Bars: 85% of the frames/s of decoding for the execution, 70% for the census.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av

from oxcart.compile import census as census_module
from oxcart.compile.images import Resize
from oxcart.compile.pipeline import CompileConfig, execute, prepare
from oxcart.compile.plan import Settings
from oxcart.compile.sample.videos import SampleConfig, draw_scene, write_video, write_videos
from oxcart.compile.sources import open_source, video_survey
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.sources.video_config import VideoConfig
from oxcart.manifests.split import SplitRule
from oxcart.shards.store import Store


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", nargs="?", help="a folder of videos instead of drawn ones")
    parser.add_argument("--size", type=int, default=256, help="pixels of a side of the compiled frames")
    parser.add_argument("--height", type=int, default=360, help="pixels of drawn videos")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each drawn shot")
    parser.add_argument("--rate", type=Fraction, default=Fraction(10), help="steps a second")
    parser.add_argument("--passes", type=int, default=3, help="of everything")
    parser.add_argument(
        "--memory", type=int, metavar="SECONDS", help="the peak memory for one video this long"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oxcart-bench-") as folder:
        if options.memory:
            _memory(Path(folder), options.memory, options.size)
            return
        source = Path(options.directory) if options.directory else Path(folder) / "videos"
        if not options.directory:
            sample = SampleConfig(
                channels=3, videos=2, shots=3, seconds=options.seconds, height=options.height
            )
            write_videos(source, sample)
        _measure(source, Path(folder), options.size, options.rate, options.passes)


def _measure(source: Path, folder: Path, size: int, rate: Fraction, passes: int) -> None:
    video = VideoConfig(rate=rate)
    config = SourceConfig(url=str(source), kind="videos", video=video)
    census = census_module.take(config, workers=1, report=lambda done, size: None)
    usable = set(census.usable["source_file"].to_pylist())
    files = [name for name in open_source(config).files() if name in usable]
    (folder / "census.parquet").write_bytes(census.to_bytes())
    store = Store(source)
    best: dict[str, float] = {}
    frames = covered = 0
    for _ in range(passes):
        began = time.perf_counter()
        frames = sum(_decode(source / name) for name in files)
        _keep(best, "decode", began)
        began = time.perf_counter()
        for name in files:
            video_survey.survey(store, name, video, None)
        _keep(best, "census", began)
        out = CompileConfig(
            source=config,
            out=str(folder / "out"),
            settings=Settings(rule=SplitRule(val=None), resize=Resize(size=(size, size), fit="crop")),
            census=str(folder / "census.parquet"),
            on_error="reject",
            overwrite=True,
            workers=1,
        )
        prepared = prepare(out)
        began = time.perf_counter()
        execute(prepared)
        _keep(best, "execute", began)
        covered = prepared.frames
    print(f"{len(files)} videos, {frames:,} frames; made {covered:,} of {size}x{size} at {float(rate):g} Hz")
    for name, seconds in best.items():
        share = best["decode"] / seconds
        print(f"{name:8} {frames / seconds:8,.0f} source frames/s  {share:5.0%} of decoding")


def _decode(path: Path) -> int:
    """What PyAV alone does, with one thread."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return sum(1 for _ in container.decode(stream))


def _keep(best: dict[str, float], name: str, began: float) -> None:
    best[name] = min(best.get(name, float("inf")), time.perf_counter() - began)


def _memory(folder: Path, seconds: int, size: int) -> None:
    """The peak of the processes that compile one long 1080p video: a second, drawn, to and fro."""
    (folder / "vids").mkdir()
    some = list(draw_scene("long", 24, (1080, 1920)))
    pictures = ((some + some[::-1])[i % 48] for i in range(24 * seconds))
    write_video(folder / "vids" / "long.mp4", pictures, options={"preset": "ultrafast"})
    command = [
        sys.executable,
        "-m",
        "oxcart.cli.main",
        "compile",
        f"videos:{folder / 'vids'}",
        str(folder / "out"),
    ]
    how = ["--val", "none", "--size", str(size), "--workers", "1", "--shard-size", "1MB"]
    subprocess.run([*command, *how], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"{seconds} s of 1080p: {peak >> 10} MiB in the largest process")


if __name__ == "__main__":
    main()
