"""Which episodes of a split a loader reads: by an expression, by a list of keys, and at most so many."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from oxcart.manifests.canonical import sha256_json
from oxcart.manifests.where import Where
from oxcart.shards.choices import did_you_mean
from oxcart.shards.errors import ConfigError
from oxcart.shards.store import store_of

Int64 = npt.NDArray[np.int64]

MOST_BYTES = 1 << 30
"""Size limit of a file of keys, in bytes."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A choice of episodes; by default all of them.

    Raises:
        ConfigError: the expression is not of its grammar.
    """

    where: Where | None = None
    """Expression over the columns of `episodes.parquet`."""
    file: str | None = None
    """File or URL with a key per line."""
    limit: int | None = None
    """Maximum number of episodes, from the first in plan order."""
    part: tuple[int, int | None] = (0, None)
    """The first of these episodes, and the one after the last; None is the end."""

    @cached_property
    def keys(self) -> pa.Array | None:
        """The keys of the file, none twice; None if there is no file.

        Raises:
            ConfigError: the file has no keys, or is not text.
            StoreError: the file cannot be read.
        """
        if self.file is None:
            return None
        try:
            store, name = store_of(self.file)
            lines = store.read(name, MOST_BYTES).decode().split("\n")
        except UnicodeDecodeError as error:
            raise ConfigError(f"keys: {self.file}: expected a key per line, got no UTF-8 text") from error
        found = list(dict.fromkeys(filter(None, map(str.strip, lines))))
        if not found:
            raise ConfigError(f"keys: {self.file}: expected a key per line, got none")
        return pa.array(found, pa.large_string())

    def rows(self, table: pa.Table, where: str) -> tuple[Int64, list[tuple[str, int]]]:
        """Rows of a table that are chosen, and each step of the choice with the number that it left.

        Args:
            table: the episodes of a split.
            where: the split, for errors.

        Raises:
            ConfigError: a step leaves nothing, or the expression does not fit the table.
        """
        chosen = np.ones(table.num_rows, np.bool_)
        left: list[tuple[str, int]] = []
        if self.where is not None:
            chosen &= pc.fill_null(self.where.holds(table), False).to_numpy(zero_copy_only=False)
            left.append((f"where={self.where.text!r}", int(np.count_nonzero(chosen))))
        if self.keys is not None:
            mine = pc.is_in(pc.cast(table["key"], pa.large_string()), value_set=self.keys)
            chosen &= mine.to_numpy(zero_copy_only=False)
            left.append((f"keys={self.file!r}", int(np.count_nonzero(chosen))))
        rows = np.flatnonzero(chosen)
        if self.limit is not None:
            rows = rows[: self.limit]
            left.append((f"limit={self.limit:,}", len(rows)))
        if self.part != (0, None):
            first, stop = self.part
            rows = rows[first:stop]
            left.append((f"part={first}:{'' if stop is None else stop}", len(rows)))
        for i, (step, count) in enumerate(left):
            if not count:
                before = left[i - 1][1] if i else table.num_rows
                raise ConfigError(f"{step}: leaves none of {before:,} episodes of {where}")
        return rows, left

    def check_known(self, known: list[pa.ChunkedArray]) -> None:
        """Refuse a list with a key that no dataset has, in whatever split.

        Args:
            known: keys of each dataset.

        Raises:
            ConfigError: a key is unknown.
        """
        if self.keys is None:
            return
        lost = self.keys
        for one in known:
            lost = lost.filter(pc.invert(pc.is_in(lost, value_set=pc.cast(one, pa.large_string()))))
        if len(lost):
            names = [key for one in known for key in one.slice(0, 20_000).to_pylist()]
            hint = did_you_mean(lost[0].as_py(), names)
            raise ConfigError(
                f"keys: {self.file}: no dataset has {lost[0].as_py()!r}"
                + (f", nor {len(lost) - 1:,} others" if len(lost) > 1 else "")
                + hint
            )

    def describe(self) -> dict[str, Any]:
        """As plain JSON: part of what decides the order. A limit shows in the number of episodes."""
        found: dict[str, Any] = {"first": self.part[0]} if self.part[0] else {}
        if self.where is not None:
            found["where"] = self.where.text
        if self.keys is not None:
            found["keys"] = sha256_json(sorted(self.keys.to_pylist()))
        return found


ALL = Selection()
