"""Encode the frames of one camera of one episode as chunks of bytes, and decode them.

A chunk is the smallest piece that can be read by itself. Each codec trades bytes against the work of a
reader:

    raw    a NumPy array; a chunk is one frame, and reading needs no decoding
    zstd   a zstd frame of the residuals of each video frame; lossless, half the bytes
    jpeg   the JPEGs of the frames end to end, the source's own if it has them; a chunk is one frame
    av1, h264, hevc, vp9
           a source's own video; a chunk is a closed group of pictures (`oxcart.shards.video`)

Residuals are frames minus their predecessors, mod 256. In the first frame of a chunk each row is stored minus
the row above it, except rows whose index is a multiple of 16. Differences in every row would shrink the first
frame by another 2%, but undoing them takes one small addition per row, one after another; with 16 independent
sets of rows, each addition covers a whole set.

Encoding and decoding work on whole arrays outside the GIL, so threads run in parallel.
"""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import zstandard
from xxhash import xxh3_64_intdigest

from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.shards.jpeg import decode_jpeg, encode_jpeg

Frames = npt.NDArray[np.uint8]

IMAGE_CODECS = ("raw", "zstd", "jpeg")
"""Codecs that store frames as images."""
VIDEO_EXTENSIONS = {"av1": "ivf", "h264": "h264", "hevc": "hevc", "vp9": "ivf"}
"""Codec of videos -> extension of a camera's member."""
IVF_HEADER = 32
"""Bytes of a member with the extension `ivf` before its first chunk."""
EXTENSIONS = {**dict(zip(IMAGE_CODECS, ("npy", "tzst", "mjpeg"), strict=True)), **VIDEO_EXTENSIONS}
"""Codec -> extension of a camera's member, after the camera's name."""
CODECS = tuple(EXTENSIONS)
"""Names of the codecs."""
VIDEO = "video"
"""Asks for the codec in which a source holds its videos."""
CHUNK_FRAMES = 1
"""Frames per chunk in new datasets, but for videos; a manifest states its own, and chunks of codec `zstd` may
hold more."""

