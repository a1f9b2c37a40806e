"""The packets of an MP4 video, from its tables of samples alone: sizes, times, and which are keys.

    ftyp   mdat (packets)   moov                      moov may also come first
                            +- trak (one per stream)
                               +- edts: elst          what is cut off at the beginning
                               +- mdia: mdhd          units of time
                                  +- hdlr             `vide` is video
                                  +- minf: stbl
                                     +- stsd          codec and size of the frames
                                     +- stts, ctts    time from packet to packet, and until each is shown
                                     +- stss          which packets are keys; all are if it is missing
                                     +- stsz          bytes of each packet
                                     +- stsc, stco    packets per chunk, and where chunks begin (or co64)

FFmpeg reads every packet to list them, or opens a decoder at least. Here a file takes two reads of a few
hundred KB, a third if the table is larger. The boxes are those of ISO/IEC 14496-12. Whatever is unusual
(fragments, several edits, several kinds of samples) is left to FFmpeg.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Box = memoryview
"""The content of a box, without its header."""

CODECS = {
    "av01": "av1",
    "vp09": "vp9",
    "avc1": "h264",
    "avc3": "h264",
    "hvc1": "hevc",
    "hev1": "hevc",
}
"""Kind of samples -> FFmpeg's name of the codec; other kinds are left to FFmpeg."""

_EXTRADATA = ("av1C", "avcC", "hvcC")
"""Boxes beside the size of the frames that hold headers of the stream."""
_ENTRY_BYTES = 78
"""Bytes of a description of video before its boxes."""
BLOCK_BYTES = 1 << 18
"""Size of the first reads, in bytes: most tables fit."""
MOST_BYTES = 1 << 28
"""Size limit of `moov`, in bytes."""
MOST_FRAMES = 1 << 24
"""Limit of the number of packets."""
_UNUSUAL = ("stz2", "stps", "sbgp")
"""Boxes beside the tables of samples that change what they mean."""


@dataclass(frozen=True, kw_only=True)
class SampleTable:
    """The packets of a stream of video, in the order of the file, which is that of decoding."""

    pts: Int64
    """When each is shown, [N], in units of `time_base`."""
    sizes: Int64
    """Bytes, [N]."""
    places: Int64
    """Offset of each in the file, [N], in bytes; -1 if the container does not say."""
    keys: npt.NDArray[np.bool_]
    """Which are flagged as key frames, [N]."""
    time_base: Fraction
    """Seconds."""
    codec: str
    extradata: bytes
    """What the file says of the whole stream, such as `av1C`."""
    height: int
    width: int


class UnusualError(Exception):
    """The file is no MP4 of the usual kind; FFmpeg may still read it."""


def read_samples(read: Callable[[int, int], bytes], size: int) -> SampleTable:
    """The packets of the only stream of video of a file.

    Args:
        read: returns the bytes of the file from an offset, so many of them.
        size: bytes of the file.

    Raises:
        UnusualError: see there.
        ValueError: packets lie beyond the end of the file.
    """
    try:
        moov = _find_moov(read, size)
        if "mvex" in moov:
            raise UnusualError("has fragments")
        tracks = [_boxes(box) for box in moov.get("trak", ())]
        shown = [track for track in tracks if bytes(_one(_inside(track, "mdia"), "hdlr")[8:12]) == b"vide"]
        if len(shown) != 1:
            raise UnusualError(f"has {len(shown)} streams of video")
        return _samples(shown[0], _one(moov, "mvhd"), size)
    except (struct.error, IndexError, OverflowError, UnicodeError) as error:
        raise UnusualError(f"has a damaged table: {error}") from error


