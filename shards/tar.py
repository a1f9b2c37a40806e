"""Write plain USTAR archives whose bytes depend only on the names and contents of their members.

No header holds a time, user, group or host, so equal members give an equal archive. The writer counts and
hashes what passes through it, so the offset of every member and the digest of the archive cost no second
pass.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from blake3 import blake3

from oxcart.shards.errors import ConfigError

BLOCK = 512
"""Size of a header, to whose multiples the data of every member is padded, in bytes."""
SMALL = 64 << 10
"""Average size below which parts are written together, since a copy takes less time than a system call."""
END = bytes(2 * BLOCK)
"""Bytes that end an archive."""


class TarWriter:
    """A writer that appends members to `file`, which it does not close.

    Args:
        file: where to write.
        new_hash: makes the hash of the whole archive: BLAKE3, or xxh3-64 where only damage must be found.
    """

    def __init__(self, file: BinaryIO, new_hash: Callable[[], Any] = blake3) -> None:
        self._file = file
        self._hash = new_hash()
        self.offset = 0
        """Bytes written so far."""

    def add(self, name: str, parts: Sequence[bytes | memoryview]) -> int:
        """Append one member that consists of `parts` end to end, and return the byte offset of its data.

        Raises:
            ConfigError: USTAR cannot hold the name (100 bytes if it has no "/") or the size (8 GiB).
        """
        views = [memoryview(part).cast("B") for part in parts]
        size = sum(len(view) for view in views)
        start = self.offset + BLOCK
        views = [memoryview(_header(name, size)), *views, memoryview(bytes(-size % BLOCK))]
        if size < SMALL * len(parts):
            views = [memoryview(b"".join(views))]
        for view in views:
            self._write(view)
        return start

    def finish(self) -> str:
        """Write the end of the archive, and return the digest of the whole archive, in hex."""
        self._write(END)
        return str(self._hash.hexdigest())

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.offset += len(data)


def _header(name: str, size: int) -> bytes:
    """The header of a plain file, as `tarfile` writes it. It is asked only for names that must be divided."""
    try:
        encoded, digits = name.encode(), b"%011o" % size
        if len(encoded) > tarfile.LENGTH_NAME or len(digits) > _SIZE.stop - _SIZE.start:
            return _standard(name, size)
    except ValueError as error:
        raise ConfigError(
            f"tar member {name!r} of {size} bytes: {error}; shorten names or episodes"
        ) from error
    header = bytearray(_BLANK)
    header[: len(encoded)] = encoded
    header[_SIZE] = digits
    header[_CHECKSUM] = b"%06o" % (_BLANK_SUM + sum(encoded) + sum(digits))
    return bytes(header)


def _standard(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")


_SIZE, _CHECKSUM = slice(124, 135), slice(148, 154)
"""Where a header holds the size and its checksum, the sum of its bytes, in octal digits."""
_BLANK = _standard("", 0)
_BLANK_SUM = int(_BLANK[_CHECKSUM], 8) - sum(_BLANK[_SIZE])
"""Checksum of a header without name and size."""
