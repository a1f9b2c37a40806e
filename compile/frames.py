"""Turn the images of a source into the chunks of a member, which takes most of the time of a compile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oxcart.compile.images import JPEG, Frame, ImageError, Resize, decode_into, image_size, resize_into
from oxcart.compile.sources.base import Film, Images
from oxcart.shards.codec import Encoded, Encoding, encode
from oxcart.shards.jpeg import encode_jpeg, is_colour, jpeg_size


@dataclass(frozen=True, kw_only=True)
class EncodedFrames:
    """The frames of one camera of one episode, encoded."""

    shape: tuple[int, int, int, int]
    """Shape of the decoded frames, [T, H, W, 3]."""
    encoded: Encoded
    """Header and chunks of the camera's member."""
    digests: list[int]
    """xxh3-64 of each chunk."""
    again: int
    """Number of JPEGs of the source that already had the wanted size but had to be encoded again."""
    swapped: int
    """Number of JPEGs that were encoded again only because they hold BGR."""


def encode_frames(
    camera: str,
    images: Images,
    row: Mapping[str, Any],
    resize: Resize,
    encoding: Encoding,
    buffers: dict[str, Frame],
    *,
    bgr: bool = False,
) -> EncodedFrames:
    """Decode, resize, encode and hash the images of one camera.

    Args:
        camera: name of the camera.
        images: images of the camera in one episode.
        row: census row of the episode.
        resize: how frames get their size.
        encoding: how frames are stored.
        buffers: camera -> memory for its frames. The next call uses it again, and with codec `raw` the
            returned chunks lie in it.
        bgr: whether encoded images and films hold BGR; frames are RGB.

    Raises:
        ImageError: an image cannot be decoded, or its size differs from the one in the census.
    """
    size = row[f"{camera}.height"], row[f"{camera}.width"]
    shape = (len(images), *resize.output_size(*size), 3)
    again = swapped = 0
    if encoding.codec == "jpeg" and not encoding.anew and not isinstance(images, np.ndarray | Film):
        encoded, again, swapped = _as_jpegs(camera, images, size, resize, encoding, bgr)
    elif encoding.copies:
        encoded = _copy(camera, images, encoding)
    else:
        try:
            encoded = encode(_decode(camera, images, size, resize, shape, buffers, bgr), encoding)
        except ValueError as error:
            raise ImageError(f"camera {camera}: {error}") from error
    return EncodedFrames(
        shape=shape, encoded=encoded, digests=encoded.digests(), again=again, swapped=swapped
    )


def _copy(camera: str, images: Images, encoding: Encoding) -> Encoded:
    """The video of a camera as the source has it, in groups."""
    assert encoding.group is not None
    if not isinstance(images, Film) or images.copy is None:
        raise ImageError(f"camera {camera}: has no video that could be copied")
    found = images.copy(encoding.group)
    if found.frames is None or sum(found.frames) != len(images):
        raise ImageError(f"camera {camera}: its video has not a frame for each step")
    return found


def _as_jpegs(
    camera: str,
    images: Sequence[bytes | memoryview],
    size: tuple[int, int],
    resize: Resize,
    encoding: Encoding,
    bgr: bool,
) -> tuple[Encoded, int, int]:
    """JPEGs of one camera: the source's own bytes if they are RGB JPEG of the wanted size, else encoded here.

    Returns them, and the numbers of JPEGs of the wanted size that had to be encoded again: those that are
    unusual, and those that only hold BGR.
    """
    assert encoding.quality is not None
    jpegs: list[bytes | memoryview] = []
    again = swapped = 0
    wanted = resize.output_size(*size)
    frame = np.empty(0, np.uint8)
    for step, image in enumerate(images):
        whole = size == wanted == jpeg_size(image)
        if whole and not (bgr and is_colour(image)):
            jpegs.append(image)
            continue
        if not frame.size:
            _check_first(camera, images, size)
            frame = np.empty((*wanted, 3), np.uint8)
        _decode_step(camera, step, frame, image, size, resize, bgr)
        jpegs.append(encode_jpeg(frame, encoding.quality))
        swapped += whole
        again += not whole and size == wanted and image[:2] == JPEG
    return Encoded(chunks=jpegs), again, swapped


def _decode(
    camera: str,
    images: Images,
    size: tuple[int, int],
    resize: Resize,
    shape: tuple[int, int, int, int],
    buffers: dict[str, Frame],
    bgr: bool,
) -> Frame:
    """Decoded frames [T, H, W, 3] of one camera, in a buffer that the next call reuses."""
    if isinstance(images, np.ndarray) and images.shape == shape:
        return images
    if not isinstance(images, np.ndarray | Film):
        _check_first(camera, images, size)
    total = int(np.prod(shape))
    if camera not in buffers or buffers[camera].size < total:
        buffers[camera] = np.empty(total, np.uint8)
    frames = buffers[camera][:total].reshape(shape)
    if isinstance(images, Film):
        images.play(frames, resize)
        if bgr:
            for frame in frames:
                frame[:] = frame[:, :, ::-1].copy()
        return frames
    for step, (frame, image) in enumerate(zip(frames, images, strict=True)):
        if isinstance(image, np.ndarray):
            resize_into(frame, image, resize)
        else:
            _decode_step(camera, step, frame, image, size, resize, bgr)
    return frames


def _check_first(camera: str, images: Sequence[bytes | memoryview], size: tuple[int, int]) -> None:
    """Check the first image, before memory is taken for a size that the source only declares."""
    found = image_size(images[0])
    if found != size:
        raise ImageError(
            f"camera {camera}: the image of step 0 is {found[0]}x{found[1]} pixels "
            f"where the source declares {size[0]}x{size[1]}"
        )


def _decode_step(
    camera: str,
    step: int,
    frame: Frame,
    image: bytes | memoryview,
    size: tuple[int, int],
    resize: Resize,
    bgr: bool,
) -> None:
    try:
        decode_into(frame, image, size, resize, bgr=bgr)
    except ImageError as error:
        raise ImageError(f"camera {camera}: the image of step {step} {error}") from error
