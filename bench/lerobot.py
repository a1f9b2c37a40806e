"""LeRobot datasets beside LeRobot and beside what the machine can do. Ratios of one run, beside their bars.

    python3.12 -m venv /tmp/peers-lerobot && /tmp/peers-lerobot/bin/pip install 'lerobot[dataset]==0.6.1'
    python bench/lerobot.py                                  # all parts; LeRobot is left out if it is absent
    python bench/lerobot.py --only census memory             # some of the parts
    python bench/lerobot.py --lerobot /opt/lerobot/bin/python

The frames are simulated episodes of about 38 frames of 256x256, in videos of AV1 with a key frame every
second frame, in the page cache. `copy` writes the bytes of the source as durably as a compile writes its
shards; `decoding alone` is PyAV on one thread, beside a compile by one worker, and what counts of both is the
processor's time. LeRobot reads the very dataset that is compiled, in the order of the loader.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import lerobot_pairs
import numpy as np
import pyarrow.parquet as pq
from lerobot_pairs import BATCH
from lerobot_sets import repeated, write_set
from link_server import serving
from read_windows import rate

from oxcart.cli.benchmark import measure
from oxcart.compile import census as census_module
from oxcart.compile.pipeline import CompileConfig, execute, prepare
from oxcart.compile.plan import Settings
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.split import SplitRule
from oxcart.shards.codec import Encoding
from oxcart.shards.store import Store
from oxcart.shards.video.pixels import paint
from oxcart.train.data import Loader, Pairs

OFFSET = 8
PAIRS = Pairs(frames=OFFSET)
ROUNDS = 3
LINE = 100_000_000
"""Bytes per second of a slow line."""
BLOCK = 8 << 20


def main() -> None:
    """Measure, and print a line for each bar."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--scratch", type=Path, default=Path("scratch/bench"))
    options.add_argument("--episodes", type=int, default=100, help="of the dataset that is read and decoded")
    options.add_argument("--times", type=int, default=10, help="as many, in the dataset that is copied")
    options.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    options.add_argument(
        "--lerobot",
        metavar="PYTHON",
        default=os.environ.get("LEROBOT_PYTHON", "/tmp/peers-lerobot/bin/python"),
        help="interpreter with LeRobot 0.6.1  [default: $LEROBOT_PYTHON, else that of /tmp/peers-lerobot]",
    )
    options.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    chosen = options.parse_args()
    base = write_set(chosen.scratch, chosen.episodes)
    for name in chosen.only:
        print(f"\n== {name}", flush=True)
        PARTS[name](chosen, base)


