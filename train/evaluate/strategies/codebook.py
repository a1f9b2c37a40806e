"""Codebook: which codes and sequences are used, how evenly, and what the pairs that share them look like."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from oxcart.train import plots, statistics
from oxcart.train.evaluate import apart
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import (
    FEW,
    Context,
    Figure,
    Number,
    Skip,
    Strategy,
    Table,
    absent,
    having,
    largest,
    panels,
    tidy,
    to_png,
)
from oxcart.train.statistics import Floats, Ints

TOP = 20
"""Number of sequences listed, most frequent first."""
SEQUENCES, EXAMPLES = 6, 4
"""Number of sequences with examples, and number of pairs shown for each."""


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """Utilisation, entropy and joint perplexity, which describe the codes without judging their meaning."""

    def used(rows: Ints) -> float:
        counts = _counts(pairs.codes[rows], pairs.size)
        return float((counts > 0).mean())

    def entropy(rows: Ints) -> float:
        counts = _counts(pairs.codes[rows], pairs.size)
        return float(statistics.entropy(counts).mean() / np.log(2))

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
    """Histograms of each place by dataset, code vectors and latents in a plane, and the most frequent
    sequences."""
    yield _histograms(pairs)
    with torch.no_grad():
        codes = torch.arange(pairs.size, device=context.device)[:, None].expand(-1, pairs.codes.shape[1])
        vectors = context.model.quantizer.lookup(codes).cpu().double().numpy()
    if vectors.shape[-1] >= 2:
        yield _embedding(pairs, vectors)
    yield _neighbours(pairs, context, vectors)
    ranked = _top(pairs, TOP)
    yield _frequencies(pairs, ranked)
    yield _sequences(pairs, ranked)
    if pairs.motion is not None:
        yield _scatter(having(pairs, "motion"))
    if pairs.frames is not None:
        yield from _examples(pairs.take(pairs.framed), context.seed)


def _histograms(pairs: GatheredPairs) -> Figure:
    places, names = pairs.codes.shape[1], np.unique(pairs.dataset)
    figure, axes = panels(1, places, 2.9 * places, 2.5, sharey=True)
    for place, axis in enumerate(axes[0]):
        width = 0.8 / len(names)
        for i, name in enumerate(names):
            counts = np.bincount(pairs.codes[pairs.dataset == name, place], minlength=pairs.size)
            at = np.arange(pairs.size) + (i - (len(names) - 1) / 2) * width
            colour = plots.COLOURS[i % len(plots.COLOURS)]
            axis.bar(at, counts / counts.sum(), width, label=name, color=colour)
        axis.axhline(1 / pairs.size, color=plots.INK, linewidth=0.8, linestyle=":")
        tidy(axis, f"token {place}", "code", "" if place else "share of the pairs")
    if len(names) > 1:
        axes[0][-1].legend(frameon=False, fontsize=8)
    return Figure(
        title="How often each code is used", png=to_png(figure), caption="Dotted: equal use of codes."
    )


def _embedding(pairs: GatheredPairs, vectors: Floats) -> Figure:
    """Code vectors [K, n, d] in their first two principal components."""
    size, places, _ = vectors.shape
    figure, axes = panels(1, places, 2.9 * places, 2.8)
    counts = _counts(pairs.codes, pairs.size)
    for place, axis in enumerate(axes[0]):
        pca = PCA(2).fit(vectors[:, place])
        points = pca.transform(vectors[:, place])
        area = 10 + 300 * counts[place] / counts[place].max()
        axis.scatter(*points.T, s=area, color=plots.COLOURS[0], alpha=0.35, linewidths=0)
        if size <= 64:
            order = np.argsort(-counts[place], kind="stable")
            apart.write(axis, order, points[order], fontsize=8)
        shown = pca.explained_variance_ratio_.sum()
        tidy(axis, f"token {place}: {shown:.0%} of the variance")
        axis.margins(0.18)
        axis.set_xticks([])
        axis.set_yticks([])
    apart.keep_apart(figure)
    return Figure(
        title="Code vectors",
        png=to_png(figure),
        caption="The first two principal components of each place's vectors; area is how often a code is "
        f"used. {apart.CAPTION}",
    )


def _neighbours(pairs: GatheredPairs, context: Context, vectors: Floats) -> Figure | Skip:
    """Latents of the pairs with frames and the code vectors [K, n, d] that they have, by t-SNE; or why there
    is no such plane."""
    what = "latents and code vectors by t-SNE"
    _, places, width = vectors.shape
    if width < 3:
        return Skip(what=what, because=f"they have {width} values, for which no plane has to be found")
    if pairs.frames is None:
        return Skip(what=what, because=absent(pairs, "frames"))
    latents, codes = context.latents(pairs.frames), pairs.codes[pairs.framed]
    figure, axes = panels(1, places, 2.9 * places, 2.8)
    for place, axis in enumerate(axes[0]):
        used = np.unique(codes[:, place])
        both = np.concatenate([latents[:, place], vectors[used, place]])
        distinct = len(np.unique(both.round(6), axis=0))
        if distinct < FEW:
            plots.pyplot().close(figure)
            because = f"token {place} has {distinct} distinct ones; at least {FEW} are needed"
            return Skip(what=what, because=because)
        points = to_plane(both, context.seed)
        axis.scatter(*points[: len(latents)].T, c=codes[:, place], cmap="tab10", s=8, alpha=0.7, linewidths=0)
        apart.write(axis, used, points[len(latents) :], fontsize=9, fontweight="bold")
        tidy(axis, f"token {place}")
        axis.margins(0.1)
        axis.set_xticks([])
        axis.set_yticks([])
    apart.keep_apart(figure)
    return Figure(
        title="Latents and code vectors by t-SNE",
        png=to_png(figure),
        caption=f"Latents of {len(latents):,} pairs before they are quantized, coloured by their code; bold "
        f"numbers stand at the vectors of codes. What is near is near in all {width} dimensions; distances "
        f"between groups and sizes of groups mean nothing. {apart.CAPTION}",
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


def _sequences(pairs: GatheredPairs, ranked: list[tuple[str, Ints]]) -> Table:
    rows: list[list[Any]] = []
    for name, mine in ranked:
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


def _frequencies(pairs: GatheredPairs, ranked: list[tuple[str, Ints]]) -> Figure:
    figure, axis = plots.pyplot().subplots(figsize=(11, 2.8), layout="constrained")
    names = largest(pairs.dataset, len(plots.COLOURS))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        total = (pairs.dataset == name).sum()
        shares = [(pairs.dataset[mine] == name).sum() / total for _, mine in ranked]
        at = np.arange(len(ranked)) + (i - (len(names) - 1) / 2) * width
        axis.bar(at, shares, width, color=plots.COLOURS[i], label=name)
    axis.set_xticks(range(len(ranked)), [name for name, _ in ranked], rotation=60)
    tidy(axis, "", "", "share of the pairs")
    axis.legend(frameon=False, fontsize=8)
    return Figure(
        title="Most frequent sequences",
        png=to_png(figure),
        caption="Whole latent actions. One that is frequent in all datasets is a common motion, or no "
        "motion.",
    )


def _scatter(pairs: GatheredPairs) -> Figure:
    assert pairs.motion is not None
    plt, values = plots.pyplot(), pairs.motion[:, :2]
    names = sorted(largest(pairs.dataset, 4))
    figure, axes = panels(1, len(names), 4.6 * len(names), 4.2)
    low, high = np.quantile(values, [0.005, 0.995], axis=0)
    colours = plt.get_cmap("tab10").colors
    ranked = _top(pairs, len(colours))
    for axis, name in zip(axes[0], names, strict=True):
        mine = np.flatnonzero(pairs.dataset == name)
        shown = mine[np.linspace(0, len(mine) - 1, min(len(mine), 3000)).astype(np.int64)]
        axis.scatter(*values[shown].T, s=3, color=plots.FAINT, alpha=0.5, linewidths=0)
        for colour, (label, rows) in zip(colours, ranked, strict=False):
            rows = rows[pairs.dataset[rows] == name]
            axis.scatter(*values[rows].T, s=12, color=colour, label=label, linewidths=0)
        axis.set_xlim(low[0] - 0.05, high[0] + 0.05)
        axis.set_ylim(low[1] - 0.05, high[1] + 0.05)
        tidy(axis, name, *(one.label for one in pairs.motion_columns[:2]))
    axes[0][-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return Figure(
        title="Motion of the most frequent sequences",
        png=to_png(figure),
        caption="Motion along x and y; grey: all other pairs.",
    )


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


def _counts(codes: Ints, size: int) -> Ints:
    """Counts [n, K] of codes [N, n]."""
    return np.stack([np.bincount(codes[:, i], minlength=size) for i in range(codes.shape[1])])


STRATEGY = Strategy(
    title="Codebook",
    about="Which codes and which whole latent actions are used, how evenly, and for what?",
    measure=measure,
    draw=draw,
    place=80,
    shuffles=False,
)
