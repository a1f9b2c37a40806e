"""Draw an episode: evenly spaced frames, as a contact sheet with one row per camera, or as a strip."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from oxcart.manifests.dataset import Dataset, Episode
from oxcart.manifests.frames import CameraFrames
from oxcart.shards.errors import ConfigError
from oxcart.shards.files import WRITTEN_BY
from oxcart.shards.text import cut

MARGIN, CAPTION, TITLE = 8, 18, 22
"""Height of margins, captions and titles, in pixels."""
LONGEST = 160
"""Maximum number of letters in a title."""
BACKGROUND, INK, FAINT = "#fbfaf7", "#1f2328", "#6b7280"


def default_episode(dataset: Dataset) -> Episode:
    """The episode that is shown if none is named: the first of val, or else the first of all.

    Raises:
        ConfigError: the dataset has no episodes.
        CorruptError: the episode table does not match its digest.
    """
    if not dataset.episodes.num_rows:
        raise ConfigError(f"{dataset.store.url}: has no episodes")
    held_out: int = pc.index(dataset.episodes["split"], "val").as_py()
    return dataset[max(held_out, 0)]


def contact_sheet(episode: Episode, *, frames: int = 8, height: int = 128) -> Image.Image:
    """Draw the contact sheet of one episode.

    Args:
        episode: the episode.
        frames: maximum number of frames per camera.
        height: height of each frame, in pixels.
    """
    steps = spread(episode.steps, frames)
    cameras = episode.cameras
    strips = [_images(episode.frames(name), steps, height) for name in cameras]
    titles = [
        episode.key,
        f"{episode.split} · {cut(episode.environment or 'unknown environment', LONGEST)} · "
        f"{episode.steps} steps",
        f"“{cut(episode.instruction, LONGEST)}”" if episode.instruction else "no instruction",
    ]
    bold, plain = ImageFont.load_default(size=15), ImageFont.load_default(size=13)
    across = max(sum(image.width + MARGIN for image in strip) for strip in strips)
    width = MARGIN + max(across, *(int(bold.getlength(title)) + MARGIN for title in titles))
    top = MARGIN + TITLE * len(titles)
    sheet = Image.new("RGB", (width, top + len(strips) * (CAPTION + height + MARGIN)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for i, title in enumerate(titles):
        draw.text((MARGIN, MARGIN + i * TITLE), title, INK if i != 1 else FAINT, bold if i == 0 else plain)
    for name, strip in zip(cameras, strips, strict=True):
        left = MARGIN
        for i, (step, image) in enumerate(zip(steps, strip, strict=True)):
            draw.text((left, top), f"{name}  t={step}" if i == 0 else f"t={step}", FAINT, plain)
            sheet.paste(image, (left, top + CAPTION))
            left += image.width + MARGIN
        top += CAPTION + height + MARGIN
    return sheet


def strip(frames: CameraFrames, *, count: int = 8, height: int = 96) -> Image.Image:
    """Draw evenly spaced frames of one camera beside each other.

    Args:
        frames: the frames of the camera.
        count: maximum number of frames.
        height: height of each frame, in pixels.
    """
    images = _images(frames, spread(len(frames), count), height)
    drawn = Image.new("RGB", (sum(image.width for image in images), height))
    left = 0
    for image in images:
        drawn.paste(image, (left, 0))
        left += image.width
    return drawn


def spread(steps: int, count: int) -> list[int]:
    """At most `count` of the steps of an episode, evenly spaced, the first and the last among them."""
    found: list[int] = np.unique(np.linspace(0, steps - 1, count).round().astype(int)).tolist()
    return found


def _images(frames: CameraFrames, steps: list[int], height: int) -> list[Image.Image]:
    return [scaled(frame, height) for frame in frames[steps]]


def scaled(frame: npt.NDArray[np.uint8], height: int) -> Image.Image:
    """A frame [H, W, 3] as an image of the given height in pixels."""
    image = Image.fromarray(frame)
    width = max(1, round(image.width * height / image.height))
    return image.resize((width, height), Image.Resampling.BICUBIC)


def data_uri(image: Image.Image) -> str:
    """The image as a small JPEG in a `data:` URI, for a page that fetches nothing."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def encode_image(image: Image.Image, suffix: str) -> bytes:
    """Encode an image file that is marked as written by oxcart.

    Args:
        image: the image to encode.
        suffix: .png, .jpg, .jpeg or .webp, in any case.
    """
    kind = Image.registered_extensions()[suffix.lower()]
    said: dict[str, Any] = {"comment": WRITTEN_BY} if kind == "JPEG" else {"xmp": WRITTEN_BY.encode()}
    if kind == "PNG":
        said = {"pnginfo": PngInfo()}
        said["pnginfo"].add_text("Software", WRITTEN_BY)
    data = io.BytesIO()
    image.save(data, kind, **said)
    return data.getvalue()
