"""Files of a run: whole or as they were, and named where they cannot be written.

What the system says of a full disk names no file once that is open; a run has a dozen of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from oxcart.shards.errors import StoreError


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Inside the block, whatever the system refuses is of this path.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: write: {error.strerror or error}") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A name to write to, beside `path`, whose place it takes at the end of the block.

    Raises:
        StoreError: it cannot be written; what was there is as it was.
    """
    temporary = path.with_name(f".{path.name}")  # of a killed job, it is overwritten
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def write(path: Path, data: bytes | str) -> None:
    """Write a file, text in UTF-8.

    Raises:
        StoreError: it cannot be written; what was there is as it was.
    """
    with writing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
