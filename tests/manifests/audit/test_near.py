"""Near-duplicates: search, alignment in order, planted copies, and the threshold that judges them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from audited import check, status
from oxcart.manifests.audit import near, plant
from oxcart.manifests.audit.audit import Audit
from oxcart.manifests.audit.episodes import UNKNOWN, AuditedEpisode
from oxcart.manifests.audit.features import GRID, Features, describe, empty, put, spaced
from oxcart.manifests.audit.match import Matcher, confirm, in_order, window_text
from oxcart.manifests.audit.verdict import Threshold, bound, decide


def scenes(number: int, frames: int = 5, side: int = 72, seed: int = 0) -> np.ndarray:
    """Episodes [E, N, side, side, 3] of smooth noise, in each of which a bright square wanders."""
    rng = np.random.default_rng(seed)
    made = np.empty((number, frames, side, side, 3), np.uint8)
    for episode in range(number):
        coarse = rng.integers(0, 256, (side // 8, side // 8, 3)).astype(np.uint8)
        still = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
        for frame in range(frames):
            made[episode, frame] = still
            made[episode, frame, 10:30, 4 + 10 * frame : 24 + 10 * frame] = 255
    return made


def thumbs(videos: np.ndarray) -> np.ndarray:
    return np.stack([describe(video).thumbs for video in videos])


@pytest.mark.parametrize("kind", plant.KINDS)
def test_a_copy_is_found_among_others(kind: str) -> None:
    videos = scenes(12)
    copies = np.stack(
        [describe(plant.plant(video, kind, 0, str(i))).thumbs for i, video in enumerate(videos)]
    )
    match = Matcher(copies).search(thumbs(videos))
    assert (match.episodes[:, 0] == np.arange(12)).all()
    assert match.best.min() > 0.85
    others = Matcher(copies).search(thumbs(videos), lambda index: index[:, None] != np.arange(12)[None])
    assert others.best.max() < 0.6
    assert (others.episodes[:, 0] != np.arange(12)).all()


def test_threads_and_blocks_change_nothing() -> None:
    gallery, queries = thumbs(scenes(20)), thumbs(scenes(20, seed=1))
    one, two = (Matcher(gallery).search(queries, workers=workers) for workers in (1, 3))
    assert (one.scores == two.scores).all()
    assert (one.episodes == two.episodes).all()


def test_a_mirror_is_named() -> None:
    video = describe(scenes(1)[0]).thumbs
    assert window_text(int(confirm(video, video[None, :, :, ::-1])[3][0])) == "mirrored"
    assert window_text(int(confirm(video, video[None])[3][0])) == "as it is"


def test_what_is_flat_resembles_nothing() -> None:
    video = describe(scenes(1)[0]).thumbs
    black = np.zeros_like(video)
    assert abs(confirm(video, black[None])[0][0]) < 1e-3
    assert abs(confirm(black, video[None])[0][0]) < 1e-3
    assert abs(confirm(black, black[None])[0][0]) < 1e-3
    assert describe(np.full((2, 40, 40, 3), 9, np.uint8)).flat == [True, True]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 1), (3, 3), (5, 4), (6, 3)])
def test_the_path_in_order_is_the_best_one(rows: int, columns: int) -> None:
    similar = np.random.default_rng(1).normal(size=(5, rows, columns)).astype(np.float32)
    for values, path in zip(similar, in_order(similar), strict=True):
        every = [
            sum(values[i, c] for i, c in enumerate(way))
            for way in itertools.product(range(columns), repeat=rows)
            if list(way) == sorted(way) and all(way.count(c) <= 2 for c in way)
        ]
        assert sum(values[np.arange(rows), path]) == pytest.approx(max(every), abs=1e-5)


def test_order_counts() -> None:
    video = describe(scenes(1, frames=8, side=96)[0]).thumbs
    forward = confirm(video, video[None])[0][0]
    backward = confirm(video, video[None, ::-1])[0][0]
    assert forward > 0.999
    assert backward < forward - 0.02


def test_near_of_the_datasets(clean_audit: Audit, leaky_audit: Audit) -> None:
    assert status(clean_audit, "near") == "passed"
    assert status(leaky_audit, "near") == "failed"
    assert "one more environment" in check(leaky_audit, "near").summary
    assert clean_audit.gallery == (20, 16), "the gallery of the null is smaller by one kitchen"
    assert [pair["score"] for pair in leaky_audit.pairs] == sorted(
        (pair["score"] for pair in leaky_audit.pairs), reverse=True
    )


def test_every_audit_plants_leaks(clean_audit: Audit, leaky_audit: Audit) -> None:
    for found in (clean_audit, leaky_audit):
        assert [one.kind for one in found.recall] == list(plant.KINDS)
        assert {one.planted for one in found.recall} == {4}
    assert {one.kind: one.found for one in clean_audit.recall} == dict.fromkeys(plant.KINDS, 4)
    assert status(clean_audit, "recall") == "passed"


def test_recall_below_the_bar_is_suspicious() -> None:
    good = [plant.Recall(kind=kind, planted=4, found=4, at_least=0.4, weakest=0.9) for kind in plant.KINDS]
    assert plant.check_recall(good).status == "passed"
    blind = [*good[:-1], plant.Recall(kind="mirrored", planted=4, found=3, at_least=0.2, weakest=0.1)]
    assert plant.check_recall(blind).status == "suspicious"


@pytest.mark.parametrize("kind", plant.KINDS)
def test_a_planted_leak_depends_on_seed_and_key_alone(kind: str) -> None:
    video = scenes(1)[0]
    one, again = (plant.plant(video, kind, 3, "key") for _ in range(2))
    assert (one == again).all()
    if kind not in ("exact", "time-shifted", "mirrored"):
        other = plant.plant(video, kind, 3, "another")
        assert other.shape != one.shape or (other != one).any()
    if kind not in ("exact", "time-shifted"):
        assert one.shape != video.shape or (one != video).any()


def test_a_shift_in_time_leaves_out_the_beginning() -> None:
    for steps in (2, 3, 10, 100):
        late = plant.shifted_steps(steps, 8, 0, "key")
        assert late == sorted(late)
        assert 1 <= late[0] <= max(1, round(0.3 * steps))
        assert late[-1] == steps - 1
    assert spaced(0, 3, 5) == [0, 0, 1, 2, 2]


def test_frames_find_a_mirrored_episode_without_its_background() -> None:
    gallery = thumbs(scenes(6))
    by_frames, _ = Matcher(gallery).scores(gallery[:, :, :, ::-1])
    assert (by_frames.argmax(1) == np.arange(6)).all()
    assert np.diag(by_frames).min() > 0.99


def test_frames_without_a_counterpart_lower_no_score_while_they_are_few() -> None:
    video, other = thumbs(scenes(2, frames=8, side=96))
    late = video.copy()
    late[:2] = other[:2]
    assert confirm(late, video[None])[0][0] > 0.99
    late[:4] = other[:4]
    assert confirm(late, video[None])[0][0] < 0.9


def features_of(videos: Sequence[np.ndarray]) -> Features:
    found = empty(len(videos), len(videos[0]))
    for i, video in enumerate(videos):
        put(found, i, range(len(video)), describe(video))
    return found


def compared(
    train: Sequence[tuple[np.ndarray, int]], held: Sequence[tuple[np.ndarray, int, str]]
) -> tuple[near.Near, list[AuditedEpisode], Features]:
    """The comparison of videos of train, each with its place, and held-out ones, with dataset and split."""
    episodes = [
        AuditedEpisode(0, {"key": f"train {i}", "split": "train", "environment": f"place {place}"}, place)
        for i, (_, place) in enumerate(train)
    ]
    episodes += [
        AuditedEpisode(dataset, {"key": f"held {i}", "split": split, "environment": "other"}, 10_000)
        for i, (_, dataset, split) in enumerate(held)
    ]
    features = features_of([video for video, *_ in (*train, *held)])
    return near.compare(episodes, features, 0, 1, lambda done: None), episodes, features


def test_the_null_compares_no_environment_with_itself() -> None:
    videos = scenes(7)
    train = [(videos[i], i) for i in range(6) for _ in range(2)]
    found, _, _ = compared(train, [(videos[6], 0, "val")])
    assert len(found.null) == 12
    assert found.null.max() < 0.7, "each episode has a copy in its own environment"
    assert found.gallery == (12, 10)


def test_unknown_environments_are_searched_and_make_no_null() -> None:
    videos = scenes(7)
    train = [*((videos[i], i) for i in range(6)), (videos[0], UNKNOWN), (videos[6], UNKNOWN)]
    found, _, _ = compared(train, [(videos[6], 0, "val")])
    assert len(found.null) == 6
    assert found.null.max() < 0.7, "the unknown copy may be of the same environment"
    assert found.match.best[0] > 0.99
    assert found.gallery == (8, 5)


def test_what_lies_beyond_the_null_is_said_of_the_null_that_was_judged() -> None:
    videos = scenes(13).astype(float)

    def blend(one: int, other: int, share: float) -> np.ndarray:
        mixed: np.ndarray = (share * videos[one] + (1 - share) * videos[other]).astype(np.uint8)
        return mixed

    train = [(blend(i, 12, 1 - i % 3 / 5), i) for i in range(7) for _ in range(2)]
    train.append((train[-1][0], 7))
    held = blend(0, 8, 0.485)
    found, _, _ = compared(train, [(held, 9, "val")] * 4)
    assert found.limit is not None
    assert found.limit.apart == (6, 7)
    assert found.null.max() > 0.99, "two environments of train are one place"
    assert found.check.status == "suspicious"
    said = re.search(
        r"all held-out scores \((.*) to .*beyond the whole null \(at most (.*?)\)", found.check.summary
    )
    assert said
    assert float(said[1]) > float(said[2])


def test_a_copy_is_one_pair_and_not_a_pair_with_every_candidate() -> None:
    videos = scenes(8)
    found, episodes, features = compared(
        [(videos[i], i) for i in range(8)], [(videos[3], 0, "val"), (scenes(1, seed=9)[0], 0, "val")]
    )
    pairs = near.pairs(found, episodes, features)
    assert found.limit is not None
    above = [pair for pair in pairs if pair["score"] > found.limit.value]
    assert [(episodes[pair["held"]].key, episodes[pair["train"]].key) for pair in above] == [
        ("held 0", "train 3")
    ]
    assert above[0]["window"] == "as it is"


def test_too_few_to_tell_a_leak_from_chance_are_not_judged() -> None:
    videos = scenes(3)
    found, _, _ = compared([(videos[0], 0), (videos[1], 1)], [(videos[0], 0, "val")])
    assert found.allowed == 1
    assert (found.check.status, found.exceeding) == ("not checked", None)
    assert "too few" in found.check.summary


def test_each_split_of_a_dataset_is_judged_with_a_bound_that_holds_for_all() -> None:
    train, few, many = 24, 3, 9
    allowed = bound(few, train, 0, 1 - 0.01 / 2)
    assert allowed == bound(few, train, 0) + 1, "the bound of one split alone would be lower"
    assert allowed < bound(few + many, train, 0)
    videos, others = scenes(train, frames=3), scenes(few + many, frames=3, seed=3)
    for copies, word in ((allowed, "clean"), (allowed + 1, "leak")):
        held = [(videos[i] if i < copies else others[i], 1, "test") for i in range(few)]
        held += [(others[i], 0, "val") for i in range(few, few + many)]
        found, _, _ = compared([(video, i) for i, video in enumerate(videos)], held)
        assert found.exceeding == copies
        assert len(found.groups) == (word == "leak")
        assert found.check.status == {"clean": "passed", "leak": "failed"}[word]
        said = decide([found.check], found.exceeding, found.allowed, len(found.units), groups=found.groups)
        assert said.word == word
        assert said.because[0].startswith(f"{copies} of ")
    assert said.because == (
        f"{allowed + 1} of {few} in test of dataset 2 exceed the threshold; {allowed} would be allowed",
    )


def recalled(kind: str, found: int, planted: int = 4) -> plant.Recall:
    return plant.Recall(kind=kind, planted=planted, found=found, at_least=0.2, weakest=0.1)


def test_an_audit_that_misses_plain_copies_is_blind() -> None:
    for kind in plant.KINDS:
        found = [recalled(other, 3 if other == kind else 4) for other in plant.KINDS]
        plain = kind in ("exact", "re-encoded", "brightened", "time-shifted")
        assert plant.blind(found) == ([kind] if plain else [])


def test_a_copy_counts_as_found_only_above_the_threshold() -> None:
    limit = Threshold(value=0.8, beyond=0, null=9, how="", apart=())
    scores = np.array([0.7, 0.8, 0.80004, 0.8001, -1], np.float32)
    found = plant.recall("exact", scores, limit)
    assert (found.planted, found.found, found.weakest) == (5, 1, -1)


def test_a_copy_that_the_search_would_not_keep_is_not_found() -> None:
    videos = features_of(scenes(6))
    match = Matcher(thumbs(scenes(6, seed=1))).search(videos.thumbs)
    assert plant.found(videos, videos, match).min() > 0.99
    better = replace(match, search=np.full_like(match.search, 1.1))
    assert (plant.found(videos, videos, better) == -1).all()


def test_a_thumbnail_has_its_size() -> None:
    assert describe(scenes(1)[0]).thumbs.shape == (5, GRID, GRID, 3)
