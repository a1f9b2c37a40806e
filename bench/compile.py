"""How near a compile comes to what the machine can do. Ratios of one run, nothing else is meant to be quoted.

    python bench/compile.py                        # 400 episodes of 38 steps at 256x256, JPEG and PNG
    python bench/compile.py --episodes 40          # a quick look
    python bench/compile.py --memory               # and the peak memory of ten times the episodes

Each limit does one part of the work with as many processes: decoding the same images, writing and fsyncing
the same bytes, hashing them; `by hand` does all three in a script that knows nothing of oxcart. In `all at
once, apart` some processes decode and hash while others write bytes that nobody had to make: no compile can
be faster, and where it needs longer than its slower half, the system's own work takes cores. The source
is read once beforehand, so it comes from the page cache. Start-up (imports, spawning) is left out: the
clock runs from the first finished episodes to the last.

--tensorflow PYTHON measures the usual way beside, tfds.as_dataset into webdataset.ShardWriter, once step by
step and once tuned: whole episodes in a parallel map. Both decode the measured camera alone, store the same
frames as oxcart (.npy in tar, not compressed) and end with a sync. PYTHON is that of an environment with

    pip install tensorflow-cpu tensorflow-datasets webdataset
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import psutil
from blake3 import blake3
from xxhash import xxh3_64_intdigest

from oxcart.compile import census
from oxcart.compile.images import Resize, decode_into
from oxcart.compile.pipeline import CompileConfig, execute, prepare
from oxcart.compile.plan import Settings
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.sources.rlds import tfrecord
from oxcart.shards.codec import Encoding
from oxcart.shards.store import Store
from oxcart.shards.write_behind import WriteBehindFile

SIZE = 256
ROUNDS = 3
"""Number of measurements of everything, in turn; the least time counts, since others use the machine too."""
JPEG = "image_0"
"""The camera of the sample whose images are JPEG."""
BATCH = 38 * SIZE * SIZE * 3


def main() -> None:
    """Measure, and print a table."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--episodes", type=int, default=400)
    options.add_argument("--scratch", type=Path, default=Path("scratch/bench"))
    options.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options.add_argument("--memory", action="store_true", help="compile ten times the episodes, too")
    options.add_argument("--tensorflow", metavar="PYTHON", help="interpreter that has TensorFlow")
    chosen = options.parse_args()
    source = sample(chosen.scratch, chosen.episodes)
    for camera, kind in (("image_0", "JPEG"), ("wrist", "PNG")):
        print(f"\n{kind}, {chosen.workers} processes")
        peak = measure(source, camera, chosen.scratch, chosen.workers, chosen.tensorflow)
        many = ten_times(source, chosen.scratch / "ten-times")
        config = SourceConfig(url=str(many), cameras=(camera,))
        if camera == JPEG:
            against_copying(config, chosen.scratch, chosen.workers)
        if chosen.memory:
            _, more = compile_once(
                config, chosen.scratch / "out", chosen.workers, Settings(shard_size=128 << 20)
            )
            print(f"of ten times the episodes: {more / 2**20:,.0f} MiB, {more / peak:.2f} of that")


