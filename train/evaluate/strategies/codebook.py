"""Codebook: which codes and sequences are used, how evenly, and what the pairs that share them look like."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from oxcart.train import plots, statistics
from oxcart.train.evaluate import apart
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import (
    Context,
    Figure,
    Number,
    Skip,
    Strategy,
    Table,
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
        return float(np.mean([statistics.entropy(one) for one in counts]) / np.log(2))

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


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Figure | Table]:
    """Histograms of each place by dataset, the code vectors in a plane, and the most frequent sequences."""
    yield _histograms(pairs)
    with torch.no_grad():
        codes = torch.arange(pairs.size, device=context.device)[:, None].expand(-1, pairs.codes.shape[1])
        vectors = context.model.quantizer.lookup(codes).cpu().double().numpy()
    if vectors.shape[-1] >= 2:
        yield _embedding(pairs, vectors)
    ranked = _top(pairs, TOP)
    yield _frequencies(pairs, ranked)
    yield _sequences(pairs, ranked)
    if pairs.actions is not None:
        yield _scatter(having(pairs, "actions"))
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
            values = values[np.isfinite(values).all(1)]
            row.append(values.mean(0).round(4).tolist() if len(values) else None)
        rows.append(row)
    columns = ("sequence", "pairs", "share", "environments", "datasets")
    columns = columns if pairs.actions is None else (*columns, "mean action")  # type: ignore[assignment]
    return Table(title="Most frequent sequences", columns=columns, rows=rows)


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
    assert pairs.actions is not None
    plt, values = plots.pyplot(), statistics.plane(pairs.actions)
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
        tidy(axis, name, "value 0", "value 1")
    axes[0][-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return Figure(
        title="Actions of the most frequent sequences",
        png=to_png(figure),
        caption="The first two values of the action; grey: all other pairs.",
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
