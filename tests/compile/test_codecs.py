"""Every codec holds the frames of the source, and jpeg its very bytes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from depth import few
from oxcart.compile import transcode
from oxcart.compile.images import Resize
from oxcart.compile.pipeline import execute, prepare
from oxcart.compile.plan import SHARD_BYTES, Settings
from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.transcode import TranscodeConfig
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.verify import verify
from oxcart.shards.codec import IMAGE_CODECS, Encoding
from oxcart.shards.errors import SourceError
from rlds_builder import jpeg, noisy_frame
from sample_compile import (
    CAMERAS,
    FIRST,
    SHARD_SIZE,
    Compiled,
    Edit,
    Feature,
    cli,
    compiled,
    config_of,
    edited,
    examples,
    rows_of,
    tree,
)

IMAGE = "steps/observation/image_0"


def members(out: Path) -> dict[str, bytes]:
    """Name -> bytes of every member of every shard."""
    found = {}
    for path in sorted(out.glob("shards/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found


def source_images(source: Path, row: dict[str, Any], field: str = IMAGE) -> list[bytes]:
    example = examples(source / row["source_file"])[row["source_record"]]
    return list(example.features.feature[field].bytes_list.value)


def both(source: Path) -> SourceConfig:
    return SourceConfig(url=str(source), cameras=CAMERAS)


@pytest.mark.parametrize("codec", few(IMAGE_CODECS, "zstd"))
def test_a_compile_of_every_codec_is_intact_and_the_same_for_any_number_of_workers(
    whole: Compiled, tmp_path: Path, codec: str
) -> None:
    trees = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        manifest = compiled(
            whole.source, out, source=both(whole.source), encoding=Encoding(codec=codec), workers=workers
        )
        assert verify(Dataset.open(str(out)), decode=True) == []
        trees.append(tree(out))
    assert trees[0] == trees[1]
    assert manifest.cameras[0]["codec"] == codec
    assert manifest.cameras[0]["chunk"] == 1
    assert manifest.cameras[0]["quality"] == (95 if codec == "jpeg" else None)


def test_zstd_holds_the_frames_of_raw(whole: Compiled, tmp_path: Path) -> None:
    for codec in ("raw", "zstd"):
        compiled(whole.source, tmp_path / codec, source=both(whole.source), encoding=Encoding(codec=codec))
    raw, zstd = (Dataset.open(str(tmp_path / codec)) for codec in ("raw", "zstd"))
    assert raw.manifest.fingerprint != zstd.manifest.fingerprint
    for a, b in zip(rows_of(tmp_path / "raw"), rows_of(tmp_path / "zstd"), strict=True):
        assert (a["key"], a["split"], a["shard"]) == (b["key"], b["split"], b["shard"])
        for camera in CAMERAS:
            every, packed = raw[a["key"]].frames(camera)[:], zstd[b["key"]].frames(camera)
            np.testing.assert_array_equal(every, packed[:])
            np.testing.assert_array_equal(every[::-1], packed[::-1])


def test_each_camera_may_have_a_codec_of_its_own(whole: Compiled, tmp_path: Path) -> None:
    encodings = {"image_0": Encoding(codec="jpeg"), "wrist": Encoding(codec="zstd")}
    ways: dict[str, dict[str, Any]] = {"raw": {}, "mixed": {"encodings": encodings}}
    for out, changes in ways.items():
        compiled(whole.source, tmp_path / out, source=both(whole.source), **changes)
    raw, mixed = (Dataset.open(str(tmp_path / out)) for out in ("raw", "mixed"))
    assert [(c["codec"], c["quality"], c["chunk"]) for c in mixed.manifest.cameras] == [
        ("jpeg", 95, 1),
        ("zstd", None, 1),
    ]
    assert verify(mixed, decode=True) == []
    for a, b in zip(raw, mixed, strict=True):
        for camera in CAMERAS:
            np.testing.assert_array_equal(a.frames(camera), b.frames(camera))
    for codec in (None, "raw"):
        asked = {"codec": codec, "shard_size": SHARD_SIZE, "workers": 1}
        out = tmp_path / f"again {codec}"
        config = TranscodeConfig(dataset=str(tmp_path / "mixed"), out=str(out), **asked)
        again = execute(transcode.prepare(config))
        assert again.fingerprint == (mixed if codec is None else raw).manifest.fingerprint
    assert tree(tmp_path / "again None") == tree(tmp_path / "mixed")


def test_jpeg_holds_the_very_bytes_of_the_source(whole: Compiled, tmp_path: Path) -> None:
    compiled(whole.source, tmp_path / "out", encoding=Encoding(codec="jpeg"))
    found = members(tmp_path / "out")
    dataset = Dataset.open(str(tmp_path / "out"))
    for row in rows_of(tmp_path / "out"):
        images = source_images(whole.source, row)
        assert found[f"{row['key']}.image_0.mjpeg"] == b"".join(images)
        for step in (0, row["steps"] - 1):
            expected = np.asarray(Image.open(io.BytesIO(images[step])).convert("RGB"))
            np.testing.assert_array_equal(dataset[row["key"]].frames("image_0")[step], expected)


def test_jpeg_encodes_what_is_no_jpeg_or_has_another_size(whole: Compiled, tmp_path: Path) -> None:
    errors = []
    for quality in (60, 95):
        out = tmp_path / str(quality)
        manifest = compiled(
            whole.source,
            out,
            source=SourceConfig(url=str(whole.source), cameras=("wrist",)),
            encoding=Encoding(codec="jpeg", quality=quality),
        )
        assert manifest.cameras[0]["quality"] == quality
        row = rows_of(out)[0]
        frames = Dataset.open(str(out))[row["key"]].frames("wrist")[:].astype(int)
        png = [
            Image.open(io.BytesIO(image)) for image in source_images(whole.source, row, IMAGE[:-7] + "wrist")
        ]
        errors.append(np.abs(frames - np.stack([np.asarray(image) for image in png])).mean())
    assert 0 < errors[1] < errors[0]
    small = tmp_path / "small"
    compiled(whole.source, small, encoding=Encoding(codec="jpeg"), resize=Resize(size=(16, 24)))
    assert verify(Dataset.open(str(small)), decode=True) == []
    assert Image.open(io.BytesIO(next(iter(jpegs(small).values())))).size == (24, 16)


def jpegs(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in members(out).items() if name.endswith(".mjpeg")}


def test_a_size_that_changes_nothing_leaves_the_source_s_bytes(whole: Compiled, tmp_path: Path) -> None:
    compiled(whole.source, tmp_path / "a", encoding=Encoding(codec="jpeg"))
    compiled(whole.source, tmp_path / "b", encoding=Encoding(codec="jpeg"), resize=Resize(size=(32, 32)))
    assert jpegs(tmp_path / "a") == jpegs(tmp_path / "b")


def test_a_jpeg_that_cannot_be_decoded_is_found_by_decoding(whole: Compiled, tmp_path: Path) -> None:
    def spoil(feature: Feature) -> None:
        image = feature[IMAGE].bytes_list.value[1]  # its headers stay, its pixels go
        feature[IMAGE].bytes_list.value[1] = image[: image.index(b"\xff\xda")] + b"\xff\xd9"

    source = edited(whole.source, tmp_path / "source", spoil)
    compiled(source, tmp_path / "out", encoding=Encoding(codec="jpeg"))
    dataset = Dataset.open(str(tmp_path / "out"))
    assert verify(dataset) == []
    (damage,) = verify(dataset, decode=True)
    row = next(
        row for row in rows_of(tmp_path / "out") if row["source_file"] == FIRST and row["source_record"] == 3
    )
    assert damage.file == f"shards/{row['shard']}.tar"
    assert damage.reason.startswith(f"{row['key']}: camera image_0, chunk 1 cannot be decoded: ")


def of_every_image(change: Callable[[bytes], bytes]) -> Edit:
    """An edit of all images of the primary camera."""

    def edit(feature: Feature) -> None:
        images = feature[IMAGE].bytes_list.value
        images[:] = [change(image) for image in images]

    return edit


@pytest.mark.parametrize("more", [b"\0\0", b"\0", b"\n", b"padding \xff\xd8 ", b"\xff"], ids=repr)
def test_a_jpeg_keeps_its_bytes_and_what_follows_its_end(
    whole: Compiled, tmp_path: Path, more: bytes
) -> None:
    source = edited(whole.source, tmp_path / "source", of_every_image(lambda image: image + more))
    warnings: list[str] = []
    config = config_of(source, tmp_path / "out", encoding=Encoding(codec="jpeg"))
    execute(prepare(config), warn=warnings.append)
    dataset = Dataset.open(str(tmp_path / "out"))
    assert verify(dataset, decode=True) == []
    assert warnings == []
    found = members(tmp_path / "out")
    for row in rows_of(tmp_path / "out"):
        assert found[f"{row['key']}.image_0.mjpeg"] == b"".join(source_images(source, row))
        frames = dataset[row["key"]].frames("image_0")
        for frame, image in zip(frames, source_images(source, row), strict=True):
            np.testing.assert_array_equal(frame, np.asarray(Image.open(io.BytesIO(image)).convert("RGB")))


def odd(image: bytes) -> bytes:
    """The JPEG with two bytes between its segments, over which a decoder goes."""
    return image[:20] + b"\0\0" + image[20:]


def test_jpegs_that_are_encoded_once_more_are_counted_also_by_who_commits(
    whole: Compiled, tmp_path: Path
) -> None:
    source = edited(whole.source, tmp_path / "source", of_every_image(odd))
    arguments = (source, tmp_path / "out", "--codec", "jpeg", "--val", "none", "--quiet")
    (warning,) = cli("compile", *arguments).stderr.splitlines()
    (count,) = (
        row["steps"]
        for row in rows_of(tmp_path / "out")
        if (row["source_file"], row["source_record"]) == (FIRST, 3)
    )
    assert warning.startswith(f"oxcart: warning: {count} frames are JPEG in the source, but without an end")
    assert cli("compile", source, tmp_path / "parts", *arguments[2:], "--part", "0/1").stderr == ""
    assert cli("commit", tmp_path / "parts", "--quiet").stderr.splitlines() == [warning]
    assert tree(tmp_path / "parts") == tree(tmp_path / "out")
    small = cli("compile", source, tmp_path / "small", *arguments[2:], "--size", "16")
    assert (small.exit_code, small.stderr) == (0, "")


@pytest.mark.parametrize(
    "image",
    [b"", b"\xff\xd8\xff", jpeg(noisy_frame(1, 32, 32))[:-40], jpeg(noisy_frame(1, 32, 30))],
    ids=["empty", "header", "cut", "size"],
)
def test_an_image_that_is_no_whole_jpeg_of_its_size_does_not_pass(
    whole: Compiled, tmp_path: Path, image: bytes
) -> None:
    def replace(feature: Feature) -> None:
        feature[IMAGE].bytes_list.value[2] = image

    source = edited(whole.source, tmp_path / "source", replace)
    with pytest.raises(SourceError, match=r"camera image_0: the image of step 2 (is|cannot)"):
        compiled(source, tmp_path / "out", encoding=Encoding(codec="jpeg"))
    manifest = compiled(source, tmp_path / "out", encoding=Encoding(codec="jpeg"), on_error="reject")
    assert manifest.counts["rejected"] == 1


def test_the_default_size_of_a_shard_is_that_of_its_codec() -> None:
    for codec in IMAGE_CODECS:
        assert Settings(encoding=Encoding(codec=codec)).shard_bytes == SHARD_BYTES[codec]
    assert Settings(shard_size=7).shard_bytes == 7
