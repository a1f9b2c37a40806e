"""From an episode as its source stores it to the chunks of its members: what takes the time of a compile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oxcart.compile.images import Frame, ImageError, Resize, decode_into, image_size, resize_into
from oxcart.compile.sources.base import Episode, Images
from oxcart.shards.codec import Encoded, Encoding, encode, join_jpegs
from oxcart.shards.jpeg import encode_jpeg, jpeg_size

IN_FLIGHT = 256 << 20
"""Bytes of frames that one process may hold in order to work ahead; a larger episode is worked on alone."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The frames of one camera of one episode, encoded."""

    shape: tuple[int, int, int, int]
    """[T, H, W, 3]."""
    encoded: Encoded
    digests: list[int]
    """xxh3-64 of each chunk."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """An episode whose members can be written."""

    row: Mapping[str, Any]
    """Of the census."""
    episode: Episode
    cameras: Mapping[str, Pictures]
    error: ImageError | None
    """Why it cannot be compiled, where it cannot."""


def depth(rows: Sequence[Mapping[str, Any]], cameras: Sequence[str], resize: Resize) -> int:
    """How many episodes may be made ahead of the one that is written."""
    largest = max(sum(_frame_bytes(row, camera, resize) for camera in cameras) for row in rows)
    return 1 if 3 * largest <= IN_FLIGHT else 0


def _frame_bytes(row: Mapping[str, Any], camera: str, resize: Resize) -> int:
    height, width = resize.output_size(row[f"{camera}.height"], row[f"{camera}.width"])
    return int(row["steps"]) * height * width * 3


def make_ready(
    pairs: Iterable[tuple[Mapping[str, Any], Episode]],
    cameras: Sequence[str],
    resize: Resize,
    encoding: Encoding,
    depth: int,
) -> Iterator[Ready]:
    """Decode, resize, encode and hash episodes.

    Args:
        pairs: census row and episode.
        cameras: which of its cameras.
        resize: how frames get their size.
        encoding: how they are stored.
        depth: how many a consumer works behind; with codec `raw` what is yielded lies in memory that is used
            again for the episode `depth + 2` places on.
    """
    ring = [dict[str, Frame]() for _ in range(depth + 2)]
    for i, (row, episode) in enumerate(pairs):
        made: dict[str, Pictures] = {}
        error = None
        try:
            for camera in cameras:
                made[camera] = _camera(
                    camera, episode.images[camera], row, resize, encoding, ring[i % len(ring)]
                )
        except ImageError as caught:
            error = caught
        yield Ready(row=row, episode=episode, cameras=made, error=error)


def _camera(
    camera: str,
    images: Images,
    row: Mapping[str, Any],
    resize: Resize,
    encoding: Encoding,
    buffers: dict[str, Frame],
) -> Pictures:
    size = row[f"{camera}.height"], row[f"{camera}.width"]
    shape = (len(images), *resize.output_size(*size), 3)
    if encoding.codec == "jpeg" and not isinstance(images, np.ndarray):
        encoded = _as_jpegs(camera, images, size, resize, encoding)
    else:
        encoded = encode(_decode(camera, images, size, resize, shape, buffers), encoding)
    return Pictures(shape=shape, encoded=encoded, digests=encoded.digests())


def _as_jpegs(
    camera: str,
    images: Sequence[bytes | memoryview],
    size: tuple[int, int],
    resize: Resize,
    encoding: Encoding,
) -> Encoded:
    """The source's own bytes where they are JPEG and of the size that is wanted; others are encoded."""
    assert encoding.quality is not None
    jpegs: list[bytes | memoryview] = []
    wanted = resize.output_size(*size)
    frame = np.empty(0, np.uint8)
    for step, image in enumerate(images):
        if size == wanted == jpeg_size(image):
            jpegs.append(image)
            continue
        if not frame.size:
            _check_first(camera, images, size)
            frame = np.empty((*wanted, 3), np.uint8)
        _decode_step(camera, step, frame, image, size, resize)
        jpegs.append(encode_jpeg(frame, encoding.quality))
    return join_jpegs(jpegs)


def _decode(
    camera: str,
    images: Images,
    size: tuple[int, int],
    resize: Resize,
    shape: tuple[int, int, int, int],
    buffers: dict[str, Frame],
) -> Frame:
    """Frames [T, H, W, 3] of one camera, in a buffer that is used again."""
    if isinstance(images, np.ndarray) and images.shape == shape:
        return images
    if not isinstance(images, np.ndarray):
        _check_first(camera, images, size)
    total = int(np.prod(shape))
    if camera not in buffers or buffers[camera].size < total:
        buffers[camera] = np.empty(total, np.uint8)
    frames = buffers[camera][:total].reshape(shape)
    for step, (frame, image) in enumerate(zip(frames, images, strict=True)):
        if isinstance(image, np.ndarray):
            resize_into(frame, image, resize)
        else:
            _decode_step(camera, step, frame, image, size, resize)
    return frames


def _check_first(camera: str, images: Sequence[bytes | memoryview], size: tuple[int, int]) -> None:
    """Before memory is taken for what the source only declares."""
    found = image_size(images[0])
    if found != size:
        raise ImageError(
            f"camera {camera}: the image of step 0 is {found[0]}x{found[1]} pixels "
            f"where the source declares {size[0]}x{size[1]}"
        )


def _decode_step(
    camera: str, step: int, frame: Frame, image: bytes | memoryview, size: tuple[int, int], resize: Resize
) -> None:
    try:
        decode_into(frame, image, size, resize)
    except ImageError as error:
        raise ImageError(f"camera {camera}: the image of step {step} {error}") from error
