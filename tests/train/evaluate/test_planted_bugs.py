"""Slips of one line in the numbers of an evaluation: for each, a test that fails.

They are planted as those of `tests/train/test_planted_bugs.py` are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from planted_bugs import Bug, Run, check_noticed, check_passing, check_up_to_date, forked

ANALYSIS = "train/evaluate/analysis.py"
GATHER = "train/evaluate/gather.py"
SHARES = "train/evaluate/shares.py"
STRATEGIES = "train/evaluate/strategies"

OF_ANALYSIS = "train/evaluate/test_analysis.py"
OF_GATHER = "train/evaluate/test_gather.py"
OF_SHARES = "train/evaluate/test_shares.py"
OF_STRATEGIES = "train/evaluate/test_planted.py"

NULL = f"{OF_ANALYSIS}::test_a_null_is_the_range_of_one_more_shuffle"
PROBE = f"{OF_STRATEGIES}::test_the_probe_is_that_of_scikit_learn"
TRANSFER = f"{OF_STRATEGIES}::test_errors_of_transfer_are_ratios_of_sums_of_squares"
CODEBOOK = f"{OF_STRATEGIES}::test_numbers_of_the_codebook_are_those_of_scipy"
TABLES = f"{OF_STRATEGIES}::test_tables_hold_means_and_variances_of_each_token"
AGREEMENT = f"{OF_SHARES}::test_agreement_is_the_cosine_of_a_groups_arrows_with_those_of_the_others"

BUGS = [
    # Which pairs are measured, and against what.
    Bug(
        "what is seen counts as held out",
        GATHER,
        "self.take(self.place == place)",
        'self.take(self.place != "unknown")',
        f"{OF_ANALYSIS}::test_pairs_episodes_and_environments_of_a_place_are_counted",
    ),
    Bug(
        "what is seen is measured where anything is held out",
        ANALYSIS,
        "Subject(pairs=pairs.at(place), context",
        "Subject(pairs=pairs, context",
        NULL,
    ),
    Bug(
        "flow is that of another pair",
        GATHER,
        "torch.from_numpy(meter(pixels))",
        "torch.from_numpy(meter(pixels)[::-1].copy())",
        f"{OF_GATHER}::test_values_of_a_row_are_those_of_its_pair",
    ),
    Bug(
        "states stand beside other pairs",
        GATHER,
        '"state": batch.state}',
        '"state": None if batch.state is None else batch.state.flip(0)}',
        f"{OF_GATHER}::test_values_of_a_row_are_those_of_its_pair",
    ),
    Bug(
        "codes are shuffled between datasets",
        GATHER,
        "rows = np.flatnonzero(self.dataset == dataset)",
        "rows = np.arange(len(self))",
        f"{OF_GATHER}::test_codes_are_shuffled_between_clusters_of_a_dataset_or_episodes_anywhere",
    ),
    Bug(
        "environments of one name in two datasets are one",
        GATHER,
        'np.where(self.environment == "", "", places)',
        "self.environment",
        f"{OF_GATHER}::test_pairs_of_one_name_in_two_datasets_are_of_two_environments",
    ),
    Bug(
        "a rule with ! holds where the rule holds",
        "train/evaluate/subsets.py",
        '~found if parts[2].startswith("!") else found',
        "found",
        f"{OF_ANALYSIS}::test_buckets_are_small_rules",
    ),
    Bug(
        "one of several rules is enough",
        "train/evaluate/subsets.py",
        "found &= _holds(rule, pairs)",
        "found = _holds(rule, pairs)",
        f"{OF_ANALYSIS}::test_buckets_are_small_rules",
    ),
    Bug("a null forgets that its mean is estimated", ANALYSIS, " * math.sqrt(1 + 1 / len(drawn))", "", NULL),
    Bug(
        "a null has as many degrees of freedom as shuffles",
        ANALYSIS,
        "student(len(drawn) - 1)",
        "student(len(drawn))",
        NULL,
    ),
    Bug("the spread of shuffles is that of all shuffles there are", ANALYSIS, "ddof=1", "ddof=0", NULL),
    Bug(
        "a null that is best keeps what codes say of their dataset",
        ANALYSIS,
        "anywhere.get(one.name, one) if one.null_is_best else one",
        "one",
        f"{OF_ANALYSIS}::test_a_null_that_is_best_is_of_episodes_anywhere",
    ),
    Bug(
        "less is worse where less is better",
        ANALYSIS,
        '1 if number.better == "high" else -1',
        "1",
        f"{OF_ANALYSIS}::test_a_verdict_compares_bounds_on_the_better_side[low-own5-other5-clear]",
    ),
    Bug(
        "a number is clear of another within its interval",
        ANALYSIS,
        "all(low > bound[1] for bound in beside)",
        "all(low > bound[0] for bound in beside)",
        f"{OF_ANALYSIS}::test_a_verdict_compares_bounds_on_the_better_side[high-own1-other1-not told apart]",
    ),
    # Strategies.
    Bug(
        "the probe of the evaluation is fitted on what it is judged by",
        f"{STRATEGIES}/probe.py",
        "statistics.ridge(codes[fit], target[fit],",
        "statistics.ridge(codes[test], target[test],",
        PROBE,
    ),
    Bug(
        "actions that are judged are scaled by themselves",
        f"{STRATEGIES}/probe.py",
        "actions[mine & fit] if (mine & fit).any() else actions[mine & test]",
        "actions[mine & test]",
        PROBE,
    ),
    Bug(
        "the gain of codes over the frame has the wrong sign",
        f"{STRATEGIES}/probe.py",
        "coded(rows) - max(0.0, framed(rows))",
        "max(0.0, framed(rows)) - coded(rows)",
        f"{OF_STRATEGIES}::test_what_the_frame_tells_as_well_is_no_gain",
    ),
    Bug(
        "a frame that tells less than nothing adds to the gain of codes",
        f"{STRATEGIES}/probe.py",
        "max(0.0, framed(rows))",
        "framed(rows)",
        PROBE,
    ),
    Bug(
        "columns are scaled by one deviation",
        SHARES,
        "if together:",
        "if True:",
        f"{OF_SHARES}::test_values_are_in_deviations_of_their_group",
    ),
    Bug(
        "rows of one cluster count as independent",
        SHARES,
        "apart = units.episode if whole else clusters",
        "apart = units.episode",
        f"{OF_SHARES}::test_what_is_told_within_groups_is_the_product_of_independent_rows_of_one_code",
    ),
    Bug(
        "what any two rows of a group share counts as told",
        SHARES,
        "tokens)) - alike",
        "tokens))",
        f"{OF_SHARES}::test_what_is_told_within_groups_is_the_product_of_independent_rows_of_one_code",
    ),
    Bug(
        "rows of one group tell what holds in others",
        SHARES,
        "return _shared(sums, counts, np.arange(number) % self.width)",
        "return _shared(sums, counts, np.arange(number) * 0)",
        f"{OF_SHARES}::test_what_is_told_across_groups_is_the_product_of_rows_of_different_groups",
    ),
    Bug(
        "arrows of a group agree with their own",
        SHARES,
        "sums.sum(0) - sums, counts.sum(0) - counts",
        "0 * sums + sums.sum(0), 0 * counts + counts.sum(0)",
        AGREEMENT,
    ),
    Bug(
        "arrows of what is held out agree with those of all",
        SHARES,
        "sums[~mine].sum(0)[None], counts[~mine].sum(0)[None]",
        "sums.sum(0)[None], counts.sum(0)[None]",
        AGREEMENT,
    ),
    Bug(
        "what is seen is compared with what is held out",
        f"{STRATEGIES}/compass.py",
        "np.isin(np.unique(names), unseen)",
        "np.isin(np.unique(names), np.unique(names)[:1])",
        f"{OF_STRATEGIES}::test_arrows_that_are_turned_in_what_is_held_out_do_not_agree_with_those_seen",
    ),
    Bug(
        "a covariance is over actions",
        f"{STRATEGIES}/compass.py",
        "np.cov(values.T)).round",
        "np.cov(values[:2])).round",
        TABLES,
    ),
    Bug(
        "noise of means counts as variance between groups",
        f"{STRATEGIES}/consistency.py",
        " - (spread.sum(1) / number).mean())",
        ")",
        TABLES,
    ),
    Bug(
        "what is kept is the first share beneath the second",
        f"{STRATEGIES}/consistency.py",
        "sums.across(rows) / sums.within(rows)",
        "sums.across(rows) - sums.within(rows)",
        f"{OF_STRATEGIES}::test_what_a_code_tells_everywhere_is_consistent",
    ),
    Bug(
        "every mean of flow is the weighted one",
        f"{STRATEGIES}/flow_tokens.py",
        "pairs.flow[:, number], datasets",
        "pairs.flow[:, WEIGHTED], datasets",
        f"{OF_STRATEGIES}::test_each_mean_of_flow_is_a_number_of_its_own",
    ),
    Bug(
        "magnitude is told without its direction",
        f"{STRATEGIES}/magnitude.py",
        "        given=directions,\n",
        "",
        f"{OF_STRATEGIES}::test_a_direction_in_which_things_move_farther_tells_no_more_than_itself",
    ),
    Bug(
        "an entropy that is left is what is told",
        f"{STRATEGIES}/disentanglement.py",
        "lambda rows: 1 - told(rows)",
        "told",
        f"{OF_STRATEGIES}::test_tokens_follow_from_like_actions_where_they_mean_directions",
    ),
    Bug(
        "a state is told by what a token says in other datasets",
        f"{STRATEGIES}/state.py",
        "sums.within,",
        "sums.across,",
        f"{OF_STRATEGIES}::test_states_are_told_by_codes_that_go_with_them",
    ),
    Bug(
        "instructions are told by one token",
        f"{STRATEGIES}/text.py",
        "means.labels_[place]",
        "np.sort(means.labels_[place])",
        f"{OF_STRATEGIES}::test_text_is_told_by_codes_of_the_instruction_alone",
    ),
    Bug(
        "every code is in use",
        f"{STRATEGIES}/codebook.py",
        "pairs.size) > 0).mean()",
        "pairs.size) >= 0).mean()",
        CODEBOOK,
    ),
    Bug("bits are nats", f"{STRATEGIES}/codebook.py", ".mean() / np.log(2)", ".mean()", CODEBOOK),
    Bug(
        "the joint perplexity is an entropy",
        f"{STRATEGIES}/codebook.py",
        "float(np.exp(statistics.entropy(np.bincount(",
        "float(np.abs(statistics.entropy(np.bincount(",
        CODEBOOK,
    ),
    Bug(
        "orders are beneath the original",
        f"{STRATEGIES}/permutation.py",
        "errors[:, [number, 0]]",
        "errors[:, [0, number]]",
        f"{OF_STRATEGIES}::test_orders_are_those_that_they_say_and_their_errors_over_that_of_the_original",
    ),
    Bug(
        "tokens are sorted between pairs",
        f"{STRATEGIES}/permutation.py",
        "np.sort(codes, axis=1)",
        "np.sort(codes, axis=0)",
        f"{OF_STRATEGIES}::test_orders_are_those_that_they_say_and_their_errors_over_that_of_the_original",
    ),
    Bug(
        "a ratio of errors is the mean of ratios",
        f"{STRATEGIES}/transfer.py",
        "errors[rows].sum(0).tolist()",
        "(errors[rows] / errors[rows][:, 1:]).sum(0).tolist()",
        TRANSFER,
    ),
    Bug(
        "frames with codes of A are compared with frames of A",
        f"{STRATEGIES}/transfer.py",
        "pairs.frames[b, 0], pairs.frames[b, 1]",
        "pairs.frames[b, 0], pairs.frames[a, 1]",
        TRANSFER,
    ),
    Bug(
        "A and B may be of one episode",
        f"{STRATEGIES}/transfer.py",
        " & (episodes != episodes[b])",
        "",
        TRANSFER,
    ),
    Bug(
        "motion is compared with that of B",
        f"{STRATEGIES}/transfer.py",
        "pairs.flow[pairs.framed[a], WEIGHTED]",
        "pairs.flow[pairs.framed[b], WEIGHTED]",
        f"{OF_STRATEGIES}::test_codes_that_move_images_transfer_and_ignored_ones_do_not",
    ),
    Bug(
        "an angle is in radians",
        f"{STRATEGIES}/transfer.py",
        "np.degrees(np.arccos(",
        "np.abs(np.arccos(",
        f"{OF_STRATEGIES}::test_angles_between_motions_are_in_degrees",
    ),
]

every_bug = pytest.mark.parametrize("bug", BUGS, ids=[bug.what for bug in BUGS])


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    packages = ("accelerate", "matplotlib.pyplot", "scipy.stats", "torch")
    with forked(*packages, *(f"sklearn.{name}" for name in ("cluster", "linear_model", "manifold"))) as run:
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