def _find_moov(read: Callable[[int, int], bytes], size: int) -> Mapping[str, list[Box]]:
    """The boxes of `moov`, which is the first or the last of the large boxes of a file."""
    place = start = 0
    block = read(0, min(size, BLOCK_BYTES))
    while place + 8 <= size:
        if not start <= place <= start + len(block) - min(16, size - place):
            start, block = place, read(place, min(size - place, BLOCK_BYTES))
        header, end, kind = _header(block, place - start)
        length = end - (place - start) if end else size - place
        if kind == "moov":
            if length > min(MOST_BYTES, size - place):
                raise UnusualError(f"has a table of {length:,} bytes")
            inside = place - start, place - start + length
            whole = block[slice(*inside)] if inside[1] <= len(block) else read(place, length)
            return _boxes(memoryview(whole)[header:])
        place += length
    raise UnusualError("has no table of samples")


def _header(data: bytes | Box, at: int) -> tuple[int, int, str]:
    """Length of the header of a box, where the box ends in `data` (0: it is the last), and its type."""
    length, kind = struct.unpack_from(">I4s", data, at)
    header = 8
    if length == 1:
        (length,) = struct.unpack_from(">Q", data, at + 8)
        header = 16
    if length and length < header:
        raise UnusualError(f"has a box of {length} bytes")
    return header, at + length if length else 0, kind.decode("latin-1")


def _boxes(data: Box) -> dict[str, list[Box]]:
    """Type -> contents of the boxes of that type."""
    found: dict[str, list[Box]] = {}
    for kind, box in _each(data):
        found.setdefault(kind, []).append(box)
    return found


def _each(data: Box) -> Iterator[tuple[str, Box]]:
    at = 0
    while at + 8 <= len(data):
        header, end, kind = _header(data, at)
        end = end or len(data)
        if end > len(data):
            raise UnusualError(f"has a box {kind!r} that is longer than the one around it")
        yield kind, data[at + header : end]
        at = end


def _one(boxes: Mapping[str, list[Box]], kind: str) -> Box:
    found = boxes.get(kind, [])
    if len(found) != 1:
        raise UnusualError(f"has {len(found)} boxes {kind!r} in one place")
    return found[0]


def _inside(boxes: Mapping[str, list[Box]], *kinds: str) -> Mapping[str, list[Box]]:
    for kind in kinds:
        boxes = _boxes(_one(boxes, kind))
    return boxes


def _samples(track: Mapping[str, list[Box]], mvhd: Box, size: int) -> SampleTable:
    mdia = _inside(track, "mdia")
    stbl = _inside(mdia, "minf", "stbl")
    if any(kind in stbl for kind in _UNUSUAL):
        raise UnusualError("has groups of samples")
    codec, height, width, extradata = _described(_one(stbl, "stsd"))
    sizes = _sizes(_one(stbl, "stsz"), size)
    count = len(sizes)
    if not count:
        raise UnusualError("has no packet")
    places = _places(stbl, sizes)
    ends = places + sizes
    if int(ends.max()) > size:
        beyond = int(np.count_nonzero(ends > size))
        raise ValueError(f"is cut off: {beyond} of its {count} frames lie beyond its {size} bytes")
    gaps = _runs(_one(stbl, "stts"), count)
    if int(gaps.min()) < 0:
        raise UnusualError("goes back in time")
    shown = _before(gaps)
    if "ctts" in stbl:
        shown = shown + _runs(_one(stbl, "ctts"), count)
    timescale = _timescale(_one(mdia, "mdhd"))
    if "edts" in track:
        shown = shown - _cut(_one(_inside(track, "edts"), "elst"), shown, timescale, _timescale(mvhd))
    keys = np.ones(count, np.bool_)
    if "stss" in stbl:
        flagged = _table(_one(stbl, "stss"), ">u4", 1)[:, 0]
        if flagged.size and not 1 <= int(flagged.min()) <= int(flagged.max()) <= count:
            raise UnusualError("has keys that are no packets")
        keys[:] = False
        keys[flagged - 1] = True
    return SampleTable(
        pts=shown,
        sizes=sizes,
        places=places,
        keys=keys,
        time_base=Fraction(1, timescale),
        codec=codec,
        extradata=extradata,
        height=height,
        width=width,
    )


