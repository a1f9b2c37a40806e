"""Endless batches of the same pairs by webdataset, mosaicml-streaming, litdata and tf.data.

bench/read_peers.py says what is fair about them, and measures them. A peer is imported where it is used: each
runs in an environment of its own.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BATCH, OFFSET, SHUFFLE = 64, 8, 512

Frames = npt.NDArray[np.uint8]
Read = Callable[[int, Sequence[int] | None], list[Any]]
"""The stored pieces of some frames of an episode, or of all."""


def batches(mode: str, way: tuple[str, int], directory: Path, info: dict[str, Any]) -> Iterator[Any]:
    """Endless batches uint8 [BATCH, 2, H, W, 3]."""
    layout, workers = way
    if info["peer"] == "tf.data":
        return tensorflow_batches(mode, layout, info)
    if info["peer"] == "webdataset":
        return webdataset_batches(mode, workers, info)
    return indexed_batches(mode, layout, workers, directory, info)


def decoder(codec: str, shape: Sequence[int]) -> Callable[[Any, Frames], None]:
    """A function that writes a stored piece to a frame [H, W, 3]."""
    if codec == "jpeg":
        import simplejpeg

        return lambda piece, out: simplejpeg.decode_jpeg(piece, buffer=out)
    if codec == "zstd":
        import zstandard

        decompress = zstandard.ZstdDecompressor().decompress
        return lambda piece, out: np.copyto(out, np.frombuffer(decompress(piece), np.uint8).reshape(shape))
    return lambda piece, out: np.copyto(out, np.frombuffer(piece, np.uint8).reshape(shape))


def decode_all(pieces: list[Any], codec: str, shape: Sequence[int]) -> list[Frames]:
    """The frames [H, W, 3] of stored pieces; raw ones are not copied."""
    if codec == "raw":
        return [np.frombuffer(piece, np.uint8).reshape(shape) for piece in pieces]
    frames = np.empty((len(pieces), *shape), np.uint8)
    decode = decoder(codec, shape)
    for piece, frame in zip(pieces, frames, strict=True):
        decode(piece, frame)
    return list(frames)


def mixed(pairs: Iterator[tuple[Frames, Frames]], rng: np.random.Generator) -> Iterator[Any]:
    """Batches of pairs of frames, through a shuffle of SHUFFLE pairs."""
    import torch

    held = list(itertools.islice(pairs, SHUFFLE))
    while True:
        out = np.empty((BATCH, 2, *held[0][0].shape), np.uint8)
        for i in range(BATCH):
            chosen = int(rng.integers(len(held)))
            out[i, 0], out[i, 1] = held[chosen]
            held[chosen] = next(pairs)
        yield torch.from_numpy(out)


def loader(dataset: Any, workers: int, **arguments: Any) -> Iterator[Any]:
    """A DataLoader that leaves batches alone."""
    from torch.utils.data import DataLoader

    return iter(DataLoader(dataset, num_workers=workers, collate_fn=_same, **arguments))


def _same(batch: Any) -> Any:
    return batch


def seeded() -> tuple[np.random.Generator, int, int]:
    """A generator of this worker's own, its number, and how many there are."""
    from torch.utils.data import get_worker_info

    me = get_worker_info()
    number, workers = (me.id, me.num_workers) if me else (0, 1)
    return np.random.default_rng(number), number, workers


