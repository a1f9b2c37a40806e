"""The linear probe: actions from codes, on environments that the probe never saw.

Each value of the action is judged by itself. A mean over them hides that codes may tell one value well and
the others not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oxcart.manifests.columns import Column
from oxcart.train import frame_baseline, plots, statistics
from oxcart.train.evaluate import drawing
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import FEW, Context, Figure, Number, Skip, Strategy
from oxcart.train.statistics import Floats, Ints, Statistic


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One value of the action, and what a probe says of it, for M held-out pairs of datasets that have it."""

    column: Column
    rows: Ints
    """[M]: rows of the held-out pairs."""
    target: Floats
    """[M]: the value, in deviations of the dataset."""
    by_codes: Floats
    """[M]: what a probe says from the codes."""
    by_frame: Floats
    """[M]: what a probe says from frame t alone."""


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """R2 of each value from codes, and its gain over R2 from the frame alone."""
    for one in _judged(pairs, context):
        if isinstance(one, Skip):
            yield one
            continue
        name, units = one.column.name, pairs.units[one.rows]
        key = re.sub(r"\W+", "_", name).strip("_")
        yield context.estimate(
            units,
            _score(one.target, one.by_codes),
            name=f"r2_{key}",
            of=name,
            title=f"R2 of {name} from codes",
            better="high",
            read="Of a linear probe from all tokens to this value of the action, fitted on environments that "
            "the run has seen: 1 is exact, 0 no better than the mean.",
        )
        yield context.estimate(
            units,
            _gain(one),
            name=f"gain_{key}",
            of=name,
            title=f"R2 of {name} from codes above that from the frame alone",
            better="high",
            read="Above a probe from edges and colours of frame t, or above the mean where that errs by more "
            "than the mean. Codes tell the value if this and the R2 lie above 0.",
        )


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Figure]:
    """Plot predicted actions against true ones."""
    shown = [one for one in _judged(pairs, context) if not isinstance(one, Skip)][:8]
    if not shown:
        return
    figure, axes = drawing.panels(1, len(shown), 2.6 * len(shown), 2.7)
    for i, (axis, one) in enumerate(zip(axes[0], shown, strict=True)):
        some = drawing.thinned(len(one.target))
        x, y = one.target[some], one.by_codes[some]
        reach = max(float(np.quantile(np.abs(x), 0.995)), 1e-6)
        axis.plot([-reach, reach], [-reach, reach], color=plots.FAINT, linewidth=1)
        axis.scatter(x, y, s=4, alpha=0.4, color=plots.COLOURS[0], linewidths=0)
        axis.set_xlim(-reach, reach)
        axis.set_ylim(-reach, reach)
        score = _score(one.target, one.by_codes)(np.arange(len(one.target)))
        heading = f"{one.column.name}: R2 {score:.2f}"
        drawing.tidy(axis, heading, "action, in deviations", "" if i else "by the probe")
    yield drawing.finished(
        figure,
        "Actions by the probe",
        "In deviations of the dataset, by a probe that is fitted on environments that the run has seen. On "
        "the grey line it is exact.",
    )


def _judged(held: GatheredPairs, context: Context) -> Iterator[Judged | Skip]:
    """Every value of the action as a probe tells it, or the reason why none does.

    Values that the same pairs have are fitted together.
    """
    if context.seen is None or context.seen.actions is None:
        because = "a probe is fitted on environments that the run has seen, and judged on others"
        yield Skip(what="R2 of actions from codes", because=because)
        return
    pairs = held.joined(context.seen)
    assert pairs.actions is not None
    has = np.isfinite(pairs.actions)
    same: dict[bytes, list[int]] = {}
    for i in range(len(pairs.columns)):
        same.setdefault(has[:, i].tobytes(), []).append(i)
    for values in same.values():
        yield from _together(held, pairs, values, has[:, values[0]])


def _together(
    held: GatheredPairs, pairs: GatheredPairs, values: list[int], known: npt.NDArray[np.bool_]
) -> Iterator[Judged | Skip]:
    """The given values, which the pairs in `known` have; `pairs` begin with those that are held out."""
    assert pairs.actions is not None
    columns, actions = [pairs.columns[i] for i in values], pairs.actions[:, values]
    judged = np.arange(len(pairs)) < len(held)
    test, fit = known & judged, known & ~judged
    if min(test.sum(), fit.sum()) < FEW:
        because = f"{int(known.sum())} pairs with it are too few to fit a probe and to judge it"
        yield from (Skip(what=f"R2 of {one.name} from codes", because=because) for one in columns)
        return
    target = np.zeros_like(actions)
    for dataset in np.unique(pairs.dataset[known]):
        mine = known & (pairs.dataset == dataset)
        basis = actions[mine & fit] if (mine & fit).any() else actions[mine & test]
        deviation = basis.std(0)
        target[mine] = (actions[mine] - basis.mean(0)) / np.where(deviation > 1e-9, deviation, 1)
    varies = (target[test].std(0) > 1e-9) & (target[fit].std(0) > 1e-9)
    target[:, ~varies] = 0
    codes = statistics.one_hot(pairs.codes, pairs.size).astype(np.float32)
    by_codes = statistics.ridge(codes[fit], target[fit], codes[test])

    def guess() -> Floats:
        places = statistics.numbered(np.char.add(np.char.add(pairs.dataset, "\n"), pairs.environment))
        groups = places if len(np.unique(places[fit])) > 1 else pairs.episodes
        return frame_baseline.predict(pairs.features[fit], target[fit], groups[fit], pairs.features[test])

    by_frame = held.keep(f"{', '.join(one.name for one in columns)} from the frame", guess)
    rows = np.flatnonzero(test)
    for i, column in enumerate(columns):
        if varies[i]:
            yield Judged(
                column=column,
                rows=rows,
                target=target[test, i],
                by_codes=by_codes[:, i],
                by_frame=by_frame[:, i],
            )
        else:
            yield Skip(what=f"R2 of {column.name} from codes", because="it never varies")


def _score(target: Floats, predicted: Floats) -> Statistic:
    """R2 of predictions [M]."""
    truth, errors = target[:, None], (target - predicted)[:, None]
    return lambda rows: float(statistics.r2(truth[rows], errors[rows])[0])


def _gain(one: Judged) -> Statistic:
    """R2 from codes above that from the frame, or above 0 where that is negative."""
    coded, framed = _score(one.target, one.by_codes), _score(one.target, one.by_frame)
    return lambda rows: coded(rows) - max(0.0, framed(rows))


STRATEGY = Strategy(
    title="Linear probe",
    about="Can actions be read off the codes, in environments that were not used to learn how?",
    needs=("actions",),
    measure=measure,
    draw=draw,
    place=25,
)
