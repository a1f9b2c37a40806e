"""Near-duplicates: search, alignment in order, planted copies, and the threshold that judges them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from audited import check, status
from oxcart.manifests.audit import plant
from oxcart.manifests.audit.audit import Audit
from oxcart.manifests.audit.features import GRID, describe, spaced
from oxcart.manifests.audit.match import Matcher, confirm, in_order, window_text


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


def test_a_thumbnail_has_its_size() -> None:
    assert describe(scenes(1)[0]).thumbs.shape == (5, GRID, GRID, 3)