def indexed_batches(
    mode: str, layout: str, workers: int, directory: Path, info: dict[str, Any]
) -> Iterator[Any]:
    """Pairs of a format with an index: any at random, or whole episodes through a shuffle."""
    import torch

    codec, shape, lengths = info["codec"], info["shape"], info["lengths"]
    numbers = range(len(lengths))
    reads: list[Read] = []

    def read(episode: int, steps: Sequence[int] | None) -> list[Any]:
        if not reads:  # in the worker, which it is opened in
            reads.append(reader(info["peer"], layout, directory / layout, lengths))
        return reads[0](episode, steps)

    class ByIndex(torch.utils.data.Dataset[Any]):
        def __getitems__(self, wanted: Sequence[tuple[int, int]]) -> Any:
            out = np.empty((len(wanted), 2, *shape), np.uint8)
            decode = decoder(codec, shape)
            for (episode, t), pair in zip(wanted, out, strict=True):
                for piece, frame in zip(read(episode, (t, t + OFFSET)), pair, strict=True):
                    decode(piece, frame)
            return torch.from_numpy(out)

    class ByEpisode(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            rng, mine, of = seeded()

            def pairs() -> Iterator[tuple[Frames, Frames]]:
                while True:
                    for episode in rng.permutation(numbers[mine::of]):
                        frames = decode_all(read(int(episode), None), codec, shape)
                        yield from zip(frames, frames[OFFSET:], strict=False)

            return mixed(pairs(), rng)

    if mode == "all" and layout == "episode":
        return loader(ByEpisode(), workers, batch_size=None)

    def order() -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng(0)
        every = [(episode, t) for episode in numbers for t in range(lengths[episode] - OFFSET)]
        while True:
            if mode == "one":
                yield from (
                    (int(e), int(rng.integers(lengths[e] - OFFSET))) for e in rng.permutation(numbers)
                )
            else:
                yield from (every[i] for i in rng.permutation(len(every)))

    class Order(torch.utils.data.Sampler[Any]):
        def __iter__(self) -> Iterator[Any]:
            drawn = order()
            while True:
                yield list(itertools.islice(drawn, BATCH))

    return loader(ByIndex(), workers, batch_sampler=Order())


def reader(peer: str, layout: str, folder: Path, lengths: Sequence[int]) -> Read:
    """A function that reads pieces of frames."""
    starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    if peer == "mosaic":
        without_torchvision()
        from streaming import LocalDataset

        dataset: Any = LocalDataset(str(folder))
    else:
        from litdata import StreamingDataset, TemporalArrayLoader

        kind = TemporalArrayLoader() if layout == "window" else None
        dataset = StreamingDataset(str(folder), item_loader=kind)

    def windows(episode: int, steps: Sequence[int] | None) -> list[Any]:
        if steps is None:
            return list(dataset.read_window(episode, 0, lengths[episode])["frames"])
        return [dataset.read_window(episode, step, 1)["frames"] for step in steps]

    def by_frame(episode: int, steps: Sequence[int] | None) -> list[Any]:
        wanted = range(lengths[episode]) if steps is None else steps
        return [dataset[starts[episode] + step]["data"] for step in wanted]

    def by_episode(episode: int, steps: Sequence[int] | None) -> list[Any]:
        sample = dataset[episode]
        return cut(sample["data"], sample["sizes"], range(lengths[episode]) if steps is None else steps)

    return {"window": windows, "frame": by_frame, "episode": by_episode}[layout]


def cut(data: bytes, sizes: Any, wanted: Sequence[int]) -> list[memoryview]:
    """Some of the pieces that lie end to end."""
    bounds = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).tolist()
    return [memoryview(data)[bounds[i] : bounds[i + 1]] for i in wanted]


