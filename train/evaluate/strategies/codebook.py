"""Codebook: which codes and sequences are used, how evenly, and what the pairs that share them look like."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from oxcart.train import plots, statistics
from oxcart.train.evaluate import apart, drawing
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import FEW, Context, Figure, Number, Skip, Strategy, Table, absent
from oxcart.train.laq.validate import places_of
from oxcart.train.statistics import Floats, Ints

TOP = 20
"""Number of sequences listed, most frequent first."""
SEQUENCES, EXAMPLES = 6, 4
"""Number of sequences with examples, and number of pairs shown for each."""


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """Utilisation, entropy and joint perplexity, which describe the codes without judging their meaning."""

    def used(rows: Ints) -> float:
        return float((places_of(pairs.codes[rows], pairs.size) > 0).mean())

    def entropy(rows: Ints) -> float:
        return float(statistics.entropy(places_of(pairs.codes[rows], pairs.size)).mean() / np.log(2))

    def joint(rows: Ints) -> float:
        return float(np.exp(statistics.entropy(np.bincount(statistics.joint(pairs.codes[rows])))))

    most = np.log2(pairs.size)
    for name, title, read, statistic in (
        ("utilisation", "codes in use", "Share of (place, code) that occurs.", used),
        ("entropy", "entropy of a token", f"In bits, mean over places; at most {most:.3g}.", entropy),
        ("perplexity", "joint perplexity", "Of whole latent actions: as many equally frequent ones.", joint),
    ):
        yield context.estimate(
            pairs.units,
            statistic,
            name=name,
            title=title,
            read=read,
            unit=" bits" if name == "entropy" else "",
        )


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Figure | Table | Skip]:
    """Histograms of each place, latents and code vectors in a plane, and the most frequent sequences."""
    yield _histograms(pairs)
    yield _neighbours(pairs, context)
    yield _sequences(pairs)
    if pairs.frames is not None:
        yield from _examples(pairs.take(pairs.framed), context.seed)


def _histograms(pairs: GatheredPairs) -> Figure:
    places = pairs.codes.shape[1]
    figure, axes = drawing.panels(1, places, 2.9 * places, 2.5, sharey=True)
    for place, (axis, counts) in enumerate(zip(axes[0], places_of(pairs.codes, pairs.size), strict=True)):
        axis.bar(np.arange(pairs.size), counts / counts.sum(), color=plots.COLOURS[0])
        axis.axhline(1 / pairs.size, color=plots.INK, linewidth=0.8, linestyle=":")
        drawing.tidy(axis, f"token {place}", "code", "" if place else "share of the pairs")
    return drawing.finished(figure, "How often each code is used", "Dotted: equal use of codes.")


def _neighbours(pairs: GatheredPairs, context: Context) -> Figure | Skip:
    """Latents of the pairs with frames and the vectors of the codes that they have, by t-SNE; or why there is
    no such plane."""
    what = "latents and code vectors by t-SNE"
    with torch.no_grad():
        codes = torch.arange(pairs.size, device=context.device)[:, None].expand(-1, pairs.codes.shape[1])
        vectors: Floats = context.model.quantizer.lookup(codes).cpu().double().numpy()
    _, places, width = vectors.shape
    if width < 3:
        return Skip(what=what, because=f"they have {width} values, for which no plane has to be found")
    if pairs.frames is None:
        return Skip(what=what, because=absent(pairs, "frames"))
    latents, coded = context.latents(pairs.frames), pairs.codes[pairs.framed]
    figure, axes = drawing.panels(1, places, 2.9 * places, 2.8)
    for place, axis in enumerate(axes[0]):
        used = np.unique(coded[:, place])
        both = np.concatenate([latents[:, place], vectors[used, place]])
        distinct = len(np.unique(both.round(6), axis=0))
        if distinct < FEW:
            plots.pyplot().close(figure)
            because = f"token {place} has {distinct} distinct ones; at least {FEW} are needed"
            return Skip(what=what, because=because)
        points = to_plane(both, context.seed)
        axis.scatter(*points[: len(latents)].T, c=coded[:, place], cmap="tab10", s=8, alpha=0.7, linewidths=0)
        apart.write(axis, used, points[len(latents) :], fontsize=9, fontweight="bold")
        drawing.tidy(axis, f"token {place}")
        axis.margins(0.1)
        axis.set_xticks([])
        axis.set_yticks([])
    return drawing.finished(
        figure,
        "Latents and code vectors by t-SNE",
        f"Latents of {len(latents):,} pairs before they are quantized, coloured by their code; bold numbers "
        f"stand at the vectors of codes. What is near is near in all {width} dimensions; distances between "
        "groups and sizes of groups mean nothing.",
    )


def to_plane(points: Floats, seed: int) -> Floats:
    """Points [N, d] in a plane [N, 2] that keeps neighbours, by t-SNE."""
    perplexity = min(30.0, (len(points) - 1) / 3)
    with threadpool_limits(1):  # sums of several threads have no order, and figures are to be the same again
        made: Floats = TSNE(perplexity=perplexity, init="random", random_state=seed).fit_transform(points)
    return made


def _top(pairs: GatheredPairs, most: int) -> list[tuple[str, Ints]]:
    """The most frequent sequences, with the rows of each."""
    found, place, counts = np.unique(pairs.codes, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [("-".join(map(str, found[i])), np.flatnonzero(place.reshape(-1) == i)) for i in order]


def _sequences(pairs: GatheredPairs) -> Table:
    rows: list[list[Any]] = []
    for name, mine in _top(pairs, TOP):
        row: list[Any] = [name, len(mine), round(len(mine) / len(pairs), 4)]
        row += [len(np.unique(pairs.environment[mine])), len(np.unique(pairs.dataset[mine]))]
        if pairs.actions is not None:
            values = pairs.actions[mine]
            values = values[np.isfinite(values).any(1)]
            row.append(_mean(values) if len(values) else None)
        rows.append(row)
    columns = ("sequence", "pairs", "share", "environments", "datasets")
    columns = columns if pairs.actions is None else (*columns, "mean action")  # type: ignore[assignment]
    return Table(title="Most frequent sequences", columns=columns, rows=rows)


def _mean(values: Floats) -> list[float | None]:
    """Mean of each column, of the rows that have it; None where none has."""
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of columns without a value
        means = np.nanmean(values, axis=0).round(4).tolist()
    return [one if math.isfinite(one) else None for one in means]


def _examples(framed: GatheredPairs, seed: int) -> Iterator[Figure]:
    """Some pairs of each of the most frequent sequences, among the pairs whose frames were kept."""
    assert framed.frames is not None
    generator = np.random.Generator(np.random.PCG64(seed))
    rows, names = [], []
    for name, mine in _top(framed, SEQUENCES):
        if len(mine) < 2:
            continue
        rows.append(np.sort(generator.permutation(mine)[:EXAMPLES]))
        names.append(f"{name}\n{len(mine)} pairs")
    if not rows:
        return
    blank = np.full(framed.frames.shape[2:], 255, np.uint8)
    columns = []
    for example in range(EXAMPLES):
        for step, heading in ((0, "frame t"), (1, "frame t + k")):
            shown = [framed.frames[mine[example], step] if example < len(mine) else blank for mine in rows]
            columns.append((heading, np.stack(shown)))
    yield Figure(
        title="Pairs that share a sequence",
        png=plots.grid_png(columns, names, ""),
        caption="The most frequent whole latent actions among the pairs whose frames were kept; examples "
        "are drawn at random, not chosen. The same should happen along a row.",
    )


STRATEGY = Strategy(
    title="Codebook",
    about="Which codes and which whole latent actions are used, how evenly, and for what?",
    measure=measure,
    draw=draw,
    place=80,
    shuffles=False,
)
