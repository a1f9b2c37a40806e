"""Recordings compile like any other source: everything that was recorded comes back, and damage is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth import depth
from oxcart.compile import frames as compile_frames
from oxcart.compile import images
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import EnvironmentRule, SourceConfig
from oxcart.compile.sources.kinds import recognise
from oxcart.compile.sources.recordings import episodes
from oxcart.compile.sources.recordings.description import Description, parse_description
from oxcart.manifests.canonical import canonical_json
from oxcart.manifests.dataset import Dataset
from oxcart.shards import codec as codec_module
from oxcart.shards.codec import Encoding, decode, encode
from oxcart.shards.errors import ConfigError, CorruptError, SourceError
from recorded import CAMERAS, STATE, Call, created, episode, record
from sample_compile import census_of, cli, complaint, one_line, rows_of, tree, uploaded

CALLS = [episode(number, steps=5 + number) for number in range(8)]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "mine"
    record(folder, CALLS)
    return folder


def files(folder: Path) -> list[Path]:
    return sorted((folder / "episodes").iterdir())


def compiled(source: Path | str, out: Path, *options: object) -> Dataset:
    result = cli("compile", source, out, "--val-fraction", "0.3", "--workers", 1, "--quiet", *options)
    assert result.exit_code == 0, result.output
    assert cli("verify", out, "--quiet").exit_code == 0
    return Dataset.open(str(out))


def stored(dataset: Dataset) -> dict[str, Mapping[str, Any]]:
    """Key -> everything that a dataset holds of an episode."""
    found = {}
    for one in dataset:
        found[one.key] = {
            **{name: one.row[name] for name in ("environment", "session", "success", "environment_known")},
            **{name: getattr(one, name) for name in one.columns},
            "instruction": [(step, text) for step, text, _ in one.instructions],
            "frames": {camera: np.asarray(one.frames(camera)) for camera in one.cameras},
        }
    return found


def same(found: Mapping[str, Any], call: Call, codec: str = "zstd") -> bool:
    """Whether an episode holds what was recorded, with frames as the codec keeps them."""
    told = all(found[name] == call[name] for name in ("environment", "session", "success", "instruction"))
    arrays = all(np.array_equal(found[name], call[name]) for name in ("action", "state"))
    frames = all(
        np.array_equal(found["frames"][name], kept(one, codec)) for name, one in call["frames"].items()
    )
    return told and arrays and frames and found["environment_known"] == "declared"


def kept(frames: npt.NDArray[np.uint8], codec: str) -> npt.NDArray[np.uint8]:
    """The frames that are left of those that were recorded."""
    if codec != "jpeg":
        return frames
    out = np.empty_like(frames)
    decode("jpeg", encode(frames, Encoding(codec="jpeg")).chunks, 1, out)
    return out


@pytest.mark.parametrize("codec", ["zstd", "raw", "jpeg"])
def test_everything_that_was_recorded_comes_back(codec: str, tmp_path: Path) -> None:
    keys = record(tmp_path / "mine", CALLS, codec=codec)
    dataset = compiled(tmp_path / "mine", tmp_path / "out")
    found = stored(dataset)
    assert keys == sorted(found)
    for key, call in zip(keys, CALLS, strict=True):
        assert same(found[key], call, codec)
    assert [(one["name"], one["role"]) for one in dataset.manifest.cameras] == [*CAMERAS.items()]
    columns = [one["name"] for one in dataset.manifest.arrays["state"]["columns"]]
    assert columns == STATE
    (first, second) = dataset.manifest.arrays["action"]["columns"]
    assert first == {"name": "dx", "kind": "delta", "unit": "m", "frame": "base"}
    assert second == {"name": "gripper", "kind": "unknown", "unit": None, "frame": None}
    assert dataset.manifest.control_rate == {
        "hz": 5.0,
        "verified": True,
        "source": "oxcart.create: control_rate",
    }
    splits = {row["environment"]: row["split"] for row in rows_of(tmp_path / "out")}
    assert set(splits.values()) == {"train", "val"}


def test_chunks_of_more_frames_are_read_as_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other:
        for module in (codec_module, episodes):
            other.setattr(module, "CHUNK_FRAMES", 3)
        other.setattr(episodes, "RUN", 6)
        record(tmp_path / "mine", CALLS[:2])
    record(tmp_path / "mine", CALLS[2:4])
    found = stored(compiled(tmp_path / "mine", tmp_path / "out"))
    assert all(same(found[f"mine-{number:06d}"], CALLS[number]) for number in range(4))


def test_recorded_jpegs_are_kept_byte_for_byte(tmp_path: Path) -> None:
    record(tmp_path / "mine", CALLS[:4], codec="jpeg", jpeg_quality=80)
    compiled(tmp_path / "mine", tmp_path / "out", "--codec", "jpeg")
    shards = b"".join(path.read_bytes() for path in (tmp_path / "out" / "shards").glob("*.tar"))
    source = open_source(SourceConfig(url=str(tmp_path / "mine"), kind="recordings"))
    for row in census_of(tmp_path / "mine", kind="recordings").table.to_pylist():
        for jpegs in source.read(row).images.values():
            assert bytes(jpegs[0]) in shards


def test_a_census_decodes_no_frame_and_keeps_the_order_of_writing(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError

    for module, name in ((episodes, "decode"), (compile_frames, "decode_into"), (images, "decode_jpeg")):
        monkeypatch.setattr(module, name, decode)
    rows = census_of(mine, kind="recordings").table.to_pylist()
    assert [row["key"] for row in rows] == [f"mine-{number:06d}" for number in range(8)]
    assert [row["steps"] for row in rows] == [5 + number for number in range(8)]
    assert {row["rejected"] for row in rows} == {None}
    assert rows[0]["instructions"] == ["take 0", "put it down"]
    assert len({row["duplicate"] for row in rows}) == 8
    assert (rows[0]["image_0.height"], rows[0]["image_0.width"]) == (20, 24)


def test_the_same_episode_twice_is_a_duplicate(tmp_path: Path) -> None:
    record(tmp_path / "mine", [CALLS[0], CALLS[1], {**CALLS[0], "environment": "elsewhere"}])
    rows = census_of(tmp_path / "mine", kind="recordings").table.to_pylist()
    assert rows[0]["duplicate"] == rows[2]["duplicate"] != rows[1]["duplicate"]
    assert rows[0]["source_digest"] != rows[2]["source_digest"]


def test_recordings_that_have_grown_extend_their_dataset(tmp_path: Path) -> None:
    record(tmp_path / "mine", CALLS[:6])
    compiled(tmp_path / "mine", tmp_path / "out")
    before = {row["key"]: row["split"] for row in rows_of(tmp_path / "out")}
    record(tmp_path / "mine", CALLS[6:])
    result = cli("compile", tmp_path / "mine", tmp_path / "out", "--extend", "--quiet", "--workers", 1)
    assert result.exit_code == 0, result.output
    dataset = Dataset.open(str(tmp_path / "out"))
    after = {row["key"]: row["split"] for row in dataset.table("episodes.parquet").to_pylist()}
    assert len(after) == 8
    assert after.items() >= before.items()
    found = stored(dataset)
    assert all(same(found[f"mine-{number:06d}"], CALLS[number]) for number in range(8))


def test_recordings_in_a_bucket_are_the_same_source(mine: Path, remote: str, tmp_path: Path) -> None:
    url = uploaded(mine, remote)
    assert recognise(url) == ("recordings", url)
    compiled(mine, tmp_path / "here")
    compiled(url, tmp_path / "there")
    assert tree(tmp_path / "here") == tree(tmp_path / "there")


def test_a_camera_and_no_state_can_be_chosen(mine: Path, tmp_path: Path) -> None:
    options = ("--camera", "wrist=primary", "--state", "none", "--instruction", "none", "--no-action", "last")
    dataset = compiled(mine, tmp_path / "out", *options, "--action-kind", "gripper=gripper_absolute")
    assert [(one["name"], one["role"]) for one in dataset.manifest.cameras] == [("wrist", "primary")]
    assert dataset.manifest.arrays["state"] is None
    kinds = [one["kind"] for one in dataset.manifest.arrays["action"]["columns"]]
    assert kinds == ["delta", "gripper_absolute"]
    assert dataset.manifest.no_action == ["last"]
    assert not any(row["instruction"] for row in rows_of(tmp_path / "out"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cameras": ("wirst",)}, "camera 'wirst': expected one of image_0, wrist; did you mean wrist?"),
        ({"environment": EnvironmentRule(field="x")}, "--environment: recordings say it themselves"),
        ({"bgr": ("wrist",)}, "--bgr: recordings say it themselves"),
        ({"action": ("state",)}, "--action state: expected action or none; leave it out"),
        ({"reward": ("reward",)}, "--reward reward: expected none, as there is none; leave it out"),
        ({"action_names": ("a",)}, "--action-names: expected a name for each of 2 columns, got 1"),
        ({"roles": {"front": "wrist"}}, "--camera front: expected a camera that is compiled: image_0, wrist"),
        ({"no_action": ("middle",)}, "--no-action: expected one of first, last; got 'middle'"),
    ],
)
def test_options_that_recordings_do_not_have_are_refused(
    options: dict[str, Any], said: str, mine: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source(SourceConfig(url=str(mine), kind="recordings", **options))
    assert said in one_line(caught.value)


@pytest.mark.parametrize("damage", ["cut", "empty", "flip"])
def test_damage_is_found_before_the_compile_and_names_the_file(
    damage: str, mine: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(mine, tmp_path / "mine"))
    path = files(folder)[3]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"cut": bytes(data[:-600]), "empty": b"", "flip": bytes(data)}[damage])
    said = complaint(cli("compile", folder, tmp_path / "out", "--quiet"))
    assert f"episodes/{path.name}" in said
    assert "does not match the digest in its name, so it is damaged or cut short" in said
    compiled(folder, tmp_path / "rest", "--on-error", "reject")
    assert len(rows_of(tmp_path / "rest")) == 7


def test_every_bit_of_a_file_counts(mine: Path) -> None:
    path = files(mine)[0]
    data, name = path.read_bytes(), f"episodes/{path.name}"
    description = parse_description((mine / "recordings.json").read_bytes())
    assert episodes.parse_episode(data, name, description).steps == 5
    for at in range(0, len(data), 97):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(CorruptError, match="does not match the digest"):
            episodes.parse_episode(bytes(flipped), name, description)


def test_a_file_that_changes_after_the_census_is_refused(mine: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(mine, tmp_path / "mine"))
    row = census_of(folder, kind="recordings").table.to_pylist()[0]
    source = open_source(SourceConfig(url=str(folder), kind="recordings"))
    path = files(folder)[0]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(SourceError, match="does not match the digest") as caught:
        source.read(row)
    assert path.name in one_line(caught.value)


def test_two_files_of_one_number_are_refused(mine: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(mine, tmp_path / "mine"))
    path = files(folder)[0]
    shutil.copy(path, path.with_name("000000-0123456789abcdef.tar"))
    said = complaint(cli("scan", folder))
    assert f"episodes/{path.name}: has the number of episodes/000000-0123456789abcdef.tar" in said


def test_recordings_without_an_episode_or_an_environment_say_what_to_do(tmp_path: Path) -> None:
    created(tmp_path / "mine").close()
    assert "holds no episode" in complaint(cli("scan", tmp_path / "mine", "--quiet"))
    record(tmp_path / "mine", [{**call, "environment": None} for call in CALLS[:3]])
    said = complaint(cli("compile", tmp_path / "mine", tmp_path / "out", "--quiet"))
    assert "pass environment= to add_episode, or use --split-by instruction" in said


HOSTILE = [b"", b"{", b"[]", b"3", b'{"format": "oxcart-recordings/2"}', b'{"format": "oxcart-recordings/1"}']


@pytest.mark.parametrize("data", HOSTILE)
def test_a_description_of_a_stranger_is_one_line(data: bytes) -> None:
    with pytest.raises(SourceError, match=r"recordings\.json") as caught:
        parse_description(data)
    one_line(caught.value)


TOLD = Description(name="a", cameras={"b": None}, encoding=Encoding()).to_json()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@depth(300)
@given(
    st.sampled_from(sorted(Description(name="a", cameras={"b": None}, encoding=Encoding()).to_json())), VALUES
)
def test_any_value_in_a_description_is_taken_or_refused_in_one_line(field: str, value: Any) -> None:
    told = Description(name="a", cameras={"b": None}, encoding=Encoding()).to_json()
    try:
        data = canonical_json({**told, field: value})
    except (ValueError, UnicodeEncodeError):
        return
    try:
        parse_description(data)
    except SourceError as error:
        one_line(error)


@pytest.fixture(scope="module")
def forged(mine: Path) -> tuple[dict[str, bytes], dict[str, Any], Description]:
    """Members of an episode, its metadata and its description."""
    path = files(mine)[0]
    found = episodes.members(path.read_bytes()[:-1024], "mine-000000")
    members = {name: bytes(data) for name, (_, data) in found.items()}
    description = parse_description((mine / "recordings.json").read_bytes())
    return members, json.loads(members["json"]), description


@depth(300)
@given(data=st.data())
def test_any_value_in_the_metadata_is_taken_or_refused(
    data: st.DataObject, forged: tuple[dict[str, bytes], dict[str, Any], Description]
) -> None:
    members, told, description = forged
    field = data.draw(st.sampled_from([*sorted(told), "shapes.0", "shapes.3", "chunks.0", "chunks.1"]))
    name, _, place = field.partition(".")
    value = data.draw(VALUES)
    if place:
        inner = "shape" if name == "shapes" else data.draw(st.sampled_from(["frames", "sizes"]))
        lists = [dict(one) for one in told[name]]
        lists[int(place)][inner] = (
            data.draw(st.lists(VALUES, max_size=5)) if data.draw(st.booleans()) else value
        )
        value = lists
    try:
        metadata = canonical_json({**told, name: value})
    except (ValueError, UnicodeEncodeError):
        return
    views = {member: memoryview(one) for member, one in {**members, "json": metadata}.items()}
    try:
        episodes.check_members(views, description)
    except CorruptError as error:
        one_line(error)


def test_frames_that_would_take_terabytes_are_refused_before_memory_is_taken(
    forged: tuple[dict[str, bytes], dict[str, Any], Description],
) -> None:
    members, told, description = forged
    for shape in ([5, 1 << 40, 1, 3], [5, 8192, 8192, 3], [1 << 40, 20, 24, 3]):
        shapes = [{**one, "shape": shape} if one["member"] == "image_0" else one for one in told["shapes"]]
        data = canonical_json({**told, "shapes": shapes})
        views = {member: memoryview(one) for member, one in {**members, "json": data}.items()}
        with pytest.raises(CorruptError) as caught:
            episodes.check_members(views, description)
        one_line(caught.value)


def test_a_folder_with_another_recordings_file_is_another_source(tmp_path: Path) -> None:
    (tmp_path / "recordings.json").write_text("{}")
    assert recognise(str(tmp_path)) == ("rlds", str(tmp_path))
