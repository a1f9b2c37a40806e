"""How small each codec makes real camera frames, and what reading them back costs. Ratios of one run.

    python bench/codecs.py                                  # on simulated kitchens, whose frames are noisier
    python bench/codecs.py bridge_dataset/1.0.0 videos      # on camera frames, which is what counts

A source is an RLDS dataset (its primary camera, at its own size and resized to 256x256) or a folder of
videos (the first 80 frames of each, cropped and resized to 256x256). `one frame` is what a random frame
costs a reader: the bytes of its chunk, and decoding as much of the chunk as it takes. Seconds are of one
thread's CPU time, the least of several rounds, so they are those of a core whatever else the machine does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from oxcart.compile import census
from oxcart.compile.images import Resize, decode_into
from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import SourceConfig
from oxcart.shards.codec import Encoded, Encoding, decode, encode, encode_zstd

Episodes = list[npt.NDArray[np.uint8]]
ROUNDS = 5
SIZE = 256


def main() -> None:
    """Measure every source, and print a table for each."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("source", nargs="*", type=Path)
    for source in options.parse_args().source or [simulated(Path("scratch/bench/codecs"))]:
        if (source / "dataset_info.json").exists():
            measure(f"{source}, as it is", robot(source, Resize()))
            measure(f"{source}, {SIZE}x{SIZE}", robot(source, Resize(size=(SIZE, SIZE))))
        else:
            measure(f"{source}, {SIZE}x{SIZE}", list(videos(source)))


def simulated(folder: Path) -> Path:
    """A dataset of simulated kitchens, written once."""
    source = folder / "oxcart_kitchens" / "1.0.0"
    if not (source / "dataset_info.json").exists():
        write_rlds(folder, RldsSampleConfig(kitchens=4, sessions=1, episodes=2, steps=38, size=SIZE, files=1))
    return source


def robot(source: Path, resize: Resize) -> Episodes:
    """At most 40 episodes of an RLDS dataset."""
    config = SourceConfig(url=str(source))
    opened = open_source(config)
    camera = opened.cameras[0].name
    episodes = []
    for row in census.take(config, workers=1, report=lambda done, size: None).usable.slice(0, 40).to_pylist():
        images = opened.read(row).images[camera]
        size = row[f"{camera}.height"], row[f"{camera}.width"]
        frames = np.empty((len(images), *resize.output_size(*size), 3), np.uint8)
        for frame, image in zip(frames, images, strict=True):
            decode_into(frame, image, size, resize)
        episodes.append(frames)
    return episodes


def videos(folder: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """The first frames of every video that can be decoded."""
    import av

    for path in sorted(path for path in folder.iterdir() if path.suffix in {".mp4", ".mkv", ".webm"}):
        frames: list[npt.NDArray[np.uint8]] = []
        try:
            with av.open(str(path)) as container:
                for decoded in container.decode(video=0):
                    frames.append(_square(decoded.to_image()))
                    if len(frames) == 80:
                        break
        except av.error.FFmpegError as error:
            print(f"left out: {path.name}: {error.strerror}")
        if frames:
            yield np.stack(frames)


def _square(image: Image.Image) -> npt.NDArray[np.uint8]:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    cut = image.crop((left, top, left + side, top + side))
    return np.asarray(cut.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def measure(title: str, episodes: Episodes) -> None:
    """Print a line for each codec and chunk length."""
    raw = sum(frames.nbytes for frames in episodes)
    count = sum(map(len, episodes))
    print(f"\n{title}: {len(episodes)} episodes, {count} frames of {raw / count / 1e3:.1f} KB")
    print(f"{'':16}{'smaller':>9}{'encode f/s':>12}{'decode f/s':>12}{'one frame: KB':>15}{'us':>7}")
    report("raw", episodes, raw, "raw", 1, lambda frames: encode(np.ascontiguousarray(frames), Encoding()))
    for chunk in (1, 2, 4, 8, 16):
        report(f"zstd, {chunk}", episodes, raw, "zstd", chunk, lambda f, chunk=chunk: encode_zstd(f, chunk))
    jpeg = Encoding(codec="jpeg")
    report(f"jpeg, quality {jpeg.quality}", episodes, raw, "jpeg", 1, lambda frames: encode(frames, jpeg))


def report(
    name: str,
    episodes: Episodes,
    raw: int,
    codec: str,
    chunk: int,
    encoder: Callable[[npt.NDArray[np.uint8]], Encoded],
) -> None:
    """One line of the table."""
    encoded, encode_s = timed(lambda: [encoder(frames) for frames in episodes])
    outs = [np.empty_like(frames) for frames in episodes]

    def dense() -> None:
        for member, out in zip(encoded, outs, strict=True):
            decode(codec, member.chunks, chunk, out)

    def sparse() -> None:
        for member, out in zip(encoded, outs, strict=True):
            for i in range(len(out)):
                start = i - i % chunk
                decode(codec, [member.chunks[i // chunk]], chunk, out[start : i + 1])

    _, dense_s = timed(dense)
    if codec != "jpeg":
        assert all(np.array_equal(a, b) for a, b in zip(outs, episodes, strict=True)), name
    _, sparse_s = timed(sparse)
    count = sum(map(len, episodes))
    size = sum(len(piece) for member in encoded for piece in member.chunks)
    read = sum(
        len(member.chunks[i // chunk])
        for member, frames in zip(encoded, episodes, strict=True)
        for i in range(len(frames))
    )
    print(
        f"{name:16}{raw / size:8.2f}x{count / encode_s:12,.0f}{count / dense_s:12,.0f}"
        f"{read / count / 1e3:15.1f}{sparse_s / count * 1e6:7.0f}"
    )


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and the least CPU seconds of its rounds."""
    least = float("inf")
    for _ in range(ROUNDS):
        began = time.thread_time()
        result = work()
        least = min(least, time.thread_time() - began)
    return result, least


if __name__ == "__main__":
    main()
