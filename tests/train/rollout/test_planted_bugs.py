"""Slips of one line in success rates, their comparison and what is played: for each, a test that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from planted_bugs import Bug, Run, check_noticed, check_passing, check_up_to_date, forked

RATES, COMPARE = "train/rollout/rates.py", "train/rollout/compare.py"
PLAY, ROLLOUT, FIT = "train/rollout/play.py", "train/rollout/rollout.py", "train/rollout/fit.py"
OF_RATES, OF_COMPARE = "train/rollout/test_rates.py", "train/rollout/test_compare_rollouts.py"
OF_ROLLOUT, OF_FIT = "train/rollout/test_rollout.py", "train/rollout/test_fit.py"

WILSON = f"{OF_RATES}::test_an_interval_of_independent_episodes_is_that_of_scipy[31-50]"
ENDS = f"{OF_RATES}::test_the_ends_of_an_interval_are_exact_where_all_episodes_end_alike"
EFFECT = f"{OF_RATES}::test_environments_that_differ_widen_an_interval_as_the_formula_says"
ALIKE = f"{OF_RATES}::test_environments_that_are_alike_do_not_narrow_an_interval"
FEW = f"{OF_RATES}::test_fewer_than_five_environments_speak_of_themselves_alone"
MCNEMAR = f"{OF_RATES}::test_mcnemars_test_is_the_binomial_test_of_discordant_episodes[9-2]"
FLIPS = f"{OF_RATES}::test_the_sign_flip_test_is_scipys_permutation_test"
CLUSTERS = f"{OF_RATES}::test_the_sign_flip_test_goes_over_environments"
PAIRED = f"{OF_COMPARE}::test_episodes_are_paired_by_their_starts"
SAME = f"{OF_ROLLOUT}::test_success_is_decided_by_the_world_and_ends_an_episode"
STARTS = f"{OF_ROLLOUT}::test_starts_depend_on_the_seed_the_environment_and_the_number_alone"
CHUNKS = f"{OF_ROLLOUT}::test_chunks_are_executed_in_their_order"
ONCE = f"{OF_ROLLOUT}::test_a_group_counts_each_episode_once_and_ends_with_the_last"
DIFFERS = f"{OF_FIT}::test_what_differs_is_said"

BUGS = [
    Bug("the spread is counted once", RATES, "spread**2 / 4)", "spread**2 / 2)", WILSON),
    Bug(
        "an end is not exact", RATES, "1.0 if successes == episodes else middle + half", "middle + half", ENDS
    ),
    Bug(
        "episodes narrow an interval",
        RATES,
        "max(1.0, variance / independent)",
        "max(0.5, variance / independent)",
        ALIKE,
    ),
    Bug("the mean is not fitted", RATES, "count / (count - 1) * float", "float", EFFECT),
    Bug("an interval has a normal quantile", RATES, ", student(freedom))", ")", EFFECT),
    Bug(
        "the effect multiplies", RATES, "successes / effect, episodes / effect", "successes, episodes", EFFECT
    ),
    Bug("few environments speak of others", RATES, "< FEWEST_ENVIRONMENTS", "< 2", FEW),
    Bug(
        "a test is one-sided",
        RATES,
        "np.abs(sums) >= abs(int(differences.sum()))",
        "sums >= differences.sum()",
        MCNEMAR,
    ),
    Bug("a test leaves out what was seen", RATES, "np.abs(sums) >= abs", "np.abs(sums) > abs", FLIPS),
    Bug(
        "episodes are flipped",
        RATES,
        "sign_flip(np.bincount(clusters, apart).astype(np.int64))",
        "sign_flip(apart)",
        CLUSTERS,
    ),
    Bug(
        "the first wins",
        COMPARE,
        "np.array([here[key] for key in shared])",
        "np.array([not here[key] for key in shared])",
        PAIRED,
    ),
    Bug(
        "episodes are paired by their place",
        COMPARE,
        "bool(others[key][",
        "bool(list(others.values())[shared.index(key)][",
        PAIRED,
    ),
    Bug(
        "a policy that ends succeeds",
        PLAY,
        "self.adapter.success(self.info, bool(terminated))",
        "bool(terminated or truncated)",
        SAME,
    ),
    Bug(
        "all have one seed", ROLLOUT, "json.dumps([seed, environment, number])", "json.dumps([seed])", STARTS
    ),
    Bug(
        "seeds go by the order of environments",
        ROLLOUT,
        "seed=_seed(seed, name, i // len(names))",
        "seed=_seed(seed, name, i)",
        STARTS,
    ),
    Bug("episodes go on", PLAY, "                if not lane.done:\n", "                if True:\n", ONCE),
    Bug("kinds are not compared", FIT, "mine.kind != other.kind and", "False and", f"{DIFFERS}[kind]"),
    Bug(
        "height and width are the same",
        FIT,
        "shape != (height, width, 3)",
        "shape[0] * shape[1] != height * width",
        f"{DIFFERS}[size]",
    ),
]

every_bug = pytest.mark.parametrize("bug", BUGS, ids=[bug.what for bug in BUGS])


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with forked("gymnasium", "scipy.stats", "sklearn.linear_model", "torch") as run:
        yield run


@every_bug
def test_a_bug_is_up_to_date(bug: Bug) -> None:
    check_up_to_date(bug)


@pytest.mark.system
def test_without_a_bug_the_tests_pass(tmp_path: Path, run: Run) -> None:
    check_passing(BUGS, tmp_path, run)


@pytest.mark.system
@every_bug
def test_a_bug_is_noticed(bug: Bug, tmp_path: Path, run: Run) -> None:
    check_noticed(bug, tmp_path, run)
