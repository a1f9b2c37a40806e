"""How fast shards are read: beside other loaders, and beside what the machine can do. Ratios of one run.

    python bench/read.py                                     # peers that --peers names are left out if absent
    python bench/read.py --peers /tmp/peers/bin/python --tensorflow /tmp/peers-tf/bin/python
    python bench/read.py --only windows --lerobot /tmp/peers-lerobot/bin/python
    python bench/read.py --only first-batch memory           # some of the parts

The frames are 400 simulated episodes of 38 frames of 256x256, in the page cache, in batches of 64 pairs; all
loaders get the same. Limits: `copy` is memory to memory of the same batches on as many threads as the loader
has; `decode` is decoding the chunks that are needed, on as many, from memory; `obstore` fetches the same
ranges with as many threads. bench/read_peers.py says how each peer is used, and how to install it.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from link_server import serving
from read_peers import measure as measure_peer
from read_peers import prepare
from read_windows import arrays, compare, compile_both, rate

from oxcart.cli.benchmark import measure
from oxcart.compile.pipeline import CompileConfig, execute
from oxcart.compile.pipeline import prepare as plan
from oxcart.compile.plan import Settings
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sources.base import SourceConfig
from oxcart.shards.codec import Encoding
from oxcart.train.data import Loader, Pairs

CODECS = ("raw", "zstd", "jpeg")
MODES: dict[str, Pairs] = {"one": Pairs(frames=8), "all": Pairs(frames=8, per_episode="all")}
BATCH = 64
ROUNDS = 3
WINDOWS_SHARE = 2
"""Windows of two cameras are read from so many times fewer episodes: enough that a chunk which is decoded for
one epoch is not kept for the next, which would flatter the loader."""


def main() -> None:
    """Measure, and print tables."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--scratch", type=Path, default=Path("scratch/bench"))
    options.add_argument("--episodes", type=int, default=400)
    options.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    options.add_argument("--peers", metavar="PYTHON", help="interpreter with webdataset, streaming, litdata")
    options.add_argument("--tensorflow", metavar="PYTHON", help="interpreter with TensorFlow and TFDS")
    options.add_argument("--lerobot", metavar="PYTHON", help="interpreter with LeRobot")
    options.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    chosen = options.parse_args()
    source, datasets = sample(chosen.scratch, chosen.episodes)
    for name in chosen.only:
        print(f"\n== {name}", flush=True)
        PARTS[name](chosen, source, datasets)


def sample(scratch: Path, episodes: int) -> tuple[Path, dict[str, Path]]:
    """The source, and a dataset of it in each codec, made once; all of it in the page cache."""
    source = write_source(scratch, episodes)
    datasets = {codec: scratch / f"read-{episodes}-{codec}" for codec in CODECS}
    for codec, out in datasets.items():
        config_of = SourceConfig(url=str(source), cameras=("image_0",))
        settings = Settings(encoding=Encoding(codec=codec), shard_size=128 << 20)
        execute(plan(CompileConfig(source=config_of, out=str(out), settings=settings)))
        for file in out.rglob("*.tar"):
            with open(file, "rb") as opened:
                while opened.read(1 << 24):
                    pass
    return source, datasets


