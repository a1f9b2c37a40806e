"""AV1 that is encoded here: the same bytes on any number of processors, in groups of the wanted length."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import ColorRange, Colorspace

from films import decoded, drawn
from oxcart.shards.codec import Encoded
from oxcart.shards.video import encode_av1


def frames_of(encoded: Encoded, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    assert encoded.frames is not None
    parts = zip(encoded.chunks, encoded.frames, strict=True)
    return np.concatenate([decoded("av1", bytes(chunk), count, size) for chunk, count in parts])


@pytest.mark.parametrize(("most", "sizes"), [(1, [1] * 7), (2, [2, 2, 2, 1]), (5, [5, 2]), (8, [7])])
def test_groups_have_the_wanted_length(most: int, sizes: list[int]) -> None:
    frames = drawn(7, (64, 80))
    encoded = encode_av1(frames, 30, most)
    assert encoded.frames == sizes
    assert np.abs(frames_of(encoded, (64, 80)).astype(int) - frames).mean() < 12


@pytest.mark.parametrize("size", [(4, 4), (16, 16), (33, 50), (64, 65), (63, 96)])
def test_sides_may_be_odd_and_small(size: tuple[int, int]) -> None:
    rows, columns = np.mgrid[: size[0], : size[1]]
    ramps = np.stack([60 + 2 * rows, 40 + columns, 150 - columns], -1)
    frames = np.repeat(ramps[None], 3, axis=0).astype(np.uint8)
    assert np.abs(frames_of(encode_av1(frames, 10, 2), size).astype(int) - frames).mean() < 6


def test_a_size_that_the_encoder_cannot_hold_is_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"cannot be encoded as AV1 at 2x2 pixels: .*; use codec jpeg"):
        encode_av1(drawn(2, (2, 2)), 30, 2)


def test_colours_come_back_and_the_stream_says_how_they_are_stored() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)]
    frames = np.repeat(np.array(colours, np.uint8), 32 * 32, axis=0).reshape(-1, 32, 32, 3)
    encoded = encode_av1(frames, 1, 1)
    assert np.abs(frames_of(encoded, (32, 32)).astype(int) - frames).max() <= 4
    with av.open(io.BytesIO(encoded.header + b"".join(encoded.chunks)), format="ivf") as file:
        frame = next(file.decode(video=0))
    assert (frame.colorspace, frame.color_range) == (Colorspace.ITU601, ColorRange.MPEG)


def test_a_lower_quality_takes_fewer_bytes() -> None:
    frames = drawn(4, (64, 80))
    sizes = [sum(map(len, encode_av1(frames, quality, 2).chunks)) for quality in (10, 30, 60)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


PROBE = """
import hashlib, os, sys
sys.path[:0] = sys.argv[2:]
os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:int(sys.argv[1])])
from test_encode import digest
print(digest())
"""


def digest() -> str:
    """SHA-256 of what some frames are encoded to."""
    encoded = [encode_av1(drawn(6, size), 30, 2) for size in ((64, 80), (96, 130))]
    return hashlib.sha256(b"".join(one.header + b"".join(one.chunks) for one in encoded)).hexdigest()


def test_the_same_frames_give_the_same_bytes_with_any_number_of_processors() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system cannot choose the processors of a process")
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    found = {
        subprocess.run(
            [sys.executable, "-c", PROBE, count, *folders], capture_output=True, text=True, check=True
        ).stdout.strip()
        for count in ("1", "2")
    }
    assert found == {digest()}
    assert digest() == digest()
