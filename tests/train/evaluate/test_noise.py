"""Noise in, nothing clear out: codes that have nothing to do with motions, but with places."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from depth import few
from oxcart.manifests.columns import Column
from oxcart.train.evaluate import strategies
from oxcart.train.evaluate.analysis import Subject, evaluate
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import Number
from oxcart.train.statistics import Floats, Ints
from planted import context, measured

EPISODES, PAIRS = 4, 8
SIZE = 4
NAMES = [name for name, one in strategies.load(strategies.names()).items() if not one.decodes]
KINDS = ("random codes", "codes of the place", "nearly constant codes")
WRONG = 0.08
"""Share of draws in which a number may be clear of chance. An interval of 95% is, on one side, in 2.5%."""


def noise(kind: str, environments: int, seed: int) -> GatheredPairs:
    """Pairs whose motions, states and instructions differ by environment and episode, each by itself."""
    generator = np.random.default_rng([KINDS.index(kind), environments, seed])
    episodes = environments * EPISODES
    count = episodes * PAIRS
    episode = np.repeat(np.arange(episodes), PAIRS)
    environment = episode // EPISODES

    def alike(width: int) -> Floats:
        found = generator.standard_normal((count, width))
        for numbers in (environment, episode):
            found = found + generator.standard_normal((numbers.max() + 1, width))[numbers]
        return found

    def chosen(values: int, of: Floats) -> Ints:
        """Numbers [N] below `values`, of the environment, the episode or the pair."""
        own = generator.integers(0, values, environments)[environment]
        drawn = [own, generator.integers(0, values, episodes)[episode], generator.integers(0, values, count)]
        return np.choose(np.searchsorted([0.4, 0.8], of), drawn)

    codes = {
        "random codes": generator.integers(0, SIZE, (count, 2)),
        "codes of the place": np.stack([chosen(SIZE, generator.random(count)) for _ in range(2)], 1),
        "nearly constant codes": (generator.random((count, 2)) < 0.03).astype(np.int64),
    }[kind]
    motion = alike(2)
    said = np.array(["push block", "open drawer", "wipe table", "lift cup"])
    return GatheredPairs(
        codes=codes,
        size=SIZE,
        dataset=np.where(environment < environments // 2, "left", "right"),
        split=np.where(environment % 2 == 1, "val", "train"),
        place=np.where(environment % 2 == 1, "held out", "seen"),
        environment=np.char.add("kitchen", environment.astype(str)),
        key=np.char.add("episode", episode.astype(str)),
        t=np.tile(np.arange(PAIRS), episodes),
        instruction=said[chosen(4, generator.random(episodes)[episode])],
        actions=motion,
        columns=(Column(name="dx", kind="delta"), Column(name="dy", kind="delta")),
        state=alike(2),
        state_columns=(Column(name="x", kind="absolute"), Column(name="y", kind="absolute")),
        flow=np.repeat(4 * motion[:, None], 3, 1),
        features=alike(3).astype(np.float32),
    )


def chance(strategy: str, number: Number) -> float | None:
    """The value of a number for codes that tell nothing; None if there is no such value."""
    if strategy == "codebook" or "_kept_" in number.name:
        return None
    return 1.0 if number.name.startswith("entropy_given") else 0.0


def is_wrong(kind: str, number: Number) -> bool:
    """Whether the interval says that codes tell something that they do not."""
    if kind == "codes of the place" and number.null_is_best and number.over == "episodes":
        return False  # of a few environments, such codes do tell which one it is
    if kind == "codes of the place" and number.name == "about_environment":
        return False
    if number.low is None or number.high is None:
        return False
    return number.high < 1 if number.name.startswith("entropy_given") else number.low > 0


@pytest.mark.parametrize(("environments", "draws"), few([(8, 12), (4, 12), (8, 200), (4, 200)], (8, 12)))
def test_no_number_of_noise_is_clear_of_chance(environments: int, draws: int) -> None:
    taken: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for seed in range(draws):
        kind = KINDS[seed % len(KINDS)]
        for name in NAMES:
            for number in measured(name, noise(kind, environments, seed)).values():
                if chance(name, number) is not None:
                    taken[number.name] += 1
                    wrong[number.name] += is_wrong(kind, number)
    assert len(taken) >= 26
    assert {name: many for name, many in wrong.items() if many > max(1, WRONG * taken[name])} == {}


@pytest.mark.parametrize(
    ("kind", "draws"), few([(KINDS[1], 2), *((kind, 67) for kind in KINDS)], (KINDS[1], 2))
)
def test_no_verdict_on_noise_is_clear(kind: str, draws: int) -> None:
    taken: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for seed in range(draws):
        trained, untrained = (
            Subject(pairs=noise(one, 8, seed), context=context()) for one in (kind, "random codes")
        )
        untrained = replace(untrained, pairs=replace(trained.pairs, codes=untrained.pairs.codes))
        chosen = strategies.load(NAMES)
        for row in evaluate(trained, untrained, chosen, figures=False, shuffles=10).rows():
            taken[row.number.name] += row.verdict != "describes"
            wrong[row.number.name] += row.verdict == "clear"
    assert len(taken) >= 20
    assert {name: many for name, many in wrong.items() if many > max(1, WRONG * taken[name])} == {}


def test_constant_codes_give_no_number() -> None:
    pairs = noise("random codes", 8, 0)
    constant = Subject(pairs=replace(pairs, codes=np.ones_like(pairs.codes)), context=context())
    analysis = evaluate(constant, None, strategies.load(NAMES))
    assert analysis.rows() == []


def test_what_environments_of_a_dataset_have_in_common_is_not_meaning() -> None:
    drawn = [noise("codes of the place", 8, seed) for seed in range(40)]
    within = (
        ("consistency", "actions_within_datasets"),
        ("disentanglement", "about_dataset"),
        ("state", "told"),
    )
    for name, number in within:
        values = [measured(name, pairs, context(quick=True))[number].value for pairs in drawn]
        assert abs(np.mean(values)) < 0.01, number
