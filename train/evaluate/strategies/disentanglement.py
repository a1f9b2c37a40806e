"""Disentanglement: tokens should depend on the action, and not on the place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.cluster import KMeans

from oxcart.train import statistics
from oxcart.train.evaluate import drawing, shares
from oxcart.train.evaluate.gather import GatheredPairs, shared_columns
from oxcart.train.evaluate.strategy import (
    FEW,
    Context,
    Figure,
    Number,
    Skip,
    Strategy,
    absent,
    groupings,
    widest,
)
from oxcart.train.flow import WEIGHTED
from oxcart.train.statistics import Ints

BINS = 16
"""Maximum number of bins of similar actions."""


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """Entropy of tokens given similar actions, and information in tokens about environments and datasets."""
    found = pairs.keep("bins of likeness", lambda: _bins(pairs))
    if isinstance(found, str):
        yield Skip(what="entropy of tokens given like actions", because=found)
    else:
        what, known, bins = found
        units = pairs.units[known]
        told = statistics.told(pairs.codes[known], bins, units, context.seed, of="codes")
        yield context.estimate(
            units,
            lambda rows: 1 - told(rows),
            name=f"entropy_given_{what}",
            title=f"entropy of tokens given like {what}",
            better="low",
            read=f"H(token | bin of like {what}) / H(token), corrected for chance: 1 means that tokens do "
            f"not depend on {what}, 0 that they depend on nothing else.",
        )
    for way in groupings(pairs):
        if isinstance(way, Skip):
            yield Skip(
                what=f"I(token; {'environment' if 'env' in way.what else 'dataset'})", because=way.because
            )
            continue
        kind, names = way
        known = names != ""
        one = kind.removesuffix("s")
        codes, labels, units = pairs.codes[known], statistics.numbered(names[known]), pairs.units[known]
        # Environments can be shuffled between episodes alone, datasets between whole environments.
        shuffled = units.by_episode() if kind == "environments" else units
        yield context.estimate(
            units,
            statistics.told(codes, labels, shuffled, context.seed, of="codes"),
            name=f"about_{one}",
            title=f"{one} leakage of a token",
            better="low",
            null_is_best=True,
            read=f"I(token; {one}) / H(token), above that of shuffled {kind}: 0 means that a "
            f"token says nothing of its {one}.",
        )


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Figure]:
    """How often each environment or dataset uses each code."""
    if (way := widest(pairs)) is None:
        return
    kind, names = way
    places, shown = pairs.codes.shape[1], sorted(drawing.largest(names, 24))
    figure, axes = drawing.panels(1, places, 2.2 + 2.3 * places, 0.9 + 0.24 * len(shown))
    for place, axis in enumerate(axes[0]):
        own = [pairs.codes[names == name, place] for name in shown]
        used = np.stack([np.bincount(codes, minlength=pairs.size) / len(codes) for codes in own])
        axis.imshow(used, aspect="auto", cmap="YlOrBr", vmin=0)
        drawing.tidy(axis, f"token {place}", "code")
        axis.set_yticks(range(len(shown)), shown if not place else [""] * len(shown))
    yield drawing.finished(
        figure,
        f"Which codes the {kind} use",
        f"Share of the pairs of each of the {kind} that have a code; darker is more. Rows that look alike: "
        "tokens do not tell where they come from.",
    )


def _bins(pairs: GatheredPairs) -> tuple[str, Ints, Ints] | str:
    """Name of actions, else of flow, rows that have it, and the bin of each; or the reason why there are
    none."""
    if pairs.actions is not None:
        what, values = "actions", pairs.actions
    elif pairs.flow is not None:
        what, values = "flow", pairs.flow[:, WEIGHTED]
    else:
        return absent(pairs, "actions", "flow")
    values = values[:, shared_columns(values, pairs.dataset)]
    known = np.flatnonzero(np.isfinite(values).all(1))
    scaled = shares.standardised(values[known], statistics.numbered(pairs.dataset[known]))
    distinct = len(np.unique(scaled.round(9), axis=0)) if scaled.shape[1] else 0
    if distinct < 2 or len(known) < FEW:
        return f"{what} hardly vary"
    means = KMeans(min(BINS, distinct), n_init=1, random_state=0).fit(scaled)
    return what, known, means.labels_.astype(np.int64)


STRATEGY = Strategy(
    title="Disentanglement",
    about="Tokens should depend on the action, and say nothing of the place where it happens.",
    measure=measure,
    draw=draw,
    place=40,
)
