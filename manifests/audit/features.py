"""Features of episodes for the audit: a few evenly spaced frames, as thumbnails, hashes and digests.

One pass reads and decodes the frames, in threads, and serves every check. A colour thumbnail of 24x24 pixels
takes 1.7 KB, so a million frames take 1.7 GB; beyond `IN_MEMORY`, thumbnails go to a memory-mapped temporary
file and memory stays bounded. Averaging into thumbnails makes the comparison insensitive to codec, noise and
size. The hashes (64 bits, as `imagehash` computes them) and the digest of the decoded pixels are additional
evidence.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from xxhash import xxh3_64, xxh3_64_intdigest

from oxcart.manifests.audit.episodes import Audited, AuditedEpisode
from oxcart.manifests.frames import CameraFrames
from oxcart.shards.prefetch import in_threads

Frames = npt.NDArray[np.uint8]
Report = Callable[[int], None]

FRAMES = 8
"""Default number of frames per episode."""
GRID = 24
"""Height and width of a thumbnail, in pixels."""
FLAT_LEVELS = 4
"""A frame shows nothing where 98% of its 32x32 thumbnail lie within fewer levels of 255, in every channel."""
IN_MEMORY = 512 << 20
"""Bytes of thumbnails kept in memory; beyond it they are mapped from a temporary file."""

_COSINES: npt.NDArray[np.float64] = np.cos(np.pi / 64 * np.outer(np.arange(8), 2 * np.arange(32) + 1))
"""The first 8 rows of the cosine transform of 32 values."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of E episodes with N frames each; shorter episodes repeat some frames."""

    thumbs: Frames
    """[E, N, 24, 24, 3] uint8."""
    steps: npt.NDArray[np.int32]
    """[E, N]: step of each frame."""
    digests: npt.NDArray[np.uint64]
    """[E, N]: xxh3-64 of the decoded pixels and their shape."""
    dhash: npt.NDArray[np.uint64]
    """[E, N]: difference hash: whether each pixel is brighter than its left neighbour, at 9x8 pixels."""
    phash: npt.NDArray[np.uint64]
    """[E, N]: perceptual hash: the lowest 8x8 cosines of 32x32 grey pixels, compared with their median."""
    flat: npt.NDArray[np.bool_]
    """[E, N]: whether a frame is black or of one colour."""

    def take(self, index: Any) -> Features:
        """The features of some of the episodes."""
        return Features(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})


class Described(NamedTuple):
    """The features of the frames of one episode, as in `Features`."""

    thumbs: Frames
    digests: list[int]
    dhash: list[int]
    phash: list[int]
    flat: list[bool]


def spaced(first: int, stop: int, count: int) -> list[int]:
    """`count` steps from `first` to `stop - 1`, evenly spaced; some repeat where there are fewer."""
    steps: list[int] = np.linspace(first, stop - 1, count).round().astype(int).tolist()
    return steps


def read_features(
    datasets: Sequence[Audited],
    episodes: Sequence[AuditedEpisode],
    frames: int,
    workers: int,
    report: Report = lambda done: None,
) -> Features:
    """Decode `frames` frames of each episode's primary camera and describe them.

    Args:
        datasets: the datasets.
        episodes: the episodes to decode, in any order.
        frames: number of frames per episode.
        workers: number of threads.
        report: called with the number of frames decoded so far.

    Raises:
        CorruptError: a chunk does not match its digest, or cannot be decoded.
        StoreError: a shard cannot be read.
    """
    found = empty(len(episodes), frames)

    def one(i: int, found: CameraFrames) -> tuple[int, list[int], Described]:
        steps = spaced(0, len(found), frames)
        return i, steps, describe(read_steps(found, steps))

    calls = (partial(one, i, there) for i, there in recorded(datasets, episodes))
    for done, (i, steps, described) in enumerate(in_threads(workers, calls, depth=4 * workers), 1):
        put(found, i, steps, described)
        report(done * frames)
    return found


