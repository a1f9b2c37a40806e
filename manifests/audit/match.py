"""Which episodes show the same: an exact search, then a confirmation over time that undoes crops and mirrors.

    best = Matcher(gallery).search(queries, allowed, keep=8)

**Search.** A frame is 8x8 pixels of brightness and two colour differences, centred and of length 1. Every
query frame, as it is and mirrored, is compared with every frame of the gallery (blocked matrix products:
exact, no index to tune, and on one core as fast as FAISS's flat index, which is the same product). The
score of two episodes is the mean over the query's frames of the best frame of the other; the best `keep` go
on.

**Confirmation.** The same at 16x16 pixels, under each of a set of windows: the query's frame is the
gallery's cropped, enlarged, shifted, or mirrored, one way for the whole episode. Both sides are centred
over what they share, which makes the comparison blind to brightness and contrast. Then frames are aligned
in order (the best path that never goes back), and the score is the mean correlation along it, without its
worst quarter: a copy that begins later has no counterpart for its first frames.

1 is the same pictures, 0 has nothing in common. What that means is for the null distribution to say: see
`verdict`. The trade-off: the windows reach crops and shifts of 15%; a picture-in-picture or a rotation is
not found.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from oxcart.manifests.audit.features import GRID
from oxcart.shards.ahead import ahead

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]
Thumbs = npt.NDArray[np.uint8]

COARSE, FINE = 8, 16
"""Pixels of a side in the search and in the confirmation."""
KEEP = 8
"""Candidates of a query episode that are confirmed."""
TRIM = 0.25
"""Share of the aligned frames that may have no counterpart."""
SCALES: tuple[tuple[float, tuple[float, ...]], ...] = (
    (1.0, (-0.12, -0.06, 0.0, 0.06, 0.12)),
    (0.93, (-0.035, 0.0, 0.035)),
    (0.87, (-0.065, 0.0, 0.065)),
    (1.075, (-0.035, 0.0, 0.035)),
    (1.15, (-0.065, 0.0, 0.065)),
)
"""Windows: side of the query's window in sides of the gallery's frame, and offsets of its middle."""
COLOUR = 1.0
"""Weight of colour differences beside brightness."""
QUERY_BLOCK, GALLERY_BLOCK = 8, 1024
"""Episodes that are multiplied at a time."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """The candidates of Q query episodes, the best first; K of them."""

    episodes: Ints
    """[Q, K]: index in the gallery, -1 where there are fewer."""
    scores: Floats
    """[Q, K]: after confirmation, -1 where there is none."""
    pairs: npt.NDArray[np.int8]
    """[Q, K, N]: which frame of the gallery's episode each frame of the query is aligned with."""
    similarity: Floats
    """[Q, K, N]: correlation of each aligned pair."""
    window: npt.NDArray[np.int16]
    """[Q, K]: index in `WINDOWS`."""
    search: Floats
    """[Q]: score that the last candidate had in the search: what is below was not confirmed."""

    @property
    def best(self) -> Floats:
        """[Q]: score of the best candidate, -1 where there is none."""
        return self.scores[:, 0]

    def take(self, index: Any) -> Match:
        """Those of some queries."""
        return Match(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})


Allowed = Callable[[Ints], npt.NDArray[np.bool_]]
"""Of query indices [q], which episodes of the gallery count: [q, G]."""


def coarse(thumbs: Thumbs) -> Floats:
    """Thumbnails [..., 24, 24, 3] as vectors [..., 192] of length 1; what is flat is 0."""
    lead = thumbs.shape[:-3]
    side = GRID // COARSE
    cells = thumbs.reshape(-1, COARSE, side, COARSE, side, 3).mean((2, 4), dtype=np.float32)
    planes = opponents(cells)
    planes -= planes.mean((1, 2), keepdims=True)
    return _unit(planes.reshape(*lead, -1))


