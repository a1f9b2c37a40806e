"""RLDS records that are broken, at odds with themselves or not what they were are refused, by their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxcart.compile.sources.base import CensusRow, EnvironmentRule
from oxcart.shards.errors import SourceError
from rlds_builder import Image, Text, noisy_frame, png, record, write_dataset, write_file
from toy_rlds import FEATURES, census, episode, only, open_rlds, read, rejected, vector


@pytest.mark.parametrize(
    "path",
    ["steps/observation/image", "steps/action", "steps/observation/state", "steps/language_instruction"],
)
def test_a_record_without_a_wanted_feature_is_rejected(tmp_path: Path, path: str) -> None:
    root = write_dataset(tmp_path, FEATURES, [record(FEATURES, episode(), without=[path])])
    assert rejected(root) == f"feature {path} is missing from the record"


def test_a_record_without_the_environment_is_rejected_and_without_another_feature_is_not(
    tmp_path: Path,
) -> None:
    less = record(FEATURES, episode(), without=["episode_metadata/file_path", "steps/is_last"])
    root = write_dataset(tmp_path, FEATURES, [less])
    assert only(root)[0].steps == 3
    found = rejected(root, environment=EnvironmentRule.parse("file_path"))
    assert found == "feature episode_metadata/file_path is missing from the record"


@pytest.mark.parametrize(
    ("path", "values", "reason"),
    [
        ("steps/action", [0.0] * 6, "steps/action has 2 steps where steps/observation/image has 3"),
        ("steps/action", [0.0] * 12, "steps/action has 4 steps where steps/observation/image has 3"),
        ("steps/action", [0.0] * 8, "cannot be parsed"),
        ("steps/action", [], "steps/action has 0 steps"),
        ("steps/action", [b"abc"] * 9, "cannot be parsed"),
        ("steps/observation/state", [0.0] * 2, "steps/observation/state has 1 steps"),
        ("steps/language_instruction", [b"x"], "steps/language_instruction has 1 steps"),
        ("steps/observation/image", [1, 2, 3], "holds numbers where encoded images are expected"),
        ("steps/observation/image", [b"", b"", b""], "the image of step 0 is neither JPEG nor PNG"),
        ("steps/observation/image", [b"GIF89a", b"", b""], "camera image: the image of step 0 is neither"),
    ],
)
def test_a_record_that_is_at_odds_with_itself_is_rejected(
    tmp_path: Path, path: str, values: list[Any], reason: str
) -> None:
    root = write_dataset(tmp_path, FEATURES, [record(FEATURES, episode(), instead={path: values})])
    assert reason in rejected(root)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["action", "state"])
def test_numbers_that_are_not_finite_are_rejected_with_the_step(
    tmp_path: Path, what: str, value: float
) -> None:
    width = {"action": 3, "state": 2}[what]

    def values(t: int) -> list[float]:
        return [0.0] * (width - 1) + [value if t == 1 else 0.0]

    root = write_dataset(tmp_path, FEATURES, [episode(**{what: values})])
    assert rejected(root) == f"{what} is NaN or infinite at step 1"
    assert only(root, **{what: ()})[0].steps == 3


@pytest.mark.parametrize("steps", [0, 1])
def test_an_episode_of_fewer_than_two_steps_is_rejected(tmp_path: Path, steps: int) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode(0, steps)])
    reason = f"has {steps} steps; at least 2 are needed"
    assert rejected(root) == reason
    assert rejected(root, environment=EnvironmentRule.parse("language_instruction")) == reason


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"garbage", b"\x0a\xff\xff\xff\xff\x0f", bytes(1000), b"\n\x02\n\x00"], ids=repr
)
def test_a_record_that_is_no_example_is_rejected(tmp_path: Path, data: bytes) -> None:
    source = open_rlds(write_dataset(tmp_path, FEATURES, [data, episode()]))
    bad, good = census(source)
    assert bad.rejected is not None
    assert good.rejected is None
    with pytest.raises(SourceError, match="record 0, byte 0") as caught:
        read(source, bad)
    assert len(str(caught.value).splitlines()) == 1


def test_no_byte_of_a_record_can_be_changed_to_crash_the_census(tmp_path: Path) -> None:
    """Records whose checksums are right and whose contents are not."""
    features = {"steps": {"image": Image(shape=(None, None, 3)), "action": vector(1), "note": Text()}}
    steps = [{"image": png(noisy_frame(t, 1, 1)), "action": [t], "note": "n"} for t in range(2)]
    whole = record(features, {"steps": steps})
    records = [
        whole[:i] + bytes([whole[i] ^ mask]) + whole[i + 1 :] for i in range(len(whole)) for mask in (1, 255)
    ] + [whole[:i] for i in range(len(whole))]
    source = open_rlds(write_dataset(tmp_path, features, records), instruction=("note",))
    rows = census(source)
    assert len(rows) == len(records)
    assert sum(row.rejected is None for row in rows) < len(rows) / 2
    for row in rows:
        if row.rejected is None:
            assert len(read(source, row).images["image"]) == row.steps


def test_a_file_with_fewer_records_has_the_lost_ones_rejected(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode(i) for i in range(4)])
    source = open_rlds(root)
    write_file(root / source.files()[0], [record(FEATURES, episode(i)) for i in range(2)])
    rows = census(source)
    assert [row.rejected for row in rows] == [None, None, *["the file ends after 2 of 4 records"] * 2]
    assert [row.source_record for row in rows] == [0, 1, 2, 3]
    assert len({row.key for row in rows}) == 4


def test_a_file_with_more_records_is_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode(i) for i in range(2)])
    source = open_rlds(root)
    write_file(root / source.files()[0], [record(FEATURES, episode(i)) for i in range(3)])
    with pytest.raises(SourceError, match="holds more than the 2 records") as caught:
        census(source)
    assert caught.value.file == source.files()[0]


def test_a_damaged_record_is_rejected_alone_and_a_damaged_frame_with_all_that_follow(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode(i) for i in range(4)])
    source = open_rlds(root)
    rows, path = census(source), root / source.files()[0]
    whole = bytearray(path.read_bytes())
    whole[rows[1].source_offset + 30] ^= 1
    path.write_bytes(whole)
    assert [row.rejected for row in census(source)] == [
        None,
        "checksum of the record's data does not match",
        None,
        None,
    ]
    whole[rows[2].source_offset] ^= 1
    path.write_bytes(whole)
    lost = "checksum of the record's length does not match"
    assert [row.rejected for row in census(source)][2:] == [lost, lost]
    path.write_bytes(whole[: rows[2].source_offset + 500])
    assert census(source)[0].rejected is None


def test_a_file_cut_anywhere_gives_a_row_for_every_record(tmp_path: Path) -> None:
    features = {"steps": {"image": Image(shape=(1, 1, 3))}}
    some = [{"steps": [{"image": b"%d" % t} for t in range(2)]} for _ in range(3)]
    root = write_dataset(tmp_path, features, some)
    source = open_rlds(root)
    whole = (root / source.files()[0]).read_bytes()
    good = [len(whole) // 3 * i for i in range(1, 4)]
    for length in range(len(whole) + 1):
        (root / source.files()[0]).write_bytes(whole[:length])
        rows = census(source)
        assert [row.rejected is None for row in rows] == [end <= length for end in good]


def swap(path: Path, rows: list[CensusRow]) -> None:
    """Put another record of the same length in the place of record 1."""
    other = record(FEATURES, episode(1, action=[9, 9, 9]))
    assert len(other) == rows[1].source_length
    write_file(path, [record(FEATURES, episode(0)), other, record(FEATURES, episode(2))])


def cut(path: Path, rows: list[CensusRow]) -> None:
    path.write_bytes(path.read_bytes()[: rows[1].source_offset + 100])


def empty(path: Path, rows: list[CensusRow]) -> None:
    path.write_bytes(b"")


def flip(path: Path, rows: list[CensusRow]) -> None:
    data = bytearray(path.read_bytes())
    data[rows[1].source_offset + 40] ^= 4
    path.write_bytes(data)


def grow(path: Path, rows: list[CensusRow]) -> None:
    write_file(path, [record(FEATURES, episode(i, 4)) for i in range(3)])


@pytest.mark.parametrize("change", [swap, cut, empty, flip, grow])
def test_a_source_that_changed_since_the_census_is_refused(tmp_path: Path, change: Any) -> None:
    root = write_dataset(tmp_path, FEATURES, [episode(i) for i in range(3)])
    source = open_rlds(root)
    rows = census(source)
    change(root / source.files()[0], rows)
    with pytest.raises(SourceError) as caught:
        read(source, rows[1])
    assert len(str(caught.value).splitlines()) == 1
    assert (caught.value.file, caught.value.record) == (source.files()[0], 1)
    assert caught.value.offset == rows[1].source_offset
