"""The linear probe: actions from codes, on environments that the probe never saw.

Each value of the action is judged by itself. A mean over them hides that codes may tell one value well and
the others not at all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.linear_model import Ridge

from oxcart.train import frame_baseline, plots, statistics
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import FEW, Context, Figure, Number, Skip, Strategy, panels, tidy, to_png
from oxcart.train.statistics import Floats, Ints, Statistic


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """R2 of each value from codes, and its gain over R2 from the frame alone."""
    found = _predictions(pairs, context)
    if isinstance(found, str):
        yield Skip(what="R2 of actions from codes", because=found)
        return
    rows_of, target, by_codes, by_frame = found
    units = pairs.units[rows_of]
    for value, name in enumerate(names_of(pairs)):
        if not target[:, value].any():
            yield Skip(what=f"R2 of {name} from codes", because="it never varies")
            continue
        key = re.sub(r"\W+", "_", name).strip("_")
        yield context.estimate(
            units,
            _score(target, by_codes, value),
            name=f"r2_{key}",
            of=name,
            title=f"R2 of {name} from codes",
            better="high",
            read="Of a linear probe from all tokens to this value of the action, fitted on environments that "
            "the run has seen: 1 is exact, 0 no better than the mean.",
        )
        yield context.estimate(
            units,
            _gain(target, by_codes, by_frame, value),
            name=f"gain_{key}",
            of=name,
            title=f"R2 of {name} from codes above that from the frame alone",
            better="high",
            read="Above a probe from edges and colours of frame t, or above the mean where that errs by more "
            "than the mean. Codes tell the value if this and the R2 lie above 0.",
        )


def names_of(pairs: GatheredPairs) -> Sequence[str]:
    """Names of the values of the action."""
    assert pairs.actions is not None
    return pairs.action_names or [f"value {i}" for i in range(pairs.actions.shape[1])]


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Figure]:
    """Plot predicted actions against true ones."""
    found = _predictions(pairs, context)
    if isinstance(found, str):
        return
    _, target, by_codes, _ = found
    width = min(8, target.shape[1])
    figure, axes = panels(1, width, 2.6 * width, 2.7)
    shown = np.linspace(0, len(target) - 1, min(len(target), 3000)).astype(np.int64)
    for value, (axis, name) in enumerate(zip(axes[0], names_of(pairs), strict=False)):
        x, y = target[shown, value], by_codes[shown, value]
        reach = max(float(np.quantile(np.abs(x), 0.995)), 1e-6)
        axis.plot([-reach, reach], [-reach, reach], color=plots.FAINT, linewidth=1)
        axis.scatter(x, y, s=4, alpha=0.4, color=plots.COLOURS[0], linewidths=0)
        axis.set_xlim(-reach, reach)
        axis.set_ylim(-reach, reach)
        score = _score(target, by_codes, value)(np.arange(len(target)))
        said = f"R2 {score:.2f}" if math.isfinite(score) else "never varies"
        tidy(axis, f"{name}: {said}", "action", "" if value else "by the probe")
    yield Figure(
        title="Actions by the probe",
        png=to_png(figure),
        caption="In deviations of the dataset, by a probe that is fitted on environments that the run has "
        "seen. On the grey line it is exact.",
    )


def _predictions(held: GatheredPairs, context: Context) -> tuple[Ints, Floats, Floats, Floats] | str:
    """Rows that are judged, their actions (0 where a value never varies), and predictions from codes and from
    the frame; or the reason why there is no probe."""
    if context.seen is None or context.seen.actions is None:
        return "a probe is fitted on environments that the run has seen, and judged on others"
    pairs = held.joined(context.seen)
    assert pairs.actions is not None
    known = np.isfinite(pairs.actions).all(1)
    judged = np.arange(len(pairs)) < len(held)
    test, fit = known & judged, known & ~judged
    places = statistics.numbered(np.char.add(np.char.add(pairs.dataset, "\n"), pairs.environment))
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
    target[:, ~varies] = 0
    codes = statistics.one_hot(pairs.codes, pairs.size).astype(np.float32)
    by_codes = Ridge(1.0).fit(codes[fit], target[fit]).predict(codes[test])

    def guess() -> Floats:
        groups = places if len(np.unique(places[fit])) > 1 else pairs.episodes
        return frame_baseline.predict(pairs.features[fit], target[fit], groups[fit], pairs.features[test])

    by_frame = held.keep("actions from the frame", guess)
    return np.flatnonzero(test), target[test], by_codes, by_frame


def _score(target: Floats, predicted: Floats, value: int) -> Statistic:
    """R2 of one value, of targets and predictions [M, A]."""
    truth, errors = target[:, [value]], (target - predicted)[:, [value]]
    return lambda rows: float(statistics.r2(truth[rows], errors[rows])[0])


def _gain(target: Floats, by_codes: Floats, by_frame: Floats, value: int) -> Statistic:
    """R2 from codes above that from the frame, or above 0 where that is negative."""
    coded, framed = _score(target, by_codes, value), _score(target, by_frame, value)
    return lambda rows: coded(rows) - max(0.0, framed(rows))


STRATEGY = Strategy(
    title="Linear probe",
    about="Can actions be read off the codes, in environments that were not used to learn how?",
    needs=("actions",),
    measure=measure,
    draw=draw,
    place=25,
)
