"""The errors that oxcart raises on purpose. Everything else that escapes is a bug.

OxcartError
├── ConfigError   (also ValueError)  the user asked for something impossible
├── SourceError                      a source cannot be read
├── CorruptError                     compiled bytes do not match their digest
├── NotFiniteError                   a model returns numbers that are not finite
├── CollapseError                    a model uses few of its codes, and is to stop then
└── StoreError                       a store cannot be reached, read or written

Every message is one line that a person can act on; commands print it and exit non-zero.
"""

from __future__ import annotations

from functools import partial


class OxcartError(Exception):
    """Base of every error that oxcart raises on purpose."""


class ConfigError(OxcartError, ValueError):
    """The user asked for something impossible; the message says argument, expected, got, and the remedy."""


class SourceError(OxcartError):
    """A source cannot be read; the message says the file, the record, the byte offset, and what is wrong.

    Args:
        reason: what is wrong, without the place.
        file: path of the file, relative to the source's directory.
        record: index of the record in the file.
        offset: byte offset in the file.
    """

    def __init__(
        self, reason: str, *, file: str | None = None, record: int | None = None, offset: int | None = None
    ) -> None:
        self.reason, self.file, self.record, self.offset = reason, file, record, offset
        parts = (("", file), ("record ", record), ("byte ", offset))
        place = ", ".join(f"{word}{value}" for word, value in parts if value is not None)
        super().__init__(f"{place}: {reason}" if place else reason)

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the keyword arguments when the error crosses a process boundary."""
        named = partial(SourceError, file=self.file, record=self.record, offset=self.offset)
        return named, (self.reason,)


class CorruptError(OxcartError):
    """Compiled bytes do not match their digest, or a compiled file is not what its format says."""


class NotFiniteError(OxcartError):
    """A model returns NaN or infinity; the message says for which samples."""


class CollapseError(OxcartError):
    """A model uses few of its codes for long; the message says how few, for how long, and the remedy."""


class StoreError(OxcartError):
    """A store cannot be reached, read or written; the message says the URL, the operation, and why."""
