"""How the frames of one camera of one episode become chunks of bytes.

A chunk is the smallest piece that can be read alone. Codec `raw` stores frames as a NumPy array: its chunk
is one frame, all chunks have the same size, and frame i starts at a known offset.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

CODECS = ("raw",)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The frames of one camera of one episode, as a tar member."""

    extension: str
    """What follows the camera's name in the member's name."""
    header: bytes
    """Bytes before the first chunk."""
    chunks: list[memoryview]
    """The chunks, in order; together with the header they are the member."""

    def digests(self) -> list[int]:
        """xxh3-64 of every chunk, in order."""
        return [xxh3_64_intdigest(chunk) for chunk in self.chunks]


def encode_raw(frames: npt.NDArray[np.uint8]) -> Encoded:
    """Encode frames [T, H, W, 3] uint8 without copying them: one chunk a frame."""
    flat = np.ascontiguousarray(frames).reshape(-1).data
    size = frames[0].nbytes
    return Encoded(
        extension="npy",
        header=npy_header(frames.shape, frames.dtype),
        chunks=[flat[i * size : (i + 1) * size] for i in range(len(frames))],
    )


def npy_header(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> bytes:
    """The header of a C-ordered `.npy` file, version 1.0; its length is a multiple of 64."""
    buffer = io.BytesIO()
    descriptor = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, descriptor)
    return buffer.getvalue()