def sample(scratch: Path, episodes: int) -> Path:
    """A dataset of simulated kitchens, written once."""
    directory = scratch / f"source-{episodes}"
    written = directory / "oxcart_kitchens" / "1.0.0"
    if not (written / "dataset_info.json").exists():
        shutil.rmtree(directory, ignore_errors=True)
        config = RldsSampleConfig(
            kitchens=10, sessions=2, episodes=max(1, episodes // 20), steps=38, size=SIZE, files=8
        )
        print(f"writing the source to {written}, once")
        write_rlds(directory, config)
    return written


def ten_times(source: Path, folder: Path) -> Path:
    """A dataset of ten times the episodes: every file is linked ten times, under other numbers."""
    shutil.rmtree(folder, ignore_errors=True)
    out = folder / source.parent.name / source.name
    out.mkdir(parents=True)
    shutil.copy(source / "features.json", out)
    info = json.loads((source / "dataset_info.json").read_text())
    for split in info["splits"]:
        files = len(split["shardLengths"])
        for i in range(10 * files):
            old, new = f"{i % files:05d}-of-{files:05d}", f"{i:05d}-of-{10 * files:05d}"
            start = f"{info['name']}-{split['name']}.tfrecord-"
            os.link(source / (start + old), out / (start + new))
        split["shardLengths"] *= 10
    (out / "dataset_info.json").write_text(json.dumps(info))
    return out


def measure(source: Path, camera: str, scratch: Path, workers: int, tensorflow: str | None) -> int:
    """All measurements of one camera; returns the peak memory of a compile in bytes."""
    config = SourceConfig(url=str(source), cameras=(camera,))
    for file in source.iterdir():
        file.read_bytes()  # into the page cache
    began = time.perf_counter()
    seen = census.take(config, workers=workers, report=lambda done, size: None)
    scan_s = time.perf_counter() - began
    rows = seen.usable.to_pylist()
    frames = sum(row["steps"] for row in rows)

    files = [{"file": file} for file in open_source(config).files()]
    raw = Settings(shard_size=128 << 20)
    parts = {
        "decode": decode,
        "write and fsync": write,
        "write past the cache": write_past_cache,
        "hash": hash_frames,
        "by hand": decode_hash_write,
    }
    best: dict[str, float] = {}
    peak = 0
    for _ in range(ROUNDS):
        found = {name: timed(part, config, rows, scratch, workers) for name, part in parts.items()}
        apart = decode_and_hash, write_past_cache
        found["all at once, apart"] = timed(apart, config, rows, scratch, workers)
        found["read and checksum"] = timed(read_and_check, config, files, scratch, workers)
        found["scan"] = timed(scan, config, files, scratch, workers)
        found["compile"], memory = compile_once(config, scratch / "out", workers, raw)
        peak = max(peak, memory)
        best = {name: min(seconds, best.get(name, seconds)) for name, seconds in found.items()}
    compiled = best["compile"]
    print(f"{'least of ' + str(ROUNDS):24}{'seconds':>9}{'frames/s':>11}")
    for name, seconds in best.items():
        print(f"{name:24}{seconds:9.2f}{frames / seconds:11,.0f}")
    writing = min(("write and fsync", "write past the cache"), key=lambda name: best[name])
    slowest = max(("decode", writing, "hash"), key=lambda name: best[name])
    print(f"compile against the slowest limit ({slowest}): {best[slowest] / compiled:.0%} (bar 90%)")
    print(f"compile against the three by hand: {best['by hand'] / compiled:.0%} (bar 90%)")
    ideal = best["all at once, apart"]
    print(f"compile against decoding and hashing beside writing other bytes: {ideal / compiled:.0%}")
    print(f"peak memory of the process tree: {peak / 2**20:,.0f} MiB (bar 1,536)")
    print(
        f"scan: {frames / best['scan']:,.0f} frames/s (bar 100,000), with its start-up {frames / scan_s:,.0f}"
    )
    print(f"scan against reading and checksumming alone: {best['read and checksum'] / best['scan']:.0%}")
    if tensorflow:
        for way in ("step by step", "tuned"):
            usual = compile_the_usual_way(tensorflow, source, camera, scratch / "usual", way)
            print(
                f"tfds.as_dataset into ShardWriter, {way}: {usual:.2f} s, {frames / usual:,.0f} frames/s; "
                f"compile is {usual / compiled:.1f} x (bar 3 x)"
            )
    return peak


def against_copying(config: SourceConfig, scratch: Path, workers: int) -> None:
    """Codec jpeg beside merely copying the JPEGs, of ten times the episodes: it is over too soon else."""
    rows = census.take(config, workers=workers, report=lambda done, size: None).usable.to_pylist()
    settings = Settings(shard_size=1 << 30, encoding=Encoding(codec="jpeg"))
    copied, compiled = float("inf"), float("inf")
    for _ in range(ROUNDS):
        copied = min(copied, timed(copy_images, config, rows, scratch, workers))
        compiled = min(compiled, compile_once(config, scratch / "out", workers, settings)[0])
    frames = sum(row["steps"] for row in rows)
    print(f"copy the JPEGs: {frames / copied:,.0f} frames/s; compile --codec jpeg: {frames / compiled:,.0f}")
    print(f"compile --codec jpeg against copying: {copied / compiled:.0%} (bar 100%)")


Part = Callable[[SourceConfig, list[dict[str, Any]], Path], None]


def timed(
    part: Part | tuple[Part, ...],
    config: SourceConfig,
    rows: list[dict[str, Any]],
    scratch: Path,
    workers: int,
) -> float:
    """Seconds from the moment that all processes are ready until all have done their part.

    Several parts run at the same time, each in as many processes.
    """
    parts = part if isinstance(part, tuple) else (part,)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers * len(parts) + 1)
    processes = [
        context.Process(target=_run, args=(one, config, rows[i::workers], scratch / f"part-{k}-{i}", barrier))
        for k, one in enumerate(parts)
        for i in range(workers)
    ]
    for process in processes:
        process.start()
    barrier.wait()
    began = time.perf_counter()
    barrier.wait()
    seconds = time.perf_counter() - began
    for process in processes:
        process.join()
    assert all(process.exitcode == 0 for process in processes)
    return seconds


