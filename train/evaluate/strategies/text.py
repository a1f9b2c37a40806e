"""Text alignment: whether codes depend on the instruction."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer

from oxcart.train import statistics
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import Context, Number, Skip, Strategy, Table
from oxcart.train.statistics import Ints

CLUSTERS = 8
WORDS = 6
"""Number of words shown per cluster."""


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """Normalised mutual information of instruction clusters with code sequences and with tokens."""
    found = pairs.keep("clusters of instructions", lambda: _clusters(pairs))
    if isinstance(found, str):
        yield Skip(what="codes and instructions", because=found)
        return
    known, labels, _ = found
    codes, units = pairs.codes[known], pairs.units[known]
    yield context.estimate(
        units,
        statistics.told(statistics.joint(codes)[:, None], labels, units, context.seed, of="both"),
        name="sequences",
        title="NMI of code sequences and instructions",
        better="high",
        read="Normalised mutual information of whole latent actions and clusters of instructions, above "
        "that of shuffled instructions: 0 by chance.",
    )
    yield context.estimate(
        units,
        statistics.told(codes, labels, units, context.seed, of="codes"),
        name="tokens",
        title="share of a token that is about the instruction",
        better="high",
        read="I(token; cluster of instructions) / H(token), above that of shuffled instructions. "
        "An instruction holds for a whole episode, so this is small even for perfect codes.",
    )


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Table]:
    """The clusters."""
    found = pairs.keep("clusters of instructions", lambda: _clusters(pairs))
    if isinstance(found, str):
        return
    _, labels, words = found
    rows = [[i, int((labels == i).sum()), ", ".join(words[i])] for i in range(len(words))]
    yield Table(title="Clusters of instructions", columns=("cluster", "pairs", "words"), rows=rows)


def _clusters(pairs: GatheredPairs) -> tuple[Ints, Ints, list[list[str]]] | str:
    """Rows with an instruction, their clusters, and the words of each cluster; or the reason why there are
    none."""
    known = np.flatnonzero(pairs.instruction != "")
    texts, place = np.unique(pairs.instruction[known], return_inverse=True)
    if len(texts) < 2:
        only = f"all pairs have one instruction, {str(texts[0])!r}" if len(texts) else ""
        return only or "no pair has an instruction"
    if len(np.unique(pairs.episodes[known])) < 4:
        return "there are fewer than four episodes"
    vectorizer = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b")
    try:
        matrix = vectorizer.fit_transform(texts)
    except ValueError:
        return "instructions hold no words"
    distinct = len(np.unique(matrix.toarray().round(9), axis=0)) if len(texts) <= 256 else len(texts)
    if distinct < 2:
        return "instructions hold the same words"
    means = KMeans(min(CLUSTERS, distinct), n_init=4, random_state=0).fit(matrix)
    names = vectorizer.get_feature_names_out()
    words = [
        [str(names[i]) for i in np.argsort(-centre)[:WORDS] if centre[i] > 0]
        for centre in means.cluster_centers_
    ]
    return known, means.labels_[place].astype(np.int64), words


STRATEGY = Strategy(
    title="Text alignment",
    about="Do codes have to do with what was asked for? Instructions are clustered by their words (TF-IDF, "
    "k-means).",
    needs=("instruction",),
    measure=measure,
    draw=draw,
    place=60,
)
