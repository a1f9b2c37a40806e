"""How the frames of one camera of one episode become chunks of bytes, and frames again.

A chunk is the smallest piece that can be read alone. Each codec trades bytes against the work of a reader:

    raw    a NumPy array; a chunk is a frame, and a read needs no decoding at all
    zstd   independent zstd frames of the differences of 2 video frames; lossless, half the bytes
    jpeg   the frames' JPEGs end to end, the source's own where it has them; a chunk is a frame

Both directions work on whole arrays outside the GIL, so threads share the work.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import zstandard
from xxhash import xxh3_64_intdigest

from oxcart.shards.choices import one_of
from oxcart.shards.deltas import difference, restore
from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.shards.jpeg import decode_jpeg, encode_jpeg

Frames = npt.NDArray[np.uint8]

EXTENSIONS = {"raw": "npy", "zstd": "tzst", "jpeg": "mjpeg"}
"""Codec -> what follows the camera's name in a member's name."""
CHUNK_FRAMES = {"raw": 1, "zstd": 2, "jpeg": 1}
"""Codec -> frames of a chunk that is written now; what was written says its own."""
CODECS = tuple(EXTENSIONS)

QUALITY = 95
"""Of JPEGs that are encoded here, unless another is asked for."""
LEVEL = 1
"""Of zstd: decoding is as fast at any level, and the higher ones gain little on residuals."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How frames are stored.

    Raises:
        ConfigError: an unknown codec, or a quality that it does not have.
    """

    codec: str = "raw"
    """One of `CODECS`."""
    quality: int | None = None
    """1 to 100, of frames that codec `jpeg` has to encode."""
    anew: bool = False
    """Encode every frame, also where the source has a JPEG of the size that is wanted."""

    def __post_init__(self) -> None:
        one_of("codec", self.codec, CODECS)
        if self.codec == "jpeg" and self.quality is None:
            object.__setattr__(self, "quality", QUALITY)
        if self.codec != "jpeg" and self.quality is not None:
            raise ConfigError(f"jpeg quality: codec {self.codec} has none; leave it out or use codec jpeg")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ConfigError(f"jpeg quality: expected 1 to 100, got {self.quality}")

    def describe(self) -> dict[str, str | int | None]:
        """As plain JSON: codec, quality, and frames of a chunk."""
        return {"codec": self.codec, "quality": self.quality, "chunk": CHUNK_FRAMES[self.codec]}


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The frames of one camera of one episode, as a tar member."""

    header: bytes
    """Bytes before the first chunk."""
    chunks: Sequence[bytes | memoryview]
    """The chunks, in order; together with the header they are the member."""
    varying: bool
    """Whether the sizes of chunks must be kept because they differ."""

    def digests(self) -> list[int]:
        """xxh3-64 of every chunk, in order."""
        return [xxh3_64_intdigest(chunk) for chunk in self.chunks]

    def sizes(self) -> list[int] | None:
        """Bytes of every chunk, None where all have the size of a raw frame."""
        return [len(chunk) for chunk in self.chunks] if self.varying else None


def encode(frames: Frames, encoding: Encoding) -> Encoded:
    """Encode frames [T, H, W, 3] uint8; codec `raw` refers to them, the others copy."""
    if encoding.codec == "zstd":
        return encode_zstd(frames, CHUNK_FRAMES["zstd"])
    if encoding.codec == "jpeg":
        assert encoding.quality is not None
        return join_jpegs([encode_jpeg(frame, encoding.quality) for frame in frames])
    flat = np.ascontiguousarray(frames).reshape(-1).data
    size = frames[0].nbytes
    return Encoded(
        header=npy_header(frames.shape, frames.dtype),
        chunks=[flat[i * size : (i + 1) * size] for i in range(len(frames))],
        varying=False,
    )


def encode_zstd(frames: Frames, chunk_frames: int) -> Encoded:
    """Encode frames [T, H, W, 3] uint8 as codec `zstd` does, in chunks of so many of them."""
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    residuals = np.empty((chunk_frames, *frames.shape[1:]), np.uint8)
    chunks: list[bytes] = []
    for start in range(0, len(frames), chunk_frames):
        group = frames[start : start + chunk_frames]
        difference(group, residuals[: len(group)])
        chunks.append(compressor.compress(residuals[: len(group)].reshape(-1).data))
    return Encoded(header=b"", chunks=chunks, varying=True)


def join_jpegs(images: Sequence[bytes | memoryview]) -> Encoded:
    """One JPEG a frame, as codec `jpeg` stores them."""
    return Encoded(header=b"", chunks=images, varying=True)


def decode(codec: str, chunks: Sequence[bytes | memoryview], chunk_frames: int, out: Frames) -> None:
    """Decode a run of chunks.

    Args:
        codec: one of `CODECS`.
        chunks: the run, whole.
        chunk_frames: frames of a chunk; the last one may have fewer.
        out: [n, H, W, 3] uint8, contiguous. Codec `zstd` may end inside the last chunk: then only so much of
            it is decoded.

    Raises:
        CorruptError: a chunk does not hold frames of that size.
    """
    for i, chunk in enumerate(chunks):
        frames = out[i * chunk_frames : (i + 1) * chunk_frames]
        try:
            if codec == "zstd":
                _inflate(chunk, frames)
                restore(frames)
            elif codec == "jpeg":
                decode_jpeg(chunk, frames[0])
            else:
                frames.reshape(-1)[:] = np.frombuffer(chunk, np.uint8)
        except zstandard.ZstdError as error:
            raise CorruptError(
                f"codec {codec}, chunk {i} of {len(chunks)} cannot be decoded: {error}"
            ) from error
        except ValueError as error:
            raise CorruptError(f"codec {codec}, chunk {i} of {len(chunks)} {error}") from error


_local = threading.local()


def _inflate(chunk: bytes | memoryview, frames: Frames) -> None:
    """Fill `frames` from the beginning of one zstd frame."""
    decompressor = getattr(_local, "decompressor", None)
    if decompressor is None:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor()
    wanted = frames.reshape(-1).data
    with decompressor.stream_reader(chunk) as reader:
        found = 0
        while found < len(wanted):
            read = reader.readinto(wanted[found:])
            if not read:
                raise ValueError(f"ends after {found} bytes, expected {len(wanted)}")
            found += read


def npy_header(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> bytes:
    """The header of a C-ordered `.npy` file, version 1.0; its length is a multiple of 64."""
    buffer = io.BytesIO()
    descriptor = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, descriptor)
    return buffer.getvalue()
