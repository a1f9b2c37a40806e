"""Members of codecs `h264` and `hevc`: Annex B byte streams, as a decoder takes them.

A stream is a series of units (NAL), each behind a start code. A packet's units belong to one access unit,
which codes one frame. Here every access unit begins with a delimiter, so that a chunk is divided by looking
for those, and the first of each group holds all parameter sets, so that a chunk decodes alone. MP4 keeps
units behind their lengths, and parameter sets in a header (`avcC`, `hvcC`). The units are the source's.

A group of H.264 begins with an IDR picture. Containers also flag other pictures after which all is shown well
(a recovery point), but frames may still name references from before them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from oxcart.shards.codec import Encoded
from oxcart.shards.video.groups import CodedFrame, group

_START = b"\x00\x00\x00\x01"
_CODES = re.compile(rb"\x00\x00\x01")


class Syntax(NamedTuple):
    """What the units of a codec look like."""

    shift: int
    """Bits of the first byte of a unit below its type."""
    mask: int
    """Largest type."""
    sets: tuple[int, ...]
    """Types of parameter sets, in the order in which they refer to each other."""
    delimiter: bytes
    """An access unit delimiter that allows every type of picture."""
    pictures: frozenset[int]
    """Types of coded pictures."""
    keys: frozenset[int]
    """Types of pictures with which decoding can start."""


SYNTAX = {
    "h264": Syntax(0, 31, (7, 8), b"\x09\xf0", frozenset(range(1, 6)), frozenset({5})),
    "hevc": Syntax(1, 63, (32, 33, 34), b"\x46\x01\x50", frozenset(range(32)), frozenset(range(16, 22))),
}


def wrap_annexb(codec: str, frames: Sequence[CodedFrame], extradata: bytes, most: int) -> Encoded:
    """Store the frames of an episode as an Annex B stream.

    Args:
        codec: `h264` or `hevc`.
        frames: packets in decoding order.
        extradata: what the container says of the whole stream, such as `avcC` or `hvcC`; empty or Annex B
            itself if packets are.
        most: most frames of a group.

    Raises:
        ValueError: a packet is damaged, the frames are in no closed groups, or parameter sets change.
    """
    syntax, (length, known) = SYNTAX[codec], _read_extradata(codec, extradata)
    packets = [_split_packet(frame.data, length) for frame in frames]
    own = [unit for unit in packets[0] if _type(syntax, unit) in syntax.sets] if packets else []
    if {_type(syntax, unit) for unit in own} == set(syntax.sets):
        known = own
    if not {_type(syntax, unit) for unit in known} >= set(syntax.sets):
        raise ValueError("has no parameter sets")
    groups = group(
        [frame._replace(key=_is_key(syntax, units)) for frame, units in zip(frames, packets, strict=True)],
        most,
    )
    left, chunks = iter(packets), []
    for one in groups:
        chunk = _access_unit(syntax, next(left), known, known)
        for units in islice(left, len(one) - 1):
            chunk += _access_unit(syntax, units, known, ())
        chunks.append(b"".join(chunk))
    return Encoded(chunks=chunks, frames=[len(one) for one in groups])


def _is_key(syntax: Syntax, units: Sequence[bytes]) -> bool:
    """Whether a packet holds a picture with which decoding can start.

    Raises:
        ValueError: it holds no picture.
    """
    pictures = {_type(syntax, unit) for unit in units} & syntax.pictures
    if not pictures:
        raise ValueError("has a packet without a picture")
    return pictures <= syntax.keys


def _access_unit(
    syntax: Syntax, units: Sequence[bytes], known: Sequence[bytes], sets: Sequence[bytes]
) -> list[bytes]:
    """A packet as it is stored: start codes and units, with a delimiter and the given parameter sets.

    Raises:
        ValueError: the packet has parameter sets that are not known.
    """
    delimiter, rest = syntax.delimiter, []
    for unit in units:
        kind = _type(syntax, unit)
        if kind == _type(syntax, delimiter):
            delimiter = unit if unit[0] == delimiter[0] else delimiter
        elif kind not in syntax.sets:
            rest.append(unit)
        elif unit not in known:
            raise ValueError("has parameter sets that change within the episode")
    return [part for unit in (delimiter, *sets, *rest) for part in (_START, unit)]


def split_annexb(codec: str, chunk: bytes | memoryview) -> list[bytes]:
    """The access units of a chunk.

    Raises:
        ValueError: the chunk does not begin with an access unit delimiter.
    """
    data = bytes(chunk)
    begin = _START + SYNTAX[codec].delimiter[:1]  # the next byte of HEVC is that of a temporal layer
    if not data.startswith(begin):
        raise ValueError("does not begin with an access unit delimiter")
    return [begin + part for part in data.split(begin)[1:]]


def split_units(data: bytes) -> list[bytes]:
    """The units of an Annex B stream, without start codes and the zeros around them.

    Raises:
        ValueError: the stream does not begin with a start code.
    """
    codes = [one.start() for one in _CODES.finditer(data)]
    if not codes or data[: codes[0]].strip(b"\0"):
        raise ValueError("has a packet without a start code")
    ends = [*codes[1:], len(data)]
    units = [data[code + 3 : end].rstrip(b"\0") for code, end in zip(codes, ends, strict=True)]
    return [unit for unit in units if unit]


def _read_extradata(codec: str, extradata: bytes) -> tuple[int, list[bytes]]:
    """Bytes of the lengths of units (0 in Annex B), and the parameter sets."""
    syntax = SYNTAX[codec]
    if extradata[:1] != b"\x01":
        units = split_units(extradata) if extradata else []
        return 0, [unit for unit in units if _type(syntax, unit) in syntax.sets]
    try:
        if codec == "h264":
            sets, position = _read_sets(extradata, 6, extradata[5] & 31)
            more, _ = _read_sets(extradata, position + 1, extradata[position])
            return (extradata[4] & 3) + 1, sets + more
        sets, position = [], 23
        for _ in range(extradata[22]):
            count = int.from_bytes(extradata[position + 1 : position + 3], "big")
            more, position = _read_sets(extradata, position + 3, count)
            sets += more
        sets = [unit for unit in sets if _type(syntax, unit) in syntax.sets]
        return (extradata[21] & 3) + 1, sorted(sets, key=lambda unit: _type(syntax, unit))
    except IndexError as error:
        raise ValueError("has a damaged header of its stream") from error


def _read_sets(data: bytes, position: int, count: int) -> tuple[list[bytes], int]:
    """Units behind lengths of two bytes, and the position after them."""
    found = []
    for _ in range(count):
        size = int.from_bytes(data[position : position + 2], "big")
        unit = data[position + 2 : position + 2 + size]
        if not size or len(unit) != size:
            raise IndexError
        found.append(unit)
        position += 2 + size
    return found, position


def _split_packet(data: bytes, length: int) -> list[bytes]:
    """The units of a packet, whose lengths take `length` bytes each; 0 in Annex B."""
    if not length:
        return split_units(data)
    position, units = 0, []
    while position < len(data):
        size = int.from_bytes(data[position : position + length], "big")
        position += length
        if not 0 < size <= len(data) - position:
            raise ValueError("has a packet that ends inside a unit")
        units.append(data[position : position + size])
        position += size
    if not units:
        raise ValueError("has an empty packet")
    return units


def _type(syntax: Syntax, unit: bytes) -> int:
    return unit[0] >> syntax.shift & syntax.mask