def empty(episodes: int, frames: int) -> Features:
    """Allocate features without filling them."""
    shape = (episodes, frames)
    return Features(
        thumbs=_room((*shape, GRID, GRID, 3)),
        steps=np.zeros(shape, np.int32),
        digests=np.zeros(shape, np.uint64),
        dhash=np.zeros(shape, np.uint64),
        phash=np.zeros(shape, np.uint64),
        flat=np.zeros(shape, np.bool_),
    )


def put(features: Features, i: int, steps: Sequence[int], described: Described) -> None:
    """Fill in the features of episode `i`."""
    features.steps[i] = steps
    for name, values in described._asdict().items():
        getattr(features, name)[i] = values


def recorded(
    datasets: Sequence[Audited], episodes: Sequence[AuditedEpisode], camera: str = "primary"
) -> Iterator[tuple[int, CameraFrames]]:
    """Index of each episode and its frames, dataset by dataset and shard by shard.

    Raises:
        CorruptError: a shard is not in the manifest, or its chunk table does not match.
    """
    for i in sorted(range(len(episodes)), key=lambda i: (episodes[i].dataset, episodes[i].row["shard"], i)):
        yield i, datasets[episodes[i].dataset].frames(episodes[i].row, camera)


def read_steps(frames: CameraFrames, steps: Sequence[int]) -> Frames:
    """Frames [n, H, W, 3] of the given steps; a step that comes twice is read once."""
    once, places = np.unique(steps, return_inverse=True)
    return frames[once.tolist()][places]


def describe(frames: Frames) -> Described:
    """Compute the features of the frames [N, H, W, 3] of one episode."""
    thumbs = np.empty((len(frames), GRID, GRID, 3), np.uint8)
    greys = np.empty((len(frames), 32, 32), np.uint8)
    flat = []
    slim = np.empty((len(frames), 8, 9), np.uint8)
    for i, frame in enumerate(frames):
        image = Image.fromarray(frame)
        thumbs[i] = np.asarray(image.resize((GRID, GRID), Image.Resampling.BOX))
        small = image.resize((32, 32), Image.Resampling.BOX)
        flat.append(is_flat(np.asarray(small)))
        grey = small.convert("L")
        greys[i] = np.asarray(grey)
        slim[i] = np.asarray(grey.resize((9, 8), Image.Resampling.BOX))
    low = _COSINES @ greys.astype(np.float64) @ _COSINES.T
    signs = low > np.median(low.reshape(len(frames), -1), axis=1)[:, None, None]
    return Described(
        thumbs=thumbs,
        digests=[digest(frame) for frame in frames],
        dhash=_bits(slim[:, :, 1:] > slim[:, :, :-1]),
        phash=_bits(signs),
        flat=flat,
    )


def digest(frame: Frames) -> int:
    """xxh3-64 of the pixels of a frame [H, W, 3] and its shape."""
    whole = xxh3_64(str(frame.shape).encode())
    whole.update(np.ascontiguousarray(frame).data)
    return whole.intdigest()


def is_flat(small: Frames) -> bool:
    """Whether a thumbnail [32, 32, 3] has hardly any contrast. A small object on one colour has enough."""
    levels = np.sort(small.reshape(-1, small.shape[-1]), axis=0).astype(np.int16)
    rest = len(levels) // 100
    return bool((levels[-1 - rest] - levels[rest] < FLAT_LEVELS).all())


def draws(seed: int, *purpose: object) -> np.random.Generator:
    """The random number generator for a purpose, the same on every machine."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return np.random.Generator(np.random.PCG64(xxh3_64_intdigest(text.encode())))


def distance(one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """Number of bits in which hashes differ."""
    bits: npt.NDArray[np.uint8] = np.bitwise_count(one ^ other)
    return bits


def _bits(values: npt.NDArray[np.bool_]) -> list[int]:
    """Pack 64 booleans per item into one number per item."""
    packed = np.packbits(values.reshape(len(values), 64), axis=1)
    numbers: list[int] = packed.view(">u8")[:, 0].astype(np.uint64).tolist()
    return numbers


def _room(shape: tuple[int, ...]) -> Frames:
    if int(np.prod(shape, dtype=np.int64)) <= IN_MEMORY:
        return np.zeros(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)
