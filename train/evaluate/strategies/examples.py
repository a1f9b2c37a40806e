"""Examples: pictures of pairs that share a sequence of codes, drawn at random."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from oxcart.train import plots
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategies.sequences import top
from oxcart.train.evaluate.strategy import Context, Figure, Number, Skip, Strategy

SEQUENCES, EXAMPLES = 6, 4


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """No numbers."""
    return iter(())


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Figure]:
    """For each of the most frequent sequences among the pairs whose frames are kept, some of them."""
    assert pairs.frames is not None
    generator = np.random.Generator(np.random.PCG64(context.seed))
    framed = pairs.take(pairs.framed)
    assert framed.frames is not None
    rows, names = [], []
    for name, mine in top(framed, SEQUENCES):
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
            pictures = [framed.frames[mine[example], step] if example < len(mine) else blank for mine in rows]
            columns.append((heading, np.stack(pictures)))
    yield Figure(
        title="Pairs that share a sequence",
        png=plots.grid_png(columns, names, ""),
        caption="The most frequent whole latent actions among the pairs whose frames were kept; examples "
        "are drawn at random, not chosen. The same should happen along a row.",
    )


STRATEGY = Strategy(
    title="Sequence examples",
    about="What do pairs look like that share their codes?",
    needs=("frames",),
    measure=measure,
    draw=draw,
    place=90,
)
