"""Permutation ablation: whether it matters which code stands in which place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategies.transfer import ratio_of, squares
from oxcart.train.evaluate.strategy import Context, Number, Skip, Strategy
from oxcart.train.statistics import Floats, Ints

ORDERS = ("original", "sorted", "reversed", "shuffled")


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """Reconstruction error of each other order, over that of the original."""
    if (why := _unordered(pairs, context)) is not None:
        yield Skip(what="order of the tokens", because=why)
        return
    errors = _errors(pairs, context)
    units = pairs.units[pairs.framed]
    for number, order in enumerate(ORDERS[1:], 1):
        yield context.estimate(
            units,
            ratio_of(errors[:, [number, 0]]),
            name=order,
            title=f"error with tokens {order}",
            better="high",
            read=f"Squared error of the reconstruction with the tokens of each pair {order}, over that in "
            "their own order: above 1 where places have meanings of their own, 1 where order does not "
            "matter.",
        )


def _unordered(pairs: GatheredPairs, context: Context) -> str | None:
    """Reason why codes cannot stand in other places; None if they can."""
    if pairs.codes.shape[1] < 2:
        return "a latent action is one token, which has no order"
    if not context.model.quantizer.shared:
        return "each token has a codebook of its own, so a code names another vector in another place"
    return None


def _errors(pairs: GatheredPairs, context: Context) -> Floats:
    """Squared error of each order, [F, 4]."""
    assert pairs.frames is not None
    codes = pairs.codes[pairs.framed]
    first, second = pairs.frames[:, 0], pairs.frames[:, 1]
    return np.stack([squares(context.decode(first, one), second) for one in _ordered(codes, context.seed)], 1)


def _ordered(codes: Ints, seed: int) -> list[Ints]:
    """Codes [F, n] in each of ORDERS."""
    keys = np.random.Generator(np.random.PCG64(seed)).random(codes.shape)
    return [
        codes,
        np.sort(codes, axis=1),
        np.ascontiguousarray(codes[:, ::-1]),
        np.take_along_axis(codes, keys.argsort(1), 1),
    ]


STRATEGY = Strategy(
    title="Permutation ablation",
    about="Does each place of a latent action have a meaning of its own? Its codes are put into other "
    "orders.",
    needs=("frames",),
    measure=measure,
    place=50,
    decodes=True,
)
