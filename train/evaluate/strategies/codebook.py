"""The codebook: which codes are used, how evenly, and how their vectors lie."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.decomposition import PCA

from oxcart.train import plots
from oxcart.train.evaluate import statistics
from oxcart.train.evaluate.gather import Floats, GatheredPairs, Ints
from oxcart.train.evaluate.strategy import Context, Figure, Number, Skip, Strategy, tidy, to_png
from oxcart.train.laq import probes


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """Utilisation, entropy and joint perplexity: they describe, and do not judge what codes mean."""

    def used(rows: Ints) -> float:
        counts = _counts(pairs.codes[rows], pairs.size)
        return float((counts > 0).mean())

    def entropy(rows: Ints) -> float:
        counts = _counts(pairs.codes[rows], pairs.size).astype(np.float64)
        return float(np.mean([probes.entropy(one) for one in counts]) / np.log(2))

    def joint(rows: Ints) -> float:
        return float(np.exp(probes.entropy(np.bincount(probes.joint(pairs.codes[rows])).astype(np.float64))))

    most = np.log2(pairs.size)
    for name, title, read, statistic in (
        ("utilisation", "codes in use", "Share of (place, code) that occurs.", used),
        ("entropy", "entropy of a token", f"In bits, mean over places; at most {most:.3g}.", entropy),
        ("perplexity", "joint perplexity", "Of whole latent actions: as many equally frequent ones.", joint),
    ):
        yield context.estimate(
            pairs.episodes,
            statistic,
            by=statistics.jackknife,
            name=name,
            title=title,
            read=read,
            unit=" bits" if name == "entropy" else "",
        )


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Figure]:
    """Histograms of each place by dataset, and the code vectors in a plane."""
    yield _histograms(pairs)
    with torch.no_grad():
        codes = torch.arange(pairs.size, device=context.device)[:, None].expand(-1, pairs.codes.shape[1])
        vectors = context.model.quantizer.lookup(codes).cpu().double().numpy()
    if vectors.shape[-1] >= 2:
        yield _embedding(pairs, vectors)


def _histograms(pairs: GatheredPairs) -> Figure:
    plt, places = plots.pyplot(), pairs.codes.shape[1]
    names = np.unique(pairs.dataset)
    figure, axes = plt.subplots(
        1, places, figsize=(2.9 * places, 2.5), squeeze=False, layout="constrained", sharey=True
    )
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
    return Figure(title="How often each code is used", png=to_png(figure), caption="Dotted: all codes alike.")


def _embedding(pairs: GatheredPairs, vectors: Floats) -> Figure:
    """Of vectors [K, n, d]."""
    size, places, _ = vectors.shape
    plt = plots.pyplot()
    figure, axes = plt.subplots(1, places, figsize=(2.9 * places, 2.8), squeeze=False, layout="constrained")
    counts = _counts(pairs.codes, pairs.size)
    for place, axis in enumerate(axes[0]):
        pca = PCA(2).fit(vectors[:, place])
        points = pca.transform(vectors[:, place])
        area = 10 + 300 * counts[place] / counts[place].max()
        axis.scatter(*points.T, s=area, color=plots.COLOURS[0], alpha=0.35, linewidths=0)
        if size <= 64:
            for code, (x, y) in enumerate(points):
                axis.text(x, y, str(code), fontsize=8, ha="center", va="center", color=plots.INK)
        shown = pca.explained_variance_ratio_.sum()
        tidy(axis, f"token {place}: {shown:.0%} of the variance")
        axis.margins(0.18)
        axis.set_xticks([])
        axis.set_yticks([])
    return Figure(
        title="Code vectors",
        png=to_png(figure),
        caption="The first two principal components of each place's vectors; area is how often a code is "
        "used.",
    )


def _counts(codes: Ints, size: int) -> Ints:
    """[n, K] of codes [N, n]."""
    return np.stack([np.bincount(codes[:, i], minlength=size) for i in range(codes.shape[1])])


STRATEGY = Strategy(
    title="Codebook",
    about="Which codes are used, and how evenly?",
    measure=measure,
    draw=draw,
    place=80,
    shuffles=False,
)