def write_source(scratch: Path, episodes: int) -> Path:
    """The simulated episodes, written once."""
    source = scratch / f"source-{episodes}" / "oxcart_kitchens" / "1.0.0"
    if not (source / "dataset_info.json").exists():
        shutil.rmtree(source, ignore_errors=True)
        config = RldsSampleConfig(
            kitchens=10, sessions=2, episodes=max(1, episodes // 20), steps=38, size=256, files=8
        )
        write_rlds(source.parents[1], config)
    return source


def local(chosen: Any, source: Path, datasets: dict[str, Path]) -> None:
    """Directory: the loader, its limits, and the peers."""
    for codec, mode in itertools.product(CODECS, MODES):
        mine, limit = [], []
        for _ in range(ROUNDS):
            mine.append(rate(loader_of(datasets[codec], mode), chosen.seconds))
            limit.append(limits(datasets[codec], mode, chosen.seconds))
        ours, bound = max(mine), max(one[0] for one in limit)
        print(f"{codec}, {mode}: {ours:,.0f} pairs/s; {limit[0][1]} alone {bound:,.0f}: {ours / bound:.0%}")
        best, who = 0.0, "none"
        peers = [("webdataset", chosen.peers), ("mosaic", chosen.peers), ("litdata", chosen.peers)]
        peers += [("tf.data", chosen.tensorflow)] if codec == "jpeg" else []
        for peer, python in peers:
            if python:
                folder = prepare(peer, datasets[codec], source, chosen.scratch / "peers", python)
                found = measure_peer(peer, mode, codec, folder, python, chosen.seconds)
                print(
                    f"    {peer}: {found['pairs_per_s']:,.0f} ({found['layout']}, {found['workers']})",
                    flush=True,
                )
                if found["pairs_per_s"] > best:
                    best, who = found["pairs_per_s"], peer
        if best:
            print(f"    {ours / best:.1f} x the best peer, {who}", flush=True)


def loader_of(path: Path | str, mode: str, **options: Any) -> Loader:
    return Loader(str(path), sample=MODES[mode], batch_size=BATCH, **options)


def limits(path: Path, mode: str, seconds: float) -> tuple[float, str]:
    """Pairs per second that copying, or decoding each chunk as often as it must be, allows."""
    report = measure(loader_of(path, mode), max(2.0, seconds))
    stages = {stage.name: stage.samples_per_s for stage in report.stages}
    if report.codec == "raw":
        return stages["copy"], "copy"
    if mode == "one":
        return stages["decode"], "decode"
    # Each chunk once for all pairs: frames an epoch decodes, beside the pairs that it yields.
    forecast = next(one for one in report.forecasts if one.codec == report.codec)
    loader = loader_of(path, mode)
    frames = int(loader.streams[0].index.steps.sum())
    return forecast.decode_frames_per_s * len(loader.streams[0].order) / frames, "decode"


def digests(chosen: Any, source: Path, datasets: dict[str, Path]) -> None:
    """What checking every chunk costs."""
    for codec in CODECS:
        with_, without = [], []
        for _ in range(ROUNDS):
            with_.append(rate(loader_of(datasets[codec], "one"), chosen.seconds))
            without.append(rate(loader_of(datasets[codec], "one", check=False), chosen.seconds))
        print(f"{codec}: digests cost {1 - max(with_) / max(without):.0%} (bar 25%)", flush=True)


def memory(chosen: Any, source: Path, datasets: dict[str, Path]) -> None:
    """Resident memory over 20,000 batches."""
    for codec, mode in (("raw", "one"), ("jpeg", "all")):
        code = (
            "import resource, sys, psutil\n"
            "from oxcart.train.data import Loader, Pairs\n"
            f"pairs = Pairs(frames=8, per_episode={1 if mode == 'one' else 'all'!r})\n"
            "loader = Loader(sys.argv[1], sample=pairs, batch_size=4)\n"
            "for i, batch in enumerate(loader):\n"
            "    if i in (2000, 20000): print(psutil.Process().memory_info().rss)\n"
            "    if i == 20000: break\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(datasets[codec])], capture_output=True, text=True, check=True
        )
        early, late = (int(line) / 2**20 for line in done.stdout.split())
        print(
            f"{codec}, {mode}: {early:,.0f} MiB after 2,000 batches of 4, {late:,.0f} after 20,000",
            flush=True,
        )


def ranks(chosen: Any, source: Path, datasets: dict[str, Path]) -> None:
    """Bytes that 1, 2 and 4 ranks read together in an epoch."""
    for codec, mode in itertools.product(CODECS, MODES):
        read = []
        for world in (1, 2, 4):
            total = 0
            for rank in range(world):
                loader = loader_of(datasets[codec], mode, rank=rank, world_size=world, repeat=False)
                for _ in loader:
                    pass
                total += loader.bytes_read
            read.append(total)
        print(
            f"{codec}, {mode}: {read[0] / 1e6:,.0f} MB; "
            f"2 ranks {read[1] / read[0]:.2f}, 4 ranks {read[2] / read[0]:.2f}"
        )


def remote(chosen: Any, source: Path, datasets: dict[str, Path]) -> None:
    """A server of ranges on loopback: beside obstore alone; and held to 100 MB/s in all."""
    for codec, mode in itertools.product(CODECS, MODES):
        with serving(datasets[codec].parent) as server:
            url = f"{server.url}/{datasets[codec].name}"
            ours, bare = 0.0, 0.0
            for _ in range(ROUNDS):
                loader = loader_of(url, mode)
                began, before = time.perf_counter(), server.sent()
                pairs = rate(loader, chosen.seconds)
                per_pair = (server.sent() - before) / max(1, pairs * (time.perf_counter() - began))
                ours = max(ours, pairs * per_pair)
                report = measure(loader_of(url, mode), 10 * 0.3)
                bare = max(bare, next(s.bytes_per_s for s in report.stages if s.name == "fetch"))
            print(
                f"{codec}, {mode}: {ours / 1e6:,.0f} MB/s; obstore alone, chunk by chunk "
                f"{bare / 1e6:,.0f}: {ours / bare:.0%}",
                flush=True,
            )
        with serving(datasets[codec].parent, limit=100_000_000) as server:
            url = f"{server.url}/{datasets[codec].name}"
            batches = iter(loader_of(url, mode))
            for _ in itertools.islice(batches, 16):
                pass
            began, before, number = time.perf_counter(), server.sent(), 0
            while time.perf_counter() - began < 2 * chosen.seconds:
                number += len(next(batches))
            passed = time.perf_counter() - began
            print(
                f"    held to 100 MB/s: {(server.sent() - before) / passed / 1e6:.1f} MB/s, "
                f"{number / passed:,.0f} pairs/s",
                flush=True,
            )


def windows(chosen: Any, source: Path, datasets: dict[str, Path]) -> None:
    """Windows of two cameras beside pairs, beside decoding, and beside LeRobotDataset; arrays alone."""
    count = chosen.episodes // WINDOWS_SHARE
    source = write_source(chosen.scratch, count)
    both = {
        codec: compile_both(source, chosen.scratch / f"windows-{count}-{codec}", codec) for codec in CODECS
    }
    compare(both, chosen.lerobot, chosen.scratch / "peers", chosen.seconds, ROUNDS)
    arrays(both["raw"], chosen.seconds, ROUNDS)


SELECTED = (
    "where=\"environment ~ '[0-4]$' and steps >= 20\", balance='environment', min_motion=0.5, "
    "idle=Idle(hold=0.5, run=2)"
)


def first_batch(chosen: Any, source: Path, datasets: dict[str, Path]) -> None:
    """A million episodes of 40 steps: time to the first batch of pairs, of windows, and of chosen pairs."""
    from million import annotate_motion, million_episodes

    path = million_episodes(chosen.scratch / "million")
    annotate_motion(path)
    code = (
        "import sys, time, torch, psutil\n"
        "from oxcart.train.data import Loader, Pairs, Window\n"
        "from oxcart.train.data.activity import Idle\n"
        "before = psutil.Process().memory_info().rss\n"
        "began = time.perf_counter()\n"
        "loader = eval(f'Loader(sys.argv[1], batch_size=64, {sys.argv[2]})')\n"
        "opened = time.perf_counter()\n"
        "next(iter(loader))\n"
        "print(time.perf_counter() - began, opened - began, loader.streams[0].index.nbytes,"
        " psutil.Process().memory_info().rss - before)\n"
    )
    cases = {
        "sample=Pairs(frames=5)": 1,
        "sample=Window(frames={'image_0': (0, 5), 'wrist': (0, 5)})": 1,
        f"sample=Pairs(frames=5), {SELECTED}": 4,
    }
    for _, (case, bar) in itertools.product(range(ROUNDS), cases.items()):
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), case], capture_output=True, text=True, check=True
        )
        first, opened, index, grown = map(float, done.stdout.split())
        print(
            f"{case}: first batch after {first:.2f} s (bar {bar}), {opened:.2f} of it to open; index "
            f"{index / 1e6:,.0f} MB (bar 150), the process grew by {grown / 1e6:,.0f} MB",
            flush=True,
        )


PARTS: dict[str, Callable[[Any, Path, dict[str, Path]], None]] = {
    "local": local,
    "windows": windows,
    "remote": remote,
    "first-batch": first_batch,
    "memory": memory,
    "digests": digests,
    "ranks": ranks,
}

if __name__ == "__main__":
    main()
