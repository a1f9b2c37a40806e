"""Members of codecs `av1` and `vp9`: IVF files, whose frames are what the source's container calls samples.

    header    DKIF, version, 32, fourcc, width, height, units of time per second, frames, 0    32 bytes
    frame     size of the payload (4 bytes), time (8 bytes), payload                            each

Times count frames from the beginning of the episode. The payload is the source's, but for two things that
other containers leave out and a stream of its own needs: a temporal unit of AV1 begins with a temporal
delimiter, and the first of each group holds the sequence header.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from oxcart.shards.codec import Encoded
from oxcart.shards.video.groups import CodedFrame, group

FOURCC = {"av1": b"AV01", "vp9": b"VP90"}
_FILE, _FRAME = struct.Struct("<4sHH4sHHIIII"), struct.Struct("<IQ")

SEQUENCE_HEADER, FRAME_HEADER, FRAME = 1, 3, 6
"""Types of the units (OBU) of AV1 that are looked at."""
_DELIMITER = b"\x12\x00"


class Headers(NamedTuple):
    """What the headers of a packet say."""

    number: int
    """Frames that it shows."""
    key: bool
    """Whether its first frame is a key frame that is shown at once."""
    sequence: bytes = b""
    """Its sequence header of AV1, if it has one."""


def wrap_ivf(
    codec: str,
    frames: Sequence[CodedFrame],
    extradata: bytes,
    size: tuple[int, int],
    rate: Fraction,
    most: int,
) -> Encoded:
    """Store the frames of an episode as an IVF file.

    Args:
        codec: `av1` or `vp9`.
        frames: packets in decoding order.
        extradata: what the container says of the whole stream, such as `av1C`.
        size: height and width in pixels.
        rate: frames per second.
        most: most frames of a group.

    Raises:
        ValueError: a packet does not show exactly one frame, or the frames are in no closed groups.
    """
    sequence = _sequence_of(extradata) if codec == "av1" else b""
    packets = [read_av1(frame.data) if codec == "av1" else read_vp9(frame.data) for frame in frames]
    for shown in packets:
        if shown.number != 1:
            raise ValueError(f"has a packet that shows {shown.number} frames, expected 1")
    if any(one.pts >= after.pts for one, after in pairwise(frames)):
        raise ValueError(f"codes frames in another order than it shows them, which {codec} cannot")
    groups = group(
        [CodedFrame(frame.data, frame.pts, one.key) for frame, one in zip(frames, packets, strict=True)], most
    )
    number, chunks = 0, []
    for one in groups:
        chunk: list[bytes] = []
        for place, frame in enumerate(one):
            data, before = frame.data, b""
            if codec == "av1":
                sequence = packets[number].sequence or sequence
                before = _DELIMITER
                if place == 0 and not packets[number].sequence:
                    before += sequence
                data = data.removeprefix(_DELIMITER)
            chunk += [_FRAME.pack(len(before) + len(data), number), before, data]
            number += 1
        if codec == "av1" and not sequence:
            raise ValueError("has no sequence header")
        chunks.append(b"".join(chunk))
    header = ivf_header(codec, size, rate, number)
    return Encoded(header=header, chunks=chunks, frames=[len(one) for one in groups])


def ivf_header(codec: str, size: tuple[int, int], rate: Fraction, count: int) -> bytes:
    """The header of an IVF file.

    Raises:
        ValueError: the frames are larger than IVF can say.
    """
    height, width = size
    if max(size) >= 1 << 16:
        raise ValueError(f"has frames of {height}x{width} pixels; IVF holds at most 65535 per side")
    return _FILE.pack(
        b"DKIF", 0, _FILE.size, FOURCC[codec], width, height, rate.numerator, rate.denominator, count, 0
    )


def check_header(header: bytes, codec: str, size: tuple[int, int], count: int) -> None:
    """Compare the header of an IVF file with what it must say; the rate may be any.

    Raises:
        ValueError: it says something else.
    """
    *_, units, per, _, _ = _FILE.unpack(header.ljust(_FILE.size)[: _FILE.size])
    if not per or header != ivf_header(codec, size, Fraction(units, per), count):
        raise ValueError("has a damaged header of its video")


def split_ivf(chunk: bytes | memoryview) -> list[bytes]:
    """The payloads of the frames of a chunk.

    Raises:
        ValueError: the chunk is no series of whole IVF frames.
    """
    view, position, found = memoryview(chunk), 0, []
    while position < len(view):
        if position + _FRAME.size > len(view):
            raise ValueError("ends inside the header of a frame")
        length, _ = _FRAME.unpack_from(view, position)
        position += _FRAME.size
        if not 0 < length <= len(view) - position:
            raise ValueError(f"has a frame of {length} bytes where {len(view) - position} are left")
        found.append(bytes(view[position : position + length]))
        position += length
    return found


def read_av1(unit: bytes) -> Headers:
    """What a temporal unit of AV1 shows.

    Raises:
        ValueError: the bytes are no temporal unit.
    """
    count, key, sequence, still = 0, None, b"", False
    for kind, start, begin, end in _obus(unit):
        first = unit[begin] if begin < end else 0
        if kind == SEQUENCE_HEADER:
            sequence, still = unit[start:end], bool(first & 0x08)
        elif kind in (FRAME_HEADER, FRAME) and begin < end:
            existing = not still and first & 0x80
            shows = still or existing or first & 0x10
            if key is None:
                key = still or (not existing and bool(shows) and not first & 0x60)
            count += bool(shows)
    return Headers(count, bool(key), sequence)


def read_vp9(data: bytes) -> Headers:
    """What a packet of VP9 shows: a frame, or a superframe of several of which one is shown.

    Raises:
        ValueError: the bytes are no packet of VP9.
    """
    count, key = 0, None
    for frame in _vp9_frames(data):
        first = frame[0]
        if first >> 6 != 2:
            raise ValueError("has a packet that is not of VP9")
        bits = int.from_bytes(frame[:2].ljust(2, b"\0"), "big") << (4 + (first & 0x30 == 0x30))
        existing, kind, show = bits & 0x8000, bits & 0x4000, bits & 0x2000
        if key is None:
            key = not existing and not kind and bool(show)
        count += bool(existing or show)
    return Headers(count, bool(key))


def _obus(unit: bytes) -> list[tuple[int, int, int, int]]:
    """Type of each unit (OBU), and where it, its payload and its end are."""
    position, found = 0, []
    while position < len(unit):
        first, start = unit[position], position
        if first & 0x80:
            raise ValueError("has a packet that is not of AV1")
        position += 2 if first & 0x04 else 1
        size = len(unit) - position
        if first & 0x02:
            size, position = _leb128(unit, position)
        if not 0 <= size <= len(unit) - position:
            raise ValueError("has a packet that ends inside a unit")
        found.append((first >> 3 & 15, start, position, position + size))
        position += size
    return found


def _leb128(data: bytes, position: int) -> tuple[int, int]:
    """A number in LEB128, and the position after it."""
    value = shift = 0
    for byte in data[position : position + 8]:
        position += 1
        if byte < 0x80:
            return value | byte << shift, position
        value |= (byte & 0x7F) << shift
        shift += 7
    raise ValueError("has a packet with a length that does not end")


def _sequence_of(extradata: bytes) -> bytes:
    """The sequence header in `av1C`, or in what an encoder gives in its place."""
    units = extradata[4:] if extradata[:1] == b"\x81" else extradata
    return next((units[start:end] for kind, start, _, end in _obus(units) if kind == SEQUENCE_HEADER), b"")


def _vp9_frames(data: bytes) -> list[bytes]:
    """The frames of a packet."""
    if not data:
        raise ValueError("has an empty packet")
    marker = data[-1]
    if marker & 0xE0 != 0xC0:
        return [data]
    width, count = (marker >> 3 & 3) + 1, (marker & 7) + 1
    index = data[-2 - width * count :]
    if len(index) != 2 + width * count or index[0] != marker:
        return [data]
    sizes = [int.from_bytes(index[1 + i * width : 1 + (i + 1) * width], "little") for i in range(count)]
    if sum(sizes) > len(data) - len(index):
        raise ValueError("has a packet that ends inside a frame")
    ends = [sum(sizes[: i + 1]) for i in range(count)]
    return [data[end - one : end] for one, end in zip(sizes, ends, strict=True) if one]
