"""How fast other loaders yield the same pairs: webdataset, mosaicml-streaming, litdata and tf.data.

    python bench/read_peers.py --list                        # peers, and how to make an environment for each
    python bench/read_peers.py mosaic one raw scratch/mosaic-raw         # one JSON line

bench/read.py calls `prepare`, which writes a peer's own format once from the frames of a compiled dataset,
and `measure`, which runs the second line in a process of the peer's own interpreter. So nothing here imports
oxcart but `prepare`; how each peer is used is in peer_batches.py.

A batch is uint8 [64, 2, H, W, 3]: frames t and t + 8. Mode `one` takes one random t of each episode and
epoch, `all` every t. Each peer gets what its format allows and the best of several ways, by a short trial of
each, then the best alone: layouts, and 0, 1 or 2 workers. What is generous to the peers on purpose: epochs
follow each other without a pause, workers fill whole batches in place, files are mapped or read at random
where the format has an index, and the clock starts after eight batches.

    webdataset   oxcart's own tars, one sample an episode, sequential as it must; chunk sizes from oxcart's
                 tables; pairs through a shuffle of 512
    mosaic       MDS, a frame or an episode a sample, by index; `all` also by episodes through that shuffle
    litdata      the same two, and its windows on a TemporalArrayLoader where frames are raw
    tf.data      tfds.as_dataset on the RLDS source, SkipDecoding, one camera decoded; images are what the
                 source holds, whatever the codec; pairs decoded after the shuffle, or episodes before

In codec zstd, MDS and litdata hold every frame as a zstd frame of its own, level 1; MDS's own zstd, of a
whole shard, is unpacked to the disk once and is codec raw from then on. JPEGs are those of the dataset.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from peer_batches import BATCH, batches, without_torchvision

TRIAL = 0.3
"""Share of the seconds spent trying each way of reading."""
WARM_UP = 8
"""Batches before the clock starts, more than workers hold ready."""
WORKERS = (0, 1, 2)
INFO = "peer.json"
"""Name of the file that is written last into a prepared folder."""
TORCH = """pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
pip install webdataset simplejpeg zstandard 'numpy<2.2'"""
ENVIRONMENTS = {
    "webdataset": TORCH,
    "mosaic": f"""{TORCH}
pip install mosaicml-streaming
  (it and litdata ask for torchvision, which PyPI has for CUDA alone. To go without: pip install --no-deps
  mosaicml-streaming 'xxhash<4', then 'transformers<5' boto3 zstd python-snappy brotli catalogue)""",
    "litdata": f"""{TORCH}
pip install litdata
  (without torchvision: pip install --no-deps litdata, then obstore boto3 filelock lightning-utilities
  fsspec requests tifffile)""",
    "tf.data": "pip install tensorflow-cpu tensorflow-datasets",
}
PEERS = tuple(ENVIRONMENTS)


def main() -> None:
    """Measure one peer, write one's format, or list them."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("peer", nargs="?", choices=PEERS)
    options.add_argument("mode", nargs="?", choices=("one", "all"))
    options.add_argument("codec", nargs="?", choices=("raw", "zstd", "jpeg"))
    options.add_argument("dir", nargs="?", type=Path, help="folder that prepare made")
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--write", type=Path, help="write the peer's format, from standard input")
    options.add_argument("--list", action="store_true", help="print the peers and their environments")
    chosen = options.parse_args()
    if chosen.write:
        write(chosen.peer, chosen.write, sys.stdin.buffer)
    elif chosen.list or chosen.peer is None:  # `make bench` runs every script without arguments
        for peer, lines in ENVIRONMENTS.items():
            print(f"{peer}\n    " + lines.replace("\n", "\n    "))
    elif chosen.dir is None:
        options.error("PEER MODE CODEC DIR are needed")
    else:
        info = json.loads((chosen.dir / INFO).read_text())
        if (info["peer"], info["codec"]) != (chosen.peer, chosen.codec):
            options.error(f"{chosen.dir} holds {info['peer']}, {info['codec']}")
        print(json.dumps(best(chosen.mode, chosen.dir, info, chosen.seconds)))


def prepare(peer: str, dataset: Path, rlds: Path, scratch: Path, python: str = sys.executable) -> Path:
    """Write a peer's own format, once, from a compiled dataset; returns the folder.

    Args:
        peer: one of PEERS.
        dataset: a compiled dataset, of any codec, whose frames have one size.
        rlds: the source it was compiled from; read by tf.data alone.
        scratch: where the folder goes.
        python: interpreter that has the peer.
    """
    from oxcart.manifests.dataset import Dataset, read_chunks
    from oxcart.manifests.tables import EPISODES

    opened = Dataset.open(str(dataset))
    camera = opened.manifest.camera("primary")
    codec = camera["codec"]
    rows = opened.table(EPISODES).to_pylist()
    shards = [str((dataset / shard["name"]).resolve()) for shard in opened.manifest.shards]
    info = {
        "peer": peer,
        "codec": codec,
        "fingerprint": opened.manifest.fingerprint,
        "camera": camera["name"],
        "field": camera["source"],
        "shape": [rows[0][f"{camera['name']}.height"], rows[0][f"{camera['name']}.width"], 3],
        "lengths": [row["steps"] for row in rows],
        "chunk": camera["chunk"],
        "shards": shards if peer == "webdataset" else [],
        "rlds": str(rlds.resolve()) if peer == "tf.data" else "",
        "steps": {row["key"]: row["steps"] for row in rows},
        "sizes": {},
    }
    if peer == "webdataset" and codec != "raw":
        for shard in opened.manifest.shards:
            table = read_chunks(opened.store, shard).to_pylist()
            info["sizes"].update({r["key"]: r["sizes"] for r in table if r["camera"] == camera["name"]})
    out = scratch / f"{peer}-{codec}"
    text = json.dumps(info)
    if (out / INFO).exists() and (out / INFO).read_text() == text:
        return out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    if peer in ("mosaic", "litdata"):
        command = [python, __file__, peer, "--write", str(out)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sys.stderr) as writer:
            assert writer.stdin is not None
            for row in rows:
                pieces = _pieces(opened, row, codec)
                writer.stdin.write(json.dumps([len(piece) for piece in pieces]).encode() + b"\n")
                writer.stdin.writelines(pieces)
        if writer.returncode:
            raise RuntimeError(f"{' '.join(command)} failed with {writer.returncode}")
    (out / INFO).write_text(text)
    return out