QUALITIES = {"jpeg": (1, 100, 95), "av1": (1, 63, 30)}
"""Codec -> least, greatest and default quality of frames encoded here; of `av1` a crf: less is better."""
GROUP_FRAMES, AV1_FRAMES = 8, 2
"""Most frames of a chunk of a source's own video, and frames of one that is encoded here, by default."""
MOST_FRAMES = 256
"""Upper limit of the frames of a chunk of a video: a reader decodes up to that many to get one."""
LEVEL = 1
"""Compression level of zstd. Decoding is as fast at any level, and higher levels gain little on residuals."""
_ROWS = 16
"""Interval of the rows of a first frame that are stored unchanged."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The codec of frames, with its settings.

    Raises:
        ConfigError: the codec is unknown, or has no such quality.
    """

    codec: str = "raw"
    """Name of the codec, one of `CODECS`, or `VIDEO` until the source is known."""
    quality: int | None = None
    """Quality of frames that are encoded here, in the range of `QUALITIES`; None if none are."""
    anew: bool = False
    """Whether to encode every frame, even if the source has it in this codec and the wanted size."""
    group: int | None = None
    """Most frames of a chunk of a video; None for other codecs."""

    def __post_init__(self) -> None:
        one_of("codec", self.codec, (*CODECS, VIDEO))
        videos = self.codec == VIDEO or self.codec in VIDEO_EXTENSIONS
        encodes = self.codec == "jpeg" or (self.codec in QUALITIES and self.anew)
        if encodes and self.quality is None:
            object.__setattr__(self, "quality", QUALITIES[self.codec][2])
        if videos and self.group is None:
            object.__setattr__(self, "group", AV1_FRAMES if encodes else GROUP_FRAMES)
        if self.anew and videos and self.codec not in QUALITIES:
            raise ConfigError(f"codec {self.codec}: a source's own videos, which are not encoded; use av1")
        if self.quality is not None:
            if self.codec not in QUALITIES:
                raise ConfigError(
                    f"jpeg quality: codec {self.codec} has none; leave it out or use codec jpeg"
                )
            least, most, _ = QUALITIES[self.codec]
            if not (type(self.quality) is int and least <= self.quality <= most):
                raise ConfigError(f"{self.codec} quality: expected {least} to {most}, got {self.quality!r}")
        if self.group is not None:
            if not videos:
                raise ConfigError(f"max gop: codec {self.codec} has no groups; leave it out or use video")
            if not (type(self.group) is int and 1 <= self.group <= MOST_FRAMES):
                raise ConfigError(f"max gop: expected 1 to {MOST_FRAMES} frames, got {self.group!r}")

    @property
    def copies(self) -> bool:
        """Whether a source's own video is stored, not frames that are encoded here."""
        return self.group is not None and not self.anew

    def describe(self) -> dict[str, str | int | None]:
        """Codec, quality and frames per chunk, as plain JSON."""
        return {"codec": self.codec, "quality": self.quality, "chunk": self.group or CHUNK_FRAMES}


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A tar member that holds the frames of one camera of one episode."""

    header: bytes = b""
    """Bytes before the first chunk."""
    chunks: Sequence[bytes | memoryview]
    """Chunks in order; the header and the chunks are the whole member. With codec `jpeg`, one JPEG each."""
    varying: bool = True
    """Whether chunks differ in size, so that their sizes must be stored."""
    frames: Sequence[int] | None = None
    """Frames of each chunk of a video; None for other codecs, whose chunks hold equally many."""

    def digests(self) -> list[int]:
        """xxh3-64 digest of every chunk, in order."""
        return [xxh3_64_intdigest(chunk) for chunk in self.chunks]

    def sizes(self) -> list[int] | None:
        """Size of every chunk in bytes; None if all have the size of a raw frame."""
        return [len(chunk) for chunk in self.chunks] if self.varying else None


def encode(frames: Frames, encoding: Encoding) -> Encoded:
    """Encode frames [T, H, W, 3] uint8. Codec `raw` refers to their memory, the others copy.

    Raises:
        ValueError: codec `av1` cannot hold frames of that size.
    """
    if encoding.codec == "av1":
        from oxcart.shards.video import encode_av1  # PyAV is an extra

        assert encoding.quality is not None
        assert encoding.group is not None
        return encode_av1(frames, encoding.quality, encoding.group)
    if encoding.codec == "zstd":
        return encode_zstd(frames, CHUNK_FRAMES)
    if encoding.codec == "jpeg":
        assert encoding.quality is not None
        return Encoded(chunks=[encode_jpeg(frame, encoding.quality) for frame in frames])
    flat = np.ascontiguousarray(frames).reshape(-1).data
    size = frames[0].nbytes
    return Encoded(
        header=npy_header(frames.shape, frames.dtype),
        chunks=[flat[i * size : (i + 1) * size] for i in range(len(frames))],
        varying=False,
    )


def encode_zstd(frames: Frames, chunk_frames: int) -> Encoded:
    """Encode frames [T, H, W, 3] uint8 with codec `zstd`, in chunks of `chunk_frames`."""
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    residuals = np.empty((chunk_frames, *frames.shape[1:]), np.uint8)
    chunks: list[bytes] = []
    for start in range(0, len(frames), chunk_frames):
        group = frames[start : start + chunk_frames]
        _difference(group, residuals[: len(group)])
        chunks.append(compressor.compress(residuals[: len(group)].reshape(-1).data))
    return Encoded(chunks=chunks)


def decode(
    codec: str, chunks: Sequence[bytes | memoryview], chunk_frames: int | Sequence[int], out: Frames
) -> None:
    """Decode consecutive chunks.

    Args:
        codec: name of the codec, one of `CODECS`.
        chunks: the complete chunks.
        chunk_frames: frames per chunk, of which the last chunk may have fewer; or the frames of each chunk.
        out: [n, H, W, 3] uint8, contiguous. It may end inside the last chunk, of which only the first frames
            are decoded then.

    Raises:
        CorruptError: a chunk does not hold frames of that size. Its cause says why, without the chunk.
    """
    lengths = [chunk_frames] * len(chunks) if isinstance(chunk_frames, int) else chunk_frames
    for i, (chunk, end) in enumerate(zip(chunks, itertools.accumulate(lengths), strict=True)):
        frames = out[end - lengths[i] : end]
        try:
            if codec == "zstd":
                _inflate(chunk, frames)
                _restore(frames)
            elif codec == "jpeg":
                decode_jpeg(chunk, frames[0])
            elif codec in VIDEO_EXTENSIONS:
                from oxcart.shards.video import decode_group  # PyAV is an extra

                decode_group(codec, chunk, frames)
            else:
                frames.reshape(-1)[:] = np.frombuffer(chunk, np.uint8)
        except (zstandard.ZstdError, ValueError) as error:
            reason = error if isinstance(error, ValueError) else ValueError(f"cannot be decoded: {error}")
            raise CorruptError(f"codec {codec}, chunk {i} of {len(chunks)} {reason}") from reason


_local = threading.local()


def _inflate(chunk: bytes | memoryview, frames: Frames) -> None:
    """Fill `frames` from the start of one zstd frame."""
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


def _difference(frames: Frames, out: Frames) -> None:
    """Write the residuals of the frames of one chunk [n, H, W, 3] to `out`, of the same shape."""
    np.subtract(frames[1:], frames[:-1], out=out[1:])
    rows, residuals = frames[0], out[0]
    residuals[::_ROWS] = rows[::_ROWS]
    for i in range(1, min(_ROWS, len(rows))):
        inner = residuals[i::_ROWS]
        np.subtract(rows[i::_ROWS], rows[i - 1 :: _ROWS][: len(inner)], out=inner)


def _restore(frames: Frames) -> None:
    """Turn the residuals of a chunk, or of its first n frames, into frames, in place.

    Args:
        frames: [n, H, W, 3] uint8, contiguous.
    """
    rows = frames[0]
    whole = len(rows) // _ROWS * _ROWS
    # Sums of 2, 4, 8, … rows: few large additions, since NumPy takes the GIL between any two.
    for half in (1 << i for i in range(_ROWS.bit_length() - 1)):
        runs = rows[:whole].reshape(-1, 2 * half, *rows.shape[1:])
        np.add(runs[:, half:], runs[:, half - 1 : half], out=runs[:, half:])
    for row, before in zip(rows[whole + 1 :], rows[whole:-1], strict=True):
        np.add(row, before, out=row)
    for frame, before in zip(frames[1:], frames[:-1], strict=True):
        np.add(frame, before, out=frame)


@lru_cache(1 << 10)
def npy_header(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> bytes:
    """The header of a C-ordered `.npy` file, version 1.0; its length is a multiple of 64."""
    buffer = io.BytesIO()
    descriptor = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, descriptor)
    return buffer.getvalue()
