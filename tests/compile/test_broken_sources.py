"""A source in which something is wrong: a compile names it and stops, or lists it and goes on."""

from __future__ import annotations

import io
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from oxcart.compile.pipeline import prepare
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SplitRule
from oxcart.manifests.verify import verify
from oxcart.shards.errors import OxcartError, SourceError
from sample_compile import (
    FIRST,
    SECOND,
    SHARD_SIZE,
    Compiled,
    Edit,
    Feature,
    census_of,
    cli,
    compiled,
    complaint,
    config_of,
    edited,
    rows_of,
    stamps,
    tree,
)


def no_image(feature: Feature) -> None:
    feature["steps/observation/image_0"].bytes_list.value[1] = b"GIF89a"


def cut_image(feature: Feature) -> None:
    images = feature["steps/observation/image_0"].bytes_list.value
    images[1] = images[1][: len(images[1]) * 7 // 8]


def small_image(feature: Feature) -> None:
    file = io.BytesIO()
    Image.new("RGB", (24, 16)).save(file, "PNG")
    feature["steps/observation/image_0"].bytes_list.value[2] = file.getvalue()


def nan_action(feature: Feature) -> None:
    feature["steps/action"].float_list.value[4] = math.nan


def infinite_state(feature: Feature) -> None:
    feature["steps/observation/state"].float_list.value[0] = math.inf


def one_step(feature: Feature) -> None:
    count = len(feature["steps/is_first"].int64_list.value)
    for name, value in feature.items():
        if name.startswith("steps/"):
            values = getattr(value, value.WhichOneof("kind")).value
            del values[len(values) // count :]


def fewer_actions(feature: Feature) -> None:
    del feature["steps/action"].float_list.value[-3:]


def flipped_data_bit(file: Path, offset: int, length: int) -> None:
    flip(file, offset + 12 + length // 2)


def flipped_length_bit(file: Path, offset: int, length: int) -> None:
    flip(file, offset)


def cut_within(file: Path, offset: int, length: int) -> None:
    os.truncate(file, offset + 12 + length // 2)


def cut_between(file: Path, offset: int, length: int) -> None:
    os.truncate(file, offset)


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 0x10
    file.write_bytes(data)


class Broken(NamedTuple):
    """A way to break record 3 of the first file."""

    do: Callable[..., None]
    reason: str
    """What is wrong with it, as a pattern."""
    late: bool = False
    """It is noticed when images are decoded, and not by the census."""
    rest: bool = False
    """What follows in the file is lost as well."""


BROKEN = [
    Broken(
        no_image, r"camera image_0: the image of step 1 is neither JPEG nor PNG \(6 bytes, .*\)", late=True
    ),
    Broken(cut_image, r"camera image_0: the image of step 1 cannot be decoded: .*truncated.*", late=True),
    Broken(
        small_image,
        "camera image_0: the image of step 2 is 16x24 pixels where the episode has 32x32",
        late=True,
    ),
    Broken(nan_action, "action is NaN or infinite at step 1"),
    Broken(infinite_state, "state is NaN or infinite at step 0"),
    Broken(one_step, "has 1 steps?; at least 2 are needed"),
    Broken(fewer_actions, r".*steps/action.*"),
    Broken(flipped_data_bit, "checksum of the record's data does not match"),
    Broken(flipped_length_bit, "checksum of the record's length does not match", rest=True),
    Broken(cut_within, r"cut off: the record has \d+ bytes, the file \d+ more", rest=True),
    Broken(cut_between, "the file ends after 3 of 9 records", rest=True),
]


def name_of(broken: Broken) -> str:
    return broken.do.__name__


def broken_source(whole: Compiled, target: Path, how: Broken) -> Path:
    if how.do in (flipped_data_bit, flipped_length_bit, cut_within, cut_between):
        shutil.copytree(whole.source, target)
        row = next(r for r in rows_of(whole.out) if (r["source_file"], r["source_record"]) == (FIRST, 3))
        how.do(target / FIRST, row["source_offset"], row["source_length"])
        return target
    return edited(whole.source, target, how.do)


@pytest.mark.parametrize("how", BROKEN, ids=name_of)
def test_it_is_rejected_or_by_default_an_error(whole: Compiled, tmp_path: Path, how: Broken) -> None:
    source = broken_source(whole, tmp_path / "source", how)
    manifest = compiled(source, tmp_path / "out", on_error="reject")
    before = {row["key"]: row for row in rows_of(whole.out)}
    in_file = sorted(row["source_record"] for row in before.values() if row["source_file"] == FIRST)
    assert in_file == list(range(9))
    lost = in_file[3:] if how.rest else [3]

    rejected = rows_of(tmp_path / "out", "rejected.parquet")
    assert [(row["source_file"], row["source_record"]) for row in rejected] == [(FIRST, i) for i in lost]
    for row in rejected:
        assert re.fullmatch(how.reason, row["reason"])
        assert row["key"] == f"oxcart_kitchens-train-00000-{row['source_record']:06d}"
    compiled_rows = {row["key"]: row for row in rows_of(tmp_path / "out")}
    assert compiled_rows.keys() == before.keys() - {row["key"] for row in rejected}
    assert all(row["digest"] == before[key]["digest"] for key, row in compiled_rows.items())
    assert manifest.counts == {
        "source": 20,
        "compiled": 20 - len(lost),
        "rejected": len(lost),
        "limited": 0,
    }
    assert verify(Dataset.open(str(tmp_path / "out"))) == []

    options = ("--val-fraction", 0.2, "--shard-size", SHARD_SIZE, "--workers", 1, "--quiet")
    line = complaint(cli("compile", source, tmp_path / "failed", *options))
    assert re.match(rf"{FIRST}, record 3(, byte \d+)?: {how.reason}", line)
    assert "--on-error reject" in line
    assert not (tmp_path / "failed/manifest.json").exists()
    # What was decoded before is kept, and the same command with --on-error reject goes on from there.
    assert (tmp_path / "failed").exists() == how.late
    result = cli("compile", source, tmp_path / "failed", *options, "--on-error", "reject")
    assert (result.exit_code, result.output) == (0, "")
    assert tree(tmp_path / "failed") == tree(tmp_path / "out")


def test_fails_in_a_worker_process(whole: Compiled, tmp_path: Path) -> None:
    source = broken_source(whole, tmp_path / "source", BROKEN[0])
    (tmp_path / "census").write_bytes(census_of(source).to_bytes())
    options = ("--val-fraction", 0.2, "--census", tmp_path / "census", "--workers", 2, "--quiet")
    line = complaint(cli("compile", source, tmp_path / "out", *options))
    assert f"{FIRST}, record 3, byte " in line


def test_every_kind_at_once_under_a_limit(whole: Compiled, tmp_path: Path) -> None:
    """Whatever the census rejects does not count for the limit, and what turns out later does."""
    edits = (no_image, cut_image, small_image, nan_action, infinite_state, one_step, fewer_actions)
    source = whole.source
    for index, edit in enumerate(edits):
        source = edited(source, tmp_path / f"source{index}", edit, (FIRST, index))
    rows = census_of(source).table.to_pylist()
    at = next(row for row in rows if (row["source_file"], row["source_record"]) == (SECOND, 0))
    flipped_data_bit(source / SECOND, at["source_offset"], at["source_length"])
    manifest = compiled(source, tmp_path / "out", on_error="reject", limit=7)
    rejected = rows_of(tmp_path / "out", "rejected.parquet")
    late = [row for row in rejected if row["reason"].startswith("camera")]
    assert len(rejected) - len(late) == 5
    assert manifest.counts["rejected"] == len(rejected)
    limited = manifest.counts["limited"]
    assert limited > 0
    assert manifest.counts["compiled"] == 20 - len(rejected) - limited
    train = sum(row["split"] == "train" for row in rows_of(tmp_path / "out"))
    assert 7 - len(late) <= train <= 7
    assert verify(Dataset.open(str(tmp_path / "out"))) == []


def test_all_episodes_of_a_shard(whole: Compiled, tmp_path: Path) -> None:
    source = broken_source(whole, tmp_path / "source", BROKEN[0])
    clean = compiled(whole.source, tmp_path / "clean", shard_size=1)
    manifest = compiled(source, tmp_path / "out", shard_size=1, on_error="reject")
    gone = {s["name"] for s in clean.shards} - {s["name"] for s in manifest.shards}
    assert len(gone) == 1
    assert len(clean.shards) == len(manifest.shards) + 1 == 20
    assert {path.name for path in (tmp_path / "out/shards").glob("*.tar")} == {
        Path(shard["name"]).name for shard in manifest.shards
    }
    assert verify(Dataset.open(str(tmp_path / "out"))) == []
    before = stamps(tmp_path / "out")
    compiled(source, tmp_path / "out", shard_size=1, on_error="reject")
    assert stamps(tmp_path / "out") == before


@pytest.mark.parametrize("edit", [nan_action, no_image])
def test_every_episode(whole: Compiled, tmp_path: Path, edit: Edit) -> None:
    everywhere = [(row["source_file"], row["source_record"]) for row in rows_of(whole.out)]
    source = edited(whole.source, tmp_path / "source", edit, *everywhere)
    options = ("--val-fraction", 0.2, "--on-error", "reject", "--workers", 1, "--quiet")
    line = complaint(cli("compile", source, tmp_path / "out", *options))
    assert "of 20 episodes" in line
    assert f"{FIRST}, record 0, byte 0: " in line
    assert not (tmp_path / "out/manifest.json").exists()


def test_what_is_rejected_has_no_part_in_the_split(whole: Compiled, tmp_path: Path) -> None:
    """The share of val is one of the episodes that the census found usable."""
    source = broken_source(whole, tmp_path / "source", BROKEN[-1])
    manifest = compiled(source, tmp_path / "out", on_error="reject", rule=SplitRule(val=0.5))
    assert manifest.counts["compiled"] == 14
    assert 0 < manifest.splits["val"]["episodes"] <= 7


@pytest.mark.parametrize("side", [3_000_000_000, 9_000])
def test_an_absurd_size_in_the_features_is_no_reason_to_take_memory(
    whole: Compiled, tmp_path: Path, side: int
) -> None:
    source = edited(whole.source, tmp_path / "source", lambda feature: None)
    text = (source / "features.json").read_text()
    assert text.count('"32"') >= 2
    (source / "features.json").write_text(text.replace('"32"', f'"{side}"'))
    with pytest.raises(OxcartError, match="too large to be true"):
        prepare(config_of(source, tmp_path / "out"))


def test_a_declared_size_is_held_against_the_first_image(whole: Compiled, tmp_path: Path) -> None:
    source = edited(whole.source, tmp_path / "source", lambda feature: None)
    text = (source / "features.json").read_text()
    (source / "features.json").write_text(text.replace('"32"', '"8000"'))
    with pytest.raises(SourceError, match="is 32x32 pixels where the source declares 8000x8000"):
        compiled(source, tmp_path / "out")
