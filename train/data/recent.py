"""Values that threads read and share, the last ones used of which stay in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

ENTRY_BYTES = 1 << 10
"""Bytes that Python's own objects take at most for each value, besides its data."""


class Sized(Protocol):
    """A value that says how much memory it takes."""

    @property
    def nbytes(self) -> int:
        """Memory of the value's data, in bytes."""


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=Sized)


class Recent(Generic[Key, Value]):
    """Values by key, which any number of threads may use at once.

    Args:
        limit: maximum bytes of all values together; the last value read always stays, however large it is.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._reading: dict[Key, threading.Lock] = {}
        self._lock = threading.Lock()
        self.nbytes = 0
        """Bytes of all values in memory."""

    def get(self, key: Key, read: Callable[[], Value]) -> Value:
        """The value of a key, read by the first thread that asks for it while the others wait."""
        with self._lock:
            found = self._values.get(key)
            if found is not None:
                self._values.move_to_end(key)
                return found
            mine = self._reading.setdefault(key, threading.Lock())
        with mine:
            with self._lock:
                found = self._values.get(key)
            if found is None:
                found = read()
                self._keep(key, found)
        return found

    def _keep(self, key: Key, value: Value) -> None:
        size = value.nbytes + ENTRY_BYTES
        with self._lock:
            self._reading.pop(key, None)
            if key in self._values:  # dropped, and read again by two threads
                return
            while self._values and self.nbytes + size > self._limit:
                self.nbytes -= self._values.popitem(last=False)[1].nbytes + ENTRY_BYTES
            self._values[key] = value
            self.nbytes += size
