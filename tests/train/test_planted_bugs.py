"""Slips of one line in the numbers of validation, and in the statistics: for each, a test that fails.

A number that is wrong looks like one that is right, so the tests of these numbers are tested here. Each bug
of the list replaces a piece of the code in a copy of the package, where the test that it names must fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from planted_bugs import Bug, Run, check_noticed, check_passing, check_up_to_date, forked

VALIDATE = "train/laq/validate.py"
SUMMING, COLUMNS = "train/data/summing.py", "manifests/columns.py"
OF_SUMMING, OF_COLUMNS = "train/data/test_summing.py", "manifests/test_columns.py"
BASELINE = "train/frame_baseline.py"
STATISTICS = "train/statistics.py"
METRICS = "train/vla/metrics.py"

OF_VALIDATE = "train/laq/test_validate.py"
OF_BASELINE = "train/test_frame_baseline.py"
OF_STATISTICS = "train/test_statistics.py"
OF_METRICS = "train/vla/test_metrics.py"

CODES_ARE_WHAT_THEY_SAY = f"{OF_VALIDATE}::test_own_constant_and_permuted_codes_are_those_that_they_say"
QUALITY = f"{OF_VALIDATE}::test_quality_of_known_errors"
USAGE = f"{OF_VALIDATE}::test_usage_of_known_codes"
PROBES = f"{OF_VALIDATE}::test_the_probes_are_those_of_scikit_learn"
PENALTIES = f"{OF_BASELINE}::test_penalties_are_those_that_scikit_learn_finds"
RIDGE = f"{OF_STATISTICS}::test_the_probe_is_that_of_scikit_learn_and_is_judged_around_the_mean_of_val"
CHANCE = f"{OF_STATISTICS}::test_chance_is_that_of_labels_of_other_clusters"
BEYOND = f"{OF_STATISTICS}::test_what_is_told_beyond_is_that_of_scikit_learn"
OF_MEAN = f"{OF_STATISTICS}::test_a_jackknife_of_a_mean_is_students_interval"
UNEQUAL = f"{OF_STATISTICS}::test_clusters_of_unequal_size_count_as_fewer"
KNOWN = f"{OF_METRICS}::test_baselines_know_what_train_says"
GAINS = f"{OF_METRICS}::test_shares_gains_and_counts"
OF_VALIDATION = "train/vla/test_task.py::test_validation_stands_beside_baselines"

BUGS = [
    # Validation of codes.
    Bug(
        "permuted codes are the pair's own",
        VALIDATE,
        "np.roll(codes, 1, 0)",
        "np.roll(codes, 0, 0)",
        CODES_ARE_WHAT_THEY_SAY,
    ),
    Bug(
        "constant codes are the rarest",
        VALIDATE,
        "names[counts.argmax()]",
        "names[counts.argmin()]",
        CODES_ARE_WHAT_THEY_SAY,
    ),
    Bug(
        "permuted codes of every batch are those of the first",
        VALIDATE,
        "others_of[i * loader.config.batch_size :]",
        "others_of",
        CODES_ARE_WHAT_THEY_SAY,
    ),
    Bug(
        "the prediction is compared with the frame that is given",
        VALIDATE,
        "mse(made, frames[:, 1])",
        "mse(made, frames[:, 0])",
        CODES_ARE_WHAT_THEY_SAY,
    ),
    Bug(
        "random codes are the pair's own",
        VALIDATE,
        '"random": others,',
        '"random": own,',
        CODES_ARE_WHAT_THEY_SAY,
    ),
    Bug(
        "the ratio is of medians over pairs",
        VALIDATE,
        "float(values.astype(np.float64).mean()) for kind",
        "float(np.median(values.astype(np.float64))) for kind",
        QUALITY,
    ),
    Bug("the copy-frame baseline is beneath", VALIDATE, "total[kind] / copy", "copy / total[kind]", QUALITY),
    Bug(
        "the PSNR is of the mean error",
        VALIDATE,
        "float((-10 * np.log10(np.maximum(values.astype(np.float64), 1e-10))).mean())",
        "float(-10 * np.log10(np.maximum(values.astype(np.float64), 1e-10).mean()))",
        QUALITY,
    ),
    Bug("a PSNR has half its decibels", VALIDATE, "(-10 * np.log10", "(-5 * np.log10", QUALITY),
    Bug(
        "the gain in PSNR has the wrong sign",
        VALIDATE,
        'signal["prediction"] - signal["random"]',
        'signal["random"] - signal["prediction"]',
        QUALITY,
    ),
    Bug(
        "the gain in PSNR is over codes of other pairs",
        VALIDATE,
        'signal["prediction"] - signal["random"]',
        'signal["prediction"] - signal["permuted"]',
        QUALITY,
    ),
    Bug(
        "a code counts as used from its second pair on",
        VALIDATE,
        "(places > 0).mean()",
        "(places > 1).mean()",
        USAGE,
    ),
    Bug(
        "a perplexity is an entropy",
        VALIDATE,
        "np.exp(statistics.entropy(places))",
        "statistics.entropy(places)",
        USAGE,
    ),
    Bug(
        "the joint perplexity is of one token",
        VALIDATE,
        "np.bincount(statistics.joint(codes))",
        "np.bincount(codes[:, 1])",
        USAGE,
    ),
    Bug(
        "an entry of a shared codebook is dead where one token lacks it",
        VALIDATE,
        "places.sum(0) if shared",
        "places.prod(0) if shared",
        USAGE,
    ),
    Bug(
        "no codebook has collapsed",
        VALIDATE,
        "LEAST_USED = 0.5",
        "LEAST_USED = 0.0",
        f"{OF_VALIDATE}::test_a_collapse_is_said_after_each_validation_and_in_the_report",
    ),
    Bug(
        "a codebook has collapsed below a quarter",
        VALIDATE,
        "LEAST_USED = 0.5",
        "LEAST_USED = 0.25",
        f"{OF_VALIDATE}::"
        "test_a_codebook_collapses_where_a_place_uses_half_of_what_pairs_would[codes0-8-collapsed]",
    ),
    Bug(
        "few pairs have to use every code",
        VALIDATE,
        "used <= LEAST_USED * expected",
        "used <= LEAST_USED",
        f"{OF_VALIDATE}::"
        "test_a_codebook_collapses_where_a_place_uses_half_of_what_pairs_would[codes7-2048-in use]",
    ),
    Bug(
        "a place that has collapsed is made up for by others",
        VALIDATE,
        "(places >= least).mean(1).min()",
        "(places >= least).mean(1).mean()",
        f"{OF_VALIDATE}::"
        "test_a_codebook_collapses_where_a_place_uses_half_of_what_pairs_would[codes2-8-collapsed]",
    ),
    # Sums of actions.
    Bug(
        "the value before the first is not subtracted",
        SUMMING,
        "- values[t - 1, self._subtracted]",
        "- values[t, self._subtracted]",
        f"{OF_SUMMING}::test_every_kind_is_summed_as_it_should_be",
    ),
    Bug(
        "a gripper is added up",
        COLUMNS,
        'SUBTRACTED = ("absolute", "gripper_absolute")',
        'SUBTRACTED = ("absolute",)',
        f"{OF_SUMMING}::test_every_kind_is_summed_as_it_should_be",
    ),
    Bug(
        "an angle goes the long way round",
        SUMMING,
        "if self._angles:",
        "if not self._angles:",
        f"{OF_SUMMING}::test_an_angle_turns_the_short_way",
    ),
    Bug(
        "steps that hold no action are summed",
        SUMMING,
        "if t < start or t + k > stop:",
        "if t + k > stop:",
        f"{OF_SUMMING}::test_what_needs_a_step_that_holds_no_action_is_not_known",
    ),
    Bug(
        "unknown kinds are summed",
        SUMMING,
        'if one.kind == "unknown"]\n        if unknown',
        'if one.kind == "x"]\n        if unknown',
        f"{OF_SUMMING}::test_columns_of_unknown_kind_are_refused_by_name",
    ),
    Bug(
        "velocities are no motion at the ends of an episode",
        COLUMNS,
        'MOVES = ("delta", "velocity", "gripper_delta")',
        'MOVES = ("delta", "gripper_delta")',
        f"{OF_COLUMNS}::test_an_end_that_moves_nothing_holds_no_action[velocity]",
    ),
    Bug(
        "small motions are no action",
        COLUMNS,
        "STILL = 1e-5",
        "STILL = 3e-3",
        f"{OF_COLUMNS}::test_an_end_that_moves_a_little_holds_an_action",
    ),
    Bug(
        "columns are the first ones, whichever are asked for",
        "train/data/stream.py",
        '[names.index(one.name) for one in self.columns["action"]]',
        '[*range(len(self.columns["action"]))]',
        f"{OF_SUMMING}::test_columns_are_those_that_are_asked_for",
    ),
    Bug(
        "a collapse is not said",
        "train/loop.py",
        "in self.task.warnings(values):",
        "in []:",
        f"{OF_VALIDATE}::test_a_collapse_is_said_after_each_validation_and_in_the_report",
    ),
    Bug(
        "unused codes never come back",
        "train/laq/quantize.py",
        "or not due(step, config.replace_every)",
        "or True",
        "train/laq/test_quantize.py::"
        "test_a_codebook_that_the_encoder_leaves_behind_collapses_unless_codes_follow_and_come_back",
    ),
    Bug(
        "a collapse in training is judged by all counts so far",
        "train/laq/watch.py",
        "            self._counts.zero_()",
        "            pass",
        "train/laq/test_watch.py::test_a_collapse_is_said_once_when_it_has_lasted_and_again_after_a_recovery",
    ),
    Bug(
        "a frame of lapa sees no earlier one",
        "train/laq/lapa.py",
        "own[1::2] + past",
        "own[1::2] + 0 * past",
        "train/laq/test_lapa.py::test_positions_are_a_causal_convolution_over_memory_as_it_lies[2]",
    ),
    Bug(
        "the probe of validation is fitted on val",
        VALIDATE,
        "statistics.ridge(x, train.actions, x_val",
        "statistics.ridge(x_val, val.actions, x_val",
        PROBES,
    ),
    Bug(
        "the pairs of train to which the probe of validation is fitted are those of val",
        "train/laq/task.py",
        "measure_probes(train[name], seen,",
        "measure_probes(seen, seen,",
        f"{OF_VALIDATE}::test_the_probes_of_a_validation_are_fitted_on_train",
    ),
    Bug(
        "the probe of motion is that of all values",
        VALIDATE,
        "by_value[axes][np.isfinite(by_value[axes])]",
        "known",
        PROBES,
    ),
    Bug(
        "directions are told by actions of train",
        VALIDATE,
        "statistics.directions(every.actions[rows][:, axes])",
        "statistics.directions(train.actions[:, axes])[: len(rows)]",
        PROBES,
    ),
    Bug(
        "the ends of the interval of information are swapped",
        VALIDATE,
        '"nmi_direction_excess_low": told.interval and told.interval.low',
        '"nmi_direction_excess_low": told.interval and told.interval.high',
        PROBES,
    ),
    Bug(
        "what the frame tells is fitted on val",
        VALIDATE,
        "frame_baseline.predict(train.features, train.actions, places, val.features)",
        "frame_baseline.predict(val.features, val.actions, places, val.features)",
        f"{OF_VALIDATE}::test_the_frame_of_a_pair_is_a_baseline_whose_penalty_suits_other_environments[True]",
    ),
    # What the frame tells.
    Bug("the largest error chooses the penalty", BASELINE, ".argmin(0) if", ".argmax(0) if", PENALTIES),
    Bug(
        "a penalty is judged on the rows to which it is fitted",
        BASELINE,
        "statistics.ridge(x[fit], every[fit], x[judged]",
        "statistics.ridge(x[judged], every[judged], x[judged]",
        PENALTIES,
    ),
    Bug("a penalty does not grow with the rows", BASELINE, "penalties * fit.sum()", "penalties", PENALTIES),
    Bug(
        "features are not scaled",
        BASELINE,
        "x, x_new = scaler",
        "_ = scaler",
        PENALTIES,
    ),
    Bug(
        "the strength of an edge lacks its root",
        BASELINE,
        "EDGE_CELLS).sqrt()",
        "EDGE_CELLS)",
        f"{OF_BASELINE}::test_the_edge_of_one_direction_is_counted_there_alone",
    ),
    # Statistics.
    Bug("R2 is around the mean of train", STATISTICS, "(target - target.mean(0)) ** 2", "target**2", RIDGE),
    Bug("R2 is of unsquared errors", STATISTICS, "(errors**2).sum(0)", "np.abs(errors).sum(0)", RIDGE),
    Bug("a ridge regression ignores its penalty", STATISTICS, "Ridge(penalty)", "Ridge()", RIDGE),
    Bug(
        "an entropy is in bits",
        STATISTICS,
        ".sum(-1)\n    return found",
        ".sum(-1) / math.log(2)\n    return found",
        f"{OF_STATISTICS}::test_entropy_is_that_of_scipy_in_nats",
    ),
    Bug(
        "mutual information is normalised by one entropy",
        STATISTICS,
        "scale = math.sqrt(of_codes * of_labels)",
        "scale = of_labels",
        f"{OF_STATISTICS}::test_mutual_information_is_that_of_scikit_learn",
    ),
    Bug(
        "chance is that of single pairs",
        STATISTICS,
        "*labels[shuffles(units, SHUFFLES, seed)]",
        "*labels[np.stack([np.random.default_rng(i).permutation(len(labels)) for i in range(20)])]",
        CHANCE,
    ),
    Bug(
        "chance is that of episodes where environments are known",
        STATISTICS,
        "others = shuffles(units, SHUFFLES, seed)",
        "others = shuffles(units.by_episode(), SHUFFLES, seed)",
        CHANCE,
    ),
    Bug(
        "chance counts the labels as they are",
        STATISTICS,
        "float(shared[1:].mean())",
        "float(shared.mean())",
        CHANCE,
    ),
    Bug(
        "information in excess of chance is a ratio",
        STATISTICS,
        "value - chance\n",
        "value / chance\n",
        CHANCE,
    ),
    Bug(
        "a share of codes is of the labels' entropy",
        STATISTICS,
        '"codes": of_codes, "both"',
        '"codes": of_labels, "both"',
        CHANCE,
    ),
    Bug("a share forgets chance beneath", STATISTICS, "/ (whole - chance) if", "/ whole if", CHANCE),
    Bug(
        "labels are shuffled between values of what is given",
        STATISTICS,
        "mine[turns(units[mine], SHUFFLES, seed)]",
        "turns(units, SHUFFLES, seed)[:, mine]",
        BEYOND,
    ),
    Bug("a standard error lacks its root", STATISTICS, "error = math.sqrt(", "error = float(", OF_MEAN),
    Bug(
        "a jackknife is a standard deviation of means",
        STATISTICS,
        "(groups - 1) / groups * float(",
        "1 / groups * float(",
        OF_MEAN,
    ),
    Bug(
        "as many degrees of freedom as clusters",
        STATISTICS,
        "student(max(1.0, equal - 1))",
        "student(max(1.0, equal))",
        OF_MEAN,
    ),
    Bug(
        "the ends of an interval are swapped",
        STATISTICS,
        "Interval(value - error, value + error)",
        "Interval(value + error, value - error)",
        OF_MEAN,
    ),
    Bug(
        "clusters of unequal size count as of equal size",
        STATISTICS,
        "student(max(1.0, equal - 1))",
        "student(max(1.0, groups - 1))",
        UNEQUAL,
    ),
    Bug(
        "values without a cluster vary around the value of all",
        STATISTICS,
        "(without - without.mean()) ** 2",
        "(without - statistic(np.arange(len(clusters)))) ** 2",
        UNEQUAL,
    ),
    Bug(
        "an interval holds with 90% confidence",
        STATISTICS,
        "(1 + LEVEL) / 2",
        "LEVEL",
        f"{OF_STATISTICS}::test_students_quantile_is_that_of_scipy",
    ),
    Bug(
        "the interval of a cosine is not turned back",
        STATISTICS,
        "Interval(math.tanh(found.low), math.tanh(found.high))",
        "Interval(found.low, found.high)",
        f"{OF_STATISTICS}::test_the_interval_of_a_cosine_is_students_of_fishers_z",
    ),
    Bug(
        "clusters are episodes where environments are known",
        STATISTICS,
        'if self.over == "episodes":',
        "if True:",
        f"{OF_STATISTICS}::test_pairs_cluster_by_environment_from_five_environments_on",
    ),
    Bug(
        "up and right are swapped",
        STATISTICS,
        "np.arctan2(y, x)",
        "np.arctan2(x, y)",
        f"{OF_STATISTICS}::test_directions_are_sectors_and_stillness",
    ),
    Bug(
        "stillness is a share of the median",
        STATISTICS,
        "np.percentile(length, 90)",
        "np.percentile(length, 5)",
        f"{OF_STATISTICS}::test_an_action_is_still_below_a_tenth_of_a_long_one",
    ),
    # Validation of emitted codes.
    Bug(
        "baselines are made of val",
        METRICS,
        "for place in train.codes[own].T])",
        "for place in held_out.codes[own % len(held_out.codes)].T])",
        KNOWN,
    ),
    Bug("the farthest frame is the nearest", METRICS, ".sum(1).argmin()]", ".sum(1).argmax()]", KNOWN),
    Bug(
        "the most frequent action is the rarest",
        METRICS,
        "actions[times.argmax()]",
        "actions[times.argmin()]",
        KNOWN,
    ),
    Bug(
        "the most frequent code is the rarest",
        METRICS,
        "counts.argmax(1), actions",
        "counts.argmin(1), actions",
        KNOWN,
    ),
    Bug(
        "the most frequent code is the rarest",
        METRICS,
        "counts.argmax(1), actions",
        "counts.argmin(1), actions",
        KNOWN,
    ),
    Bug(
        "probabilities are not smoothed",
        METRICS,
        "for place in train.codes[own].T]) + SMOOTH",
        "for place in train.codes[own].T]) + 1e-9",
        KNOWN,
    ),
    Bug(
        "one right code makes an action exact",
        METRICS,
        "(codes == true).all(1)",
        "(codes == true).any(1)",
        GAINS,
    ),
    Bug("a gain has the wrong sign", METRICS, "right - own)", "own - right)", GAINS),
    Bug(
        "a gain in nats has the wrong sign",
        METRICS,
        "(guess.nll - nll).mean(1)",
        "(nll - guess.nll).mean(1)",
        GAINS,
    ),
    Bug(
        "a baseline's whole actions are its single codes",
        METRICS,
        "(guess.whole == true)",
        "(guess.codes == true)",
        f"{OF_METRICS}::test_the_most_frequent_action_is_not_that_of_the_most_frequent_codes",
    ),
    Bug(
        "the ends of intervals are swapped",
        METRICS,
        "low, high = jackknife(",
        "high, low = jackknife(",
        f"{OF_METRICS}::test_intervals_are_students_over_episodes",
    ),
    Bug(
        "a confusion is transposed",
        METRICS,
        "true.ravel() * size + codes.ravel()",
        "codes.ravel() * size + true.ravel()",
        f"{OF_METRICS}::test_a_confusion_has_true_codes_in_rows",
    ),
    Bug(
        "the baselines of a validation are made of val",
        "train/vla/task.py",
        "guesses(self._train[name], seen, size)",
        "guesses(seen, seen, size)",
        OF_VALIDATION,
    ),
    Bug(
        "a loss is a mean log-probability",
        "train/vla/task.py",
        "nll = -told.gather(",
        "nll = told.gather(",
        OF_VALIDATION,
    ),
]

every_bug = pytest.mark.parametrize("bug", BUGS, ids=[bug.what for bug in BUGS])


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    packages = ("accelerate", "omegaconf", "scipy.stats", "sklearn.linear_model", "torch")
    with forked(*packages, "transformers.modeling_utils", "transformers.processing_utils") as run:
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