def opponents(rgb: Floats) -> Floats:
    """Brightness, red minus green, and yellow minus blue, of [..., 3]."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([grey, COLOUR * (red - green), COLOUR * ((red + green) / 2 - blue)], axis=-1)


def one_thread() -> AbstractContextManager[Any]:
    """Inside, a matrix product takes one thread: ours share the work, and no sum depends on their number."""
    limits: AbstractContextManager[Any] = threadpool_limits(1, "blas")
    return limits


class Matcher:
    """A gallery of episodes to search; thumbs [G, N, 24, 24, 3] uint8."""

    def __init__(self, thumbs: Thumbs) -> None:
        self.thumbs = thumbs
        self.count, self.frames = thumbs.shape[:2]
        self._coarse: Floats | None = None

    def search(
        self,
        queries: Thumbs,
        allowed: Allowed | None = None,
        keep: int = KEEP,
        workers: int = 1,
        report: Callable[[int], None] = lambda done: None,
    ) -> Match:
        """The best episodes of the gallery for each query [Q, N, 24, 24, 3] uint8.

        Args:
            queries: thumbnails.
            allowed: which episodes count for a query; None is all.
            keep: candidates to confirm.
            workers: threads.
            report: told of queries done so far.
        """
        keep = min(keep, self.count)
        frames = queries.shape[1]
        out = Match(
            episodes=np.full((len(queries), keep), -1, np.intp),
            scores=np.full((len(queries), keep), -1, np.float32),
            pairs=np.zeros((len(queries), keep, frames), np.int8),
            similarity=np.zeros((len(queries), keep, frames), np.float32),
            window=np.zeros((len(queries), keep), np.int16),
            search=np.full(len(queries), -1, np.float32),
        )
        blocks = [
            np.arange(start, min(start + QUERY_BLOCK, len(queries)))
            for start in range(0, len(queries), QUERY_BLOCK)
        ]
        self._prepare()
        pool = ThreadPoolExecutor(workers)
        try:
            with one_thread():
                calls = (partial(self._block, queries, index, allowed, out) for index in blocks)
                for index, _ in zip(blocks, ahead(pool, calls, depth=2 * workers), strict=True):
                    report(int(index[-1]) + 1)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return out

    def _block(self, queries: Thumbs, index: Ints, allowed: Allowed | None, out: Match) -> None:
        """Fill in the matches of a block of queries."""
        found = self.scores(queries[index])
        if allowed is not None:
            found[~allowed(index)] = -2
        keep = out.episodes.shape[1]
        top = np.argsort(-found, axis=1, kind="stable")[:, :keep]
        for row, query in enumerate(index):
            chosen = top[row][found[row][top[row]] > -2]
            if len(chosen):
                out.search[query] = found[row][chosen[-1]]
                self._confirm(queries[query], chosen, out, int(query))

    def scores(self, queries: Thumbs) -> Floats:
        """Search scores [Q, G] of a block of queries: exact, over all frames."""
        number, frames = queries.shape[:2]
        both = np.stack([coarse(queries), coarse(queries[:, :, :, ::-1])]).reshape(2 * number * frames, -1)
        found = np.empty((number, self.count), np.float32)
        for start in range(0, self.count, GALLERY_BLOCK):
            stop = min(start + GALLERY_BLOCK, self.count)
            block = self._vectors(start, stop)
            products = both @ block.T
            best = products.reshape(2, number, frames, stop - start, self.frames).max(-1)
            found[:, start:stop] = best.mean(2).max(0)
        return found

    def _prepare(self) -> None:
        """Make the vectors of all frames once, where they fit; else they are made for each block anew."""
        if self._coarse is None and self.count * self.frames * 3 * COARSE**2 * 4 <= 1 << 30:
            parts = [self._vectors(i, i + GALLERY_BLOCK) for i in range(0, self.count, GALLERY_BLOCK)]
            self._coarse = np.concatenate(parts) if parts else None

    def _vectors(self, start: int, stop: int) -> Floats:
        """Vectors [n * N, 192] of the frames of some episodes."""
        if self._coarse is not None:
            return self._coarse[start * self.frames : stop * self.frames]
        return coarse(self.thumbs[start:stop]).reshape(-1, 3 * COARSE**2)

    def _confirm(self, query: Thumbs, chosen: Ints, out: Match, at: int) -> None:
        confirmed = confirm(query, self.thumbs[chosen])
        order = np.argsort(-confirmed[0], kind="stable")
        out.episodes[at, : len(chosen)] = chosen[order]
        targets = (out.scores, out.pairs, out.similarity, out.window)
        for target, values in zip(targets, confirmed, strict=True):
            target[at, : len(chosen)] = values[order]


def confirm(query: Thumbs, others: Thumbs) -> tuple[Floats, Any, Floats, Any]:
    """Scores of one query episode [N, 24, 24, 3] against K others [K, M, 24, 24, 3].

    Returns:
        Scores [K]; frames of the others that are aligned with each of the query [K, N]; their correlations
        [K, N]; index of the window [K].
    """
    number, frames = others.shape[:2]
    views, means, lengths = _views(query)
    plain = _plain(others).reshape(number * frames, 3, FINE * FINE)
    sums = _per_window(plain)
    # Centred products: both sides less their means over the shared pixels of the window.
    products = (views @ plain.reshape(len(plain), -1).T).reshape(len(WINDOWS), -1, len(plain))
    products -= means @ sums
    products /= lengths[..., None]
    products /= _lengths(plain, sums)[:, None]
    similar = products.reshape(len(WINDOWS) * 2, len(query), number, frames)
    kept = len(query) - int(TRIM * len(query))
    # The window is the one that would be best if frames needed no order: the bound of the path's mean.
    bound = np.sort(similar.max(-1), axis=1)[:, -kept:].mean(1)
    window = bound.argmax(0)
    chosen = similar[window, :, np.arange(number)]
    path = monotone(chosen)
    along = np.take_along_axis(chosen, path[:, :, None], 2)[:, :, 0]
    scores = np.sort(along, axis=1)[:, -kept:].mean(1)
    return scores, path, along, window


def monotone(similar: Floats) -> Ints:
    """For [K, N, M], the columns [K, N] of the path of the largest sum that never goes back."""
    number, rows, columns = similar.shape
    best = np.empty_like(similar)
    best[:, 0] = similar[:, 0]
    for row in range(1, rows):
        best[:, row] = similar[:, row] + np.maximum.accumulate(best[:, row - 1], axis=1)
    path = np.empty((number, rows), np.intp)
    path[:, -1] = best[:, -1].argmax(1)
    column = np.arange(columns)
    for row in range(rows - 2, -1, -1):
        past = np.where(column <= path[:, row + 1, None], best[:, row], -np.inf)
        path[:, row] = past.argmax(1)
    return path


def window_text(index: int) -> str:
    """What a window undoes, for people."""
    scale, y, x = WINDOWS[index // 2]
    parts = ["mirrored"] if index % 2 else []
    if scale != 1:
        parts.append(f"{'cropped' if scale < 1 else 'enlarged'} to {scale:.0%}")
    if (y, x) != (0, 0):
        parts.append(f"shifted by {x:+.0%}, {y:+.0%}")
    return ", ".join(parts) or "as it is"


def _unit(vectors: Floats) -> Floats:
    length = np.sqrt((vectors * vectors).sum(-1, keepdims=True))
    # 4 grey levels of a pixel on average: what varies less is noise of a flat frame.
    return np.where(length > 4.0, vectors / np.maximum(length, 1e-6), 0).astype(np.float32)


Window = tuple[float, float, float]
"""Scale, and offset down and to the right."""


def _resampling(scale: float, offset: float) -> Floats:
    """[16, 24]: means over the pixels that each cell of a window covers; 0 outside the frame."""
    edges = (np.arange(FINE + 1) / FINE - 0.5) * scale + 0.5 + offset
    low, high = edges[:-1] * GRID, edges[1:] * GRID
    pixel = np.arange(GRID)
    cover = np.clip(np.minimum(high[:, None], pixel + 1) - np.maximum(low[:, None], pixel), 0, None)
    inside = cover.sum(1) >= 0.99 * (high - low)
    weights: Floats = np.where(inside[:, None], cover / (high - low)[:, None], 0).astype(np.float32)
    return weights


def _shared() -> Floats:
    """[W, 256]: 1 where both frames have a pixel under the window."""
    masks = []
    for operators in _OPERATORS:
        inside = (operators.sum(2) > 0).astype(np.float32)
        masks.append(np.einsum("ay,bx->abyx", inside, inside).reshape(-1, FINE * FINE))
    return np.concatenate(masks)


WINDOWS = tuple((scale, y, x) for scale, offsets in SCALES for y in offsets for x in offsets)
_OPERATORS = [np.stack([_resampling(scale, offset) for offset in offsets]) for scale, offsets in SCALES]
_SHARED = _shared()
_CELLS: Floats = _SHARED.sum(1)
_STRAIGHT = _resampling(1.0, 0.0)
_FLAT = float(2 * FINE)
"""A length below it, 1.2 grey levels a pixel, is noise of a flat frame."""


def _planes(thumbs: Thumbs) -> Floats:
    """[..., 24, 24, 3] uint8 as brightness and colour planes [n, 3, 24, 24], each centred."""
    flat = thumbs.reshape(-1, GRID, GRID, 3).astype(np.float32)
    planes = np.ascontiguousarray(np.moveaxis(opponents(flat), -1, 1))
    planes -= planes.mean((2, 3), keepdims=True)
    return planes


def _plain(thumbs: Thumbs) -> Floats:
    """[K, M, 24, 24, 3] as [K * M, 3, 16, 16]."""
    return _STRAIGHT @ _planes(thumbs) @ _STRAIGHT.T


def _views(query: Thumbs) -> tuple[Floats, Floats, Floats]:
    """The frames under every window, plain and then mirrored.

    Returns:
        Views [W * 2N, 768], 0 outside the frame; the means [W, 2N, 3] of their planes over what is inside;
        their lengths [W, 2N] once those are taken off.
    """
    planes = _planes(np.concatenate([query, query[:, :, ::-1]]))
    number = len(planes)
    views = np.empty((len(WINDOWS), number, 3, FINE, FINE), np.float32)
    start = 0
    for operators in _OPERATORS:
        offsets = len(operators)
        flat = operators.reshape(offsets * FINE, GRID)
        # Rows first, then columns; every pair of offsets shares them.
        tall = np.matmul(flat, planes.reshape(number * 3, GRID, GRID)).reshape(-1, GRID)
        both = (tall @ flat.T).reshape(number, 3, offsets, FINE, offsets, FINE)
        out = views[start : start + offsets * offsets].reshape(offsets, offsets, number, 3, FINE, FINE)
        out[:] = both.transpose(2, 4, 0, 1, 3, 5)
        start += offsets * offsets
    flat_views = views.reshape(len(WINDOWS), number, 3, FINE * FINE)
    sums = flat_views.sum(-1)
    squares = np.einsum("wnci,wnci->wn", flat_views, flat_views)
    variance = squares - (sums * sums).sum(-1) / _CELLS[:, None]
    lengths = np.sqrt(np.maximum(variance, 0))
    # What is flat resembles nothing.
    lengths = np.where(lengths > _FLAT, lengths, np.inf).astype(np.float32)
    return views.reshape(len(WINDOWS) * number, -1), sums / _CELLS[:, None, None], lengths


def _per_window(plain: Floats) -> Floats:
    """[n, 3, 256] -> [W, 3, n]: sums of each plane over each window's shared pixels."""
    sums = plain.reshape(-1, FINE * FINE) @ _SHARED.T
    return np.ascontiguousarray(sums.reshape(len(plain), 3, -1).transpose(2, 1, 0))


def _lengths(plain: Floats, sums: Floats) -> Floats:
    """[n, 3, 256] -> [W, n]: length of each frame when centred over each window's shared pixels."""
    squares = _SHARED @ (plain * plain).sum(1).T
    variance = squares - (sums * sums).sum(1) / _CELLS[:, None]
    return np.sqrt(np.maximum(variance, _FLAT * _FLAT)).astype(np.float32)
