"""Slips of one line in the audit and the split: for each, a test that fails.

A verdict is worth as much as the tests of the audit, so here those are tested. Each bug of the list replaces
a piece of the code in a copy of the package, where the test that it names must then fail. So the list also
says which test guards which line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from planted_bugs import Bug, Run, check_noticed, check_passing, check_up_to_date, forked

BUGS = [
    Bug(
        "the threshold is the next lower score",
        "manifests/audit/verdict.py",
        "scores[int(RATE * number)]",
        "scores[int(RATE * number) + 1]",
        "manifests/audit/test_verdict.py::test_a_thousandth_of_the_null_exceeds_the_threshold_and_no_more",
    ),
    Bug(
        "a score at the threshold exceeds it",
        "manifests/audit/verdict.py",
        "DIGITS) > value",
        "DIGITS) >= value",
        "manifests/audit/test_verdict.py::test_only_digits_that_are_reported_exceed_the_threshold",
    ),
    Bug(
        "environments that stand out stay in the null",
        "manifests/audit/verdict.py",
        "spread = spread[~np.isin(environments, apart)]",
        "spread = spread[:]",
        "manifests/audit/test_verdict.py::test_one_place_under_two_names_in_train_does_not_hide_another_in_val",
    ),
    Bug(
        "the bound for one more environment forgets that the mean is estimated",
        "manifests/audit/verdict.py",
        " * math.sqrt(1 + 1 / len(peaks))",
        "",
        "manifests/audit/test_verdict.py::test_the_threshold_is_the_prediction_bound_for_one_more_environment",
    ),
    Bug(
        "as many as may exceed the threshold are a leak",
        "manifests/audit/verdict.py",
        "exceeding > allowed:",
        "exceeding >= allowed:",
        "manifests/audit/test_verdict.py::test_more_than_may_exceed_the_threshold_are_a_leak",
    ),
    Bug(
        "too many in one split of a dataset are no leak",
        "manifests/audit/verdict.py",
        "leaks += groups",
        "leaks += ()",
        "manifests/audit/test_verdict.py::test_too_many_in_one_split_of_a_dataset_are_a_leak",
    ),
    Bug(
        "a leak does not outrank blindness",
        "manifests/audit/verdict.py",
        "if leaks:",
        "if leaks and not blind:",
        "manifests/audit/test_verdict.py::test_a_leak_outranks_what_could_not_be_checked[blind-damaged]",
    ),
    Bug(
        "a duplicate is no leak unless scores exceed the threshold",
        "manifests/audit/verdict.py",
        "for check in checks if check.duplicate]",
        "for check in checks if check.duplicate and exceeding]",
        "manifests/audit/test_verdict.py::test_one_exact_duplicate_is_a_leak",
    ),
    Bug(
        "blindness does not matter",
        "manifests/audit/verdict.py",
        "damaged or near or unseen or exceeding is None",
        "damaged or near or exceeding is None",
        "manifests/audit/test_verdict.py::test_what_was_not_seen_is_not_clean",
    ),
    Bug(
        "no suspicion decides the verdict",
        "manifests/audit/verdict.py",
        "if suspects and not damaged:",
        "if suspects and damaged:",
        "manifests/audit/test_verdict.py::test_evidence_against_the_split_is_suspicious_and_says_what_would_settle_it",
    ),
    Bug(
        "a suspicion of the audit itself decides the verdict",
        "manifests/audit/verdict.py",
        'DECIDING = ("places", "near", "copy-ahead")',
        'DECIDING = ("places", "near", "copy-ahead", "recall", "alike", "environments", "frames")',
        "manifests/audit/test_verdict.py::test_evidence_of_the_audit_or_of_train_is_not",
    ),
    Bug(
        "damaged files do not outrank a suspicion",
        "manifests/audit/verdict.py",
        "if suspects and not damaged:",
        "if suspects:",
        "manifests/audit/test_verdict.py"
        "::test_a_suspicion_outranks_what_could_not_be_compared_but_no_leak_and_no_damage",
    ),
    Bug(
        "one score beyond the null is enough",
        "manifests/audit/verdict.py",
        "(best.min(), null[kept].max())",
        "(best.max(), null[kept].max())",
        "manifests/audit/test_verdict.py"
        "::test_all_scores_must_lie_beyond_the_null_by_more_than_few_environments_explain",
    ),
    Bug(
        "scores that lie within the null are suspicious",
        "manifests/audit/near.py",
        "far > BEYOND",
        "far < BEYOND",
        "manifests/audit/test_audit.py::test_held_out_kitchens_are_clean",
    ),
    Bug(
        "a contrast counts the best match among the others",
        "manifests/audit/twins.py",
        "others[1:].mean()",
        "others.mean()",
        "manifests/audit/test_twins.py::test_a_contrast_is_the_best_above_the_mean_of_the_others",
    ),
    Bug(
        "one pair of twins in train hides another in val",
        "manifests/audit/twins.py",
        "middle = float(np.median(mine))",
        "middle = float(mine.max())",
        "manifests/audit/test_twins.py::test_two_names_of_one_place_in_train_do_not_hide_another_in_val",
    ),
    Bug(
        "what varies in train does not matter",
        "manifests/audit/twins.py",
        "DEVIATIONS * deviation if",
        "0 * deviation if",
        "manifests/audit/test_twins.py::test_the_limit_grows_with_how_many_are_tested_and_how_much_train_varies",
    ),
    Bug(
        "contrasts of environments that are twins themselves are a measure",
        "manifests/audit/twins.py",
        "= min(middle, USUAL)",
        "= middle",
        "manifests/audit/test_twins.py::test_train_in_which_every_place_has_two_names_is_no_measure",
    ),
    Bug(
        "rooms of one dataset are judged beside those of all",
        "manifests/audit/twins.py",
        "of[dataset] if len(of.get(dataset, ())) >= FEWEST else own",
        "own",
        "manifests/audit/test_twins.py::test_rooms_of_one_dataset_of_a_mixture_are_judged_beside_their_own",
    ),
    Bug(
        "a suspicion passes for a leak that was not looked for",
        "cli/audit.py",
        "CLEAN if found.verdict.complete else UNCLEAR",
        "CLEAN",
        "cli/test_audit.py::test_the_exit_code_of_every_verdict[suspicious!: suspicious,not_checked]",
    ),
    Bug(
        "an environment is compared with itself",
        "manifests/audit/place.py",
        "alike[[other.number == one.number for other in others]] = np.nan",
        "alike[[False for other in others]] = np.nan",
        "manifests/audit/test_place.py::test_an_environment_on_both_sides_is_not_its_own_twin",
    ),
    Bug(
        "black episodes stand for their place",
        "manifests/audit/place.py",
        "if episode.place != UNKNOWN and shown[i]:",
        "if episode.place != UNKNOWN:",
        "manifests/audit/test_place.py::test_only_episodes_that_show_something_stand_for_their_place",
    ),
    Bug(
        "light counts as detail",
        "manifests/audit/likeness.py",
        "scaled: Floats = fine / np.sqrt(around + FAINT)",
        "scaled: Floats = images / 60",
        "manifests/audit/test_likeness.py::test_two_rooms_of_one_colour_scheme_differ_in_detail",
    ),
    Bug(
        "a suspicious verdict exits with 0",
        "cli/audit.py",
        '"suspicious": SUSPICIOUS}',
        '"suspicious": CLEAN}',
        "cli/test_audit.py::test_the_exit_code_of_every_verdict[suspicious: suspicious]",
    ),
    Bug(
        "a failed check beside a suspicious verdict exits with 3",
        "cli/audit.py",
        "code in (CLEAN, SUSPICIOUS):",
        "code == CLEAN:",
        "cli/test_audit.py::test_the_exit_code_of_every_verdict[suspicious: suspicious,failed]",
    ),
    Bug(
        "the null compares environments with themselves alone",
        "manifests/audit/near.py",
        "[:, None] != place[:train][None]",
        "[:, None] == place[:train][None]",
        "manifests/audit/test_near.py::test_the_null_compares_no_environment_with_itself",
    ),
    Bug(
        "episodes of unknown environment make a null",
        "manifests/audit/near.py",
        "np.flatnonzero(fine & (place != UNKNOWN))",
        "np.flatnonzero(fine)",
        "manifests/audit/test_near.py::test_unknown_environments_are_searched_and_make_no_null",
    ),
    Bug(
        "the null is compared with unknown environments",
        "manifests/audit/near.py",
        "known = fine & (place[:train] != UNKNOWN)",
        "known = fine",
        "manifests/audit/test_near.py::test_unknown_environments_are_searched_and_make_no_null",
    ),
    Bug(
        "the bound of each split is not corrected for their number",
        "manifests/audit/near.py",
        "sure = 1 - (1 - CONFIDENCE) / len(members)",
        "sure = CONFIDENCE",
        "manifests/audit/test_near.py::test_each_split_of_a_dataset_is_judged_with_a_bound_that_holds_for_all",
    ),
    Bug(
        "too few episodes are judged",
        "manifests/audit/near.py",
        "if allowed >= len(units)",
        "if allowed > len(units)",
        "manifests/audit/test_near.py::test_too_few_to_tell_a_leak_from_chance_are_not_judged",
    ),
    Bug(
        "frames do not find what is mirrored",
        "manifests/audit/match.py",
        "best.mean(2).max(0)",
        "best.mean(2)[0]",
        "manifests/audit/test_near.py::test_frames_find_a_mirrored_episode_without_its_background",
    ),
    Bug(
        "the path through frames may move back",
        "manifests/audit/match.py",
        "np.where(column < limit[:, None],",
        "np.where(column < columns,",
        "manifests/audit/test_near.py::test_order_counts",
    ),
    Bug(
        "a planted copy at the threshold counts as found",
        "manifests/audit/plant.py",
        "exceeds(scores, limit.value)",
        "(scores >= limit.value)",
        "manifests/audit/test_near.py::test_a_copy_counts_as_found_only_above_the_threshold",
    ),
    Bug(
        "an audit may miss copies that begin later",
        "manifests/audit/plant.py",
        '"exact", "re-encoded", "brightened", "time-shifted")\n',
        '"exact", "re-encoded", "brightened")\n',
        "manifests/audit/test_near.py::test_an_audit_that_misses_plain_copies_is_blind",
    ),
    Bug(
        "a planted copy need not pass the search",
        "manifests/audit/plant.py",
        "        if passes:",
        "        if True:",
        "manifests/audit/test_near.py::test_a_copy_that_the_search_would_not_keep_is_not_found",
    ),
    Bug(
        "planted copies are compared with episodes of train",
        "manifests/audit/audit.py",
        "original = features.take(units)",
        "original = features.take(chosen)",
        "manifests/audit/test_audit.py::test_held_out_kitchens_are_clean",
    ),
    Bug(
        "some kinds of copies are not planted",
        "manifests/audit/audit.py",
        "for kind in plant.KINDS\n",
        "for kind in plant.PLAIN\n",
        "manifests/audit/test_near.py::test_every_audit_plants_leaks",
    ),
    Bug(
        "chunks of the first camera alone are compared",
        "manifests/audit/exact.py",
        "for camera in dataset.manifest.cameras)",
        "for camera in dataset.manifest.cameras[:1])",
        "manifests/audit/test_exact.py::test_chunks_of_every_camera_are_compared",
    ),
    Bug(
        "constant frames count as duplicates",
        "manifests/audit/exact.py",
        "if not flat.get(digest, _Flat(False, False)).flat:",
        "if digest in flat:",
        "manifests/audit/test_exact.py::test_black_frames_are_looked_at_once_and_ignored",
    ),
    Bug(
        "chunks held out of the first dataset alone are compared",
        "manifests/audit/exact.py",
        'if shard["split"] != "train"\n',
        'if shard["split"] != "train" and not index\n',
        "manifests/audit/test_exact.py::test_chunks_of_every_dataset_are_compared",
    ),
    Bug(
        "values of trajectories are not rounded",
        "manifests/audit/exact.py",
        "np.round(np.clip(exact, -1e12, 1e12) / QUANTUM)",
        "(np.clip(exact, -1e12, 1e12) / QUANTUM)",
        "manifests/audit/test_exact.py::test_a_trajectory_is_what_moves",
    ),
    Bug(
        "coarse trajectories count as duplicates",
        "manifests/audit/exact.py",
        "telling = len(broken) >= TELLING_ROWS and len(values_seen) >= TELLING_VALUES",
        "telling = True",
        "manifests/audit/test_exact.py::test_a_coarse_trajectory_may_be_chance",
    ),
    Bug(
        "splits that are held out are not compared with each other",
        "manifests/audit/exact.py",
        '(split == "train" or other > split)',
        'split == "train"',
        "manifests/audit/test_exact.py::test_a_trajectory_in_any_two_splits_is_a_duplicate[val-test]",
    ),
    Bug(
        "test is not held out",
        "manifests/audit/episodes.py",
        'HELD = ("val", "test")',
        'HELD = ("val",)',
        "manifests/audit/test_records.py::test_what_train_shares_with_any_split_that_is_held_out[test]",
    ),
    Bug(
        "val_seen counts as val",
        "manifests/audit/episodes.py",
        'HELD = ("val", "test")',
        'HELD = ("val", "test", "val_seen")',
        "manifests/audit/test_records.py::test_instructions_of_val_and_test_are_counted[val_seen]",
    ),
    Bug(
        "names that the rule joins are two places",
        "manifests/audit/episodes.py",
        "return self.family, self.aliases.get(name, name)",
        "return self.family, name",
        "manifests/audit/test_episodes.py::test_names_that_the_rule_joins_are_one_place",
    ),
    Bug(
        "images of test are not compared",
        "manifests/audit/audit.py",
        'in ("train", *HELD)]',
        'in ("train", "val")]',
        "manifests/audit/test_audit.py::test_val_and_test_are_both_compared_with_train",
    ),
    Bug(
        "keys of two compiles are not compared",
        "manifests/audit/records.py",
        'return dataset.family, row["key"]',
        'return dataset.url, row["key"]',
        "manifests/audit/test_records.py::test_the_same_names_in_another_dataset_are_no_duplicate",
    ),
    Bug(
        "val_seen may share a session with train",
        "manifests/audit/records.py",
        'sides, "recording session", seen=True',
        'sides, "recording session", seen=False',
        "manifests/audit/test_records.py::test_what_train_shares_with_any_split_that_is_held_out[val_seen]",
    ),
    Bug(
        "files of RLDS count as recordings",
        "manifests/audit/records.py",
        '.get("kind") in PACKED]',
        '.get("kind") == ""]',
        "manifests/audit/test_records.py::test_a_file_counts_where_it_is_a_recording",
    ),
    Bug(
        "statistics are those of all splits",
        "manifests/audit/integrity.py",
        'if episode.split == "train":',
        "if True:",
        "manifests/audit/test_integrity.py::test_an_honest_dataset_passes",
    ),
    Bug(
        "the null of the probe copies its own environment",
        "manifests/audit/copy_ahead.py",
        "(place[two][:, None] != place) & (place != UNKNOWN)",
        "(place != UNKNOWN)[None].repeat(len(two), axis=0)",
        "manifests/audit/test_copy_ahead.py::test_the_future_of_a_new_episode_is_unknown",
    ),
    Bug(
        "the null of the probe is drawn from episodes of unknown environment too",
        "manifests/audit/copy_ahead.py",
        "known = np.flatnonzero(place != UNKNOWN)",
        "known = np.arange(len(place))",
        "manifests/audit/test_copy_ahead.py::test_a_few_episodes_of_known_environment_make_the_null_among_many_others",
    ),
    Bug(
        "the ratio of the probe is inverted",
        "manifests/audit/copy_ahead.py",
        "max(medians[0], NOISE) / max(medians[2], NOISE)",
        "max(medians[2], NOISE) / max(medians[0], NOISE)",
        "manifests/audit/test_copy_ahead.py::test_the_future_of_an_episode_that_train_has_is_known",
    ),
    Bug(
        "the first pair alone is repaired",
        "manifests/audit/repair.py",
        "for pair in sides:",
        "for pair in sides[:1]:",
        "manifests/audit/test_repair.py::test_groups_that_a_chain_of_pairs_ties_become_one_place_in_train",
    ),
    Bug(
        "a chain of pairs joins neighbours alone",
        "manifests/audit/repair.py",
        "sorted(joined(ties).items())",
        "sorted({name: min(tie) for tie in ties for name in tie}.items())",
        "manifests/audit/test_repair.py::test_groups_that_a_chain_of_pairs_ties_become_one_place_in_train",
    ),
    Bug(
        "joined groups go to val",
        "manifests/audit/repair.py",
        'lists["train"] += names\n            if not',
        'lists["val"] += names\n            if not',
        "manifests/audit/test_repair.py::test_groups_that_a_chain_of_pairs_ties_become_one_place_in_train",
    ),
    Bug(
        "a score at the threshold confirms a pair",
        "manifests/audit/repair.py",
        'pair["score"] > limit]',
        'pair["score"] >= limit]',
        "manifests/audit/test_repair.py::test_a_score_at_the_threshold_confirms_no_pair",
    ),
    Bug(
        "ties are not transitive",
        "manifests/split.py",
        "parent[other] = root\n",
        "parent[other] = other\n",
        "manifests/audit/test_repair.py::test_groups_that_a_chain_of_pairs_ties_become_one_place_in_train",
    ),
    Bug(
        "aliases are ignored when groups are made",
        "manifests/assign.py",
        "(episode.duplicate, *(place.get(name, name) for name in names))",
        "(episode.duplicate, *names)",
        "manifests/test_assign.py::test_nothing_can_be_held_out",
    ),
    Bug(
        "duplicates are ignored when groups are made",
        "manifests/assign.py",
        "(episode.duplicate, *(place.get(name, name) for name in names))",
        "(*(place.get(name, name) for name in names),)",
        "manifests/test_assign.py::test_one_name_takes_the_whole_group",
    ),
    Bug(
        "the salt of a rule does not matter",
        "manifests/assign.py",
        "[rule.salt, dataset])\n",
        "[dataset])\n",
        "manifests/test_assign.py::test_the_splits_of_people_never_change",
    ),
    Bug(
        "groups with episodes of unknown environment are held out",
        "manifests/assign.py",
        " and not groups.unknown[g]]\n    order",
        "]\n    order",
        "manifests/test_assign.py::test_nothing_can_be_held_out",
    ),
    Bug(
        "a share is an episode larger",
        "manifests/assign.py",
        "floor(Fraction(str(share)) * episodes)",
        "floor(Fraction(str(share)) * episodes) + 1",
        "manifests/test_assign.py::test_a_budget_is_exact_and_says_when_it_is_not_kept",
    ),
    Bug(
        "the last group of train is held out",
        "manifests/assign.py",
        "and left[pool[unit]] > 1:",
        "and left[pool[unit]] > 0:",
        "manifests/test_assign.py::test_unknown_episodes_stay_in_train",
    ),
    Bug(
        "a new name under a frozen rule goes to val",
        "manifests/assign.py",
        'split_of.get(group, "train") for group in groups.of]',
        'split_of.get(group, "val") for group in groups.of]',
        "manifests/test_frozen.py::test_an_episode_that_has_left_is_tied_to_nothing",
    ),
    Bug(
        "a frozen rule forgets what is held out",
        "manifests/frozen.py",
        'val=tuple(listed["val"])',
        "val=rule.val",
        "manifests/test_frozen.py::test_other_names_of_what_is_there_count_too",
    ),
    Bug(
        "the limit is applied before the split",
        "compile/plan.py",
        "usable = census.usable\n    if",
        "usable = census.usable.slice(0, settings.limit)\n    if",
        "compile/test_plan.py::TestPacking::test_a_limit_moves_no_episode_to_another_split",
    ),
]

every_bug = pytest.mark.parametrize("bug", BUGS, ids=[bug.what for bug in BUGS])


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with forked() as run:
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
