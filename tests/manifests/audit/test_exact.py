"""Exact duplicates: frames and trajectories that stand in two splits, and those that only look like it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest

from audited import check, everywhere, status
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.audit import exact
from oxcart.manifests.audit.audit import Audit
from oxcart.manifests.audit.episodes import Audited, AuditedEpisode, draw, open_datasets
from oxcart.manifests.audit.exact import QUANTUM, trajectory
from oxcart.manifests.audit.features import empty, is_flat, read_features
from oxcart.manifests.split import SplitRule
from oxcart.shards.codec import Encoding
from sample_compile import compiled, edited


def test_frames(clean_audit: Audit, leaky_audit: Audit, mixed_audit: Audit) -> None:
    assert status(clean_audit, "frames") == status(leaky_audit, "frames") == "passed"
    found = check(mixed_audit, "frames")
    assert (found.status, found.duplicate) == ("failed", True)
    assert len(found.evidence) == 8
    assert all(row["episode"] == row["also in"] for row in found.evidence)
    assert {row["of"] for row in found.evidence} == {"val"}


def test_trajectories(clean_audit: Audit, mixed_audit: Audit) -> None:
    assert status(clean_audit, "trajectories") == "passed"
    found = check(mixed_audit, "trajectories")
    assert (found.status, found.duplicate) == ("failed", True)
    assert len(found.evidence) == 8


def test_a_trajectory_is_what_moves() -> None:
    rng = np.random.default_rng(0)
    moves = np.round(rng.normal(size=(5, 3)), 2).astype(np.float32)
    assert trajectory([moves]) == trajectory([moves + np.float32(QUANTUM / 4)])
    assert trajectory([moves]) != trajectory([moves + np.float32(QUANTUM * 3)])
    assert trajectory([moves]) != trajectory([moves[:4]])
    assert trajectory([np.ones((5, 3), np.float32)]) is None
    assert trajectory([]) is None
    assert trajectory([np.array([[np.nan], [1.0]], np.float32)]) is not None


def test_values_on_either_side_of_a_border_of_rounding_differ() -> None:
    below, above = (np.array([[0], [QUANTUM * (0.5 + by)]], np.float32) for by in (-0.1, 0.1))
    assert trajectory([below]) != trajectory([above])
    assert trajectory([above]) == trajectory([above + np.float32(QUANTUM * 0.1)])


def test_a_coarse_trajectory_may_be_chance(clean: Path) -> None:
    coarse = trajectory([np.array([[0], [0], [3]], np.float32)])
    joystick = trajectory([np.array([[0.5, 0], [0, 0.5], [0.5, 0.5], [-0.5, 0]], np.float32)])
    fine = trajectory([np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)])
    assert coarse is not None
    assert joystick is not None
    assert fine is not None
    assert (coarse.telling, joystick.telling, fine.telling) == (False, False, True)
    datasets = open_datasets([str(clean)])
    episodes = draw(datasets, None, 0)
    found, pairs = exact.check_trajectories(datasets, episodes, [coarse] * len(episodes))
    assert (found.status, found.duplicate, pairs) == ("suspicious", False, [])
    assert "may be chance" in found.summary
    found, pairs = exact.check_trajectories(datasets, episodes, [fine] * len(episodes))
    assert (found.status, found.duplicate) == ("failed", True)
    assert pairs


def test_what_is_common_to_all_ties_them_without_listing_all_pairs(clean: Path) -> None:
    shared = exact._Shared(open_datasets([str(clean)]))
    held = [(0, f"held {i}") for i in range(1000)]
    for i in range(1000):
        shared.add_named(7, held, (0, f"train {i}"), "train")
    assert len(shared.counts) == 1000 + 999
    assert shared.beyond == 999 * 999
    assert {name for pair in shared.counts for _, name in pair} == {
        f"{side} {i}" for side in ("held", "train") for i in range(1000)
    }


def test_beyond_a_number_of_pairs_those_of_new_environments_are_kept(
    clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "PAIRS", 1)
    datasets = open_datasets([str(clean)])
    shared = exact._Shared(datasets)
    episodes = draw(datasets, None, 0)
    held = [(0, e.key) for e in episodes if e.split == "val"]
    train = [e for e in episodes if e.split == "train"]
    for i, one in enumerate(train):
        shared.add_named(i, held, (0, one.key), "train")
    assert len(shared.counts) == len({one.row["environment"] for one in train})
    assert shared.beyond == len(held) * len(train) - len(shared.counts)
    assert "not listed" in shared.more


def test_a_digest_that_episodes_have_many_times_comes_once_an_episode() -> None:
    def chunks(episodes: int) -> exact._ChunkDigests:
        return exact._ChunkDigests(
            digest=np.full(episodes * 50, 9, np.uint64),
            episode=np.repeat(np.arange(episodes), 50),
            number=np.tile(np.arange(50), episodes),
            camera="image_0",
        )

    held = exact._Held([(0, "val", chunks(3))])
    assert held.episode.tolist() == [0, 1, 2]
    hits = list(exact._hits(chunks(4), 1, "train", held))
    assert [(one[1], others) for _, one, others in hits] == [(i, [(0, 0), (0, 1), (0, 2)]) for i in range(4)]
    assert list(exact._hits(chunks(4), 1, "val", held)) == []


def board(red: bool = True) -> Any:
    frame = np.full((48, 48, 3), 40, np.uint8)
    if red:
        frame[8:16, 8:16] = (48, 36, 36)
        frame[24:30, 30:38] = (36, 44, 40)
    return frame


def test_a_board_with_two_objects_is_no_constant_frame() -> None:
    from PIL import Image

    def small(frame: Any) -> Any:
        return np.asarray(Image.fromarray(frame).resize((32, 32), Image.Resampling.BOX))

    assert is_flat(small(board(red=False)))
    assert not is_flat(small(board()))
    assert is_flat(small(board(red=False) + np.arange(48, dtype=np.uint8)[:, None, None] // 24))


def painted(
    source: Path, target: Path, images: list[Any], cameras: tuple[str, ...] = ("image_0", "wrist")
) -> Path:
    """A copy of a source in which the frames of every episode are these, the last one repeated."""
    import io

    from PIL import Image

    def png(frame: Any) -> bytes:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "PNG")
        return file.getvalue()

    files = [png(frame) for frame in images]

    def edit(feature: Any) -> None:
        for camera in cameras:
            values = feature[f"steps/observation/{camera}"].bytes_list.value
            values[:] = [files[min(i, len(files) - 1)] for i in range(len(values))]

    return edited(source, target, edit, *everywhere(source))


def frames_check(out: Path) -> tuple[Any, list[exact.Pair]]:
    datasets = open_datasets([str(out)])
    episodes = draw(datasets, None, 0)
    return exact.check_frames(datasets, episodes, read_features(datasets, episodes, 4, 1))


def test_images_of_one_board_in_all_episodes_are_a_leak(kitchens: Path, tmp_path: Path) -> None:
    black = np.zeros((48, 48, 3), np.uint8)
    source = painted(kitchens, tmp_path / "source", [black, board(), black])
    compiled(source, tmp_path / "out", rule=SplitRule(val=0.2))
    found, pairs = frames_check(tmp_path / "out")
    assert (found.status, found.duplicate) == ("failed", True)
    assert len(pairs) == 4 * 20
    assert "1 chunk of constant frames shared and ignored" in found.summary


def test_black_frames_are_looked_at_once_and_ignored(
    kitchens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Any] = []
    flatness = exact._flatness
    monkeypatch.setattr(exact, "_flatness", lambda *at: looked.append(at) or flatness(*at))
    source = painted(kitchens, tmp_path / "source", [np.zeros((48, 48, 3), np.uint8)])
    compiled(source, tmp_path / "out", rule=SplitRule(val=0.2))
    found, pairs = frames_check(tmp_path / "out")
    assert (found.status, pairs, len(looked)) == ("passed", [], 1)


def test_what_has_hardly_any_contrast_is_suspicious(kitchens: Path, tmp_path: Path) -> None:
    faint = np.zeros((48, 48, 3), np.uint8)
    faint[:24] = 2
    compiled(painted(kitchens, tmp_path / "source", [faint]), tmp_path / "out", rule=SplitRule(val=0.2))
    found, pairs = frames_check(tmp_path / "out")
    assert (found.status, found.duplicate, pairs) == ("suspicious", False, [])


def test_the_check_says_what_it_compared_and_what_not(kitchens: Path, clean: Path, tmp_path: Path) -> None:
    with patch("oxcart.shards.codec.CHUNK_FRAMES", 2):
        compiled(kitchens, tmp_path / "zstd", rule=SplitRule(val=0.2), encoding=Encoding(codec="zstd"))
    said = frames_check(tmp_path / "zstd")[0].summary
    assert " chunk digests of codec zstd of all cameras, 96 decoded frames of primary cameras" in said
    assert said.endswith("; not checked: copies shifted by an odd number of frames")
    raw, zstd = open_datasets([str(clean), str(tmp_path / "zstd")])
    assert exact._not_compared([raw], ["raw"]) == ""
    assert "across codecs that were not decoded" in exact._not_compared([raw, zstd], ["raw", "zstd"])


@pytest.mark.parametrize(
    ("codec", "said"),
    [
        ("av1", "copies of videos that begin at another frame"),
        ("vp9", "copies of videos that begin at another frame"),
        ("h264", "copies that begin inside a group of pictures"),
    ],
)
def test_the_check_says_which_copies_of_videos_it_cannot_find(clean: Path, codec: str, said: str) -> None:
    (dataset,) = open_datasets([str(clean)])
    for camera in dataset.manifest.cameras:
        camera["codec"] = codec
    assert exact._not_compared([dataset], [codec]) == f"; not checked: {said}"


def chunks_check(*outs: Path) -> tuple[Any, list[exact.Pair]]:
    """The check of frames when it has decoded none: chunk digests alone."""
    return exact.check_frames(open_datasets([str(out) for out in outs]), [], empty(0, 4))


def test_chunks_of_every_dataset_are_compared(clean: Path, other: Path) -> None:
    for outs in ((clean, other), (other, clean)):
        found, pairs = chunks_check(*outs)
        assert (found.status, found.duplicate, len(pairs)) == ("failed", True, 8)
        assert {(pair.one[0], pair.other[0]) for pair in pairs} == {(0, 1), (1, 0)}


def test_chunks_of_every_camera_are_compared(kitchens: Path, tmp_path: Path) -> None:
    small = [np.roll(board(), i, axis=1)[:24, :24] for i in range(6)]
    source = painted(kitchens, tmp_path / "source", small, cameras=("wrist",))
    config = SourceConfig(url=str(source), cameras=("image_0", "wrist"))
    compiled(source, tmp_path / "out", source=config, rule=SplitRule(val=0.2))
    found, pairs = chunks_check(tmp_path / "out")
    assert (found.status, found.duplicate, len(pairs)) == ("failed", True, 4 * 20)


def of_split(dataset: Audited, split: str) -> tuple[Audited, list[AuditedEpisode]]:
    """The dataset with the first episode of val in another split, and its episodes."""
    splits = dataset.table["split"].to_pylist()
    splits[splits.index("val")] = split
    at = dataset.table.column_names.index("split")
    changed = replace(dataset, table=dataset.table.set_column(at, "split", pa.array(splits)))
    return changed, draw([changed], None, 0)


@pytest.mark.parametrize("split", ["test", "val_seen"])
@pytest.mark.parametrize("also", ["train", "val"])
def test_a_trajectory_in_any_two_splits_is_a_duplicate(clean: Path, split: str, also: str) -> None:
    dataset, episodes = of_split(*open_datasets([str(clean)]), split)
    first = {episode.split: i for i, episode in reversed(list(enumerate(episodes)))}
    twice = {first[split], first[also]}
    moves = [exact.Moves(7 if i in twice else 100 + i, telling=True) for i in range(len(episodes))]
    found, pairs = exact.check_trajectories([dataset], episodes, moves)
    assert (found.status, found.duplicate) == ("failed", True)
    assert [{pair.one[1], pair.other[1]} for pair in pairs] == [{episodes[i].key for i in twice}]


@pytest.mark.parametrize("also", ["train", "val"])
def test_a_decoded_frame_in_any_two_splits_is_a_duplicate(clean: Path, also: str) -> None:
    dataset, episodes = of_split(*open_datasets([str(clean)]), "test")
    first = {episode.split: i for i, episode in reversed(list(enumerate(episodes)))}
    features = empty(len(episodes), 1)
    features.digests[:, 0] = np.arange(len(episodes))
    features.digests[first["test"]] = features.digests[first[also]]
    found, pairs = exact.check_frames([dataset], episodes, features)
    assert (found.status, found.duplicate) == ("failed", True)
    assert [{pair.one[1], pair.other[1]} for pair in pairs] == [
        {episodes[first[side]].key for side in ("test", also)}
    ]
