"""Find episodes that show the same: an exact search, then confirmation over time, undoing crops and mirrors.

    best = Matcher(gallery).search(queries, allowed)

**Search.** A frame is reduced to 8x8 pixels of brightness and two colour differences, centred and scaled to
length 1. Every query frame, unchanged and mirrored, is compared with every frame of the gallery by blocked
matrix products; the search is exact and has no index to tune. The score of two episodes is the mean, over the
query's frames, of the best frame of the other. Shifted copies are found by backgrounds (temporal medians),
which are few enough to compare under windows. The best `KEEP` by frames and by backgrounds are confirmed.

**Confirmation.** Candidates are compared at 16x16 pixels under many windows (see `windows`): the query's
frame is taken to be the other's, cropped, enlarged, shifted or mirrored, in one way for the whole episode.
Then frames are aligned in order, by the best path that never moves back. The score is the mean correlation
along the path without its worst quarter, since a copy that begins later has no counterpart for its first
frames.

A score of 1 means the same images, and 0 nothing in common. Scores between are judged by the null
distribution (see `verdict`). The trade-off: windows reach crops and shifts of 15%; rotations and
picture-in-picture are not found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from oxcart.manifests.audit.features import GRID
from oxcart.manifests.audit.windows import Plain, Windows, opponents
from oxcart.shards.prefetch import in_threads

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]
Thumbs = npt.NDArray[np.uint8]

COARSE = 8
"""Side of a frame in the search, in pixels."""
KEEP = 8
"""Candidates confirmed per query episode: this many by frames, and as many by backgrounds."""
TRIM = 0.25
"""Share of the aligned frames that may have no counterpart."""
SEARCH = Windows(COARSE, [(1.0, (-0.12, 0.0, 0.12))])
"""Windows of the search by backgrounds."""
CONFIRM = Windows(
    16,
    [
        (1.0, (-0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15)),
        (0.93, (-0.035, 0.0, 0.035)),
        (0.87, (-0.065, 0.0, 0.065)),
        (1.075, (-0.035, 0.0, 0.035)),
        (1.15, (-0.065, 0.0, 0.065)),
    ],
)
"""Windows of the confirmation."""
QUERY_BLOCK, GALLERY_BLOCK = 8, 1024
"""Query and gallery episodes per matrix product."""
IN_MEMORY = 1 << 30
"""Bytes of gallery vectors kept in memory; beyond it they are recomputed for each block of queries."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """The K best candidates of Q query episodes, best first."""

    episodes: Ints
    """[Q, K]: index in the gallery; -1 if there are fewer candidates."""
    scores: Floats
    """[Q, K]: score after confirmation; -1 if there are fewer candidates."""
    pairs: npt.NDArray[np.int8]
    """[Q, K, N]: frame of the gallery's episode with which each frame of the query is aligned."""
    similarity: Floats
    """[Q, K, N]: correlation of each aligned pair."""
    window: npt.NDArray[np.int16]
    """[Q, K]: twice the index in `CONFIRM`, plus 1 if mirrored."""
    search: Floats
    """[Q, 2]: lowest search scores, by frames and by backgrounds, that led to confirmation."""

    @property
    def best(self) -> Floats:
        """[Q]: score of the best candidate; -1 if there is none."""
        return self.scores[:, 0] if self.scores.shape[1] else np.full(len(self.scores), -1, np.float32)

    def take(self, index: Any) -> Match:
        """Select the candidates of some queries."""
        return Match(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})


Allowed = Callable[[Ints], npt.NDArray[np.bool_]]
"""Maps query indices [q] to a mask [q, G] of the gallery's episodes that count for each."""


def coarse(thumbs: Thumbs) -> Floats:
    """Thumbnails [..., 24, 24, 3] as vectors [..., 192] of length 1; flat thumbnails become 0."""
    lead = thumbs.shape[:-3]
    side = GRID // COARSE
    cells = thumbs.reshape(-1, COARSE, side, COARSE, side, 3).mean((2, 4), dtype=np.float32)
    colours = opponents(cells)
    colours -= colours.mean((1, 2), keepdims=True)
    vectors = colours.reshape(*lead, 3 * COARSE**2)
    length = np.sqrt((vectors * vectors).sum(-1, keepdims=True))
    # 1.2 grey levels a pixel: what varies less is noise of a flat frame.
    return np.where(length > 2 * COARSE, vectors / np.maximum(length, 1e-6), 0).astype(np.float32)


