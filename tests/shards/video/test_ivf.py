"""IVF members: one shown frame per packet, and a sequence header in every group."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest

from films import RATE, Shot, decoded, shoot
from oxcart.shards.video import CodedFrame, access_units, wrap
from oxcart.shards.video.ivf import FRAME_HEADER, SEQUENCE_HEADER, read_av1, read_vp9, split_ivf

KEY, HIDDEN_KEY, INTER, HIDDEN, EXISTING = b"\x82\0", b"\x80\0", b"\x86\0", b"\x84\0", b"\x88"
"""First bytes of frames of VP9."""


@pytest.fixture(scope="module")
def layered() -> Shot:
    """AV1 that codes frames before they are shown, and shows them later."""
    return shoot("libsvtav1", {"g": "16", "preset": "8", "svtav1-params": "lp=1"}, count=20)


def superframe(*frames: bytes) -> bytes:
    marker = bytes([0xC0 | 1 << 3 | len(frames) - 1])
    sizes = b"".join(struct.pack("<H", len(frame)) for frame in frames)
    return b"".join(frames) + marker + sizes + marker


def unit(kind: int, payload: bytes) -> bytes:
    return bytes([kind << 3 | 2, len(payload)]) + payload


def test_the_header_says_codec_size_rate_and_frames() -> None:
    shot = shoot("libvpx-vp9", {"g": "4"}, container="webm")
    encoded = wrap("vp9", shot.packets, b"", shot.size, Fraction(15, 4), 4)
    assert struct.unpack("<4sHH4sHHIIII", encoded.header) == (b"DKIF", 0, 32, b"VP90", 80, 64, 15, 4, 12, 0)
    chunk = bytes(encoded.chunks[1])
    assert struct.unpack_from("<IQ", chunk) == (len(shot.packets[4].data), 4)
    assert split_ivf(chunk) == [frame.data for frame in shot.packets[4:8]]


def test_frames_that_are_coded_early_are_found_where_they_are_shown(layered: Shot) -> None:
    assert any(len(frame.data) < 8 for frame in layered.packets), "no frame shows one that was coded before"
    encoded = wrap("av1", layered.packets, layered.extradata, layered.size, RATE, 16)
    assert encoded.frames == [16, 4]
    for wanted in range(1, 17):
        found = decoded("av1", bytes(encoded.chunks[0]), wanted, layered.size)
        assert np.array_equal(found, layered.frames[:wanted])


def test_a_sequence_header_that_only_the_container_has_is_put_into_every_group() -> None:
    shot = shoot("libsvtav1", {"g": "2", "preset": "12", "svtav1-params": "lp=1"})
    header = read_av1(shot.packets[0].data).sequence
    bare = [frame._replace(data=frame.data.replace(header, b"")) for frame in shot.packets]
    assert header
    assert bare != shot.packets
    encoded = wrap("av1", bare, b"\x81\0\0\0" + header, shot.size, RATE, 2)
    assert encoded == wrap("av1", shot.packets, shot.extradata, shot.size, RATE, 2)
    for chunk in encoded.chunks:
        first, second = access_units("av1", chunk)
        assert first.startswith(b"\x12\0" + header)
        assert second.startswith(b"\x12\0")
        assert not read_av1(second).sequence
    with pytest.raises(ValueError, match="no sequence header"):
        wrap("av1", bare, b"", shot.size, RATE, 2)


@pytest.mark.parametrize(
    ("packet", "shown", "key"),
    [
        (KEY, 1, True),
        (INTER, 1, False),
        (EXISTING, 1, False),
        (HIDDEN, 0, False),
        (superframe(HIDDEN, INTER), 1, False),
        (superframe(KEY, INTER), 2, True),
        (superframe(HIDDEN_KEY, EXISTING), 1, False),
    ],
)
def test_frames_that_a_packet_of_vp9_shows_are_counted(packet: bytes, shown: int, key: bool) -> None:
    found = read_vp9(packet)
    assert (found.number, found.key) == (shown, key)


@pytest.mark.parametrize(
    ("payloads", "shown", "key"),
    [
        ((b"\x10",), 1, True),
        ((b"\x00",), 0, False),
        ((b"\x30",), 1, False),
        ((b"\x20", b"\x30"), 1, False),
        ((b"\x80",), 1, False),
        ((b"\x10", b"\x30"), 2, True),
    ],
)
def test_frames_that_a_temporal_unit_shows_are_counted(
    payloads: tuple[bytes, ...], shown: int, key: bool
) -> None:
    data = unit(SEQUENCE_HEADER, b"\0\0") + b"".join(unit(FRAME_HEADER, one) for one in payloads)
    found = read_av1(data)
    assert (found.number, found.key, found.sequence) == (shown, key, unit(SEQUENCE_HEADER, b"\0\0"))


@pytest.mark.parametrize(("data", "count"), [(HIDDEN, 0), (superframe(KEY, INTER), 2)])
def test_a_packet_that_does_not_show_one_frame_is_refused(data: bytes, count: int) -> None:
    frames = [CodedFrame(KEY, 0, True), CodedFrame(data, 1, False)]
    with pytest.raises(ValueError, match=f"a packet that shows {count} frames, expected 1"):
        wrap("vp9", frames, b"", (64, 64), RATE, 8)


@pytest.mark.parametrize(
    ("codec", "data", "said"),
    [
        ("vp9", b"", "empty packet"),
        ("vp9", b"\x02", "not of VP9"),
        ("vp9", INTER + b"\xc8\xff\xff\xc8", "ends inside a frame"),
        ("av1", b"\x92\0", "not of AV1"),
        ("av1", b"\x32\x05\0", "ends inside a unit"),
        ("av1", b"\x32\xff", "a length that does not end"),
        ("av1", b"", "shows 0 frames"),
    ],
)
def test_damaged_packets_are_refused_in_one_line(codec: str, data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        wrap(codec, [CodedFrame(data, 0, True)], b"", (64, 64), RATE, 8)


def test_frames_larger_than_ivf_can_say_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 65535 per side"):
        wrap("vp9", [CodedFrame(KEY, 0, True)], b"", (64, 65536), RATE, 8)


def test_frames_that_come_in_another_order_are_refused() -> None:
    frames = [CodedFrame(KEY, 0, True), CodedFrame(INTER, 2, False), CodedFrame(INTER, 1, False)]
    with pytest.raises(ValueError, match="another order"):
        wrap("vp9", frames, b"", (64, 64), RATE, 8)


@pytest.mark.parametrize("cut", [1, 11, 12, 20])
def test_a_chunk_that_is_cut_off_is_refused(cut: int) -> None:
    chunk = struct.pack("<IQ", 10, 0) + bytes(10)
    assert split_ivf(chunk) == [bytes(10)]
    with pytest.raises(ValueError, match=r"ends inside|where"):
        split_ivf(chunk[:cut])
