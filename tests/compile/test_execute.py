"""Frames and arrays of a shard are those of the source."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from oxcart.compile import execute
from oxcart.compile.images import Resize
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.verify import verify
from sample_compile import Compiled, compiled, examples, rows_of, tree


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        (Resize(), lambda image: image),
        (Resize(size=(32, 32), fit="crop"), lambda image: image),
        (Resize(size=(16, 24)), lambda image: image.resize((24, 16), Image.Resampling.BILINEAR)),
        (
            Resize(size=(16, 24), fit="crop"),  # 21 of 32 rows have the aspect ratio
            lambda image: image.crop((0, 5, 32, 26)).resize((24, 16), Image.Resampling.BILINEAR),
        ),
        (Resize(size=(48, 48)), lambda image: image.resize((48, 48), Image.Resampling.BILINEAR)),
    ],
)
def test_frames_are_the_images_of_the_source(
    whole: Compiled, tmp_path: Path, resize: Resize, expected: Callable[[Image.Image], Image.Image]
) -> None:
    manifest = compiled(whole.source, tmp_path / "out", resize=resize)
    height, width = resize.size or (32, 32)
    camera = {"name": "image_0", "source": "steps/observation/image_0", "height": height, "width": width}
    assert manifest.cameras == [
        {
            **camera,
            "role": "primary",
            "channels": "rgb",
            "codec": "raw",
            "quality": None,
            "chunk": 1,
        }
    ]
    assert manifest.pixels == {
        "cameras": ["image_0"],
        "size": list(resize.size) if resize.size else None,
        "fit": resize.fit if resize.size else None,
        "filter": "bilinear" if resize.size else None,
    }
    assert (manifest.fingerprint == whole.manifest.fingerprint) == (resize == Resize())
    dataset = Dataset.open(str(tmp_path / "out"))
    for row in rows_of(tmp_path / "out")[::7]:
        example = examples(whole.source / row["source_file"])[row["source_record"]]
        images = example.features.feature["steps/observation/image_0"].bytes_list.value
        assert len(images) == row["steps"]
        frames = dataset[row["key"]].frames("image_0")
        assert frames.shape == (row["steps"], height, width, 3)
        for frame, image in zip(frames, images, strict=True):
            np.testing.assert_array_equal(frame, np.asarray(expected(Image.open(io.BytesIO(image)))))


def test_two_cameras(whole: Compiled, tmp_path: Path) -> None:
    source = SourceConfig(url=str(whole.source), cameras=("wrist", "image_0"))
    manifest = compiled(whole.source, tmp_path / "out", source=source)
    assert [(c["name"], c["height"], c["width"]) for c in manifest.cameras] == [
        ("wrist", 16, 16),
        ("image_0", 32, 32),
    ]
    steps = sum(count["steps"] for count in manifest.splits.values())
    assert sum(count["frames"] for count in manifest.splits.values()) == 2 * steps
    dataset = Dataset.open(str(tmp_path / "out"))
    assert verify(dataset) == []
    assert dataset[0].frames("wrist")[0].shape == (16, 16, 3)
    one = Dataset.open(str(whole.out))[dataset[0].key]
    np.testing.assert_array_equal(dataset[0].frames("image_0")[1], one.frames("image_0")[1])


def test_arrays_are_those_of_the_source(whole: Compiled) -> None:
    for row in rows_of(whole.out)[::5]:
        example = examples(whole.source / row["source_file"])[row["source_record"]]
        data = (whole.out / f"shards/{row['shard']}.tar").read_bytes()
        for what, feature in (("action", "steps/action"), ("state", "steps/observation/state")):
            expected = np.array(example.features.feature[feature].float_list.value, np.float32)
            found = np.frombuffer(data, np.float32, len(expected), row[f"{what}.offset"])
            np.testing.assert_array_equal(found, expected)


def test_without_action_and_state(whole: Compiled, tmp_path: Path) -> None:
    source = SourceConfig(url=str(whole.source), action=(), state=())
    manifest = compiled(whole.source, tmp_path / "out", source=source)
    assert (manifest.action, manifest.state) == (None, None)
    assert {row["action.offset"] for row in rows_of(tmp_path / "out")} == {None}
    assert verify(Dataset.open(str(tmp_path / "out"))) == []


def find(whole: Compiled, row: dict[str, Any]) -> dict[str, Any]:
    return next(other for other in rows_of(whole.out) if other["key"] == row["key"])


def test_values_are_the_same_however_many_are_counted_at_once(
    whole: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "JOINED_ROWS", 3)
    compiled(whole.source, tmp_path / "out")
    assert tree(tmp_path / "out") == whole.tree
