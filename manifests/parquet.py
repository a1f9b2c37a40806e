"""Determine how much memory a Parquet file takes, from its own structure, before anything in it is decoded.

A small file can ask for any amount of memory: by one text that a run repeats a million times, by a page of
zeros that a compressor shrank, or by a footer with nothing but columns. The footer states how much there is,
and may lie. So both the footer and the header of every page are read here (Thrift's compact encoding), and
Arrow gets the file only if they agree: the pages fill the space that the footer gives their column, and hold
as many values as it says. A page cannot lie about its size, since a decompressor refuses to write more.

This takes about 10 us per page, a hundredth of the time of decoding. It is stricter than Arrow: it refuses
encrypted files, columns in other files, decimals, and texts coded by their differences (DELTA_BYTE_ARRAY, in
which a few bytes stand for a long text).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

MAGIC = b"PAR1"
VALUES = 250_000
"""Maximum number of values in a footer; reading one takes up to half a kilobyte."""
PAGES = 100_000
"""Maximum number of pages in the columns that are read."""
LEVELS = 16
"""Maximum nesting of Thrift structs and lists, or of columns."""

_WIDTHS = {0: 1, 1: 4, 2: 8, 3: 12, 4: 4, 5: 8}
"""Physical type of fixed width -> bytes of a value in memory."""
_TEXT, _FIXED = 6, 7
_REPEATED = 2
_DECIMAL = 5
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
_DELTA_BYTE_ARRAY = 7
_NUMBERS = (2, 8)
"""Encodings that store values as indices into a dictionary."""
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
"""Codecs that `pyarrow.decompress` knows; texts with other codecs are read as dictionaries."""
_LENGTH = struct.Struct("<I")

Struct = dict[int, Any]
"""Thrift struct: field number -> value."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """Memory taken by the columns to be read."""

    rows: int
    nbytes: int
    """Upper bound of the bytes in memory, with texts as dictionaries."""
    texts: tuple[str, ...]
    """Paths of the columns that hold text."""
    parts: tuple[ColumnTexts, ...]
    """The texts of each of `texts`, in each row group."""


@dataclass(frozen=True, kw_only=True)
class ColumnTexts:
    """The texts of one column in one row group."""

    path: str
    plain: int
    """Bytes in memory of the texts stored in the pages themselves."""
    numbers: int
    """Number of values that are indices into the dictionary."""
    start: int
    """Where the dictionary begins in the file, and its bytes there, as `codec` compressed them; 0 is none."""
    stored: int
    nbytes: int
    entries: int
    codec: int


def weigh(data: bytes, columns: Collection[str] | None = None) -> Weight:
    """Memory that columns of a file take if texts are read as dictionaries.

    Args:
        data: the whole file.
        columns: names of the columns; None selects all. As in Arrow, a name with a dot may also be that of a
            part of a column, and a name selects all columns and parts that begin with it and a dot.

    Raises:
        ValueError: the file is not Parquet, or its footer and its pages do not agree.
    """
    if len(data) < 12 or data[-4:] != MAGIC or data[:4] != MAGIC:
        raise ValueError("does not begin and end with PAR1")
    end = len(data) - 8
    start = end - int.from_bytes(data[end : end + 4], "little")
    if start < 4:
        raise ValueError("its footer is longer than the file")
    reader = _Compact(data[start:end], 0, VALUES)
    try:
        footer = reader.struct()
        leaves = _leaves(footer[2])
        chosen = [columns is None or _selects(columns, leaf.path) for leaf in leaves]
        nbytes, pages, rows = 0, 0, 0
        parts: list[ColumnTexts] = []
        for group in footer[4]:
            rows += group[3]
            if len(group[1]) != len(leaves):
                raise ValueError("a row group has other columns than the schema")
            for leaf, column, wanted in zip(leaves, group[1], chosen, strict=True):
                if wanted:
                    took, walked, part = _weigh_column(data, start, leaf, column, group[3], PAGES - pages)
                    nbytes, pages = nbytes + took, pages + walked
                    if part is not None:
                        parts.append(part)
        if rows != footer[3]:
            raise ValueError(f"says {footer[3]} rows, its row groups {rows}")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError("its footer lacks something, or holds what it should not") from None
    texts = tuple(".".join(one.path) for one in leaves if one.kind == _TEXT)
    return Weight(rows=rows, nbytes=nbytes, texts=texts, parts=tuple(parts))


def _selects(columns: Collection[str], path: tuple[str, ...]) -> bool:
    parts = ".".join(path).split(".")
    return any(".".join(parts[:i]) in columns for i in range(1, len(parts) + 1))


def spelled_out(data: bytes, parts: Iterable[ColumnTexts], most_entries: int) -> dict[str, int]:
    """Path of each text column -> maximum bytes that it takes if it is not read as a dictionary.

    A column whose size cannot be determined is left out.

    Args:
        data: the whole file.
        parts: texts that `weigh` found in it.
        most_entries: maximum number of dictionary entries to examine.
    """
    found: dict[str, int] = {}
    unknown = set()
    for part in parts:
        most_entries -= part.entries
        longest = _longest(data, part) if most_entries >= 0 else None
        if longest is None:
            unknown.add(part.path)
        else:
            found[part.path] = found.get(part.path, 0) + part.plain + part.numbers * (longest + 4)
    return {path: nbytes for path, nbytes in found.items() if path not in unknown}


def _longest(data: bytes, part: ColumnTexts) -> int | None:
    """Bytes of the longest text in a dictionary; None if it cannot be determined."""
    if not part.numbers:
        return 0
    stored: bytes | pa.Buffer = data[part.start : part.start + part.stored]
    try:
        if part.codec:
            stored = pa.decompress(stored, part.nbytes, codec=_CODECS[part.codec])
        page = memoryview(stored).cast("B")
        stride = len(page) // max(part.entries, 1)
        if stride >= 4 and stride * part.entries == len(page):  # as keys and digests, all of one length
            lengths = np.ndarray(part.entries, "<u4", page, strides=(stride,))
            if (lengths == stride - 4).all():
                return stride - 4
        longest = at = 0
        for _ in range(part.entries):
            (length,) = _LENGTH.unpack_from(page, at)
            at += 4 + length
            if length > longest:
                longest = length
    except (KeyError, ValueError, OSError, pa.ArrowException, struct.error):
        return None
    return longest if at <= len(page) else None


@dataclass(frozen=True, kw_only=True)
class _Leaf:
    """A leaf of the schema: a column that holds values."""

    path: tuple[str, ...]
    kind: int
    width: int
    """Bytes of a value in memory; 4 for a text, which is read as an index into a dictionary."""
    repeated: bool
    """Whether a row may hold any number of values."""


def _leaves(schema: list[Struct]) -> list[_Leaf]:
    """The leaves of a schema, whose elements are stored in depth-first order."""
    found: list[_Leaf] = []
    above: list[tuple[int, tuple[str, ...], bool]] = [(1, (), False)]
    """Children to come, path, and whether repeated, of each group that is open."""
    for i, element in enumerate(schema):
        while above and not above[-1][0]:
            above.pop()
        left, path, repeated = above[-1]
        above[-1] = left - 1, path, repeated
        path = (*path, element[4].decode()) if i else ()
        repeated = repeated or element.get(3) == _REPEATED
        children = element.get(5, 0)
        if children:
            above.append((children, path, repeated))
            if len(above) > LEVELS:
                raise ValueError(f"its columns are nested more than {LEVELS} deep")
            continue
        if not path:
            continue  # a table without columns
        if element.get(6) == _DECIMAL or _DECIMAL in element.get(10, {}):
            raise ValueError(f"column {path[0]} holds decimals")
        kind = element[1]
        width = 4 if kind == _TEXT else element[2] if kind == _FIXED else _WIDTHS[kind]
        if width < 0:
            raise ValueError(f"column {path[0]} has values of {width} bytes")
        found.append(_Leaf(path=path, kind=kind, width=width, repeated=repeated))
    if any(left for left, _, _ in above):
        raise ValueError("its schema is cut off")
    return found


def _weigh_column(
    data: bytes, end: int, leaf: _Leaf, column: Struct, rows: int, most_pages: int
) -> tuple[int, int, ColumnTexts | None]:
    """Bytes in memory of one column of a row group, its number of pages, and its texts if it has any."""
    name = leaf.path[0]
    about = column[3]
    values, length, at = about[5], about[7], about[9]
    if 1 in column or about[1] != leaf.kind:
        raise ValueError(f"column {name} is in another file, or of another type than its schema says")
    if not values and not rows:
        return 0, 0, None  # Arrow writes a dictionary alone, and reads none
    if 0 < about.get(11, 0) < at:
        at = about[11]
    if not 4 <= at <= at + length <= end:
        raise ValueError(f"column {name} lies outside the file")
    if rows < 0 or values < rows or (values != rows and not leaf.repeated):
        raise ValueError(f"column {name} has {values} values in {rows} rows")
    end = at + length
    reader = _Compact(data, at, 0)
    held = uncompressed = pages = 0
    plain = numbers = 0
    dictionary = 0, 0, 0, 0
    while reader.at < end:
        pages += 1
        if pages > most_pages:
            raise ValueError(f"has more than {PAGES:,} pages")
        reader.left = 1000
        header = reader.struct()
        size, stored = header[2], header[3]
        if size < 0 or not 0 <= stored <= end - reader.at:
            raise ValueError(f"a page of column {name} lies outside the column")
        place = reader.at
        reader.at += stored
        uncompressed += size
        page = header.get({_DATA_PAGE: 5, _DICTIONARY_PAGE: 7, _DATA_PAGE_V2: 8}.get(header[1], -1))
        if page is None:
            raise ValueError(f"column {name} has a page of an unknown type")
        encoding = page[4 if header[1] == _DATA_PAGE_V2 else 2]
        if header[1] == _DICTIONARY_PAGE:
            dictionary = place, stored, size, page[1]
        else:
            held += page[1]
            if encoding in _NUMBERS:
                numbers += page[1]
            else:
                plain += size + 4 * page[1]
        if encoding == _DELTA_BYTE_ARRAY or page[1] < 0:
            raise ValueError(f"column {name}: texts coded by their differences are not read")
    if held != values:
        raise ValueError(f"column {name} says {values} values, its pages hold {held}")
    flat = values * leaf.width
    nbytes = flat + uncompressed if leaf.kind == _TEXT else max(flat, uncompressed)
    nbytes += 4 * values * leaf.repeated
    if leaf.kind != _TEXT:
        return nbytes, pages, None
    start, stored, size, entries = dictionary
    part = ColumnTexts(
        path=".".join(leaf.path),
        plain=plain,
        numbers=numbers,
        start=start,
        stored=stored,
        nbytes=size,
        entries=entries,
        codec=about[4],
    )
    return nbytes, pages, part


class _Compact:
    """Thrift's compact encoding, read value by value.

    https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md

    Args:
        data: bytes that hold the structure.
        at: offset of its first byte.
        left: values that may be read.
    """

    def __init__(self, data: bytes, at: int, left: int) -> None:
        self.data, self.at, self.left = data, at, left

    def struct(self, depth: int = 0) -> Struct:
        """Read a struct; repeated or unordered fields are refused."""
        found: Struct = {}
        number = 0
        while header := self.data[self.at]:
            self.at += 1
            step = header >> 4
            if not step:
                raise ValueError("its structure has fields that are out of order")
            number += step
            found[number] = self._value(header & 15, depth + 1, header & 15 == 1)
        self.at += 1
        return found

    def _value(self, kind: int, depth: int, truth: bool | None = None) -> Any:
        """Read a value of some kind; a boolean in a field header is passed as `truth`."""
        self.left -= 1
        if self.left < 0 or depth > LEVELS:
            raise ValueError("its structure is too large")
        if kind in (4, 5, 6):
            value = self.data[self.at]
            if value < 128:  # most are, and a call is what takes time
                self.at += 1
            else:
                value = self._varint()
            return (value >> 1) ^ -(value & 1)
        if kind == 8:
            return self._bytes(self._varint())
        if kind == 12:
            return self.struct(depth)
        if kind in (1, 2):
            return self._bytes(1) if truth is None else truth
        if kind in (9, 10):
            header = self.data[self.at]
            self.at += 1
            count, inner = header >> 4, header & 15
            count = self._varint() if count == 15 else count
            return [self._value(inner, depth + 1) for _ in range(count)]
        if kind in (3, 7):
            return self._bytes(1 if kind == 3 else 8)
        raise ValueError("its structure is unknown")

    def _bytes(self, length: int) -> bytes:
        if length > len(self.data) - self.at:
            raise ValueError("its structure is cut off")
        self.at += length
        return self.data[self.at - length : self.at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("its structure holds an impossible number")
