"""A perceptual hash of frames that survives another encoding and a crop, and the videos that show the same.

    looks = look_at(grey)              # [VIEWS] uint64: the frame, and ever smaller middles of it
    same = near_duplicates(looks_of)   # video -> the first of the videos that show the same

A hash is the signs of the low frequencies of 32x32 grey levels against their median (a "pHash", Zauner 2010,
section 3.2). The discrete cosine transform is in integers, so that no processor's rounding flips a bit. A
cropped copy shows the middle of its original, so the middles of each frame are compared with the whole of the
other. Candidates are found by equal thirds of hashes, not by comparing all pairs; the price is that a copy is
missed if hardly a third of a hash survives. Mirrored copies and picture-in-picture are missed too.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Uint64 = npt.NDArray[np.uint64]

VIEWS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Sides of the central crops that are hashed, as shares of the frame's sides."""
SIDE, KEPT, _PARTS = 32, 8, 64
NEAR = 12
"""Largest number of bits, of 64, in which two hashes of the same frame differ."""
SHARE, LEAST = 0.5, 3
"""Minimum share and number of the shorter video's frames that the other video must show."""
FLAT = 4.0
"""Standard deviation of grey levels below which a frame is too flat to be told from others."""
MOST, INDEXED = 512, 64
"""Frames per video that are compared, and how many of them are used to find candidates."""
_THIRD, _MASK = 21, np.uint64((1 << 21) - 1)
_CROWD = 512
"""Maximum number of hashes that may share a third; larger groups show something common and are ignored."""

_DCT = np.round(1024 * np.cos(np.pi / SIDE * (np.arange(SIDE) + 0.5) * np.arange(KEPT)[:, None]))


def look_at(grey: npt.NDArray[np.uint8]) -> Uint64 | None:
    """Hashes [VIEWS] of a frame [H, W] uint8 and its middles; None where it is too flat."""
    levels = grey.astype(np.float64)
    total = float(levels.sum())
    if grey.size * float(np.vdot(levels, levels)) - total * total < (FLAT * grey.size) ** 2:
        return None
    down, across = _waves(grey.shape[0]), _waves(grey.shape[1]).transpose(0, 2, 1).copy()
    found = (down @ levels @ across).reshape(len(VIEWS), -1)
    middle = np.sort(found, axis=1)[:, KEPT * KEPT // 2 - 1 : KEPT * KEPT // 2 + 1].mean(axis=1)
    bits = np.packbits(found > middle[:, None], axis=1, bitorder="little")
    return bits.view("<u8")[:, 0].astype(np.uint64)


@lru_cache(maxsize=64)
def _waves(side: int) -> npt.NDArray[np.float64]:
    """Weights [VIEWS, KEPT, side] from the pixels along a side to the low frequencies of each middle.

    They are integers, small enough that every sum is exact in any order.
    """
    found = np.empty((len(VIEWS), KEPT, side))
    pixels = np.arange(side)
    for i, view in enumerate(VIEWS):
        edges = side * (1 - view) / 2 + side * view * np.arange(SIDE + 1) / SIDE
        covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        found[i] = _DCT @ np.round(_PARTS * SIDE / (side * view) * np.clip(covered, 0, None))
    return found


def near_duplicates(looks: Mapping[str, Sequence[Uint64]]) -> dict[str, str]:
    """Each video that shows the same as others -> the first of these videos by name.

    Args:
        looks: name of each video -> the hashes [VIEWS] of its frames, most significant first; only the first
            MOST count.
    """
    names = sorted(name for name, found in looks.items() if len(found) >= LEAST)
    tables = [np.stack(list(looks[name])[:MOST]) for name in names]
    first = list(range(len(names)))

    def root(one: int) -> int:
        while first[one] != one:
            one = first[one]
        return one

    for one, other in _candidates(tables):
        if root(one) != root(other) and alike(tables[one], tables[other]):
            low, high = sorted((root(one), root(other)))
            first[high] = low
    groups = Counter(root(i) for i in range(len(names)))
    return {name: names[root(i)] for i, name in enumerate(names) if groups[root(i)] > 1}


def alike(one: Uint64, other: Uint64) -> bool:
    """Whether two videos, [N, VIEWS] and [M, VIEWS], show the same for most of the shorter video."""
    if len(one) > len(other):
        one, other = other, one
    distance = np.full((len(one), len(other)), 64, np.uint8)
    for mine, theirs in ((one[:, :1], other), (one, other[:, :1])):
        for i, j in itertools.product(range(mine.shape[1]), range(theirs.shape[1])):
            differ = np.bitwise_count(mine[:, i, None] ^ theirs[None, :, j])
            np.minimum(distance, differ, out=distance)
    found = distance.min(axis=1) <= NEAR
    partners = len(np.unique(distance.argmin(axis=1)[found]))
    return partners >= LEAST and int(found.sum()) >= SHARE * len(one)


def _candidates(tables: Sequence[Uint64]) -> list[tuple[int, int]]:
    """Pairs of videos where whole frames of one and middles of the other share thirds of hashes."""
    if not tables:
        return []
    few = [table[:INDEXED, 0] for table in tables]
    pairs: list[npt.NDArray[np.int64]] = []
    owners = np.repeat(np.arange(len(tables)), [table.size for table in tables])
    askers = np.repeat(np.arange(len(tables)), [len(one) for one in few])
    hashes, asked = np.concatenate([table.reshape(-1) for table in tables]), np.concatenate(few)
    for third in range(3):
        parts, wanted = ((one >> np.uint64(_THIRD * third)) & _MASK for one in (hashes, asked))
        order = np.argsort(parts, kind="stable")
        low = np.searchsorted(parts[order], wanted, side="left")
        count = np.searchsorted(parts[order], wanted, side="right") - low
        count[count > _CROWD] = 0
        begins = np.repeat(low - np.cumsum(count) + count, count)
        found = owners[order[begins + np.arange(int(count.sum()))]]
        askers_of = np.repeat(askers, count)
        codes = np.minimum(found, askers_of) * len(tables) + np.maximum(found, askers_of)
        pairs.append(codes[found != askers_of])
    codes, times = np.unique(np.concatenate(pairs), return_counts=True)
    return [divmod(code, len(tables)) for code in codes[times >= LEAST].tolist()]
