"""Other people's readers on our shards: whoever has tar, NumPy and JSON needs nothing of ours.

Everything here is read with tarfile, GNU tar, numpy, json, pyarrow, blake3, xxhash and webdataset, and held
against the source, which is read with TFDS and Pillow.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
import webdataset
from blake3 import blake3
from PIL import Image
from tensorflow_datasets.core.example_parser import ExampleParserNp
from xxhash import xxh3_64_intdigest

from oxcart.compile.images import Resize
from oxcart.compile.pipeline import execute, prepare
from oxcart.compile.sample.rlds import RldsSampleConfig
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.split import SplitRule
from sample_compile import CAMERAS, compile_sample, config_of

MEMBERS = ["json", "action.npy", "state.npy", "reward.npy", *(f"{camera}.npy" for camera in CAMERAS)]
"""Of every episode, in this order."""


class Compiled(NamedTuple):
    source: Path
    root: Path

    @property
    def manifest(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.root / "manifest.json").read_text())
        return value

    @property
    def shards(self) -> list[Path]:
        """In plan order."""
        return [self.root / shard["name"] for shard in self.manifest["shards"]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.root / "episodes.parquet").to_pylist()
        return rows


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    sample = RldsSampleConfig(kitchens=3, sessions=1, episodes=3, steps=4, size=32, files=2)
    folder = tmp_path_factory.mktemp("compiled")
    whole = compile_sample(folder, sample, cameras=CAMERAS, rule=SplitRule(val=0.34))
    made = Compiled(whole.source, whole.out)
    assert len(made.shards) >= 4
    assert len(made.rows) == 9
    return made


def recompiled(source: SourceConfig, out: Path, **settings: Any) -> Compiled:
    execute(prepare(config_of(Path(source.url), out, source=source, rule=SplitRule(val=0.34), **settings)))
    return Compiled(Path(source.url), out)


def untarred(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members of every episode of a shard."""
    episode: dict[str, bytes] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            if suffix == "json":
                episode = {}
                yield key, episode
            file = tar.extractfile(member)
            assert file is not None
            episode[suffix] = file.read()


def loaded(data: bytes) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


@pytest.fixture(scope="module")
def episodes(compiled: Compiled) -> dict[str, dict[str, bytes]]:
    """Members of every episode, by key; the dictionaries are whole once the shard is."""
    return {key: members for path in compiled.shards for key, members in list(untarred(path))}


