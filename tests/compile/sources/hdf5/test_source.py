"""HDF5 files compile to what is in them, whatever their layout, and none of them does any harm."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth import depth
from hdf5_files import WIDTHS, Frames, aloha, robomimic
from oxcart.compile import frames as compile_frames
from oxcart.compile import images
from oxcart.compile.images import Resize, resize_into
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import EnvironmentRule, Film, SourceConfig, SuccessRule
from oxcart.compile.sources.hdf5.source import Hdf5Source
from oxcart.compile.sources.kinds import recognise
from oxcart.shards.errors import ConfigError, OxcartError, SourceError
from oxcart.shards.jpeg import decode_jpeg
from sample_compile import census_of, cli, complaint, one_line, rows_of

BOTH = ("agentview_image", "robot0_eye_in_hand_image")


def source(path: Path, **options: Any) -> Hdf5Source:
    opened = open_source(SourceConfig(url=str(path), kind="hdf5", **options))
    assert isinstance(opened, Hdf5Source)
    return opened


def rows(path: Path, **options: Any) -> list[dict[str, Any]]:
    return census_of(path, kind="hdf5", **options).table.to_pylist()


def frames_of(found: Any, shape: tuple[int, ...], resize: Resize | None = None) -> Frames:
    """The frames of a camera, decoded or played."""
    out = np.empty(shape, np.uint8)
    if isinstance(found, Film):
        found.play(out, resize or Resize())
        return out
    for jpeg, frame in zip(found, out, strict=True):
        decode_jpeg(jpeg, frame)
    return out


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(OxcartError) as caught:
        source(path, **options)
    return one_line(caught.value)


def rejected(path: Path, **options: Any) -> str:
    """Why the only episode of a file is rejected."""
    (row,) = rows(path, **options)
    assert row["rejected"] is not None
    assert len(row["rejected"].splitlines()) == 1
    return str(row["rejected"])


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_every_demo_of_robomimic_comes_back(compression: str | None, tmp_path: Path) -> None:
    told = robomimic(tmp_path / "lift.hdf5", 11, compression=compression)
    opened = source(tmp_path / "lift.hdf5", cameras=BOTH, environment=EnvironmentRule(field="scene"))
    found = rows(tmp_path / "lift.hdf5", cameras=BOTH, environment=EnvironmentRule(field="scene"))
    assert [row["source_record"] for row in found] == list(range(11))  # demo_10 is the last
    assert [row["key"] for row in found[:2]] == ["lift-valid-00000-000000", "lift-train-00000-000001"]
    assert [row["source_split"] for row in found] == ["valid"] + ["train"] * 10
    for number, (row, one) in enumerate(zip(found, told, strict=True)):
        assert (row["steps"], row["environment"]) == (5 + number, f"table {number // 2}")
        episode = opened.read(row)
        assert np.array_equal(episode.action, one["actions"].astype(np.float32))
        state = np.concatenate([one[name] for name in WIDTHS], axis=1).astype(np.float32)
        assert np.array_equal(episode.state, state)
        assert episode.reward is not None
        assert episode.reward[:, 0].tolist() == one["rewards"].tolist()
        for camera in BOTH:
            assert np.array_equal(frames_of(episode.images[camera], one[camera].shape), one[camera])
    assert opened.describe()["state"] == [f"obs/{name}" for name in WIDTHS]
    assert [column.name for column in opened.array_columns["state"]][3:] == [
        "obs/robot0_gripper_qpos[0]",
        "obs/robot0_gripper_qpos[1]",
    ]


@pytest.mark.parametrize("stored", ["raw", "padded", "vlen", "bytes"])
def test_every_file_of_aloha_comes_back(stored: str, tmp_path: Path) -> None:
    cameras = ("cam_high", "cam_left_wrist")
    numbers = (0, 2, 10)
    told = [aloha(tmp_path / f"episode_{number}.hdf5", number, images=stored) for number in numbers]
    opened = source(tmp_path, cameras=cameras)
    assert opened.files() == [f"episode_{number}.hdf5" for number in numbers]
    assert [camera.role for camera in opened.cameras] == ["primary", None]
    for row, one in zip(rows(tmp_path, cameras=cameras), told, strict=True):
        assert row["rejected"] is None
        assert (row["cam_left_wrist.height"], row["cam_left_wrist.width"]) == (8, 16)
        episode = opened.read(row)
        assert np.array_equal(episode.action, one["action"])
        state = np.concatenate([one["qpos"], one["qvel"]], axis=1).astype(np.float32)
        assert np.array_equal(episode.state, state)
        for camera in cameras:
            if stored == "raw":
                assert np.array_equal(frames_of(episode.images[camera], one[camera].shape), one[camera])
            else:
                assert [bytes(jpeg) for jpeg in episode.images[camera]] == one[f"{camera} jpegs"]  # type: ignore[union-attr]


def stored_frames(out: Path) -> Frames:
    """The frames of a compiled dataset of one episode."""
    with tarfile.open(out / "shards" / "train-00000.tar") as tar:
        file = tar.extractfile("a-00000-000000.cam_high.npy")
        assert file is not None
        frames: Frames = np.load(io.BytesIO(file.read()))
    return frames


def test_observations_of_few_bytes_are_no_camera(tmp_path: Path) -> None:
    robomimic(tmp_path / "lift.hdf5", 2)
    with h5py.File(tmp_path / "lift.hdf5", "r+") as file:
        for demo in file["data"].values():
            demo["obs/a_contact"] = np.ones((len(demo["actions"]), 2), np.uint8)
    opened = source(tmp_path / "lift.hdf5")
    assert [camera.name for camera in opened.cameras] == ["agentview_image"]
    assert opened.describe()["state"][0] == "obs/a_contact"


@pytest.mark.parametrize("stored", ["raw", "padded"])
def test_bgr_becomes_rgb(stored: str, tmp_path: Path) -> None:
    aloha(tmp_path / "a.hdf5", images=stored)
    for name, bgr in (("plain", "none"), ("swapped", "cam_high")):
        options = ("--bgr", bgr, "--environment", "file", "--split-by", "episode")
        result = cli("compile", tmp_path / "a.hdf5", tmp_path / name, *options, "--val", "none", "--quiet")
        assert result.exit_code == 0, result.output
    plain, swapped = (stored_frames(tmp_path / name) for name in ("plain", "swapped"))
    assert np.array_equal(plain[..., ::-1], swapped)
    assert not np.array_equal(plain, swapped)


def test_frames_are_resized_as_they_are_played(tmp_path: Path) -> None:
    told = aloha(tmp_path / "a.hdf5")
    episode = source(tmp_path / "a.hdf5").read(rows(tmp_path / "a.hdf5")[0])
    resize = Resize(size=(8, 12))
    wanted = np.empty((5, 8, 12, 3), np.uint8)
    for out, frame in zip(wanted, told["cam_high"], strict=True):
        resize_into(out, frame, resize)
    assert np.array_equal(frames_of(episode.images["cam_high"], wanted.shape, resize), wanted)


def test_a_compile_of_hdf5_is_whole_and_can_be_extended(tmp_path: Path) -> None:
    (tmp_path / "aloha").mkdir()
    for number in range(4):
        aloha(tmp_path / "aloha" / f"episode_{number}.hdf5", number)
    rule = ("--environment", r"file~_(\d)", "--val-fraction", "0.3", "--workers", "1", "--quiet")
    names = ("--action-names", ",".join(f"joint_{i}" for i in range(14)), "--action-kind", "absolute")
    first = cli("compile", tmp_path / "aloha", tmp_path / "out", *rule, *names)
    assert first.exit_code == 0, first.output
    before = {row["key"]: row["split"] for row in rows_of(tmp_path / "out")}
    assert set(before.values()) == {"train", "val"}
    aloha(tmp_path / "aloha" / "episode_4.hdf5", 4)
    grown = cli("compile", tmp_path / "aloha", tmp_path / "out", "--extend", "--workers", "1", "--quiet")
    assert grown.exit_code == 0, grown.output
    assert cli("verify", tmp_path / "out", "--quiet").exit_code == 0
    said = cli("inspect", tmp_path / "out", "--json").stdout
    assert '"joint_13"' in said


def test_a_census_decodes_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aloha(tmp_path / "a.hdf5", images="padded")

    def decode(*_: object, **__: object) -> None:
        raise AssertionError

    for module, name in ((compile_frames, "decode_into"), (images, "decode_jpeg")):
        monkeypatch.setattr(module, name, decode)
    (row,) = rows(tmp_path / "a.hdf5")
    assert (row["rejected"], row["steps"], row["cam_high.height"]) == (None, 5, 16)


def test_copies_are_duplicates(tmp_path: Path) -> None:
    aloha(tmp_path / "a.hdf5", 1)
    aloha(tmp_path / "b.hdf5", 2)
    shutil.copy(tmp_path / "a.hdf5", tmp_path / "c.hdf5")
    one, other, copy = (row["duplicate"] for row in rows(tmp_path))
    assert one == copy != other


@pytest.mark.parametrize(
    ("rule", "environments"),
    [
        ("scene", ["table 0", "table 0", "table 1"]),
        ("scene~(\\d)", ["0", "0", "1"]),
        ('env_args~"env_name": "(\\w+)"', ["Lift"] * 3),
        ("file~^[a-z]+", ["lift"] * 3),
        ("num_samples", ["5", "6", "7"]),
        ("scene~nothing", [None] * 3),
        ("=my lab", ["my lab"] * 3),
    ],
)
def test_an_environment_is_an_attribute_of_the_demo_or_above_or_the_file(
    rule: str, environments: list[str | None], tmp_path: Path
) -> None:
    robomimic(tmp_path / "lift.hdf5", 3)
    found = rows(tmp_path / "lift.hdf5", environment=EnvironmentRule.parse(rule), instruction=("scene",))
    assert [row["environment"] for row in found] == environments
    known = {"declared" if name else "unknown" for name in environments}
    assert {row["environment_known"] for row in found} == known
    assert found[2]["instructions"] == ["table 1"]


def test_success_is_the_last_flag_or_a_text(tmp_path: Path) -> None:
    robomimic(tmp_path / "lift.hdf5", 3)
    for rule, expected in (("dones", [True] * 3), ("scene~1", [False, False, True])):
        found = rows(tmp_path / "lift.hdf5", success=SuccessRule.parse(rule))
        assert [row["success"] for row in found] == expected


def test_a_split_of_the_source_and_parts_of_fields_are_chosen(tmp_path: Path) -> None:
    told = robomimic(tmp_path / "lift.hdf5", 3)
    options: dict[str, Any] = {
        "source_splits": ("valid",),
        "action": ("actions[:3]", "obs/robot0_gripper_qpos[1:2]"),
        "state": (),
        "reward": (),
    }
    (row,) = rows(tmp_path / "lift.hdf5", **options)
    opened = source(tmp_path / "lift.hdf5", **options)
    episode = opened.read(row)
    assert episode.action is not None
    wanted = np.concatenate([told[0]["actions"][:, :3], told[0]["robot0_gripper_qpos"][:, 1:]], axis=1)
    assert np.array_equal(episode.action, wanted.astype(np.float32))
    assert episode.state is episode.reward is None
    assert opened.describe()["action"] == ["actions[0:3]", "obs/robot0_gripper_qpos[1:2]"]
    assert [column.name for column in opened.array_columns["action"]][2:] == [
        "actions[2]",
        "obs/robot0_gripper_qpos[1]",
    ]


def test_a_known_layout_without_images_is_told_from_an_unknown_one(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "low_dim.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.zeros((4, 7))
        file["data/demo_0/obs/object"] = np.zeros((4, 10))
    assert refused(tmp_path / "low_dim.hdf5") == (
        "low_dim.hdf5: its observations have no images, uint8 [T, H, W, 3]; found actions (float64 [4, 7]), "
        "obs/object (float64 [4, 10]); render them first (robomimic: dataset_states_to_obs.py), or name "
        "others with --camera"
    )


def test_another_layout_is_read_once_its_fields_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["rgb/front"] = np.zeros((4, 8, 8, 3), np.uint8)
        file["puppet/joints"] = np.ones((4, 6))
    assert refused(path) == (
        "a.hdf5: expected the layout of robomimic (data/demo_0/obs/NAME_image, data/demo_0/actions) or ALOHA "
        "(observations/images/NAME, action); found puppet/joints (float64 [4, 6]), rgb/front (uint8 "
        "[4, 8, 8, 3]); name the fields with --camera, --action and --state"
    )
    opened = source(path, cameras=("rgb/front",), action=("puppet/joints",))
    episode = opened.read(rows(path, cameras=("rgb/front",), action=("puppet/joints",))[0])
    assert episode.action is not None
    assert episode.action.shape == (4, 6)
    assert [asdict(camera) for camera in opened.cameras] == [
        {"name": "rgb_front", "field": "rgb/front", "role": "primary", "channels": "rgb"}
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"cameras": ("agentveiw_image",)},
            "--camera agentveiw_image: no such field; the file has actions (",
        ),
        (
            {"cameras": ("actions",)},
            "--camera actions: expected uint8 [T, H, W, 3] or encoded images, the fi",
        ),
        ({"action": ("action",)}, "--action action: no such field; the file has actions (float64 [5, 7]),"),
        ({"action": ("actions[9:]",)}, "--action 'actions[9:]': expected a part of 7 values"),
        ({"action": ("actions[:8]",)}, "--action 'actions[:8]': expected a part of 7 values"),
        ({"reward": ("actions",)}, "--reward: expected one number per step, got 7"),
        ({"environment": EnvironmentRule(field="scenes")}, "--environment scenes: no such attribute; "),
        ({"environment": EnvironmentRule(field="scenes")}, "did you mean scene?"),
        (
            {"instruction": ("text",)},
            "--instruction text: no such attribute; lift.hdf5 has file, num_samples, ",
        ),
        ({"success": SuccessRule(field="done")}, "--success done: no such attribute"),
        (
            {"success": SuccessRule(field="actions")},
            "--success actions: expected one number, or one per step; got float64 [5, 7]",
        ),
        ({"success": SuccessRule(field="scene")}, "--success scene: expected one number, or one per step; "),
        ({"source_splits": ("test",)}, "--source-split: expected one of train, valid; got 'test'"),
        (
            {"roles": {"front": "wrist"}},
            "--camera front: expected a camera that is compiled: agentview_image",
        ),
        ({"action_names": ("a",)}, "--action-names: expected a name for each of 7 columns, got 1"),
        ({"licence": "CC BY"}, "licence: expected an SPDX licence expression"),
    ],
)
def test_options_that_name_nothing_are_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    robomimic(tmp_path / "lift.hdf5", 2)
    assert said in refused(tmp_path / "lift.hdf5", **options)


def other_file(file: h5py.File) -> None:
    del file["action"]
    file["action"] = h5py.ExternalLink("/etc/passwd", "/action")


def soft_link(file: h5py.File) -> None:
    del file["action"]
    file["action"] = h5py.SoftLink("/observations/qpos")


def outside(file: h5py.File) -> None:
    del file["action"]
    file.create_dataset("action", (5, 14), "f4", external=[("/etc/passwd", 0, 280)])


def virtual(file: h5py.File) -> None:
    del file["action"]
    layout = h5py.VirtualLayout((5, 14), "f4")
    layout[:] = h5py.VirtualSource("/other.hdf5", "a", (5, 14))
    file.create_virtual_dataset("action", layout)


def terabytes(file: h5py.File) -> None:
    del file["action"]
    file.create_dataset("action", (1 << 38, 14), "f4", chunks=(1024, 14))


def packed_terabytes(file: h5py.File) -> None:
    del file["observations/images/cam_high"]
    file.create_dataset(
        "observations/images/cam_high",
        (1 << 22, 480, 640, 3),
        "u1",
        chunks=(1, 480, 640, 3),
        compression="gzip",
    )


def huge_frames(file: h5py.File) -> None:
    del file["observations/images/cam_high"]
    file.create_dataset("observations/images/cam_high", (2, 1 << 14, 1 << 14, 3), "u1", chunks=(1, 16, 16, 3))


def objects(file: h5py.File) -> None:
    del file["action"]
    file.create_dataset("action", (5,), h5py.string_dtype())


def references(file: h5py.File) -> None:
    del file["action"]
    file.create_dataset("action", (5, 14), h5py.ref_dtype)


def shorter(file: h5py.File) -> None:
    del file["action"]
    file["action"] = np.zeros((4, 14))


def wider(file: h5py.File) -> None:
    del file["action"]
    file["action"] = np.zeros((5, 13))


def holed(file: h5py.File) -> None:
    file["action"][3, 2] = np.nan


def beyond_float32(file: h5py.File) -> None:
    file["observations/qpos"][1, 2] = 1e300


def single(file: h5py.File) -> None:
    for name, node in {"action": file["action"], **file["observations/images"]}.items():
        short = node[:1]
        above = file if name == "action" else file["observations/images"]
        del above[name]
        above[name] = short


def no_camera(file: h5py.File) -> None:
    del file["observations/images/cam_high"]


def other_images(file: h5py.File) -> None:
    del file["observations/images/cam_high"]
    file["observations/images/cam_high"] = np.full((5, 100), 7, np.uint8)


HOSTILE: dict[Callable[[h5py.File], None], str] = {
    other_file: "action is a soft or external link, which is not followed; copy what it points to",
    soft_link: "action is a soft or external link, which is not followed; copy what it points to",
    outside: "action keeps its values in other files, which are not read; copy them into this one",
    virtual: "action keeps its values in other files, which are not read; copy them into this one",
    terabytes: "action declares 15,393,162,788,864 bytes, of which the file stores 0",
    packed_terabytes: "cam_high declares 3,865,470,566,400 bytes, of which the file stores 0",
    huge_frames: "cam_high declares 1,610,612,736 bytes, of which the file stores 0",
    objects: "action is texts [5], expected 14 numbers per step",
    references: "action is object [5, 14], expected 14 numbers per step",
    shorter: "action has 4 steps where observations/images/cam_high has 5",
    wider: "action is float64 [5, 13], expected 14 numbers per step",
    holed: "action is NaN or infinite at step 3",
    beyond_float32: "state is NaN or infinite at step 1",
    single: "has 1 steps; at least 2 are needed",
    no_camera: "has no observations/images/cam_high",
    other_images: "cam_high: the image of step 0 is neither JPEG nor PNG",
}


SOUND_ALONE = (wider, no_camera)
"""Damage that is none without the other file."""


@pytest.mark.parametrize("damage", HOSTILE, ids=lambda one: one.__name__)
def test_what_is_wrong_with_an_episode_is_said_in_one_line(
    damage: Callable[[h5py.File], None], tmp_path: Path
) -> None:
    aloha(tmp_path / "a.hdf5")
    shutil.copy(tmp_path / "a.hdf5", tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "b.hdf5", "r+") as file:
        damage(file)
    sound, bad = rows(tmp_path)
    assert sound["rejected"] is None
    assert HOSTILE[damage] in bad["rejected"]
    assert len(bad["rejected"].splitlines()) == 1
    said = complaint(cli("compile", tmp_path, tmp_path / "out", "--environment", "file", "--quiet"))
    assert "b.hdf5" in said
    os.remove(tmp_path / "a.hdf5")
    alone = cli("scan", tmp_path / "b.hdf5", "--quiet")
    if alone.exit_code:
        complaint(alone)
    else:
        assert damage in SOUND_ALONE or rejected(tmp_path / "b.hdf5")


@pytest.mark.parametrize("size", [0, 4, 100, 3000])
def test_a_truncated_file_is_one_line(size: int, tmp_path: Path) -> None:
    aloha(tmp_path / "a.hdf5")
    (tmp_path / "b.hdf5").write_bytes((tmp_path / "a.hdf5").read_bytes()[:size])
    sound, bad = rows(tmp_path)
    assert (sound["source_file"], sound["rejected"]) == ("a.hdf5", None)
    assert bad["rejected"].startswith("cannot be read: ")
    with pytest.raises(SourceError, match=r"b\.hdf5: cannot be read") as caught:
        source(tmp_path / "b.hdf5")
    one_line(caught.value)


def test_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    aloha(tmp_path / "a.hdf5")
    os.mkfifo(tmp_path / "b.hdf5")
    assert [row["source_file"] for row in rows(tmp_path)] == ["a.hdf5"]


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aloha(tmp_path / "a.hdf5")
    monkeypatch.delitem(sys.modules, "oxcart.compile.sources.hdf5.source")
    monkeypatch.setitem(sys.modules, "oxcart.compile.sources.hdf5.fields", None)
    said = complaint(cli("scan", tmp_path))
    assert "reading HDF5 needs the package" in said
    assert "pip install 'oxcart[hdf5]'" in said


def test_a_group_that_contains_itself_ends(tmp_path: Path) -> None:
    aloha(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        for name in "abc":
            file[name] = file["/"]
            file["observations"][name] = file["/"]
    assert rows(tmp_path / "a.hdf5")[0]["rejected"] is None


def test_a_file_that_changes_after_the_census_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    for stored, field in (("raw", "action"), ("raw", "observations/images/cam_high"), ("padded", "obs")):
        aloha(path, images=stored)
        (row,) = rows(path)
        opened = source(path)
        if field == "obs":
            aloha(path, images="bytes")
            with h5py.File(path, "r+") as file:
                images_of = file["observations/images/cam_high"]
                images_of[0] = images_of[1]
        else:
            with h5py.File(path, "r+") as file:
                file[field][1] = 3
        with pytest.raises(SourceError, match="has changed since the census") as caught:
            frames_of(opened.read(row).images["cam_high"], (5, 16, 24, 3))
        one_line(caught.value)


def test_hdf5_is_recognised_by_its_content(tmp_path: Path) -> None:
    aloha(tmp_path / "a.hdf5")
    (tmp_path / "a.mp4").write_bytes(b"")  # ALOHA puts videos beside its files
    assert recognise(str(tmp_path)) == ("hdf5", str(tmp_path))
    assert recognise(str(tmp_path / "a.hdf5")) == ("hdf5", str(tmp_path / "a.hdf5"))
    assert recognise(f"videos:{tmp_path}") == ("videos", str(tmp_path))
    (tmp_path / "a.hdf5").write_bytes(b"something else")
    assert recognise(str(tmp_path)) == ("videos", str(tmp_path))
    with pytest.raises(ConfigError, match="is a file; expected a directory or a URL as the source, or an"):
        recognise(str(tmp_path / "a.hdf5"))


def test_unknown_environments_say_what_to_do(tmp_path: Path) -> None:
    aloha(tmp_path / "a.hdf5")
    said = complaint(cli("compile", tmp_path, tmp_path / "out", "--quiet"))
    assert "or part of the file's name with --environment file~REGEX" in said


@depth(400)
@given(data=st.data())
def test_flipped_bits_never_crash(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.hdf5"
    aloha(path, images=data.draw(st.sampled_from(["raw", "padded", "vlen", "bytes"])))
    damaged = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=4)):
        damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    try:
        opened = source(path)
        for row in rows(path):
            if row["rejected"] is None:
                opened.read(row)
    except OxcartError as error:
        one_line(error)