def copy(chosen: Any, base: Path) -> None:
    """Compile the source's own packets, beside copying the bytes of the source."""
    source = repeated(base, chosen.scratch / f"lerobot-{chosen.episodes}x{chosen.times}", chosen.times)
    files = [path for path in source.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    compiled, copied = [], []
    out = chosen.scratch / "lerobot-copy"
    for _ in range(ROUNDS):
        compiled.append(timed(lambda: compile_(source, out, "video", overwrite=True)))
        copied.append(timed(lambda: copy_files(files, chosen.scratch / "lerobot-copied")))
    made = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    ours, bare = size / min(compiled), size / min(copied)
    print(
        f"compile of codec video: {ours / 1e6:,.0f} MB/s; copy {bare / 1e6:,.0f} MB/s: {ours / bare:.0%} "
        f"(bar 70%); {made / size:.3f} x the size of the source (bar 1.05)"
    )


def pairs(chosen: Any, base: Path) -> None:
    """Random pairs: beside LeRobotDataset on the same bytes, and beside decoding what is wanted."""
    out = compile_(base, chosen.scratch / "lerobot-video", "video")
    ours, decoded = [], []
    for _ in range(ROUNDS):
        ours.append(rate(loader_of(out), chosen.seconds))
        decoded.append(decoding(out, chosen.seconds))
    best, alone = max(ours), max(decoded)
    print(f"{best:,.0f} pairs/s; decoding alone {alone:,.0f}: {best / alone:.0%} (bar 80%)", flush=True)
    if not Path(chosen.lerobot).exists():
        print(f"LeRobotDataset: left out, since there is no {chosen.lerobot}")
        return
    order = chosen.scratch / "lerobot-order.npy"
    np.save(order, order_of(out, base))
    found = lerobot_pairs.measure(base, order, OFFSET, chosen.lerobot, chosen.seconds)
    decoder, workers = found["way"]
    print(
        f"LeRobotDataset: {found['pairs_per_s']:,.0f} pairs/s ({decoder}, {workers} workers): "
        f"{best / found['pairs_per_s']:.2f} x (bar 1.4)"
    )
    for way, tried in found["tried"].items():
        print(f"    {way}: {tried:,.0f}")


def line(chosen: Any, base: Path) -> None:
    """Random pairs over a line of 100 MB/s, beside the line or decoding, whichever is slower."""
    out = compile_(base, chosen.scratch / "lerobot-video", "video")
    alone = decoding(out, chosen.seconds)
    with serving(out.parent, limit=LINE) as server:
        batches = iter(loader_of(f"{server.url}/{out.name}"))
        for _ in itertools.islice(batches, 16):
            pass
        began, before, number = time.perf_counter(), server.sent(), 0
        while time.perf_counter() - began < 2 * chosen.seconds:
            number += len(next(batches))
        passed, sent = time.perf_counter() - began, server.sent() - before
    bound = min(LINE * number / sent, alone)
    print(
        f"{number / passed:,.0f} pairs/s of {sent / number / 1e3:,.1f} KB; the line allows "
        f"{LINE * number / sent:,.0f}, decoding {alone:,.0f}: {number / passed / bound:.0%} (bar 95%)"
    )


def decode(chosen: Any, base: Path) -> None:
    """Compile to raw frames and to JPEG, beside decoding alone."""
    films = sorted(base.rglob("*.mp4"))
    best: dict[str, float] = {}
    frames = 0
    for number in range(ROUNDS):
        began = time.process_time()
        frames = sum(decode_film(path) for path in films)
        keep(best, "decoding", began)
        began = time.process_time()
        for path in films:
            decode_film(path, convert=True)
        keep(best, "converting", began)
        for codec in ("raw", "jpeg"):
            began = time.process_time()
            compile_(base, chosen.scratch / f"lerobot-{codec}-{number}", codec, overwrite=True)
            keep(best, codec, began)
    for codec in ("raw", "jpeg"):
        shares = [best[alone] / best[codec] for alone in ("decoding", "converting")]
        print(
            f"{codec}: {frames / best[codec]:,.0f} frames/s; decoding alone "
            f"{frames / best['decoding']:,.0f}: {shares[0]:.0%} (bar 85%); and converting to RGB "
            f"{frames / best['converting']:,.0f}: {shares[1]:.0%}"
        )


def census(chosen: Any, base: Path) -> None:
    """Census of 1,000 episodes in 20 files, here and from a server."""
    tenth = write_set(chosen.scratch, 100)
    source = repeated(tenth, chosen.scratch / "lerobot-census", 10)
    files = [*source.glob("data/*/*"), *source.glob("videos/*/*/*")]
    config = SourceConfig(url=str(source), kind="lerobot")
    opening, taking, count = [], [], 0
    for _ in range(3 * ROUNDS):
        began = time.perf_counter()
        opened = open_source(config)
        opening.append(time.perf_counter() - began)
        began = time.perf_counter()
        count = census_module.take(config, workers=1, report=ignore, source=opened).usable.num_rows
        taking.append(time.perf_counter() - began)
    print(
        f"{count / min(taking):,.0f} episodes/s, {count:,} in {len(files)} files (bar 20,000); "
        f"opening the source takes {min(opening) * 1e3:,.0f} ms more",
        flush=True,
    )
    with serving(source.parent) as server:
        there = SourceConfig(url=f"{server.url}/{source.name}", kind="lerobot")
        opened = open_source(there)
        before = server.requests()
        census_module.take(there, workers=1, report=ignore, source=opened)
        print(f"from a server: {(server.requests() - before) / len(files):.1f} requests per file")


def memory(chosen: Any, base: Path) -> None:
    """Peak memory of a compile of codec video, and of ten times as many episodes."""
    peaks = []
    for times in (1, 10):
        source = repeated(base, chosen.scratch / f"lerobot-{chosen.episodes}x{times}", times)
        code = (
            "import resource, sys\n"
            f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "from pathlib import Path\n"
            "from lerobot import compile_\n"
            "compile_(Path(sys.argv[1]), Path(sys.argv[2]), 'video', overwrite=True)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)\n"
        )
        command = [sys.executable, "-c", code, str(source), str(chosen.scratch / "lerobot-memory")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout))
    few, many = peaks
    print(
        f"{few:,.0f} MiB for {chosen.episodes} episodes, {many:,.0f} for ten times as many: "
        f"{many / few:.2f} x (bar: flat)"
    )


PARTS: dict[str, Callable[[Any, Path], None]] = {
    "census": census,
    "copy": copy,
    "memory": memory,
    "decode": decode,
    "pairs": pairs,
    "line": line,
}


def compile_(source: Path, out: Path, codec: str, *, overwrite: bool = False) -> Path:
    """Compile all episodes into train, by one worker."""
    settings = Settings(rule=SplitRule(val=None), encoding=Encoding(codec=codec))
    config = SourceConfig(url=str(source), kind="lerobot")
    execute(
        prepare(CompileConfig(source=config, out=str(out), settings=settings, workers=1, overwrite=overwrite))
    )
    return out


def loader_of(path: Path | str) -> Loader:
    return Loader(str(path), sample=PAIRS, batch_size=BATCH)


def decoding(path: Path, seconds: float) -> float:
    """Pairs per second of decoding their frames, and converting them, from memory on all threads."""
    report = measure(loader_of(path), seconds)
    return next(stage.samples_per_s for stage in report.stages if stage.name == "decode")


def order_of(path: Path, base: Path) -> Any:
    """Index in the LeRobot dataset of the first frame of each pair of an epoch or so."""
    table = pq.read_table(base / "meta/episodes", columns=["dataset_from_index"])
    first = table["dataset_from_index"].to_numpy()
    found: list[int] = []
    for batch in itertools.islice(loader_of(path), 64):
        numbers = [int(key.rpartition("-")[2]) for key in batch.key]
        found += (first[numbers] + batch.t.numpy()).tolist()
    return np.array(found)


def copy_files(files: list[Path], out: Path) -> None:
    """Copy the bytes of some files into one as durably as a shard is written."""
    with Store(out).writer("bytes") as target:
        for path in files:
            with open(path, "rb") as file:
                while block := file.read(BLOCK):
                    target.write(block)


def decode_film(path: Path, *, convert: bool = False) -> int:
    """Frames of a video, which PyAV decodes on one thread, and converts to RGB if that is asked for."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        out = np.empty((stream.height, stream.width, 3), np.uint8)
        count = 0
        for frame in container.decode(stream):
            if convert:
                paint(frame, out)
            count += 1
        return count


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def keep(best: dict[str, float], name: str, began: float) -> None:
    """Keep the least of the processor's seconds."""
    best[name] = min(best.get(name, float("inf")), time.process_time() - began)


def ignore(count: int, size: int) -> None:
    """A report that tells nobody."""


if __name__ == "__main__":
    main()
