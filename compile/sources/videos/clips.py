"""Turn a survey into clips: which frames belong together, which are left out, and why.

A shot is cut where it is black, or where nothing moves (a frozen frame, a slide), for longer than the
configuration allows. The rest is cut into clips of at most the longest length. Cuts inside a shot prefer key
frames: a clip that begins at one is decoded without the frames before it, which makes decoding clips in the
order of a hash nearly as cheap as decoding them in a row. Every part of a video ends up in exactly one row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from oxcart.compile.sources.base import LEFT_OUT
from oxcart.compile.sources.videos.config import VideoConfig
from oxcart.compile.sources.videos.decode import Int64
from oxcart.compile.sources.videos.survey import Survey

_MOVING, _STILL, _BLACK = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A run of frames of one shot."""

    start: int
    """Time (pts) of the clip's first frame."""
    stop: int
    """Time (pts) of the first frame after the clip."""
    steps: int
    """Number of steps of the clip at the configured rate."""
    moved: float
    """Mean difference of grey levels from step to step."""
    rejected: str | None
    """Reason why the clip is left out; None if it is kept."""


def clips(seen: Survey, config: VideoConfig) -> Iterator[Clip]:
    """All clips of a video in order of time, including the runs between them that are left out."""
    borders = [*seen.cuts.tolist(), len(seen.pts)]
    keys = np.array(sorted({one.pts for one in seen.packets if one.key}), np.int64)
    for first, last in pairwise(borders):
        part = int(np.searchsorted(seen.parts, first, side="right")) - 1
        of_part = int(seen.parts[part + 1]) if part + 1 < len(seen.parts) else len(seen.pts)
        stop = int(seen.ends[part]) if last == of_part else int(seen.pts[last])
        for start, end, kind in _runs(seen, config, first, last, stop):
            cuts = _lengths(seen, config, keys, start, end) if kind == _MOVING else [start, end]
            for a, b in pairwise(cuts):
                yield _clip(seen, config, a, b, kind)


def _runs(
    seen: Survey, config: VideoConfig, first: int, last: int, stop: int
) -> Iterator[tuple[int, int, int]]:
    """(start, stop, kind) of each run of black, still or moving steps of a shot; times are pts."""
    steps = first + np.flatnonzero(~np.isnan(seen.moved[first:last]))
    if not len(steps):
        yield int(seen.pts[first]), stop, _MOVING
        return
    moved = seen.moved[steps].copy()
    moved[0] = moved[1] if len(moved) > 1 else np.inf  # the first step is compared with another shot's last
    kinds = np.where(moved <= config.still, _STILL, _MOVING)
    kinds[seen.brightest[steps] <= config.black] = _BLACK
    edges = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), len(kinds)]
    stamps = [int(seen.pts[first]), *(int(seen.pts[steps[edge]]) for edge in edges[1:-1]), stop]
    least = config.still_s / float(seen.time_base)
    found: list[tuple[int, int, int]] = []
    for (a, b), edge in zip(pairwise(stamps), edges, strict=False):
        kind = int(kinds[edge]) if b - a >= least else _MOVING
        if found and found[-1][2] == kind == _MOVING:
            found[-1] = found[-1][0], b, kind
        else:
            found.append((a, b, kind))
    yield from found


def _lengths(seen: Survey, config: VideoConfig, keys: Int64, start: int, stop: int) -> list[int]:
    """Borders of the clips of a moving run, with both ends of the run."""
    longest = int(config.max_s / seen.time_base)
    shortest = int(config.min_s / seen.time_base)
    borders = [start]
    while stop - borders[-1] > longest:
        here, left = borders[-1], stop - borders[-1]
        parts = -(-left // longest)
        goal = here + left // parts
        low = max(here + shortest, here + 3 * (goal - here) // 5, stop - (parts - 1) * longest)
        high = min(here + longest, stop - shortest)
        near = keys[(keys >= low) & (keys <= high)]
        at = int(near[np.argmin(np.abs(near - goal))]) if len(near) else goal
        frame = int(np.searchsorted(seen.pts, at, side="right")) - 1
        at = int(seen.pts[frame])
        if at <= here:  # a frame is shown for longer than a clip may last
            at = int(seen.pts[frame + 1]) if frame + 1 < len(seen.pts) else stop
            if at >= stop:
                break
        borders.append(at)
    return [*borders, stop]


def _clip(seen: Survey, config: VideoConfig, start: int, stop: int, kind: int) -> Clip:
    low, high = np.searchsorted(seen.pts, [start, stop])
    inside = seen.moved[low:high]
    inside = inside[~np.isnan(inside)][1:]
    moved = float(np.add.reduce(inside)) / len(inside) if len(inside) else 0.0
    seconds = float((stop - start) * seen.time_base)
    still = f"(steps differ by {moved:.3f} grey levels, more than {config.still:g} is needed)"
    why = None
    if kind == _BLACK:
        why = f"black for {seconds:.2f} s (no grey level is above {config.black})"
    elif kind == _STILL:
        why = f"nothing moves for {seconds:.2f} s {still}"
    elif seconds < config.min_s:
        why = f"a shot of {seconds:.2f} s is shorter than {config.min_s:g} s"
    elif moved <= config.still:
        why = f"nothing moves in {seconds:.2f} s {still}"
    return Clip(
        start=start,
        stop=stop,
        steps=math.ceil((stop - start) * config.rate * seen.time_base),
        moved=round(moved, 4),
        rejected=f"{LEFT_OUT}{why}" if why is not None else None,
    )
