"""Parse the features of a record as TFDS does, but without copying encoded images.

    Example   { 1: Features }
    Features  { 1: entry, 1: entry, ... }      a map
    entry     { 1: name, 2: Feature }
    Feature   { 1: BytesList }                 or another list
    BytesList { 1: bytes, 1: bytes, ... }

Nearly all bytes of a record are images, and protobuf copies every image, even those of cameras that nobody
wants. Here the images of the wanted cameras become views of the record, other images are skipped, and TFDS
itself parses the rest, some kilobytes. A record with an unusual encoding, not as TensorFlow and TFDS write
it, is left to TFDS whole. So every value and every error is that of TFDS, except that ragged features that
nobody wants are removed first.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from tensorflow_datasets.core.example_parser import ExampleParserNp
from tensorflow_datasets.proto import tf_example_pb2

_FIRST, _SECOND = 0x0A, 0x12
"""Tags of fields 1 and 2 where they hold bytes or a message."""
_RAGGED = re.compile("(.+)/ragged_(?:row_lengths_[0-9]+|flat_values)", re.DOTALL)
"""Names of the record entries of a ragged feature."""
_MOST = 1 << 31
"""Size at which protobuf refuses a message, in bytes."""


class ExampleParser:
    """Parses the records of one dataset.

    Args:
        specs: path -> TFDS `TensorInfo` of every feature of a record.
        wanted: paths of the features to return.
        images: those of the wanted features that hold one encoded image per step.
    """

    def __init__(self, specs: Mapping[str, Any], wanted: Collection[str], images: Collection[str]) -> None:
        self._tfds = ExampleParserNp({field: specs[field] for field in wanted})
        self._wanted = frozenset(wanted)
        lists = {field for field, spec in specs.items() if _is_list_of_bytes(field, spec)}
        self._lifted = {field.encode(): field for field in lists if field in images or field not in wanted}
        self._images = lists.intersection(images)

    def parse(self, record: memoryview) -> dict[str, Any]:
        """Path -> values of each wanted feature, None if it is missing; images may be views of `record`.

        Raises:
            Exception: any, from TFDS: the record is damaged or does not fit its description.
        """
        try:
            rest, images = self._split(record)
        except (_UnusualError, IndexError):
            rest, images = bytes(record), {}
        return {**self._tfds.parse_example(self._without_ragged(rest)), **images}

    def _split(self, record: memoryview) -> tuple[bytes, dict[str, list[memoryview]]]:
        """The record without the features that TFDS need not parse, and the wanted images."""
        at, end = _inside(record, 0, _FIRST)
        _expect(end == len(record) < _MOST)
        seen: set[bytes] = set()
        rest: list[memoryview] = []
        images: dict[str, list[memoryview]] = {}
        while at < end:
            entry = at
            at, stop = _inside(record, at, _FIRST)
            value, name_end = _inside(record, at, _FIRST)
            name = bytes(record[value:name_end])
            value, value_end = _inside(record, name_end, _SECOND)
            _expect(value_end == stop <= end and name not in seen)
            seen.add(name)
            at = stop
            field = self._lifted.get(name)
            items = None if field is None else _items(record, value, stop)
            if items is None:
                rest.append(record[entry:stop])
            elif field in self._images:
                images[field] = items
        _expect(not any(name.startswith(f"{field}/ragged_".encode()) for field in images for name in seen))
        features = b"".join(rest)
        return _header(len(features)) + features, images

    def _without_ragged(self, record: bytes) -> bytes:
        """The record without ragged features that are not wanted, which TFDS refuses to pass over."""
        if b"/ragged_" not in record:
            return record
        example = tf_example_pb2.Example.FromString(record)
        features = example.features.feature
        for name in list(features):
            found = _RAGGED.fullmatch(name)
            if found and found[1] not in self._wanted:
                del features[name]
        rest: bytes = example.SerializeToString()
        return rest


class _UnusualError(Exception):
    """The record has an unusual encoding."""


def _is_list_of_bytes(field: str, spec: Any) -> bool:
    return spec.np_dtype == np.object_ and tuple(spec.shape) == (None,) and "/ragged_" not in field


def _expect(plain: bool) -> None:
    if not plain:
        raise _UnusualError


def _inside(record: memoryview, at: int, tag: int) -> tuple[int, int]:
    """Offsets at which the content of the field at `at` begins and ends."""
    size = record[at + 1]
    if record[at] != tag:
        raise _UnusualError
    at += 2
    if size > 0x7F:
        size &= 0x7F
        for shift in (7, 14, 21, 28):
            byte = record[at]
            at += 1
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        else:
            raise _UnusualError
    return at, at + size


def _items(record: memoryview, at: int, end: int) -> list[memoryview] | None:
    """The byte strings of a Feature; None unless it is one plain BytesList."""
    items = []
    try:
        at, stop = _inside(record, at, _FIRST)
        _expect(stop == end)
        while at < end:
            start, at = _inside(record, at, _FIRST)
            items.append(record[start:at])
    except (_UnusualError, IndexError):
        return None
    return items if at == end else None


def _header(size: int) -> bytes:
    """Tag and length, in five bytes, of an Example's only field."""
    return bytes([_FIRST, *(size >> shift & 0x7F | 0x80 for shift in (0, 7, 14, 21)), size >> 28])