def _run(part: Part, config: SourceConfig, rows: list[dict[str, Any]], out: Path, barrier: Any) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    open_source(config)
    barrier.wait()
    try:
        part(config, rows, out)
    finally:
        barrier.wait()
        out.unlink(missing_ok=True)


def read_and_check(config: SourceConfig, files: list[dict[str, Any]], out: Path) -> None:
    """Read some files and compute the two checksums of their bytes, and nothing else."""
    store = Store(config.url)
    for one in files:
        for block in store.stream(one["file"], tfrecord.BLOCK):
            google_crc32c.value(block)
            xxh3_64_intdigest(block)


def scan(config: SourceConfig, files: list[dict[str, Any]], out: Path) -> None:
    """Take the census of some files."""
    source = open_source(config)
    for one in files:
        for _ in source.census(one["file"]):
            pass


def decode(config: SourceConfig, rows: list[dict[str, Any]], out: Path) -> None:
    """Read, parse and decode, and nothing else."""
    for _ in _decoded(config, rows):
        pass


def _decoded(config: SourceConfig, rows: list[dict[str, Any]]) -> Any:
    source, resize = open_source(config), Resize()
    camera = source.cameras[0].name
    buffer = np.empty(0, np.uint8)
    for row in rows:
        images = source.read(row).images[camera]
        size = row[f"{camera}.height"], row[f"{camera}.width"]
        total = len(images) * size[0] * size[1] * 3
        buffer = buffer if buffer.size >= total else np.empty(total, np.uint8)
        frames = buffer[:total].reshape(len(images), *size, 3)
        for frame, image in zip(frames, images, strict=True):
            decode_into(frame, image, size, resize)
        yield frames


def write(config: SourceConfig, rows: list[dict[str, Any]], out: Path) -> None:
    """Write and fsync as many bytes, an episode at a time, as any script does."""
    block = np.random.default_rng(0).integers(0, 256, BATCH * 2, np.uint8)
    with open(out, "wb", buffering=0) as file:
        for row in rows:
            view = block[: _bytes(row)].data
            while view:
                view = view[file.write(view) :]
        os.fsync(file.fileno())


def write_past_cache(config: SourceConfig, rows: list[dict[str, Any]], out: Path) -> None:
    """Write and fsync as many bytes as oxcart does it, past the page cache."""
    block = np.random.default_rng(0).integers(0, 256, BATCH * 2, np.uint8)
    with open(out, "wb", buffering=0) as file:
        behind = WriteBehindFile(file)
        for row in rows:
            behind.write(block[: _bytes(row)].data)
        behind.finish()


def copy_images(config: SourceConfig, rows: list[dict[str, Any]], out: Path) -> None:
    """Read the encoded images, hash them and write them, and nothing else."""
    source = open_source(config)
    camera = source.cameras[0].name
    whole = blake3()
    with open(out, "wb", buffering=0) as file:
        behind = WriteBehindFile(file)
        for row in rows:
            for image in source.read(row).images[camera]:
                xxh3_64_intdigest(image)
                whole.update(image)
                behind.write(image)
        behind.finish()