def webdataset_batches(mode: str, workers: int, info: dict[str, Any]) -> Iterator[Any]:
    """Every tar from its beginning to its end; of an episode one pair, or all."""
    import webdataset as wds

    codec, shape, chunk = info["codec"], info["shape"], info["chunk"]
    member = info["camera"].lower() + {"raw": ".npy", "zstd": ".tzst", "jpeg": ".mjpeg"}[codec]

    def frames(sample: dict[str, Any], steps: Sequence[int]) -> list[Frames]:
        """Frames of an episode, decoding the chunks that hold them."""
        data = sample[member]
        if codec == "raw":
            size = info["steps"][sample["__key__"]] * int(np.prod(shape))
            whole = np.frombuffer(data, np.uint8, size, len(data) - size).reshape(-1, *shape)
            return [whole[step] for step in steps]
        chunks = sorted({step // chunk for step in steps})
        pieces = cut(data, info["sizes"][sample["__key__"]], chunks)
        if codec == "jpeg":
            return decode_all(pieces, codec, shape)
        found = dict(zip(chunks, (undo(piece, shape) for piece in pieces), strict=True))
        return [found[step // chunk][step % chunk] for step in steps]

    def pairs(samples: Any) -> Iterator[tuple[Frames, Frames]]:
        rng = np.random.default_rng()
        for sample in samples:
            length = info["steps"][sample["__key__"]]
            if mode == "all":
                whole = frames(sample, range(length))
                yield from zip(whole, whole[OFFSET:], strict=False)
            else:
                t = int(rng.integers(length - OFFSET))
                first, second = frames(sample, (t, t + OFFSET))
                yield first.copy(), second.copy()  # a view would hold the whole episode

    dataset = wds.WebDataset(
        info["shards"],
        resampled=True,
        shardshuffle=False,
        select_files=lambda name: name.lower().endswith(member),
    ).compose(lambda samples: mixed(pairs(samples), seeded()[0]))
    return loader(dataset, workers, batch_size=None)


def undo(piece: Any, shape: Sequence[int]) -> Frames:
    """The frames of a chunk of codec zstd, as docs/format.md has it."""
    import zstandard

    data = bytearray(zstandard.ZstdDecompressor().decompress(piece))
    frames = np.frombuffer(data, np.uint8).reshape(-1, *shape)
    for row in range(1, shape[0]):
        if row % 16:
            frames[0, row] += frames[0, row - 1]
    for i in range(1, len(frames)):
        frames[i] += frames[i - 1]
    return frames


def tensorflow_batches(mode: str, layout: str, info: dict[str, Any]) -> Iterator[Any]:
    """Pairs of the RLDS source, encoded until they are wanted."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    camera, auto = info["field"].split("/")[-1], tf.data.AUTOTUNE
    builder = tfds.builder_from_directory(info["rlds"])
    images = builder.info.features["steps"]["observation"]
    skip = {n: tfds.decode.SkipDecoding() for n, f in images.items() if isinstance(f, tfds.features.Image)}
    decoders = {"steps": {"observation": skip}}
    episodes = builder.as_dataset(
        split="all",
        shuffle_files=True,
        decoders=decoders,
        read_config=tfds.ReadConfig(try_autocache=False),
    )

    def encoded(episode: Any) -> Any:
        return episode["steps"].batch(1 << 20).get_single_element()["observation"][camera]

    def decode(images: Any) -> Any:
        image = functools.partial(tf.io.decode_jpeg, channels=3)  # decodes PNG, too
        frames = tf.map_fn(image, images, fn_output_signature=tf.uint8)
        return tf.ensure_shape(frames, (None, *info["shape"]))

    def one(images: Any) -> Any:
        t = tf.random.uniform((), 0, tf.shape(images)[0] - OFFSET, tf.int32)
        return tf.gather(images, [t, t + OFFSET])

    def every(images: Any) -> Any:
        return tf.data.Dataset.from_tensor_slices(tf.stack([images[:-OFFSET], images[OFFSET:]], 1))

    data = episodes.repeat().map(encoded, auto)
    if layout == "episodes":
        data = data.map(decode, auto).flat_map(every).shuffle(SHUFFLE).batch(BATCH)
    else:
        data = data.map(one, auto) if mode == "one" else data.flat_map(every)
        data = data.shuffle(SHUFFLE).map(decode, auto).batch(BATCH, drop_remainder=True)
    options = tf.data.Options()
    options.deterministic = False
    iterator: Iterator[Any] = data.prefetch(auto).with_options(options).as_numpy_iterator()
    return iterator


def without_torchvision() -> None:
    """Let `streaming` be imported where torchvision is not; it is for datasets that nobody reads here."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision"):
        return
    importlib.import_module("transformers.feature_extraction_utils")  # looks for torchvision, too
    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms"):
        sys.modules[name] = types.ModuleType(name)
    functional = types.ModuleType("torchvision.transforms.functional")
    sys.modules[functional.__name__] = functional
    vars(functional)["to_tensor"] = None
    vars(sys.modules["torchvision.datasets"])["VisionDataset"] = object
