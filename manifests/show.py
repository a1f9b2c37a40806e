"""A contact sheet: evenly spaced frames of one episode, one row per camera."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from oxcart.manifests.dataset import Dataset
from oxcart.shards.files import WRITTEN_BY

MARGIN, CAPTION, TITLE = 8, 18, 22
"""Height of margins, captions and titles, in pixels."""
LONGEST = 160
"""Maximum number of letters in a title."""
BACKGROUND, INK, FAINT = "#fbfaf7", "#1f2328", "#6b7280"


def contact_sheet(
    dataset: Dataset, row: Mapping[str, Any], *, frames: int = 8, height: int = 128
) -> Image.Image:
    """Draw the contact sheet of one episode.

    Args:
        dataset: the dataset that holds it.
        row: its row of `episodes.parquet`.
        frames: maximum number of frames per camera.
        height: height of each frame, in pixels.
    """
    steps = np.unique(np.linspace(0, row["steps"] - 1, frames).round().astype(int)).tolist()
    cameras = dataset.manifest.camera_names
    strips = [[scaled(frame, height) for frame in dataset.frames(row, name, steps)] for name in cameras]
    titles = [
        row["key"],
        f"{row['split']} · {_line(row['environment'] or 'unknown environment')} · {row['steps']} steps",
        f"“{_line(row['instruction'])}”" if row["instruction"] else "no instruction",
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


def _line(text: str) -> str:
    """The text on one line, cut where it would make the sheet much wider than its frames."""
    words = " ".join(text.split())
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"


def scaled(frame: npt.NDArray[np.uint8], height: int) -> Image.Image:
    """A frame [H, W, 3] as an image of the given height in pixels."""
    image = Image.fromarray(frame)
    width = max(1, round(image.width * height / image.height))
    return image.resize((width, height), Image.Resampling.BICUBIC)


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