@pytest.fixture(scope="module")
def source(compiled: Compiled) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Every record of the source by file and index: framing by hand, features by TFDS."""
    described = json.loads((compiled.source / "features.json").read_text())
    parser = ExampleParserNp(tfds.features.FeaturesDict.from_json(described).get_serialized_info())
    records = {}
    for path in compiled.source.glob("*.tfrecord-*"):
        data, at, index = path.read_bytes(), 0, 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            records[path.name, index] = parser.parse_example(data[at + 12 : at + 12 + length])
            at, index = at + 16 + length, index + 1
    return records


def test_every_episode_has_its_members_in_order(compiled: Compiled) -> None:
    rows = compiled.rows
    names = [f"{row['key']}.{suffix}" for row in rows for suffix in MEMBERS]
    found = []
    for path in compiled.shards:
        with tarfile.open(path, "r:") as tar:
            found += tar.getnames()
    assert found == names, "shards and their episodes stand in the order of the table"


def test_gnu_tar_lists_and_extracts(compiled: Compiled, episodes: Any, tmp_path: Path) -> None:
    for path in compiled.shards:
        listed = subprocess.run(["tar", "tf", str(path)], capture_output=True, text=True, check=True)
        with tarfile.open(path) as tar:
            assert listed.stdout.splitlines() == tar.getnames()
        assert listed.stderr == ""
        run = ["tar", "-x", "--warning=all", "-f", str(path), "-C", str(tmp_path)]
        assert subprocess.run(run, capture_output=True, text=True, check=True).stderr == ""
    for key, members in episodes.items():
        for suffix, data in members.items():
            assert (tmp_path / f"{key}.{suffix}").read_bytes() == data


def test_shards_are_plain_ustar_that_names_nobody(compiled: Compiled) -> None:
    for path in compiled.shards:
        data = path.read_bytes()
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                header = data[member.offset : member.offset + 512]
                assert header[257:265] == b"ustar\x0000"
                assert member.isreg()
                assert member.offset % 512 == 0
                assert member.offset_data == member.offset + 512
                assert not member.pax_headers
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                padding = data[member.offset_data + member.size :][: -member.size % 512]
                assert not any(padding)
                end = member.offset_data + member.size + len(padding)
        assert data[end:] == bytes(1024)


def test_numpy_and_json_read_the_members(compiled: Compiled, episodes: Any) -> None:
    for row in compiled.rows:
        members = episodes[row["key"]]
        assert list(members) == MEMBERS
        metadata = json.loads(members["json"])
        arrays = {suffix.removesuffix(".npy"): loaded(members[suffix]) for suffix in MEMBERS[1:]}
        assert {name: list(array.shape) for name, array in arrays.items()} == {
            one["member"]: one["shape"] for one in metadata["shapes"]
        }
        for name, width in {"action": 3, "state": 3, "reward": 1}.items():
            assert arrays[name].dtype == np.float32
            assert arrays[name].shape == (row["steps"], width)
        for camera, side in zip(CAMERAS, (32, 16), strict=True):
            assert arrays[camera].dtype == np.uint8
            assert arrays[camera].shape == (row["steps"], side, side, 3)
            assert (row[f"{camera}.height"], row[f"{camera}.width"]) == (side, side)
        assert all(array.flags.c_contiguous for array in arrays.values())
        for name in (
            "key",
            "steps",
            "environment",
            "environment_known",
            "session",
            "instruction",
            "control_rate",
        ):
            assert metadata[name] == row[name] is not None
        for name in ("split", "file", "record"):
            assert metadata["source"][name] == row[f"source_{name}"]


def test_offsets_point_at_the_first_value(compiled: Compiled, episodes: Any) -> None:
    for row in compiled.rows:
        path = compiled.root / f"shards/{row['shard']}.tar"
        for suffix in MEMBERS[1:]:
            name = suffix.removesuffix(".npy")
            array = loaded(episodes[row["key"]][suffix])
            at = row[f"{name}.offset"]
            mapped = np.memmap(path, array.dtype, "r", at, array.shape)
            np.testing.assert_array_equal(mapped, array)
            read = np.fromfile(path, array.dtype, array.size, offset=at).reshape(array.shape)
            np.testing.assert_array_equal(read, array)
            assert at % 64 == 0, "so that whoever maps it gets aligned values"
        data = path.read_bytes()[row["offset"] :][: row["bytes"]]
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            assert tar.getnames() == [f"{row['key']}.{suffix}" for suffix in MEMBERS]


def test_episodes_fill_their_shard(compiled: Compiled) -> None:
    for path in compiled.shards:
        at = 0
        for row in [row for row in compiled.rows if f"{row['shard']}.tar" == path.name]:
            assert row["offset"] == at
            at += row["bytes"]
        assert path.stat().st_size == at + 1024


def test_frame_i_is_a_plain_read(compiled: Compiled, episodes: Any) -> None:
    for row in compiled.rows:
        with open(compiled.root / f"shards/{row['shard']}.tar", "rb") as file:
            for camera in CAMERAS:
                frames = loaded(episodes[row["key"]][f"{camera}.npy"])
                for step in range(row["steps"]):
                    file.seek(row[f"{camera}.offset"] + step * frames[0].nbytes)
                    assert file.read(frames[0].nbytes) == frames[step].tobytes()


def test_chunk_digests_are_xxh3_of_each_frame(compiled: Compiled, episodes: Any) -> None:
    for shard in compiled.manifest["shards"]:
        table = pq.read_table(compiled.root / shard["chunks"]).to_pylist()
        keys = [row["key"] for row in compiled.rows if f"shards/{row['shard']}.tar" == shard["name"]]
        assert [(row["key"], row["camera"]) for row in table] == [(k, c) for k in keys for c in CAMERAS]
        for row in table:
            frames = loaded(episodes[row["key"]][f"{row['camera']}.npy"])
            assert row["digests"] == [xxh3_64_intdigest(frame.tobytes()) for frame in frames]
            assert row["sizes"] is None


def test_blake3_of_every_file_is_in_the_manifest(compiled: Compiled) -> None:
    manifest = compiled.manifest
    stated = {name: (table["bytes"], table["blake3"]) for name, table in manifest["tables"].items()}
    for shard in manifest["shards"]:
        stated[shard["name"]] = shard["bytes"], shard["blake3"]
        stated[shard["chunks"]] = shard["chunks_bytes"], shard["chunks_blake3"]
    files = {p.relative_to(compiled.root).as_posix(): p for p in compiled.root.rglob("*") if p.is_file()}
    del files["manifest.json"]
    assert stated == {
        name: (path.stat().st_size, blake3(path.read_bytes()).hexdigest()) for name, path in files.items()
    }


def test_frames_are_the_sources_images(compiled: Compiled, episodes: Any, source: Any) -> None:
    assert len(source) == len(compiled.rows)
    for row in compiled.rows:
        steps = source[row["source_file"], row["source_record"]]["steps"]
        for camera in CAMERAS:
            frames = loaded(episodes[row["key"]][f"{camera}.npy"])
            images = steps["observation"][camera]
            assert len(frames) == len(images)
            for frame, encoded in zip(frames, images, strict=True):
                np.testing.assert_array_equal(frame, np.asarray(Image.open(io.BytesIO(encoded))))


def test_actions_states_and_texts_are_the_sources(compiled: Compiled, episodes: Any, source: Any) -> None:
    for row in compiled.rows:
        record = source[row["source_file"], row["source_record"]]
        members = episodes[row["key"]]
        np.testing.assert_array_equal(loaded(members["action.npy"]), record["steps"]["action"])
        np.testing.assert_array_equal(loaded(members["state.npy"]), record["steps"]["observation"]["state"])
        np.testing.assert_array_equal(loaded(members["reward.npy"])[:, 0], record["steps"]["reward"])
        assert row["instruction"] == record["steps"]["language_instruction"][0].decode()
        assert f"/{row['environment']}/" in record["episode_metadata"]["file_path"].decode()
        assert f"/{row['session']}/" in record["episode_metadata"]["file_path"].decode()


def test_train_statistics_are_those_of_the_arrays(compiled: Compiled, episodes: Any) -> None:
    for name in ("action", "state", "reward"):
        train = [row for row in compiled.rows if row["split"] == "train"]
        acts = [slice(row["action.start"], row["action.stop"]) for row in train]
        whole = [loaded(episodes[row["key"]][f"{name}.npy"]).astype(np.float64) for row in train]
        some = [values[own] for values, own in zip(whole, acts, strict=True)]
        values = np.concatenate(some if name == "action" else whole)
        stated = compiled.manifest[name]["statistics"]
        assert stated["count"] == len(values)
        for what in ("mean", "std", "min", "max"):
            np.testing.assert_allclose(stated[what], getattr(values, what)(axis=0), rtol=1e-12, atol=1e-15)
        for percent in (1, 10, 50, 90, 99):
            expected = np.quantile(values, percent / 100, axis=0, method="inverted_cdf")
            np.testing.assert_allclose(stated[f"q{percent:02d}"], expected, rtol=2**-10, atol=0)


# webdataset 1.0 leaves every shard that it has read for the garbage collector to close.
unclosed = pytest.mark.filterwarnings(r"ignore:unclosed file .*\.tar'>$:ResourceWarning")


@unclosed
def test_webdataset_reads_the_shards(compiled: Compiled, episodes: Any) -> None:
    urls = [str(path) for path in compiled.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [row["key"] for row in compiled.rows]
    for sample, row in zip(samples, compiled.rows, strict=True):
        members = {name: value for name, value in sample.items() if not name.startswith("__")}
        assert list(members) == MEMBERS
        assert members["json"] == json.loads(episodes[row["key"]]["json"])
        for suffix in MEMBERS[1:]:
            array = loaded(episodes[row["key"]][suffix])
            assert members[suffix].dtype == array.dtype
            np.testing.assert_array_equal(members[suffix], array)


@unclosed
def test_webdataset_reads_one_split_as_tuples(compiled: Compiled) -> None:
    urls = [str(path) for path in compiled.shards if path.name.startswith("val-")]
    dataset = webdataset.WebDataset(urls, shardshuffle=False).decode().to_tuple("image_0.npy", "action.npy")
    shapes = [(image.shape, action.shape) for image, action in dataset]
    steps = [row["steps"] for row in compiled.rows if row["split"] == "val"]
    assert shapes == [((count, 32, 32, 3), (count, 3)) for count in steps]
    assert steps


def test_an_episode_without_arrays_has_no_members_of_them(compiled: Compiled, tmp_path: Path) -> None:
    source = SourceConfig(url=str(compiled.source), cameras=CAMERAS, action=(), state=(), reward=())
    bare = recompiled(source, tmp_path / "bare")
    for row in bare.rows:
        assert row["action.offset"] is row["state.offset"] is row["reward.offset"] is None
    for path in bare.shards:
        for _, members in list(untarred(path)):
            assert list(members) == ["json", "image_0.npy", "wrist.npy"]
            assert [one["member"] for one in json.loads(members["json"])["shapes"]] == list(CAMERAS)
    assert bare.manifest["action"] is bare.manifest["state"] is bare.manifest["reward"] is None


def test_resized_frames_are_pillows(compiled: Compiled, source: Any, tmp_path: Path) -> None:
    config = SourceConfig(url=str(compiled.source), cameras=CAMERAS)
    small = recompiled(config, tmp_path / "small", resize=Resize(size=(8, 12)))
    frames = {key: members for path in small.shards for key, members in list(untarred(path))}
    for row in small.rows:
        images = source[row["source_file"], row["source_record"]]["steps"]["observation"]
        for camera in CAMERAS:
            for frame, encoded in zip(
                loaded(frames[row["key"]][f"{camera}.npy"]), images[camera], strict=True
            ):
                resized = Image.open(io.BytesIO(encoded)).resize((12, 8), Image.Resampling.BILINEAR)
                np.testing.assert_array_equal(frame, np.asarray(resized))
