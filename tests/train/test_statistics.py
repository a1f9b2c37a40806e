"""Probes, mutual information and intervals, on data whose answer is known."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.metrics import (
    adjusted_mutual_info_score,
    mutual_info_score,
    normalized_mutual_info_score,
    r2_score,
)

from oxcart.train import statistics
from oxcart.train.statistics import (
    GROUPS,
    SHUFFLES,
    STILL,
    Ints,
    Units,
    information,
    jackknife,
    jackknife_cosine,
    make_units,
    shuffles,
    told,
    turns,
)


def codes(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (count, 2))


def test_a_linear_relation_is_found_and_noise_is_not() -> None:
    train, val = codes(400, 0), codes(200, 1)
    table = np.random.default_rng(2).standard_normal((4, 2))
    x, x_val = statistics.one_hot(train, 4), statistics.one_hot(val, 4)
    y, y_val = table[train[:, 0]], table[val[:, 0]]
    assert (statistics.r2(y_val, y_val - statistics.ridge(x, y, x_val)) > 0.98).all()
    noise = np.random.default_rng(3).standard_normal((600, 2))
    guess = statistics.ridge(x, noise[:400], x_val)
    assert (statistics.r2(noise[400:], noise[400:] - guess) < 0.1).all()


def test_the_probe_is_that_of_scikit_learn_and_is_judged_around_the_mean_of_val() -> None:
    generator = np.random.default_rng(0)
    x, x_val = statistics.one_hot(codes(80, 0), 4), statistics.one_hot(codes(50, 1), 4)
    weights = generator.normal(size=(8, 2))
    y, y_val = (one @ weights + generator.normal(size=(len(one), 2)) for one in (x, x_val))
    y_val += (0.7, -0.4)  # val has another mean than train
    for given in ((), (30.0,)):
        made = Ridge(*(given or (1.0,))).fit(x, y).predict(x_val)
        expected = r2_score(y_val, made, multioutput="raw_values")
        assert statistics.ridge(x, y, x_val, *given) == pytest.approx(made)
        assert statistics.r2(y_val, y_val - made) == pytest.approx(expected)
    each = statistics.ridge(x, y, x_val, np.array([1.0, 30.0]))
    assert each[:, :1] == pytest.approx(statistics.ridge(x, y[:, :1], x_val)), "a penalty for each target"


def test_entropy_is_that_of_scipy_in_nats() -> None:
    counts = np.array([5, 0, 3, 1])
    assert statistics.entropy(counts) == pytest.approx(stats.entropy(counts))
    assert statistics.entropy(counts / 9) == pytest.approx(stats.entropy(counts))


def test_a_value_that_never_varies_has_no_r2() -> None:
    x = statistics.one_hot(codes(50, 0), 4)
    same = np.full((50, 1), 0.1)
    assert np.isnan(statistics.r2(same, same - statistics.ridge(x, same, x))).all()


def test_one_hot_keeps_the_places_apart() -> None:
    assert statistics.one_hot(np.array([[0, 1]]), 2).tolist() == [[1, 0, 0, 1]]


def units_of(environments: list[int], episodes: list[int]) -> Units:
    """Rows in the order of time."""
    count = len(episodes)
    return Units(environment=np.array(environments), episode=np.array(episodes), t=np.arange(count))


def alone(count: int) -> Units:
    """Rows of which each is an episode of an unknown environment."""
    return units_of([-1] * count, list(range(count)))


def test_pairs_cluster_by_environment_from_five_environments_on() -> None:
    four = make_units(["a", "b", "c", "d", "d", None], ["0", "1", "2", "3", "4", "5"], np.arange(6))
    assert four.over == "episodes"
    assert four.clusters.tolist() == [0, 1, 2, 3, 4, 5]
    five = make_units(["a", "b", "c", "d", "d", "e", None, None], list("01234567"), np.arange(8))
    assert five.over == "environments"
    assert five.clusters[3] == five.clusters[4]
    assert len(set(five.clusters.tolist())) == 7, "an episode of an unknown environment is a cluster"
    assert five[np.array([0, 1, 2, 3, 4])].over == "episodes", "of the rows that are counted, not of all"
    assert five.by_episode().over == "episodes"


def test_mutual_information_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    one = generator.integers(0, 4, (300, 1))
    labels = np.where(generator.random(300) < 0.5, one[:, 0], generator.integers(0, 5, 300))
    found = information(one, labels, alone(300))
    known = normalized_mutual_info_score(one[:, 0], labels, average_method="geometric")
    assert found.value == pytest.approx(known)
    assert found.excess == found.value - found.shuffled
    adjusted = adjusted_mutual_info_score(one[:, 0], labels, average_method="geometric")
    everything = np.arange(300)
    assert told(one, labels, alone(300), 0, of="both")(everything) == pytest.approx(adjusted, abs=0.01)
    assert information(one, one[:, 0] + 7, alone(300)).value == pytest.approx(1)
    assert information(one, np.zeros(300, np.int64), alone(300)).value == 0


def test_chance_is_that_of_labels_of_other_clusters() -> None:
    """Six environments with labels of their own: shuffles of single pairs would give less by chance."""
    generator = np.random.default_rng(0)
    place = np.repeat(np.arange(6), 20)
    units = Units(environment=place, episode=np.arange(120) // 10, t=np.arange(120))
    one = np.where(generator.random(120) < 0.6, place % 4, generator.integers(0, 4, 120))
    labels = np.where(generator.random(120) < 0.6, place % 3, generator.integers(0, 5, 120))
    drawn = shuffles(units, SHUFFLES, 3)
    shared = mutual_info_score(one, labels)
    chance = float(np.mean([mutual_info_score(one, labels[rows]) for rows in drawn]))
    of_codes, of_labels = (stats.entropy(np.bincount(values)) for values in (one, labels))
    both = math.sqrt(of_codes * of_labels)
    found = information(one[:, None], labels, units, seed=3)
    assert found.value == pytest.approx(shared / both)
    assert found.shuffled == pytest.approx(chance / both)
    assert found.excess == pytest.approx((shared - chance) / both)
    for of, whole in (("labels", of_labels), ("codes", of_codes), ("both", both)):
        share = told(one[:, None], labels, units, 3, of=of)(np.arange(120))  # type: ignore[arg-type]
        assert share == pytest.approx((shared - chance) / (whole - chance)), of

    def excess(rows: Ints) -> float:
        chances = [mutual_info_score(one[rows], labels[taken[rows]]) for taken in drawn]
        sizes = (stats.entropy(np.bincount(values[rows])) for values in (one, labels))
        gap = mutual_info_score(one[rows], labels[rows]) - np.mean(chances)
        return float(gap / math.sqrt(math.prod(sizes)))

    assert found.interval == pytest.approx(jackknife(excess, place))


def test_a_share_is_one_where_codes_determine_the_label_and_half_where_they_halve_it() -> None:
    labels = np.arange(400) % 4
    everything = np.arange(400)
    assert told(labels[:, None], labels, alone(400), 0)(everything) == pytest.approx(1)
    halves = np.stack([labels // 2, labels], 1)
    assert told(halves[:, :1], labels, alone(400), 0)(everything) == pytest.approx(0.5, abs=0.01)
    assert told(halves, labels, alone(400), 0)(everything) == pytest.approx(0.75, abs=0.01), "mean of places"
    assert told(halves[:, :1], labels, alone(400), 0, of="codes")(everything) == pytest.approx(1)


def test_beyond_what_is_given_is_the_mean_over_its_values() -> None:
    """Of the first kind codes say all, of the second nothing; kinds and labels go together."""
    kind, half = np.repeat([0, 1], 400), np.tile([0, 1], 400)
    codes_ = np.where(kind == 0, half, np.arange(800) // 2 % 2)
    labels = half + 2 * kind
    found = told(codes_[:, None], labels, alone(800), 0, given=kind)(np.arange(800))
    assert found == pytest.approx(0.5, abs=0.01), "one of two bits of 400 pairs each"
    assert told(kind[:, None], labels, alone(800), 0)(np.arange(800)) == pytest.approx(0.5, abs=0.01)
    assert told(kind[:, None], labels, alone(800), 0, given=kind)(np.arange(800)) == 0
    assert math.isnan(told(codes_[:, None], kind, alone(800), 0, given=kind)(np.arange(800)))


def test_what_is_told_beyond_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    kind = generator.choice(3, 300, p=[0.6, 0.3, 0.1])
    one = generator.integers(0, 4, 300)
    labels = (one * (generator.random(300) < 0.6) + kind) % 4
    rows = np.flatnonzero(generator.random(300) < 0.8)
    total = np.zeros(3)
    for i in range(3):
        mine = np.flatnonzero(kind == i)
        kept = np.isin(mine, rows)
        own = one[mine][kept]
        chance = [
            mutual_info_score(own, labels[mine][other][kept])
            for other in turns(alone(300)[mine], SHUFFLES, 7)
        ]
        whole = stats.entropy(np.bincount(labels[mine][kept]))
        total += kept.sum() * np.array([mutual_info_score(own, labels[mine][kept]), np.mean(chance), whole])
    shared, chance, whole = total
    found = told(one[:, None], labels, alone(300), 7, given=kind)(rows)
    assert found == pytest.approx((shared - chance) / (whole - chance))


def test_labels_alike_within_an_episode_are_not_told_beyond_a_kind_by_codes_that_are_alike_too() -> None:
    clear = 0
    for seed in range(30):
        generator = np.random.default_rng(seed)
        episode = np.repeat(np.arange(24), 12)
        units = Units(environment=np.full(288, -1), episode=episode, t=np.arange(288))
        one, labels = (generator.integers(0, 4, 24)[episode] for _ in range(2))
        statistic = told(one[:, None], labels, units, seed, given=generator.integers(0, 3, 288))
        found = jackknife(statistic, units.clusters, seed)
        assert found is not None
        clear += found.low > 0
    assert clear <= 3


def test_labels_of_one_cluster_each_tell_nothing() -> None:
    episodes = [i // 10 for i in range(50)]
    found = told(codes(50, 0), np.array(episodes), units_of([-1] * 50, episodes), 0)
    assert math.isnan(found(np.arange(50)))


@pytest.mark.parametrize("known", [True, False])
def test_a_shuffle_gives_each_cluster_the_rows_of_another_in_the_order_of_time(known: bool) -> None:
    generator = np.random.default_rng(0)
    environment = np.repeat(np.arange(6), [1, 2, 3, 4, 2, 3])
    episode = np.repeat(np.arange(len(environment)), generator.integers(2, 9, len(environment)))
    order = generator.permutation(len(episode))
    t = np.concatenate([np.arange(number) for number in np.bincount(episode)])
    place = environment[episode] if known else np.full(len(episode), -1)
    units = Units(environment=place, episode=episode, t=t)[order]
    clusters = units.clusters
    for rows in shuffles(units, 5, 0):
        assert (clusters[rows] != clusters).all()
        for one in range(len(environment)):
            mine = np.flatnonzero(units.episode == one)
            mine = rows[mine[np.argsort(units.t[mine])]]
            (giver,) = set(units.episode[mine].tolist())
            length = (units.episode == giver).sum()
            assert set(np.diff(units.t[mine]) % length) <= {1 % length}, "in order, the first after the last"
        for cluster in range(int(clusters.max()) + 1):
            assert len(set(clusters[rows[clusters == cluster]].tolist())) == 1
    assert (shuffles(units, 5, 0) == shuffles(units, 5, 0)).all()
    assert (shuffles(units, 1, 0) != shuffles(units, 1, 1)).any()


@pytest.mark.parametrize("environments", [0, 6])
def test_a_turn_takes_from_others_in_the_order_of_time_and_each_gives_once(environments: int) -> None:
    generator = np.random.default_rng(0)
    episode = np.repeat(np.arange(12), generator.integers(3, 8, 12))
    order = generator.permutation(len(episode))
    place = episode % environments if environments else np.full(len(episode), -1)
    t = np.concatenate([np.arange(number) for number in np.bincount(episode)])
    units = Units(environment=place, episode=episode, t=t)[order]
    drawn = turns(units, 20, 0)
    for rows in drawn:
        assert sorted(rows.tolist()) == list(range(len(rows)))
        assert (units.clusters[rows] != units.clusters).all()
        taken = [
            rows[np.flatnonzero(units.episode == one)[np.argsort(t[order][units.episode == one])]]
            for one in range(12)
        ]
        follows = np.concatenate(
            [
                (units.episode[one][1:] == units.episode[one][:-1]) & (np.diff(units.t[one]) == 1)
                for one in taken
            ]
        )
        assert follows.mean() > 0.6, "most neighbours in time take from neighbours in time"
    assert len({rows.tobytes() for rows in drawn}) == 20
    assert (turns(units, 5, 0) == drawn[:5]).all()


def test_repeats_of_few_rows_are_not_taken_for_chance() -> None:
    """Environments of few pairs each, among those of a kind, tell nothing and not less than nothing."""
    generator = np.random.default_rng(0)
    found = []
    for seed in range(20):
        episode = np.repeat(np.arange(36), 20)
        units = Units(environment=episode // 6 % 6, episode=episode // 6, t=np.arange(720))
        labels, kind = generator.integers(0, 4, 720), generator.integers(0, 8, 720)
        found.append(told(units.environment[:, None], labels, units, seed, given=kind)(np.arange(720)))
    assert abs(np.mean(found)) < 0.005
    assert np.std(found) < 0.02


def test_episodes_of_one_length_each_give_once() -> None:
    episodes = [i // 7 for i in range(70)]
    for rows in shuffles(units_of([-1] * 70, episodes), 5, 0):
        assert sorted(rows.tolist()) == list(range(70))


def sticky(generator: np.random.Generator, kinds: int, units: Units, stays: float) -> Ints:
    """Values that mostly stay what they are from one step of an episode to the next."""
    found = generator.integers(0, kinds, len(units))
    for row in range(1, len(units)):
        if units.episode[row] == units.episode[row - 1] and generator.random() < stays:
            found[row] = found[row - 1]
    return found


@pytest.mark.parametrize("environments", [0, 8])
@pytest.mark.parametrize("motions", ["of the episode", "smooth"])
def test_codes_of_the_episode_tell_nothing_of_motions_that_are_alike_within_one(
    motions: str, environments: int
) -> None:
    clear = 0
    for seed in range(50):
        generator = np.random.default_rng([seed, environments])
        lengths = generator.integers(5, 15, 24)
        episode = np.repeat(np.arange(24), lengths)
        place = np.arange(24) % environments if environments else np.full(24, -1)
        units = Units(environment=place[episode], episode=episode, t=np.arange(len(episode)))
        # Where environments are known, codes and motions are of the environment as often as of the episode.
        own = [generator.integers(0, 8, 24) for _ in range(2)]
        if environments:
            alike = [generator.integers(0, 8, environments)[place] for _ in range(2)]
            own = [np.where(generator.random(24) < 0.5, own[i], alike[i]) for i in range(2)]
        labels = own[1][episode] if motions == "of the episode" else sticky(generator, 8, units, 0.9)
        found = information(own[0][episode][:, None], labels, units, seed=seed)
        assert found.interval is not None
        clear += found.interval.low > 0
    assert clear <= 4


def test_a_jackknife_of_a_mean_is_students_interval() -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0, 5.0])
    found = jackknife(lambda rows: float(np.repeat(values, 3)[rows].mean()), np.repeat(np.arange(5), 3))
    assert found == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(0.95), abs=1e-6)


def test_clusters_of_unequal_size_count_as_fewer() -> None:
    clusters = np.array([0] * 6 + [1] * 2 + [2] * 2)  # 1 / (0.36 + 0.04 + 0.04) = 2.27 of equal size
    values = np.array([1.0] * 6 + [2.0] * 2 + [5.0] * 2)
    without = np.array([3.5, 2.0, 1.25])  # means without each cluster, by hand; that of all is 2
    error = math.sqrt(2 / 3 * ((without - 2.25) ** 2).sum()) * stats.t.ppf(0.975, 1 / 0.44 - 1)
    found = jackknife(lambda rows: float(values[rows].mean()), clusters)
    assert found == pytest.approx((2 - error, 2 + error), abs=1e-3)


def test_two_clusters_and_values_that_are_not_determined_have_no_interval() -> None:
    assert jackknife(lambda rows: 1.0, np.array([0, 0, 1, 1])) is None
    assert jackknife(lambda rows: math.nan if len(rows) < 3 else 1.0, np.array([0, 1, 2])) is None
    assert information(codes(50, 0), codes(50, 1)[:, 0], units_of([-1] * 50, [0] * 50)).interval is None


def test_many_clusters_are_left_out_in_groups_of_them() -> None:
    left: list[set[int]] = []
    clusters = np.repeat(np.arange(3 * GROUPS), 2)

    def statistic(rows: Ints) -> float:
        left.append(set(range(3 * GROUPS)) - set(clusters[rows].tolist()))
        return float(rows.mean())

    jackknife(statistic, clusters)
    *without, whole = left
    assert whole == set()
    assert [len(one) for one in without] == [3] * GROUPS
    assert set.union(*without) == set(range(3 * GROUPS))


def test_the_interval_of_a_cosine_is_students_of_fishers_z() -> None:
    z = np.array([2.6, 1.5, 3.8, 0.5])  # cosines from 0.46 to 0.999
    found = jackknife_cosine(lambda rows: float(np.tanh(z[rows].mean())), np.arange(4))
    bounds = stats.ttest_1samp(z, 0).confidence_interval(0.95)
    assert found == pytest.approx((math.tanh(bounds.low), math.tanh(bounds.high)), abs=1e-5)
    assert jackknife_cosine(lambda rows: 1.0, np.arange(4)) == pytest.approx((1, 1))


@pytest.mark.parametrize("freedom", [1, 1.27, 2, 2.5, 3, 7, 19, 39, 200])
def test_students_quantile_is_that_of_scipy(freedom: float) -> None:
    assert statistics.student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-12)


def test_directions_are_sectors_and_stillness() -> None:
    actions = np.array([[1, 0], [0, 1], [-1, 0], [0, -1], [1, 1], [0.001, 0]])
    found = statistics.directions(actions)
    assert found.tolist() == [1, 3, 5, 7, 2, 0]
    assert len(set(statistics.directions(np.array([[1.0], [-1.0], [2.0]])).tolist())) == 2


def test_an_action_is_still_below_a_tenth_of_a_long_one() -> None:
    lengths = np.array([2.0] * 18 + [0.21, 0.19])
    assert np.percentile(lengths, 90) * STILL == pytest.approx(0.2)
    found = statistics.directions(np.stack([lengths, 0 * lengths], 1))
    assert found.tolist() == [1] * 19 + [0]


def test_joint_numbers_tell_whole_actions_apart() -> None:
    assert len(set(statistics.joint(np.array([[0, 1], [1, 0], [0, 1]])).tolist())) == 2


def test_no_module_imports_opencv_before_it_is_used() -> None:
    """Training and its validation must run with the extra `train` alone."""
    root = Path(statistics.__file__).parent
    need = {
        str(file.relative_to(root))
        for file in root.rglob("*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and ast.unparse(node).split()[1].partition(".")[0] == "cv2"
    }
    assert not need