def backgrounds(thumbs: Thumbs) -> Thumbs:
    """The temporal median [E, 24, 24, 3] of [E, N, 24, 24, 3], from which moving things vanish."""
    out = np.empty((len(thumbs), *thumbs.shape[2:]), np.uint8)
    for i in range(0, len(thumbs), 256):
        out[i : i + 256] = np.median(thumbs[i : i + 256], axis=1).astype(np.uint8)
    return out


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limit matrix products to one thread: our own threads share the work, and sums stay reproducible."""
    with threadpool_limits(1, "blas"):
        yield


class Matcher:
    """A gallery of episodes to search; thumbs [G, N, 24, 24, 3] uint8."""

    def __init__(self, thumbs: Thumbs) -> None:
        self.thumbs = thumbs
        self.count, self.frames = thumbs.shape[:2]
        self._kept: dict[int, tuple[Floats, Plain]] | None = None

    def search(
        self,
        queries: Thumbs,
        allowed: Allowed | None = None,
        keep: int = KEEP,
        workers: int = 1,
        report: Callable[[int], None] = lambda done: None,
    ) -> Match:
        """Find the best episodes of the gallery for each query [Q, N, 24, 24, 3] uint8.

        Args:
            queries: thumbnails of the queries.
            allowed: which episodes count for a query; None allows all.
            keep: number of candidates to confirm.
            workers: number of threads.
            report: called with the number of queries done so far.
        """
        both, frames = min(2 * keep, self.count), queries.shape[1]
        out = Match(
            episodes=np.full((len(queries), both), -1, np.intp),
            scores=np.full((len(queries), both), -1, np.float32),
            pairs=np.zeros((len(queries), both, frames), np.int8),
            similarity=np.zeros((len(queries), both, frames), np.float32),
            window=np.zeros((len(queries), both), np.int16),
            search=np.full((len(queries), 2), -1, np.float32),
        )
        blocks = [
            np.arange(start, min(start + QUERY_BLOCK, len(queries)))
            for start in range(0, len(queries), QUERY_BLOCK)
        ]
        with one_thread():
            self._prepare()
            calls = (partial(self._block, queries, index, allowed, keep, out) for index in blocks)
            for index, _ in zip(blocks, in_threads(workers, calls, depth=2 * workers), strict=True):
                report(int(index[-1]) + 1)
        return out

    def _block(self, queries: Thumbs, index: Ints, allowed: Allowed | None, keep: int, out: Match) -> None:
        """Search and confirm a block of queries, and write the results to the match."""
        found = np.stack(self.scores(queries[index]))
        if allowed is not None:
            found[:, ~allowed(index)] = -2
        top = np.argsort(-found, axis=2, kind="stable")[:, :, :keep]
        for row, query in enumerate(index):
            chosen: dict[int, None] = {}
            for way in (0, 1):
                mine = [int(i) for i in top[way, row] if found[way, row, i] > -2]
                if mine:
                    chosen |= dict.fromkeys(mine)
                    out.search[query, way] = found[way, row, mine[-1]]
            if chosen:
                self._confirm(queries[query], np.array(list(chosen)), out, int(query))

    def scores(self, queries: Thumbs) -> tuple[Floats, Floats]:
        """Exact search scores [Q, G] of a block of queries, by frames and by backgrounds."""
        number, frames = queries.shape[:2]
        both = np.stack([coarse(queries), coarse(queries[:, :, :, ::-1])]).reshape(2 * number * frames, -1)
        by_frames = np.empty((number, self.count), np.float32)
        by_backgrounds = np.empty((number, self.count), np.float32)
        views = SEARCH.views(backgrounds(queries))
        for start in range(0, self.count, GALLERY_BLOCK):
            stop = min(start + GALLERY_BLOCK, self.count)
            vectors, plain = self._vectors(start, stop)
            best = (both @ vectors.T).reshape(2, number, frames, self.frames, stop - start).max(3)
            by_frames[:, start:stop] = best.mean(2).max(0)
            similar = SEARCH.similar(views, plain).reshape(len(SEARCH) * 2, number, stop - start)
            by_backgrounds[:, start:stop] = similar.max(0)
        return by_frames, by_backgrounds

    def _prepare(self) -> None:
        """Compute the vectors once if they fit in memory; otherwise each block of queries recomputes them."""
        if self._kept is None and self.count * (self.frames + 2) * 3 * COARSE**2 * 4 <= IN_MEMORY:
            blocks = range(0, self.count, GALLERY_BLOCK)
            self._kept = {i: self._make(i, min(i + GALLERY_BLOCK, self.count)) for i in blocks}

    def _vectors(self, start: int, stop: int) -> tuple[Floats, Plain]:
        """The vectors [N * n, 192] of the frames of some episodes, and their backgrounds.

        The first frames of all come first: the best frame of each is then a maximum of whole rows, which is
        several times as fast as one of eight neighbours.
        """
        return self._kept[start] if self._kept is not None else self._make(start, stop)

    def _make(self, start: int, stop: int) -> tuple[Floats, Plain]:
        thumbs = self.thumbs[start:stop]
        vectors = np.ascontiguousarray(coarse(thumbs).swapaxes(0, 1)).reshape(-1, 3 * COARSE**2)
        return vectors, SEARCH.plain(backgrounds(thumbs))

    def _confirm(self, query: Thumbs, chosen: Ints, out: Match, at: int) -> None:
        confirmed = confirm(query, self.thumbs[chosen])
        order = np.argsort(-confirmed[0], kind="stable")
        out.episodes[at, : len(chosen)] = chosen[order]
        targets: tuple[Any, ...] = (out.scores, out.pairs, out.similarity, out.window)
        for target, values in zip(targets, confirmed, strict=True):
            target[at, : len(chosen)] = values[order]


def confirm(query: Thumbs, others: Thumbs) -> tuple[Floats, Any, Floats, Any]:
    """Scores of one query episode [N, 24, 24, 3] against K others [K, M, 24, 24, 3].

    Returns:
        Scores [K]; frames of the others that are aligned with each of the query [K, N]; their correlations
        [K, N]; the window [K].
    """
    number, frames = others.shape[:2]
    similar = CONFIRM.similar(CONFIRM.views(query), CONFIRM.plain(others))
    similar = similar.reshape(len(CONFIRM) * 2, len(query), number, frames)
    kept = len(query) - int(TRIM * len(query))
    # The window is the one that would be best if frames needed no order: the bound of the path's mean.
    bound = np.sort(similar.max(-1), axis=1)[:, -kept:].mean(1)
    window = bound.argmax(0)
    chosen = similar[window, :, np.arange(number)]
    path = in_order(chosen)
    along = np.take_along_axis(chosen, path[:, :, None], 2)[:, :, 0]
    scores = np.sort(along, axis=1)[:, -kept:].mean(1)
    return scores, path, along, window


def in_order(similar: Floats) -> Ints:
    """The columns [K, N] of the path with the largest sum through [K, N, M], where N is at most 2M.

    The path never moves back, and visits a column at most twice; otherwise one frame would answer for all.
    """
    number, rows, columns = similar.shape
    first = np.full(similar.shape, -np.inf, np.float32)
    again = np.full(similar.shape, -np.inf, np.float32)
    first[:, 0] = similar[:, 0]
    for row in range(1, rows):
        before = np.maximum.accumulate(np.maximum(first[:, row - 1], again[:, row - 1]), axis=1)
        first[:, row, 1:] = similar[:, row, 1:] + before[:, :-1]
        again[:, row] = similar[:, row] + first[:, row - 1]
    path = np.empty((number, rows), np.intp)
    every, column = np.arange(number), np.arange(columns)
    limit, stay = np.full(number, columns), np.full(number, False)
    for row in range(rows - 1, -1, -1):
        best = np.where(column < limit[:, None], np.maximum(first[:, row], again[:, row]), -np.inf)
        path[:, row] = np.where(stay, limit - 1, best.argmax(1)) if row < rows - 1 else best.argmax(1)
        here = every, row, path[:, row]
        # A second stay on a column comes after its first; a first one after a column before it.
        twice = ~stay & (again[here] > first[here])
        limit = np.where(twice, path[:, row] + 1, path[:, row])
        stay = twice
    return path


def window_text(index: int) -> str:
    """Description of what a window undoes, for people."""
    scale, y, x = CONFIRM.numbers[index // 2]
    parts = ["mirrored"] if index % 2 else []
    if scale != 1:
        parts.append(f"{'cropped' if scale < 1 else 'enlarged'} to {scale:.0%}")
    if (y, x) != (0, 0):
        parts.append(f"shifted by {x:+.0%}, {y:+.0%}")
    return ", ".join(parts) or "as it is"
