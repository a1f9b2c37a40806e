"""A transcode keeps the episodes and their splits, and there and back gives the same bytes."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from oxcart.compile.images import Resize
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.transcode import TranscodeConfig, execute, prepare
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import Manifest, encoded_as
from oxcart.manifests.split import SplitRule
from oxcart.manifests.verify import verify
from oxcart.shards.codec import Encoding
from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.shards.jpeg import encode_jpeg
from rlds_builder import Text, write_dataset
from sample_compile import CAMERAS, SHARD_SIZE, Compiled, Feature, compiled, edited, rows_of, tree
from toy_rlds import FEATURES, changed, episode

JPEG = Encoding(codec="jpeg", quality=80)


def transcoded(dataset: Path, out: Path, **options: object) -> Manifest:
    options = {"shard_size": SHARD_SIZE, "workers": 1, **options}
    return execute(prepare(TranscodeConfig(dataset=str(dataset), out=str(out), **options)))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, whole: Compiled) -> Path:
    """A compile of both cameras."""
    out = tmp_path_factory.mktemp("two") / "out"
    compiled(whole.source, out, source=SourceConfig(url=str(whole.source), cameras=CAMERAS))
    return out


@pytest.mark.system
def test_there_and_back_gives_the_same_bytes(two: Path, tmp_path: Path) -> None:
    manifest = transcoded(two, tmp_path / "zstd", codec="zstd")
    assert verify(Dataset.open(str(tmp_path / "zstd")), decode=True) == []
    assert manifest.cameras[0]["codec"] == "zstd"
    transcoded(tmp_path / "zstd", tmp_path / "raw", codec="raw", workers=2)
    assert tree(tmp_path / "raw") == tree(two)


def test_a_transcode_is_what_a_compile_with_its_settings_would_be(
    whole: Compiled, two: Path, tmp_path: Path
) -> None:
    source = SourceConfig(url=str(whole.source), cameras=CAMERAS)
    compiled(whole.source, tmp_path / "compiled", source=source, encoding=Encoding(codec="zstd"))
    transcoded(two, tmp_path / "transcoded", codec="zstd")
    assert tree(tmp_path / "transcoded") == tree(tmp_path / "compiled")


def test_the_preferred_instruction_stays_the_first(tmp_path: Path) -> None:
    features = changed(FEATURES, again=Text())
    root = write_dataset(tmp_path / "toy", features, [episode(seed, again="go on") for seed in range(3)])
    fields = ("language_instruction", "again")
    source = SourceConfig(url=str(root), cameras=("image",), instruction=fields)
    compiled(root, tmp_path / "out", source=source, rule=SplitRule(val=None))
    transcoded(tmp_path / "out", tmp_path / "zstd", codec="zstd")
    transcoded(tmp_path / "zstd", tmp_path / "raw", codec="raw")
    assert {row["instruction"] for row in rows_of(tmp_path / "zstd")} == {"do 0", "do 1", "do 2"}
    assert tree(tmp_path / "raw") == tree(tmp_path / "out")


def test_without_a_codec_it_stays(two: Path, tmp_path: Path) -> None:
    transcoded(two, tmp_path / "zstd", codec="zstd")
    manifest = transcoded(tmp_path / "zstd", tmp_path / "larger", shard_size=10 * SHARD_SIZE)
    assert manifest.cameras[0]["codec"] == "zstd"
    assert len(manifest.shards) < len(Dataset.open(str(two)).manifest.shards)
    assert splits(tmp_path / "larger") == splits(two)


def splits(out: Path) -> dict[str, str]:
    return {row["key"]: row["split"] for row in rows_of(out)}


def shaped(manifest: Manifest) -> dict[str, Any]:
    """What shaped the frames of a dataset."""
    return encoded_as(manifest.pixels, manifest.cameras)


def jpegs_of(out: Path) -> list[bytes]:
    """Every frame of a dataset of codec jpeg, in plan order."""
    dataset = Dataset.open(str(out))
    return [bytes(piece) for one in dataset for piece in one.frames("image_0").pieces(0, len(one))]


def test_jpegs_stay_what_they_are_and_so_does_their_quality(whole: Compiled, tmp_path: Path) -> None:
    compiled(whole.source, tmp_path / "jpeg", encoding=JPEG)
    for codec in (None, "jpeg"):
        again = tmp_path / f"again {codec}"
        manifest = transcoded(tmp_path / "jpeg", again, codec=codec, shard_size=10 * SHARD_SIZE)
        assert manifest.cameras[0]["quality"] == 80
        assert len(manifest.shards) < len(Dataset.open(str(tmp_path / "jpeg")).manifest.shards)
        assert jpegs_of(again) == jpegs_of(tmp_path / "jpeg")
        transcoded(again, tmp_path / f"back {codec}")
        assert tree(tmp_path / f"back {codec}") == tree(tmp_path / "jpeg")


def test_a_quality_that_is_asked_for_is_that_of_every_frame(whole: Compiled, tmp_path: Path) -> None:
    compiled(whole.source, tmp_path / "jpeg", encoding=JPEG)
    before = jpegs_of(tmp_path / "jpeg")
    dataset = Dataset.open(str(tmp_path / "jpeg"))
    for quality in (5, 80):  # at the very quality of the dataset, too
        out = tmp_path / str(quality)
        manifest = transcoded(tmp_path / "jpeg", out, codec="jpeg", quality=quality)
        assert manifest.pixels == dataset.manifest.pixels
        assert manifest.cameras == [{**dataset.manifest.cameras[0], "quality": quality}]
        assert manifest.config["transcoded_from"] == [shaped(dataset.manifest)]
        assert verify(Dataset.open(str(out)), decode=True) == []
        expected = []
        for one in dataset:
            expected += [encode_jpeg(frame, quality) for frame in one.frames("image_0")]
        assert jpegs_of(out) == expected != before
    same = {"codec": "jpeg", "resize": Resize(size=(32, 32))}  # a size that changes nothing
    transcoded(tmp_path / "jpeg", tmp_path / "passed", **same)
    assert jpegs_of(tmp_path / "passed") == before
    with pytest.raises(ConfigError, match="holds another compile"):
        transcoded(tmp_path / "jpeg", tmp_path / "passed", **same, quality=80)


def test_the_frames_of_jpeg_become_raw_and_the_manifest_says_so(whole: Compiled, tmp_path: Path) -> None:
    compiled(whole.source, tmp_path / "jpeg", encoding=JPEG)
    manifest = transcoded(tmp_path / "jpeg", tmp_path / "raw", codec="raw")
    assert manifest.fingerprint == whole.manifest.fingerprint  # the source's JPEGs had passed through
    assert [one["blake3"] for one in manifest.shards] == [one["blake3"] for one in whole.manifest.shards]
    assert manifest.config["transcoded_from"] == [shaped(Dataset.open(str(tmp_path / "jpeg")).manifest)]


def test_another_size(two: Path, tmp_path: Path) -> None:
    manifest = transcoded(two, tmp_path / "small", resize=Resize(size=(16, 24), fit="crop"))
    assert manifest.pixels["size"] == [16, 24]
    assert (manifest.pixels["fit"], manifest.pixels["filter"]) == ("crop", "bilinear")
    assert [(one["height"], one["width"]) for one in manifest.cameras] == [(16, 24)] * 2
    assert splits(tmp_path / "small") == splits(two)
    large, small = Dataset.open(str(two)), Dataset.open(str(tmp_path / "small"))
    middle = Image.fromarray(large[0].frames("image_0")[1]).crop((0, 5, 32, 26))
    expected = np.asarray(middle.resize((24, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(small[large[0].key].frames("image_0")[1], expected)
    assert manifest.config["transcoded_from"] == [shaped(large.manifest)]


@pytest.mark.system
def test_the_versions_are_of_what_made_the_pixels(whole: Compiled, tmp_path: Path) -> None:
    compiled(whole.source, tmp_path / "jpeg", encoding=JPEG)
    shutil.copytree(whole.out, tmp_path / "raw")
    now = whole.manifest.versions
    of_source, of_pixels = {"tensorflow-datasets"}, {"libjpeg", "pillow", "pyspng", "simplejpeg"}
    for name in ("raw", "jpeg"):
        path = tmp_path / name / "manifest.json"
        value = json.loads(path.read_bytes())
        value["versions"] = dict.fromkeys(now, "old")
        path.write_text(json.dumps(value))
    cases = [("raw", "zstd", None), ("jpeg", None, None), ("raw", "jpeg", None), ("jpeg", "raw", None)]
    for number, (name, codec, size) in enumerate([*cases, ("raw", "raw", (16, 16))]):
        out = tmp_path / str(number)
        manifest = transcoded(tmp_path / name, out, codec=codec, resize=Resize(size=size))
        kept = of_source if number >= 2 else of_source | of_pixels
        assert manifest.versions == {**now, **dict.fromkeys(kept, "old")}


def test_an_encoder_of_videos_is_named_with_its_version(whole: Compiled, tmp_path: Path) -> None:
    now = {**whole.manifest.versions, "libsvtav1": f"av {version('av')}"}
    encoding = Encoding(codec="av1", anew=True)
    assert compiled(whole.source, tmp_path / "av1", encoding=encoding).versions == now
    path = tmp_path / "av1/manifest.json"
    path.write_text(path.read_text().replace(now["libsvtav1"], "old"))
    kept = transcoded(tmp_path / "av1", tmp_path / "kept", codec="video")
    assert kept.versions["libsvtav1"] == "old"
    assert transcoded(tmp_path / "av1", tmp_path / "anew", codec="av1", quality=40).versions == now
    assert transcoded(tmp_path / "av1", tmp_path / "raw", codec="raw").versions == whole.manifest.versions


def test_what_was_rejected_and_limited_stays_counted(whole: Compiled, tmp_path: Path) -> None:
    def shorten(feature: Feature) -> None:
        feature["steps/action"].float_list.value.pop()

    source = edited(whole.source, tmp_path / "source", shorten)
    first = compiled(source, tmp_path / "out", on_error="reject", limit=5)
    assert first.counts["rejected"] == 1
    assert first.counts["limited"] > 0
    manifest = transcoded(tmp_path / "out", tmp_path / "zstd", codec="zstd", on_error="reject")
    assert manifest.counts == first.counts
    assert manifest.environments != []
    assert verify(Dataset.open(str(tmp_path / "zstd"))) == []
    assert pq.read_table(tmp_path / "zstd/rejected.parquet").equals(
        pq.read_table(tmp_path / "out/rejected.parquet")
    )
    transcoded(tmp_path / "zstd", tmp_path / "raw", codec="raw", on_error="reject")
    assert tree(tmp_path / "raw") == tree(tmp_path / "out")


def test_a_transcode_onto_itself_is_refused(two: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(two)
    before = tree(two)
    for out in (two, link, Path(f"{two}/../{two.name}")):
        with pytest.raises(ConfigError, match="is the dataset itself"):
            transcoded(two, out, codec="zstd", overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_bytes((two / "manifest.json").read_bytes())
    (tmp_path / "other" / "shards").symlink_to(two / "shards")
    with pytest.raises(ConfigError, match="its shards are those of the dataset itself"):
        transcoded(two, tmp_path / "other", codec="zstd", overwrite=True)
    assert tree(two) == before


def test_a_dataset_where_the_commit_deletes_is_refused(two: Path, tmp_path: Path) -> None:
    inside = tmp_path / ".oxcart" / "dataset"
    shutil.copytree(two, inside)
    with pytest.raises(ConfigError, match=r"lies in .*, which is deleted"):
        transcoded(inside, tmp_path, codec="zstd", overwrite=True)
    assert tree(inside) == tree(two)


def test_a_damaged_piece_is_named_and_ends_it(two: Path, tmp_path: Path) -> None:
    row = rows_of(two)[0]
    path = two / f"shards/{row['shard']}.tar"
    data = path.read_bytes()
    pieces = {
        "image_0.offset": "camera image_0, chunk 0 does not match its digest",
        "wrist.offset": "camera wrist, chunk 0 does not match its digest",
        "action.offset": "action does not match its digest",
        "state.offset": "state does not match its digest",
        "reward.offset": "reward does not match its digest",
    }
    try:
        for number, (column, reason) in enumerate(pieces.items()):
            at = row[column]
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            for on_error in ("fail", "reject"):
                with pytest.raises(CorruptError, match=f"{row['shard']}: {row['key']}.*{reason}"):
                    transcoded(two, tmp_path / f"{number} {on_error}", codec="zstd", on_error=on_error)
    finally:
        path.write_bytes(data)


def test_an_unfinished_transcode_resumes(two: Path, tmp_path: Path) -> None:
    config = TranscodeConfig(
        dataset=str(two), out=str(tmp_path / "out"), codec="zstd", shard_size=SHARD_SIZE, workers=1
    )

    def stop(done: int, size: int) -> None:
        if done > 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(prepare(config), stop)
    prepared = prepare(config)
    assert 0 < prepared.frames_done < prepared.frames
    execute(prepared)
    transcoded(two, tmp_path / "at once", codec="zstd")
    assert tree(tmp_path / "out") == tree(tmp_path / "at once")


def test_another_transcode_of_the_same_place_is_refused(two: Path, tmp_path: Path) -> None:
    transcoded(two, tmp_path / "out", codec="zstd")
    with pytest.raises(ConfigError, match="holds another compile"):
        transcoded(two, tmp_path / "out", codec="jpeg")