def hash_frames(config: SourceConfig, rows: list[dict[str, Any]], out: Path) -> None:
    """BLAKE3 of as many bytes, and xxh3-64 of each frame."""
    block = np.random.default_rng(0).integers(0, 256, BATCH * 2, np.uint8)
    whole = blake3()
    for row in rows:
        view = block[: _bytes(row)].data
        whole.update(view)
        size = len(view) // row["steps"]
        for i in range(row["steps"]):
            xxh3_64_intdigest(view[i * size : (i + 1) * size])


def decode_and_hash(config: SourceConfig, rows: list[dict[str, Any]], out: Path) -> None:
    """What needs the cores, without a byte written."""
    whole = blake3()
    for frames in _decoded(config, rows):
        for frame in frames:
            xxh3_64_intdigest(frame.data)
        whole.update(frames.reshape(-1).data)


def decode_hash_write(config: SourceConfig, rows: list[dict[str, Any]], out: Path) -> None:
    """What a careful script would do: decode, hash and write an episode, then the next."""
    whole = blake3()
    with open(out, "wb", buffering=0) as file:
        for frames in _decoded(config, rows):
            for frame in frames:
                xxh3_64_intdigest(frame.data)
            view = frames.reshape(-1).data
            whole.update(view)
            while view:
                view = view[file.write(view) :]
        os.fsync(file.fileno())


def _bytes(row: dict[str, Any]) -> int:
    height = next(value for name, value in row.items() if name.endswith(".height"))
    width = next(value for name, value in row.items() if name.endswith(".width"))
    return int(row["steps"] * height * width * 3)


def compile_once(config: SourceConfig, out: Path, workers: int, settings: Settings) -> tuple[float, int]:
    """Seconds from the first finished frames to the last, scaled to all frames; peak bytes in all."""
    shutil.rmtree(out, ignore_errors=True)
    prepared = prepare(CompileConfig(source=config, out=str(out), settings=settings, workers=workers))
    first: list[float] = []
    peak = [0]
    stop = threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not stop.wait(0.5):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], total)

    def report(done: int, size: int) -> None:
        if done and not first:
            first.extend((time.perf_counter(), done))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        execute(prepared, report)
    finally:
        stop.set()
        watcher.join()
    seconds = time.perf_counter() - first[0]
    shutil.rmtree(out)
    return seconds * prepared.frames / (prepared.frames - first[1]), peak[0]


USUAL = """
import json, os, sys, time
import numpy as np, tensorflow as tf, tensorflow_datasets as tfds, webdataset as wds

source, camera, out, way = sys.argv[1:]
tf.config.set_visible_devices([], "GPU")
builder = tfds.builder_from_directory(source)
observation = builder.info.features["steps"].feature["observation"]
others = [n for n, f in observation.items() if isinstance(f, tfds.features.Image) and n != camera]
decoders = {"steps": {"observation": {other: tfds.decode.SkipDecoding() for other in others}}}


def whole(episode):
    steps = episode["steps"].batch(1 << 20).get_single_element()
    return steps["observation"][camera], steps["action"]


def episodes(split):
    dataset = builder.as_dataset(split=split, decoders=decoders)
    if way == "tuned":
        dataset = dataset.map(whole, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
        yield from dataset.as_numpy_iterator()
    else:
        for episode in dataset:
            steps = list(tfds.as_numpy(episode["steps"]))
            yield np.stack([step["observation"][camera] for step in steps]), np.stack(
                [step["action"] for step in steps]
            )


began = time.perf_counter()
with wds.ShardWriter(out + "-%05d.tar", maxsize=512 << 20, verbose=0) as writer:
    for split in builder.info.splits:
        for i, (frames, action) in enumerate(episodes(split)):
            writer.write({"__key__": f"{split}-{i:06d}", "frames.npy": frames, "action.npy": action})
os.sync()
print(json.dumps({"seconds": time.perf_counter() - began}))
"""


def compile_the_usual_way(python: str, source: Path, camera: str, out: Path, way: str) -> float:
    """Seconds of a TensorFlow script, its start-up left out."""
    out.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [python, "-c", USUAL, str(source), camera, str(out), way],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    for file in out.parent.glob(f"{out.name}-*.tar"):
        file.unlink()
    if done.returncode:
        sys.exit(f"{python} failed:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


if __name__ == "__main__":
    sys.exit(main())