def _pieces(dataset: Any, row: dict[str, Any], codec: str) -> list[Any]:
    """The frames of an episode as a peer stores them, each alone."""
    frames = dataset[row["key"]].frames()
    if codec == "jpeg":
        return list(frames.pieces(0, len(frames)))
    pieces = [frame.reshape(-1).data for frame in frames]
    if codec == "zstd":
        import zstandard

        return [zstandard.ZstdCompressor(level=1).compress(piece) for piece in pieces]
    return pieces


def measure(
    peer: str, mode: str, codec: str, directory: Path, python: str = sys.executable, seconds: float = 5.0
) -> dict[str, Any]:
    """What `python bench/read_peers.py PEER MODE CODEC DIR` prints, with the interpreter of the peer.

    Returns:
        peer, mode, codec, pairs_per_s, batches, workers and layout of the best way, and `tried`: pairs per
        second of each in its trial.
    """
    command = [python, __file__, peer, mode, codec, str(directory), "--seconds", str(seconds)]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **quiet})
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def write(peer: str, out: Path, stream: BinaryIO) -> None:
    """Write every layout of a peer, from episodes: a line of sizes, then so many bytes."""
    adders = [writer(peer, layout, out / layout) for layout in ("frame", "episode")]
    windows = None
    for line in stream:
        sizes = json.loads(line)
        pieces = [stream.read(size) for size in sizes]
        for piece in pieces:
            adders[0][0]({"data": piece})
        adders[1][0]({"data": b"".join(pieces), "sizes": np.array(sizes, np.uint32)})
        if peer == "litdata" and len(set(sizes)) == 1:  # raw
            windows = windows or writer(peer, "window", out / "window")
            windows[0]({"frames": np.frombuffer(b"".join(pieces), np.uint8).reshape(len(sizes), -1)})
    for _, finish in (*adders, *([windows] if windows else [])):
        finish()


def writer(peer: str, layout: str, out: Path) -> tuple[Callable[[Any], None], Callable[[], Any]]:
    """Functions that add a sample, and that finish."""
    if peer == "mosaic":
        without_torchvision()
        from streaming import MDSWriter

        columns = {"data": "bytes"} | ({"sizes": "ndarray:uint32"} if layout == "episode" else {})
        mds = MDSWriter(out=str(out), columns=columns)
        return mds.write, mds.finish
    from litdata import TemporalArrayLoader
    from litdata.streaming import Cache

    loader = TemporalArrayLoader() if layout == "window" else None
    out.mkdir()
    cache = Cache(str(out), chunk_bytes="64MB", item_loader=loader)
    numbers = itertools.count()

    def finish() -> None:
        cache.done()
        cache.merge()

    return lambda sample: cache.__setitem__(next(numbers), sample), finish


def best(mode: str, directory: Path, info: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Try every way for a moment, and measure the best."""
    folders = [directory, *(Path(shard).parent for shard in info["shards"][:1])]
    for folder in [*folders, Path(info["rlds"])] if info["rlds"] else folders:
        for file in folder.rglob("*"):
            if file.is_file():
                with open(file, "rb") as opened:  # into the page cache
                    while opened.read(1 << 24):
                        pass
    ways: list[tuple[str, int]] = []
    if info["peer"] == "tf.data":
        ways = [(layout, 0) for layout in (("pairs",) if mode == "one" else ("pairs", "episodes"))]
    elif info["peer"] == "webdataset":
        ways = [("tar", workers) for workers in WORKERS]
    else:
        layouts = [path.name for path in sorted(directory.iterdir()) if path.is_dir()]
        ways = [(layout, workers) for layout in layouts for workers in WORKERS]
    tried = {way: timed(batches(mode, way, directory, info), info, seconds * TRIAL)[0] for way in ways}
    way = max(tried, key=lambda way: tried[way])
    pairs, number = timed(batches(mode, way, directory, info), info, seconds)
    return {
        "peer": info["peer"],
        "mode": mode,
        "codec": info["codec"],
        "pairs_per_s": round(pairs, 1),
        "batches": number,
        "workers": way[1],
        "layout": way[0],
        "tried": {
            f"{layout}, {workers} workers": round(value, 1) for (layout, workers), value in tried.items()
        },
    }


def timed(iterator: Iterator[Any], info: dict[str, Any], seconds: float) -> tuple[float, int]:
    """Pairs per second and batches, from the moment that WARM_UP batches have come."""
    for batch in itertools.islice(iterator, WARM_UP):
        assert batch.shape == (BATCH, 2, *info["shape"]), batch.shape
        assert str(batch.dtype).endswith("uint8"), batch.dtype
    began, number, passed = time.perf_counter(), 0, 0.0
    while passed < seconds:
        next(iterator)
        number += 1
        passed = time.perf_counter() - began
    return number * BATCH / passed, number


if __name__ == "__main__":
    main()
