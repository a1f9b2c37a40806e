"""Chunks decode alone, in any order and on any thread, and damaged ones are refused."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from films import CODECS, RATE, Shot, decoded, shoot
from oxcart.shards.codec import VIDEO_EXTENSIONS, Encoded
from oxcart.shards.video import access_units, decode_group, presentation, wrap
from oxcart.shards.video.annexb import split_units


class Member(NamedTuple):
    """A video, and what is stored of it."""

    codec: str
    shot: Shot
    encoded: Encoded

    def group(self, number: int) -> tuple[bytes, int, int]:
        """A chunk, the number of its first frame, and of frames."""
        assert self.encoded.frames is not None
        start = sum(self.encoded.frames[:number])
        return bytes(self.encoded.chunks[number]), start, self.encoded.frames[number]


@pytest.fixture(scope="module", params=CODECS)
def member(request: pytest.FixtureRequest) -> Member:
    encoder, options, container = CODECS[request.param]
    shot = shoot(encoder, options, count=20, container=container)
    return Member(request.param, shot, wrap(request.param, shot.packets, shot.extradata, shot.size, RATE, 8))


def test_chunks_decode_in_any_order_and_on_any_thread(member: Member) -> None:
    numbers = np.random.default_rng(0).permutation(4 * len(member.encoded.chunks)).tolist()

    def read(number: int) -> bool:
        chunk, start, count = member.group(number % len(member.encoded.chunks))
        wanted = 1 + number % count
        found = decoded(member.codec, chunk, wanted, member.shot.size)
        return np.array_equal(found, member.shot.frames[start : start + wanted])

    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(read, numbers))


def test_a_group_that_was_left_early_leaves_nothing_to_the_next(member: Member) -> None:
    for number in range(len(member.encoded.chunks)):
        for wanted in (1, member.group(number)[2]):
            chunk, start, _ = member.group(number)
            found = decoded(member.codec, chunk, wanted, member.shot.size)
            assert np.array_equal(found, member.shot.frames[start : start + wanted])


def test_packets_are_placed_where_their_frames_are_shown(member: Member) -> None:
    for number in range(len(member.encoded.chunks)):
        chunk, start, count = member.group(number)
        times = [frame.pts for frame in member.shot.packets[start : start + count]]
        expected = [sorted(times).index(time) for time in times]
        assert presentation(member.codec, access_units(member.codec, chunk)) == expected
    if member.codec in ("h264", "hevc"):
        assert expected != sorted(expected), "the test has no frames that are coded in another order"


def test_a_chunk_with_fewer_frames_than_wanted_is_refused(member: Member) -> None:
    chunk, _, count = member.group(0)
    with pytest.raises(ValueError, match=f"shows {count} frames, expected {count + 1}"):
        decoded(member.codec, chunk, count + 1, member.shot.size)


def test_frames_of_another_size_are_refused(member: Member) -> None:
    with pytest.raises(ValueError, match="is 64x80 pixels where the episode has 80x64"):
        decoded(member.codec, member.group(0)[0], 1, (80, 64))


@given(data=st.data())
def test_damage_is_refused_or_gives_all_frames_and_is_forgotten(member: Member, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(member.encoded.chunks) - 1))
    chunk, _, count = member.group(number)
    damaged = bytearray(chunk)
    for place in data.draw(st.lists(st.integers(0, len(chunk) - 1), max_size=4)):
        damaged[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(chunk)))
    out = np.zeros((count, *member.shot.size, 3), np.uint8)
    with contextlib.suppress(ValueError):
        decode_group(member.codec, bytes(damaged[:cut]), out)
    good, start, count = member.group(0)
    found = decoded(member.codec, good, count, member.shot.size)
    assert np.array_equal(found, member.shot.frames[start : start + count])


def test_ffmpeg_plays_the_member(member: Member, tmp_path: Path) -> None:
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("ffmpeg is not here")
    path = tmp_path / f"front.{VIDEO_EXTENSIONS[member.codec]}"
    path.write_bytes(member.encoded.header + b"".join(member.encoded.chunks))
    command = f"{program} -v error -xerror -i {path} -fps_mode passthrough -f framemd5 -"
    run = subprocess.run(command.split(), capture_output=True, text=True, check=True)
    assert run.stderr == ""
    assert len([line for line in run.stdout.splitlines() if not line.startswith("#")]) == 20


def test_a_member_that_pyav_opens_shows_the_frames_of_its_source(member: Member, tmp_path: Path) -> None:
    path = tmp_path / f"front.{VIDEO_EXTENSIONS[member.codec]}"
    path.write_bytes(member.encoded.header + b"".join(member.encoded.chunks))
    with av.open(str(path)) as file:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    assert np.array_equal(frames, member.shot.frames)


def test_h264_that_does_not_say_how_far_it_reorders_is_shown_in_order_from_its_first_chunk_on() -> None:
    options = {"x264-params": "keyint=16:bframes=3:b-adapt=0:scenecut=0:b-pyramid=normal"}
    shot = shoot("libx264", options, count=16)
    (chunk,) = wrap("h264", shot.packets, shot.extradata, shot.size, RATE, 16).chunks
    (sps,) = (unit for unit in split_units(bytes(chunk)) if unit[0] & 31 == 7)
    silent = bytes(chunk).replace(sps, without_usability(sps))
    assert silent != chunk
    for wanted in (3, 1, 7, 16):
        with ThreadPoolExecutor(1) as thread:  # which opens a decoder of its own
            found = thread.submit(decoded, "h264", silent, wanted, shot.size).result()
        assert np.array_equal(found, shot.frames[:wanted])


def without_usability(sps: bytes) -> bytes:
    """A sequence parameter set of H.264 without its last part, which says how many frames are held back."""
    bits = "".join(f"{byte:08b}" for byte in sps.replace(b"\0\0\3", b"\0\0"))
    place = 8

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    def golomb() -> int:
        nonlocal place
        zeros = bits.index("1", place) - place
        place += zeros
        return take(zeros + 1) - 1

    high = take(8) >= 100
    take(16)
    golomb()  # number of the set
    if high:
        for _ in range(3):
            golomb()  # chroma format and depths
        take(2)
    for _ in range(4):
        golomb()  # counters, order 0, and references
    take(1)
    for _ in range(2):
        golomb()  # width and height
    if not take(1):
        take(1)
    take(1)
    if take(1):
        for _ in range(4):
            golomb()  # borders that are cut off
    kept = f"{bits[:place]}01"
    kept += "0" * (-len(kept) % 8)
    return int(kept, 2).to_bytes(len(kept) // 8, "big")


def test_h264_that_is_cut_off_within_a_picture_is_refused() -> None:
    encoder, options, container = CODECS["h264"]
    shot = shoot(encoder, options, container=container)
    encoded = wrap("h264", shot.packets, shot.extradata, shot.size, RATE, 8)
    with pytest.raises(ValueError, match="cannot be decoded: Invalid data"):
        decoded("h264", bytes(encoded.chunks[0])[:-4], 8, shot.size)