def _described(stsd: Box) -> tuple[str, int, int, bytes]:
    """Codec, height and width of the frames, and what is said of the whole stream."""
    kinds = list(_each(stsd[8:]))
    if len(kinds) != 1 or kinds[0][0] not in CODECS:
        raise UnusualError(f"has samples of {', '.join(kind for kind, _ in kinds) or 'no kind'}")
    kind, entry = kinds[0]
    width, height = struct.unpack_from(">HH", entry, 24)
    if not width or not height:
        raise UnusualError("has frames without a size")
    told = _boxes(entry[_ENTRY_BYTES:])
    extradata = next((bytes(told[one][0]) for one in _EXTRADATA if one in told), b"")
    return CODECS[kind], height, width, extradata


def _sizes(stsz: Box, size: int) -> Int64:
    same, count = struct.unpack_from(">II", stsz, 4)
    if not same:
        return _table(stsz, ">u4", 1, 8)[:, 0]
    if count > min(MOST_FRAMES, size // same):
        raise UnusualError(f"has {count} packets of {same} bytes in {size}")
    return np.full(count, same, np.int64)


def _places(stbl: Mapping[str, list[Box]], sizes: Int64) -> Int64:
    """Offset of each packet in the file: chunks begin somewhere, and their packets follow each other."""
    wide = "co64" in stbl
    chunks = _table(_one(stbl, "co64" if wide else "stco"), ">u8" if wide else ">u4", 1)[:, 0]
    runs = _table(_one(stbl, "stsc"), ">u4", 3)
    firsts = np.append(runs[:, 0] - 1, len(chunks))
    repeats = np.diff(firsts)
    if not len(runs) or firsts[0] or (repeats < 0).any() or int(repeats @ runs[:, 1]) != len(sizes):
        raise UnusualError("has chunks that do not add up to its packets")
    per_chunk = np.repeat(runs[:, 1], repeats)
    starts, first, filled = _before(sizes), _before(per_chunk), per_chunk > 0
    return starts + np.repeat(chunks[filled] - starts[first[filled]], per_chunk[filled])


def _cut(elst: Box, shown: Int64, timescale: int, movie: int) -> int:
    """Time that an edit takes from all packets; it must show all of them, the first one at 0."""
    wide = bool(elst[0])
    count, length, start, rate = struct.unpack_from(">IQqI" if wide else ">IIiI", elst, 4)
    lasts = int(shown.max()) - start < length * timescale / movie
    if count != 1 or rate != 1 << 16 or start != int(shown.min()) or not lasts:
        raise UnusualError("has edits")
    return int(start)


def _timescale(box: Box) -> int:
    """Units per second of `mdhd` or `mvhd`."""
    (scale,) = struct.unpack_from(">I", box, 20 if box[0] else 12)
    if not scale:
        raise UnusualError("has no unit of time")
    return int(scale)


def _runs(box: Box, count: int) -> Int64:
    """A time per packet, from runs of packets with the same one."""
    runs = _table(box, ">u4", 2)
    repeats = runs[:, 0]
    if int(repeats.sum()) != count:
        raise UnusualError(f"has times of {int(repeats.sum())} packets, and sizes of {count}")
    return np.repeat(runs[:, 1].astype(np.uint32).view(np.int32).astype(np.int64), repeats)


def _before(values: Int64) -> Int64:
    """The sum of all values before each."""
    return np.cumsum(values) - values


def _table(box: Box, kind: str, columns: int, at: int = 4) -> Int64:
    """The rows of a table that begins with their number, int64 [N, columns]."""
    (rows,) = struct.unpack_from(">I", box, at)
    if len(box) < at + 4 + rows * columns * np.dtype(kind).itemsize:
        raise UnusualError(f"has a table of {rows} rows in {len(box)} bytes")
    values: Any = np.frombuffer(box, kind, rows * columns, at + 4)
    return np.asarray(values.astype(np.int64).reshape(rows, columns))
