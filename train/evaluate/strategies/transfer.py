"""Latent transfer: the code of one pair, applied to the frame of another, should move the same way.

The motion of frame B decoded with the codes of A is compared with what truly moved in A, between its two
frames of the dataset. What the codes of A do on A's own frame would be no measure: a decoder whose motion
depends on codes alone moves all frames alike, whatever the codes mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from oxcart.train import plots
from oxcart.train.evaluate import drawing
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import Context, Figure, Number, Skip, Strategy, Table, absent, groupings
from oxcart.train.flow import STILL, WEIGHTED
from oxcart.train.statistics import Floats, Ints, Statistic, Strings, Units

ROWS = 6
"""Number of rows of the grid."""
LEAST = 8
"""Minimum number of pairs A for a number."""
LAYERED = (
    " This decoder is layered: codes alone choose the motion, so they move every frame alike by design. The "
    "angle shows that codes tell the motion of A; that it transfers was not learned."
)


class Transferred(NamedTuple):
    """M frames B decoded with the codes of pairs A."""

    a: Ints
    """[M]: index of A among the pairs with frames."""
    b: Ints
    """[M]: index of B among the pairs with frames."""
    made: npt.NDArray[np.uint8]
    """uint8 [M, H, W, 3]: frame B decoded with the codes of A."""
    angle: Floats
    """[M]: degrees between the true mean flow of A and that of the decoded frame; 90 where the latter does
    not move, NaN where A does not."""
    ratio: Floats
    """[M, 2]: squared errors against the second frame of B: of `made`, and of B decoded with its own
    codes."""


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """Angle and error within one environment, across environments and across datasets."""
    assert pairs.frames is not None
    for way in _ways(pairs):
        if isinstance(way, Skip):
            yield way
            continue
        scope, groups, alike = way
        found = transfer(pairs, context, groups, alike)
        if found is None:
            yield Skip(what=f"transfer {scope}", because="frames are kept of too few pairs; raise --frames")
            continue
        units = pairs.units[pairs.framed]
        name = scope.replace(" ", "_")
        known = np.isfinite(found.angle)
        title = f"angle of transferred motion, {scope}"
        if context.meter is None:
            yield Skip(what=title, because=absent(pairs, "flow"))
        elif known.sum() < LEAST:
            yield Skip(what=title, because="hardly any pair moves")
        else:
            # One pair A may go to several B, so A is the witness of its motion.
            givers = units[found.a[known]]
            yield _angle(found.angle[known], givers, context, f"angle_{name}", title)
        yield context.estimate(
            units[found.b],
            ratio_of(found.ratio),
            name=f"error_{name}",
            title=f"error with the codes of another pair, {scope}",
            better="high",
            read="Squared error of frame B drawn with the codes of A, over that with its own codes: above 1 "
            "where codes matter to the decoder, 1 where it ignores them.",
        )


def _angle(angles: Floats, units: Units, context: Context, name: str, title: str) -> Number | Skip:
    return context.estimate(
        units,
        lambda rows: float(angles[rows].mean()),
        name=name,
        title=title,
        better="low",
        unit="°",
        read="Mean angle between the true flow of pair A and that of frame B decoded with the codes of A: 0 "
        "is the same motion in another scene, 90 chance." + (LAYERED if context.model.layered else ""),
    )


def ratio_of(errors: Floats) -> Statistic:
    """Statistic of errors [M, 2]: ratio of the first to the second."""

    def statistic(rows: Ints) -> float:
        other, own = errors[rows].sum(0).tolist()
        return float(other / own) if own > 0 else math.nan

    return statistic


def transfer(pairs: GatheredPairs, context: Context, groups: Strings, alike: bool) -> Transferred | None:
    """Decode each framed pair B with the codes of a pair A.

    Args:
        pairs: pairs with frames.
        context: its model decodes.
        groups: [N]: group of each pair; pairs of "" are left out.
        alike: whether A is of the same group (and another episode) or of another group.

    Returns:
        The decoded frames; None if fewer than LEAST pairs have a partner.
    """
    assert pairs.frames is not None
    of, episodes = groups[pairs.framed], pairs.episodes[pairs.framed]
    generator = np.random.Generator(np.random.PCG64(context.seed))
    partnered = []
    for b in np.flatnonzero(of != ""):
        wanted = (of == of[b]) & (episodes != episodes[b]) if alike else (of != of[b]) & (of != "")
        partners = np.flatnonzero(wanted)
        if len(partners):
            partnered.append((partners[generator.integers(len(partners))], b))
    if len(partnered) < LEAST:
        return None
    a, b = np.array(partnered).T
    codes = pairs.codes[pairs.framed]
    first, second = pairs.frames[b, 0], pairs.frames[b, 1]
    made, own = context.decode(first, codes[a]), context.decode(first, codes[b])
    ratio = np.stack([squares(made, second), squares(own, second)], 1)
    angle = np.full(len(a), np.nan)
    if context.meter is not None and pairs.flow is not None:
        seen = pairs.flow[pairs.framed[a], WEIGHTED]
        drawn = context.meter(np.stack([first, made], 1))[:, WEIGHTED]
        angle = between(seen, drawn)
    return Transferred(a, b, made, angle, ratio)


def between(one: Floats, other: Floats) -> Floats:
    """Degrees [M] between vectors [M, 2]; 90 where `other` hardly moves, NaN where `one` hardly moves."""
    lengths = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
    product = lengths[0] * lengths[1]
    cosine = (one * other).sum(1) / np.where(product > 0, product, 1)
    angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    angles = np.where(lengths[1] < STILL, 90.0, angles)
    found: Floats = np.where(lengths[0] < STILL, np.nan, angles)
    return found


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Figure | Table]:
    """A grid of transfers into other environments or datasets, and the angles between them."""
    ways = [way for way in _ways(pairs) if not isinstance(way, Skip)]
    if not ways:
        return
    scope, groups, alike = ways[-1]
    found = transfer(pairs, context, groups, alike)
    if found is not None:
        yield _grid(pairs, context, found, groups, scope)
        if not alike and np.isfinite(found.angle).any():
            yield from _matrix(pairs, found, groups, scope)


def _grid(pairs: GatheredPairs, context: Context, found: Transferred, groups: Strings, scope: str) -> Figure:
    assert pairs.frames is not None
    moving = np.flatnonzero(np.isfinite(found.angle))
    some = moving if len(moving) else np.arange(len(found.a))
    generator = np.random.Generator(np.random.PCG64(context.seed))
    some = np.sort(generator.permutation(some)[:ROWS])
    a, b = found.a[some], found.b[some]
    still = context.decode(pairs.frames[b, 0], pairs.codes[pairs.framed][b])
    columns = [
        ("A: frame t", pairs.frames[a, 0]),
        ("A: frame t + k", pairs.frames[a, 1]),
        ("B: frame t", pairs.frames[b, 0]),
        ("B with codes of A", found.made[some]),
        ("change x 3", plots.difference(pairs.frames[b, 0], found.made[some])),
        ("B with its own", still),
        ("B: frame t + k", pairs.frames[b, 1]),
    ]
    names = groups[pairs.framed]
    rows = [
        f"{names[i]}\n→ {names[j]}\n{'-'.join(map(str, pairs.codes[pairs.framed[i]]))}" + _said(angle)
        for i, j, angle in zip(a, b, found.angle[some], strict=True)
    ]
    return Figure(
        title=f"Codes of A on frame B, {scope}",
        png=plots.grid_png(columns, rows, ""),
        caption="What moved from t to t + k in A should move the same way in the fourth column. Pairs are "
        "drawn at random among those that move.",
    )


def _said(angle: float) -> str:
    return f"\n{angle:.0f}°" if math.isfinite(angle) else ""


def _matrix(pairs: GatheredPairs, found: Transferred, groups: Strings, scope: str) -> Iterator[Table]:
    names = groups[pairs.framed]
    shown = sorted(drawing.largest(names, 12))
    rows: list[list[Any]] = []
    for source in shown:
        row: list[Any] = [source]
        for target in shown:
            mine = (names[found.a] == source) & (names[found.b] == target) & np.isfinite(found.angle)
            row.append(round(float(found.angle[mine].mean()), 1) if mine.any() else None)
        rows.append(row)
    title = f"Mean angle, codes of the row on frames of the column, {scope}"
    yield Table(title=title, columns=("codes of", *shown), rows=rows)


def _ways(pairs: GatheredPairs) -> Iterator[tuple[str, Strings, bool] | Skip]:
    """Name, group of each pair, and whether A and B are of one group."""
    for way in groupings(pairs):
        if isinstance(way, Skip):
            yield Skip(what=f"transfer {way.what.replace('between', 'across')}", because=way.because)
            continue
        kind, names = way
        if kind == "environments":
            yield "within environments", names, True
        yield f"across {kind}", names, False


def squares(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> Floats:
    """Mean squared differences [M] of frames [M, H, W, 3]."""
    found: Floats = ((one.astype(np.float64) - other) ** 2).mean((1, 2, 3))
    return found


STRATEGY = Strategy(
    title="Latent transfer",
    about="Apply the codes of pair A to the first frame of pair B, of another environment, dataset or "
    "robot: does the same motion happen?",
    needs=("frames",),
    measure=measure,
    draw=draw,
    place=15,
    decodes=True,
)
