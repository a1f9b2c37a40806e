"""The linear probe: actions from codes, on environments that the probe never saw."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from sklearn.linear_model import Ridge

from oxcart.train import plots, statistics
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import FEW, Context, Figure, Number, Skip, Strategy, panels, tidy, to_png
from oxcart.train.statistics import Floats, Ints

FRAME_RIDGE = 100.0
"""Ridge penalty for pixels, of which there are more than environments."""


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """R2 from codes, and its gain over R2 from the frame alone."""
    found = _predictions(pairs, context)
    if isinstance(found, str):
        yield Skip(what="R2 of actions from codes", because=found)
        return
    rows_of, target, by_codes, by_frame = found
    episodes = pairs.episodes[rows_of]
    yield context.estimate(
        episodes,
        lambda rows: _r2(target[rows], by_codes[rows]),
        name="r2",
        title="R2 of actions from codes",
        better="high",
        read="Of a linear probe from all tokens to actions, fitted on environments that the run has seen: "
        "1 is exact, 0 no better than the mean.",
    )
    if by_frame is None:
        yield Skip(what="gain over the frame alone", because="no frames were kept small")
        return
    yield context.estimate(
        episodes,
        lambda rows: _r2(target[rows], by_codes[rows]) - max(0.0, _r2(target[rows], by_frame[rows])),
        name="gain",
        title="R2 from codes above that from the frame alone",
        better="high",
        read="Above the frame's own probe, or above the mean where that errs by more than the mean.",
    )


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Figure]:
    """Plot predicted actions against true ones."""
    found = _predictions(pairs, context)
    if isinstance(found, str):
        return
    _, target, by_codes, _ = found
    width = min(8, target.shape[1])
    figure, axes = panels(1, width, 2.6 * width, 2.7)
    shown = np.linspace(0, len(target) - 1, min(len(target), 3000)).astype(np.int64)
    for value, axis in enumerate(axes[0]):
        x, y = target[shown, value], by_codes[shown, value]
        reach = max(float(np.quantile(np.abs(x), 0.995)), 1e-6)
        axis.plot([-reach, reach], [-reach, reach], color=plots.FAINT, linewidth=1)
        axis.scatter(x, y, s=4, alpha=0.4, color=plots.COLOURS[0], linewidths=0)
        axis.set_xlim(-reach, reach)
        axis.set_ylim(-reach, reach)
        score = _r2(target[:, value : value + 1], by_codes[:, value : value + 1])
        said = f"R2 {score:.2f}" if math.isfinite(score) else "never varies"
        tidy(axis, f"value {value}: {said}", "action", "" if value else "by the probe")
    yield Figure(
        title="Actions by the probe",
        png=to_png(figure),
        caption="In deviations of the dataset, by a probe that is fitted on environments that the run has "
        "seen. On the grey line it is exact.",
    )


def _predictions(held: GatheredPairs, context: Context) -> tuple[Ints, Floats, Floats, Floats | None] | str:
    """Rows that are judged, their actions, and predictions from codes and from the frame; or the reason why
    there is no probe."""
    if context.seen is None or context.seen.actions is None:
        return "a probe is fitted on environments that the run has seen, and judged on others"
    pairs = held.joined(context.seen)
    assert pairs.actions is not None
    known = np.isfinite(pairs.actions).all(1)
    judged = np.arange(len(pairs)) < len(held)
    test, fit = known & judged, known & ~judged
    if min(test.sum(), fit.sum()) < FEW:
        return f"{int(known.sum())} pairs with actions are too few to fit a probe and to judge it"
    target = np.zeros_like(pairs.actions)
    for dataset in np.unique(pairs.dataset[known]):
        mine = pairs.dataset == dataset
        basis = pairs.actions[mine & fit] if (mine & fit).any() else pairs.actions[mine & test]
        deviation = basis.std(0)
        target[mine] = (pairs.actions[mine] - basis.mean(0)) / np.where(deviation > 1e-9, deviation, 1)
    varies = (target[test].std(0) > 1e-9) & (target[fit].std(0) > 1e-9)
    if not varies.any():
        return "actions never vary"
    target = target[:, varies]
    codes = statistics.one_hot(pairs.codes, pairs.size).astype(np.float32)
    by_codes = Ridge(1.0).fit(codes[fit], target[fit]).predict(codes[test])
    by_frame = None
    if pairs.thumbs is not None:
        by_frame = Ridge(FRAME_RIDGE).fit(pairs.thumbs[fit], target[fit]).predict(pairs.thumbs[test])
    return np.flatnonzero(test), target[test], by_codes, by_frame


def _r2(target: Floats, predicted: Floats) -> float:
    """Mean R2 of the columns that vary."""
    found = statistics.r2(target, target - predicted)
    found = found[np.isfinite(found)]
    return float(found.mean()) if len(found) else math.nan


STRATEGY = Strategy(
    title="Linear probe",
    about="Can actions be read off the codes, in environments that were not used to learn how?",
    needs=("actions",),
    measure=measure,
    draw=draw,
    place=25,
)
