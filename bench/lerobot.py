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
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import lerobot_pairs
import numpy as np
import pyarrow.parquet as pq
from av.video.frame import VideoFrame
from blake3 import blake3
from lerobot_pairs import BATCH
from lerobot_sets import repeated, write_set
from link_server import serving
from read_windows import rate
from xxhash import xxh3_64_intdigest

from oxcart.cli.benchmark import SampleChunks, calls_per_s, measure
from oxcart.compile import census as census_module
from oxcart.compile.pipeline import CompileConfig, execute, prepare
from oxcart.compile.plan import Settings
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.split import SplitRule
from oxcart.shards.codec import QUALITIES, Encoding
from oxcart.shards.jpeg import encode_jpeg
from oxcart.shards.store import Store
from oxcart.shards.video.pixels import paint
from oxcart.train.data import Loader, Pairs
from oxcart.train.data.workers import Workers, own_cores

OFFSET = 8
PAIRS = Pairs(frames=OFFSET)
ROUNDS = 3
LINE = 100_000_000
"""Bytes per second of a slow line."""
BLOCK = 8 << 20
QUALITY = QUALITIES["jpeg"][2]


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
    compiled, copied, hashed = [], [], []
    out, other = chosen.scratch / "lerobot-copy", chosen.scratch / "lerobot-copied"
    for _ in range(ROUNDS):
        compiled.append(timed(lambda: compile_(source, out, "video", overwrite=True)))
        copied.append(timed(lambda: copy_files(files, other)))
        hashed.append(timed(lambda: copy_files(files, other, digests=True)))
    made = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    ours, bare, least = (size / min(one) for one in (compiled, copied, hashed))
    episodes = chosen.episodes * chosen.times
    print(
        f"compile of codec video: {ours / 1e6:,.0f} MB/s; copy {bare / 1e6:,.0f} MB/s: {ours / bare:.0%} "
        f"(bar 70%), and with both digests of a shard {least / 1e6:,.0f} MB/s: {ours / least:.0%}; "
        f"{min(compiled) / episodes * 1e3:.2f} ms per episode of {size / episodes / 1e3:,.0f} KB; "
        f"{made / size:.3f} x the size of the source (bar 1.05)"
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
    """Random pairs over a line of 100 MB/s, beside the line or decoding, whichever is slower.

    The server takes its share of the same cores, as no server of a bucket does. So what a bare loop gets from
    it is measured as well.
    """
    out = compile_(base, chosen.scratch / "lerobot-video", "video")
    alone = decoding(out, chosen.seconds)
    with serving(out.parent, limit=LINE) as server:
        url = f"{server.url}/{out.name}"
        bare = asking(url, chosen.seconds)
        batches = iter(loader_of(url))
        for _ in itertools.islice(batches, 16):
            pass
        began, before, asked, number = time.perf_counter(), server.sent(), server.requests(), 0
        mine, its = time.process_time(), server.cpu_s()
        while time.perf_counter() - began < 2 * chosen.seconds:
            number += len(next(batches))
        passed, sent = time.perf_counter() - began, server.sent() - before
        mine, its = time.process_time() - mine, server.cpu_s() - its
        asked = server.requests() - asked
    found, allowed = number / passed, LINE * number / sent
    print(
        f"{found:,.0f} pairs/s of {sent / number / 1e3:,.1f} KB; the line allows {allowed:,.0f}, decoding "
        f"{alone:,.0f}: {found / min(allowed, alone):.0%} (bar 95%)\n"
        f"a bare loop that asks the same server and decodes: {bare:,.0f}: {found / min(allowed, bare):.0%}\n"
        f"CPU per pair: {mine / number * 1e6:,.0f} us here, {its / number * 1e6:,.0f} us of the server for "
        f"{asked / number:.1f} requests, decoding alone {own_cores() / alone * 1e6:,.0f}; "
        f"{(mine + its) / passed / own_cores():.0%} of {own_cores()} cores are busy"
    )


def decode(chosen: Any, base: Path) -> None:
    """Compile to raw frames and to JPEG, beside decoding alone and beside all that a frame needs."""
    films = sorted(base.rglob("*.mp4"))
    best: dict[str, float] = {}
    frames = 0
    for number in range(ROUNDS):
        began = time.process_time()
        frames = sum(1 for path in films for _ in shown(path))
        keep(best, "decoding", began)
        began = time.process_time()
        for path in films:
            for _ in painted(path):
                pass
        keep(best, "converting", began)
        for codec in ("raw", "jpeg"):
            began = time.process_time()
            store_films(films, chosen.scratch / "lerobot-copied", codec)
            keep(best, f"storing {codec}", began)
            began = time.process_time()
            compile_(base, chosen.scratch / f"lerobot-{codec}-{number}", codec, overwrite=True)
            keep(best, codec, began)
    for codec in ("raw", "jpeg"):
        bounds = "decoding", "converting", f"storing {codec}"
        shares = [best[bound] / best[codec] for bound in bounds]
        print(
            f"{codec}: {frames / best[codec]:,.0f} frames/s; decoding alone "
            f"{frames / best['decoding']:,.0f}: {shares[0]:.0%} (bar 85%); and converting to RGB "
            f"{frames / best['converting']:,.0f}: {shares[1]:.0%}; and encoding, digests and writing "
            f"{frames / best[bounds[2]]:,.0f}: {shares[2]:.0%}, "
            f"which is {shares[0] / shares[2]:.0%} of decoding alone"
        )


def census(chosen: Any, base: Path) -> None:
    """Census of 1,000 episodes in 20 files, here and from a server.

    LeRobot writes a row group per episode, `oxcart export` one of many episodes.
    """
    tenth = write_set(chosen.scratch, 100)
    for apart, what in ((True, "a row group per episode"), (False, "row groups of fifty episodes")):
        source = repeated(tenth, chosen.scratch / f"lerobot-census{'-apart' * apart}", 10, apart=apart)
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
            f"{what}: {count / min(taking):,.0f} episodes/s, {count:,} in {len(files)} files (bar 20,000); "
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


def asking(url: str, seconds: float) -> float:
    """Pairs per second of a bare loop, on the loader's threads, that reads chunks and decodes them."""
    loader = loader_of(url)
    view = loader.streams[0].views[0]
    relative = view.steps.reshape(-1).tolist()
    pairs = [
        SampleChunks(view.reader, episode, [t + step for step in relative])
        for episode, t in loader.locate_random(256)
    ]

    def both(pair: SampleChunks) -> None:
        pair.fetch()
        pair.decode()

    workers = Workers(loader.threads)
    found = calls_per_s(workers, seconds, loader.threads, [partial(both, pair) for pair in pairs])
    workers.close()
    return found


def order_of(path: Path, base: Path) -> Any:
    """Index in the LeRobot dataset of the first frame of each pair of an epoch or so."""
    table = pq.read_table(base / "meta/episodes", columns=["dataset_from_index"])
    first = table["dataset_from_index"].to_numpy()
    found: list[int] = []
    for batch in itertools.islice(loader_of(path), 64):
        numbers = [int(key.rpartition("-")[2]) for key in batch.key]
        found += (first[numbers] + batch.t.numpy()).tolist()
    return np.array(found)


def copy_files(files: list[Path], out: Path, *, digests: bool = False) -> None:
    """Copy the bytes of some files into one as durably as a shard is written, and with its two digests."""
    digest = blake3()
    with Store(out).writer("bytes") as target:
        for path in files:
            with open(path, "rb") as file:
                while block := file.read(BLOCK):
                    if digests:
                        xxh3_64_intdigest(block)
                        digest.update(block)
                    target.write(block)


def shown(path: Path) -> Iterator[VideoFrame]:
    """The frames of a video, which PyAV decodes on one thread."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        yield from container.decode(stream)


def painted(path: Path) -> Iterator[Any]:
    """The frames of a video as RGB, each in the memory of the one before."""
    out = np.empty((0, 0, 3), np.uint8)
    for frame in shown(path):
        if out.shape[:2] != (frame.height, frame.width):
            out = np.empty((frame.height, frame.width, 3), np.uint8)
        paint(frame, out)
        yield out


def store_films(films: list[Path], out: Path, codec: str) -> None:
    """Store the frames of videos with the two digests of a shard, and nothing else of a dataset."""
    digest = blake3()
    with Store(out).writer("bytes") as target:
        for path in films:
            for frame in painted(path):
                data = encode_jpeg(frame, QUALITY) if codec == "jpeg" else frame.reshape(-1).data
                xxh3_64_intdigest(data)
                digest.update(data)
                target.write(data)


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
