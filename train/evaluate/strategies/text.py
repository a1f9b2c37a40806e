"""Text alignment: whether codes depend on the instruction.

Instructions are clustered by their words (TF-IDF). That is words and not meaning: "push the block" and "shove
the brick" have none in common but "the". A language model that the user names clusters them as sentences.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer

from oxcart.train import statistics
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.sentences import SentenceModel, describe
from oxcart.train.evaluate.strategy import Context, Number, Skip, Strategy, Table
from oxcart.train.statistics import Ints

CLUSTERS = 8
WORDS, SENTENCES = 6, 3
"""Number of words, or of instructions, shown per cluster."""
MANY = 256
"""Maximum number of instructions of which those that are alike are counted."""


class Clusters(NamedTuple):
    """Clusters of the pairs' instructions."""

    rows: Ints
    """[M]: rows of the pairs with an instruction."""
    labels: Ints
    """[M]: cluster of each."""
    shown: list[str]
    """Words or instructions of each cluster."""


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """Normalised mutual information of instruction clusters with code sequences and with tokens."""
    found = pairs.keep("clusters of instructions", lambda: _clusters(pairs, context.sentences))
    if isinstance(found, str):
        yield Skip(what="codes and instructions", because=found)
        return
    known, labels, _ = found
    by = "their words" if context.sentences is None else "a language model"
    how = describe(context.sentences)
    codes, units = pairs.codes[known], pairs.units[known]
    yield context.estimate(
        units,
        statistics.told(statistics.joint(codes)[:, None], labels, units, context.seed, of="both"),
        name="sequences",
        title=f"NMI of code sequences and instructions by {by}",
        better="high",
        read="Normalised mutual information of whole latent actions and clusters of instructions, above "
        f"that of shuffled instructions: 0 by chance. Clustered by {how}.",
    )
    yield context.estimate(
        units,
        statistics.told(codes, labels, units, context.seed, of="codes"),
        name="tokens",
        title=f"share of a token that is about the instruction by {by}",
        better="high",
        read="I(token; cluster of instructions) / H(token), above that of shuffled instructions. An "
        "instruction holds for a whole episode, so this is small even for perfect codes. Clustered by "
        f"{how}.",
    )


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Table]:
    """The clusters."""
    found = pairs.keep("clusters of instructions", lambda: _clusters(pairs, context.sentences))
    if isinstance(found, str):
        return
    rows = [[i, int((found.labels == i).sum()), shown] for i, shown in enumerate(found.shown)]
    what = "words" if context.sentences is None else "instructions nearest to the centre"
    title = f"Clusters of instructions by {describe(context.sentences)}"
    yield Table(title=title, columns=("cluster", "pairs", what), rows=rows)


def _clusters(pairs: GatheredPairs, sentences: SentenceModel | None) -> Clusters | str:
    """The clusters, or the reason why there are none."""
    known = np.flatnonzero(pairs.instruction != "")
    texts, place = np.unique(pairs.instruction[known], return_inverse=True)
    if len(texts) < 2:
        only = f"all pairs have one instruction, {str(texts[0])!r}" if len(texts) else ""
        return only or "no pair has an instruction"
    if len(np.unique(pairs.episodes[known])) < 4:
        return "there are fewer than four episodes"
    if sentences is None:
        vectorizer = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b")
        try:
            vectors = vectorizer.fit_transform(texts)
        except ValueError:
            return "instructions hold no words"
    else:
        vectors = sentences.embed(texts.tolist())
    distinct = len(texts)
    if distinct <= MANY:
        dense = vectors.toarray() if sentences is None else vectors
        distinct = len(np.unique(dense.round(9), axis=0))
    if distinct < 2:
        return f"instructions hold the same {'words' if sentences is None else 'for the language model'}"
    means = KMeans(min(CLUSTERS, distinct), n_init=4, random_state=0).fit(vectors)
    if sentences is None:
        names, most = vectorizer.get_feature_names_out(), np.argsort(-means.cluster_centers_, 1)[:, :WORDS]
        shown = [
            ", ".join(str(names[i]) for i in words if centre[i] > 0)
            for centre, words in zip(means.cluster_centers_, most, strict=True)
        ]
    else:
        away = means.transform(vectors)
        nearest = [np.flatnonzero(means.labels_ == i) for i in range(len(means.cluster_centers_))]
        shown = [
            " / ".join(texts[own[np.argsort(away[own, i], kind="stable")[:SENTENCES]]].tolist())
            for i, own in enumerate(nearest)
        ]
    return Clusters(known, means.labels_[place].astype(np.int64), shown)


STRATEGY = Strategy(
    title="Text alignment",
    about="Do codes have to do with what was asked for? Instructions are clustered (k-means) by their words, "
    "which are not their meaning, or by the sentence vectors of the model of --text-model.",
    needs=("instruction",),
    measure=measure,
    draw=draw,
    place=60,
)
