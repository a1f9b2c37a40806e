"""Work in progress that a later step believes: each file is the BLAKE3 digest of what follows, and that.

A finished dataset has its digests in its manifest. What a task leaves for the commit has none yet, lies on a
disk or in a bucket for days, and comes back over a network; Parquet takes one turned bit in ten for data.
"""

from __future__ import annotations

from blake3 import blake3

from oxcart.shards.errors import CorruptError
from oxcart.shards.store import Store

_DIGEST = 32
"""Bytes of it."""


def seal(data: bytes) -> bytes:
    """The data behind its digest."""
    return blake3(data).digest() + data


def read_sealed(store: Store, name: str) -> bytes:
    """The data of an object that holds what `seal` returned.

    Raises:
        CorruptError: it is damaged.
        StoreError: it cannot be read.
    """
    found = store.read(name)
    data = found[_DIGEST:]
    if blake3(data).digest() != found[:_DIGEST]:
        raise CorruptError(f"{store.url}/{name}: is damaged, or was on its way; compile again")
    return data
