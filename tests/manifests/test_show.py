"""A contact sheet shows the frames that it says it shows, where it says so."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from blake3 import blake3
from PIL import Image, ImageColor

from oxcart.compile.sample.rlds import RldsSampleConfig
from oxcart.manifests.dataset import Dataset, Episode
from oxcart.manifests.show import BACKGROUND, CAPTION, LONGEST, MARGIN, TITLE, contact_sheet, default_episode
from oxcart.shards.errors import ConfigError
from sample_compile import CAMERAS, compile_sample

TOP = MARGIN + 3 * TITLE
"""Where the first row of captions begins."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    sample = RldsSampleConfig(kitchens=2, sessions=1, episodes=1, steps=12, size=32, files=1)
    made = compile_sample(tmp_path_factory.mktemp("dataset"), sample, cameras=CAMERAS)
    return Dataset.open(str(made.out))


def pixels(sheet: Image.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(sheet)


def strip(episode: Episode, frames: int) -> list[int]:
    """The steps to expect: evenly spaced, the first and the last among them."""
    count = min(frames, episode.steps)
    return [round(i * (episode.steps - 1) / (count - 1)) for i in range(count)] if count > 1 else [0]


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("height", [32, 16])
def test_every_frame_is_in_its_place(dataset: Dataset, frames: int, height: int) -> None:
    episode = dataset[0]
    steps = strip(episode, frames)
    assert steps[-1] == (episode.steps - 1 if frames > 1 else 0)
    sheet = contact_sheet(episode, frames=frames, height=height)
    assert sheet.mode == "RGB"
    assert sheet.height == TOP + 2 * (CAPTION + height + MARGIN)
    assert sheet.width >= MARGIN + len(steps) * (height + MARGIN)
    got = pixels(sheet)
    for i, camera in enumerate(("image_0", "wrist")):
        top = TOP + i * (CAPTION + height + MARGIN) + CAPTION
        for j, (step, frame) in enumerate(zip(steps, episode.frames(camera)[steps], strict=True)):
            image = Image.fromarray(frame)
            if image.height != height:
                image = image.resize((height, height), Image.Resampling.BICUBIC)
            left = MARGIN + j * (height + MARGIN)
            shown = got[top : top + height, left : left + height]
            np.testing.assert_array_equal(shown, np.asarray(image), err_msg=f"{camera} t={step}")


def test_around_the_frames_there_is_background(dataset: Dataset) -> None:
    got = pixels(contact_sheet(default_episode(dataset), frames=3, height=32))
    paper = np.array(ImageColor.getrgb(BACKGROUND), np.uint8)
    assert (got[:, :MARGIN] == paper).all()
    assert (got[-MARGIN:] == paper).all()
    gap = MARGIN + 32
    assert (got[TOP + CAPTION : TOP + CAPTION + 32, gap : gap + MARGIN] == paper).all()
    assert (got[TOP + CAPTION : TOP + CAPTION + 32, MARGIN + 3 * 40 :] == paper).all()
    for top, bottom in ((MARGIN, MARGIN + TITLE), (TOP, TOP + CAPTION)):
        assert (got[top:bottom] != paper).any(), "a title and a caption are written"


def test_the_default_is_eight_frames_of_128_pixels(dataset: Dataset) -> None:
    assert dataset[0].steps >= 8
    sheet = contact_sheet(dataset[0])
    assert sheet.size == (MARGIN + 8 * (128 + MARGIN), TOP + 2 * (CAPTION + 128 + MARGIN))


def test_the_same_episode_gives_the_same_image(dataset: Dataset) -> None:
    one, again, other = (contact_sheet(dataset[i], height=32) for i in (0, 0, 1))
    assert one.tobytes() == again.tobytes() != other.tobytes()


@pytest.mark.parametrize(
    "change", [{"instruction": ""}, {"environment": None}, {"instruction": "x", "environment": "x"}]
)
def test_titles_do_not_move_the_frames(dataset: Dataset, change: dict[str, Any]) -> None:
    episodes = dataset[0], replace(dataset[0], row={**dataset[0].row, **change})
    plain, changed = (pixels(contact_sheet(one, frames=2, height=32)) for one in episodes)
    width = MARGIN + 2 * (32 + MARGIN)
    np.testing.assert_array_equal(plain[TOP:, :width], changed[TOP:, :width])
    assert plain[:TOP].tobytes() != changed[:TOP].tobytes()


@pytest.mark.parametrize(
    "text",
    [
        "two\nlines",
        "\r\n\t\x0b\x0c\u2028",
        "a\x00b",
        "положи ложку",
        "把勺子放下",
        "🥄",
        "\u202eright to left",
        "x" * 100_000,
    ],
)
def test_any_text_can_be_a_title(dataset: Dataset, text: str) -> None:
    episode = replace(dataset[0], row={**dataset[0].row, "instruction": text, "environment": text})
    sheet = contact_sheet(episode, frames=2, height=32)
    assert sheet.height == TOP + 2 * (CAPTION + 32 + MARGIN)
    assert sheet.width <= 2 * MARGIN + 15 * (LONGEST + 60)


class Drawn(Episode):
    """Frames drawn on request: those of camera n at step t are all of colour (n, t, 0)."""

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(f"camera{i}" for i in range(12))

    def frames(self, camera: str = "primary") -> Any:
        frames = np.zeros((self.steps, self.row["height"], self.row["width"], 3), np.uint8)
        frames[..., 0] = int(camera.removeprefix("camera"))
        frames[..., 1] = np.arange(self.steps)[:, None, None]
        return frames


@pytest.mark.parametrize(("height", "width"), [(4, 6), (480, 640), (1, 90), (90, 1), (7, 7)])
def test_many_cameras_of_any_shape(dataset: Dataset, height: int, width: int) -> None:
    row = {**dataset[0].row, "steps": 200, "height": height, "width": width}
    sheet = contact_sheet(Drawn(dataset=dataset, row=row), frames=3, height=20)
    across = max(1, round(width * 20 / height))
    assert sheet.height == TOP + 12 * (CAPTION + 20 + MARGIN)
    assert sheet.width >= MARGIN + 3 * (across + MARGIN)
    got = pixels(sheet)
    for i in range(12):
        top = TOP + i * (CAPTION + 20 + MARGIN) + CAPTION
        for j, step in enumerate((0, math.floor(199 / 2 + 0.5), 199)):
            left = MARGIN + j * (across + MARGIN)
            assert (got[top : top + 20, left : left + across] == (i, step, 0)).all()


def test_without_a_key_the_first_episode_of_val_is_shown_or_else_the_first(
    dataset: Dataset, windowed: Mapping[str, Path], root: Path
) -> None:
    splits = [episode.split for episode in dataset]
    assert default_episode(dataset).row == dataset[splits.index("val")].row != dataset[0].row
    train = Dataset.open(str(windowed["raw"]))
    assert default_episode(train).row == train[0].row
    none = pq.read_table(root / "episodes.parquet").slice(0, 0)
    pq.write_table(none, root / "episodes.parquet")
    manifest = json.loads((root / "manifest.json").read_text())
    digest = blake3((root / "episodes.parquet").read_bytes()).hexdigest()
    manifest["tables"]["episodes.parquet"] |= {"blake3": digest, "rows": 0}
    (root / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=f"^{root}: has no episodes$"):
        default_episode(Dataset.open(str(root)))
