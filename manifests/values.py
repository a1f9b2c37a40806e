"""How often each value of the arrays of episodes occurs in train, and the quantiles that follow.

    values = merged(counted("action", actions) for actions in episodes)
    quantiles(values, "action", width)     # {"q01": [...], "q10": [...], ...}

Values are counted in fixed bins. A bin is all float32 numbers with the same sign, exponent and first ten bits
of the mantissa. It keeps the count, the least and the greatest of its values. To merge bins is to add and
compare numbers exactly, so the result is the same in any order and grouping. The trade-off: a quantile is
known to within its bin, whose numbers differ by less than 2^-10 of any of them (or by less than 2^-136, where
they are nearer to zero than 2^-126). A bin that holds one number, such as the 0 or the 1 of a gripper, is
exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from oxcart.manifests.columns import ARRAYS
from oxcart.manifests.tables import MOST, VALUES_SCHEMA

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]

PERCENTS = {"q01": 1, "q10": 10, "q50": 50, "q90": 90, "q99": 99}
"""Quantiles of the manifest -> percent of the values that are at most this."""

_DROPPED_BITS = 13
"""Low bits of a float32 that do not tell its bin: 13 of the 23 of the mantissa."""
_BIN_BITS, _COLUMN_BITS = 32 - _DROPPED_BITS, 31
_PENDING = 1 << 20
"""Rows that may wait to be merged; more wait only if the merged table has more rows itself."""


def counted(array: str, values: Floats) -> pa.Table:
    """Count finite values [T, A] of an array.

    Returns:
        a table of `VALUES_SCHEMA`, sorted by array, column and bin; without rows if T is 0.
    """
    flat = np.ascontiguousarray(values, np.float32).ravel() + np.float32(0)  # -0.0 becomes 0.0
    columns = np.tile(np.arange(values.shape[1], dtype=np.int64), len(values))
    keys = _keys(ARRAYS.index(array), columns, flat)
    return _grouped(keys, flat, flat, np.ones(len(flat), np.int64))


def merged(parts: Iterable[pa.Table]) -> pa.Table:
    """Counts of all parts together; their order and grouping change nothing. It holds few parts at a time."""
    total, pending, rows = VALUES_SCHEMA.empty_table(), list[pa.Table](), 0
    for part in parts:
        pending.append(part)
        rows += part.num_rows
        if rows > max(_PENDING, total.num_rows):
            total, pending, rows = _merged([total, *pending]), [], 0
    return _merged([total, *pending])


def quantiles(values: pa.Table, array: str, width: int) -> dict[str, list[float]]:
    """Quantiles of each of the `width` columns of an array, all of which must have been counted.

    The quantile of p percent is the smallest value such that at least p percent of the values are not
    greater: `numpy.quantile(..., method="inverted_cdf")`. It is estimated between the least and the greatest
    value of its bin, as if the values of the bin were evenly spaced.
    """
    found: dict[str, list[float]] = {name: [] for name in PERCENTS}
    for least, greatest, count in _columns(values, array, width):
        upto = np.cumsum(count)
        for name, percent in PERCENTS.items():
            i, rank = _bin_at(upto, percent)
            before = rank - 1 - int(upto[i] - count[i])  # values of the bin that come first
            low, high = float(least[i]), float(greatest[i])
            found[name].append(low + (high - low) * (before / max(int(count[i]) - 1, 1)))
    return found


def problem(values: pa.Table, arrays: Mapping[str, Mapping[str, Any] | None]) -> str | None:
    """How a table of values is not one that a compile writes, or contradicts the statistics of its manifest.

    Args:
        values: a table that conforms to `VALUES_SCHEMA`.
        arrays: the entry of each of `ARRAYS` in the manifest.
    """
    least, greatest, count = (values[name].to_numpy() for name in ("least", "greatest", "count"))
    if not set(pc.unique(values["array"]).to_pylist()) <= set(ARRAYS):
        return f"column array: expected only {', '.join(ARRAYS)}"
    if not (np.isfinite(least).all() and np.isfinite(greatest).all()):
        return "holds a value that is NaN or infinite"
    if (least > greatest).any() or (_bins(least) != _bins(greatest)).any():
        return "the least and the greatest value of a row are not those of one bin"
    keys = _keys(_codes(values), values["column"].to_numpy(), least)
    if (np.diff(keys) <= 0).any():
        return "its bins are not sorted, or one has two rows"
    if count.sum(dtype=np.float64) >= MOST:
        return "its counts are impossible numbers"
    stated = {name: entry for name, entry in arrays.items() if entry is not None and entry["statistics"]}
    expected = [_column_key(name, column) for name in stated for column in range(stated[name]["size"])]
    if np.unique(keys >> _BIN_BITS).tolist() != expected:
        return "its columns are not those that have statistics in the manifest"
    for name, entry in stated.items():
        for column, bins in enumerate(_columns(values, name, entry["size"])):
            if wrong := _contradicted(entry["statistics"], column, *bins):
                return f"contradicts {name}.statistics.{wrong} of the manifest"
    return None


def _contradicted(
    stated: Mapping[str, Any], column: int, least: Floats, greatest: Floats, count: Counts
) -> str:
    """Name of the first statistic of a column that its bins contradict; empty if there is none."""
    upto = np.cumsum(count)
    if upto[-1] != stated["count"]:
        return "count"
    bounds = {"min": (least[0], least[0]), "max": (greatest[-1], greatest[-1])}
    for name, percent in PERCENTS.items():
        i, _ = _bin_at(upto, percent)
        bounds[name] = least[i], greatest[i]
    wrong = (name for name, (low, high) in bounds.items() if not low <= stated[name][column] <= high)
    return next((f"{name}[{column}]" for name in wrong), "")


def _bin_at(upto: Counts, percent: int) -> tuple[int, int]:
    """Place of the bin that holds a quantile, and the rank of the quantile among all values, from 1.

    Args:
        upto: number of values of each bin and those before it.
        percent: of the values that are at most the quantile.
    """
    rank = -(-int(upto[-1]) * percent // 100)
    return int(np.searchsorted(upto, rank)), rank


def _columns(values: pa.Table, array: str, width: int) -> Iterator[tuple[Floats, Floats, Counts]]:
    """Least, greatest and count of the bins of each column of an array, in the order of their values."""
    mine = values.filter(pc.equal(values["array"], array))
    bounds = np.searchsorted(mine["column"].to_numpy(), np.arange(width + 1))
    least, greatest, count = (mine[name].to_numpy() for name in ("least", "greatest", "count"))
    for start, stop in pairwise(bounds.tolist()):
        yield least[start:stop], greatest[start:stop], count[start:stop]


def _merged(parts: Sequence[pa.Table]) -> pa.Table:
    table = pa.concat_tables(parts)
    column, least, greatest, count = (table[name].to_numpy() for name in VALUES_SCHEMA.names[1:])
    return _grouped(_keys(_codes(table), column, least), least, greatest, count)


def _grouped(keys: Counts, least: Floats, greatest: Floats, count: Counts) -> pa.Table:
    """One row for each bin; the rows may have bins in common."""
    order = np.argsort(keys, kind="stable")  # quick where sorted parts follow each other
    keys = keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    places = keys[starts] >> _BIN_BITS
    columns = [
        pa.array(np.array(ARRAYS, object)[places >> _COLUMN_BITS], pa.string()),
        (places & ((1 << _COLUMN_BITS) - 1)).astype(np.int32),
        np.minimum.reduceat(least[order], starts),
        np.maximum.reduceat(greatest[order], starts),
        np.add.reduceat(count[order], starts),
    ]
    return pa.table(columns, schema=VALUES_SCHEMA)


def _codes(values: pa.Table) -> Counts:
    """Place [n] of each row's array in `ARRAYS`."""
    codes: Counts = pc.index_in(values["array"], pa.array(ARRAYS)).to_numpy().astype(np.int64)
    return codes


def _column_key(array: str, column: int) -> int:
    return ARRAYS.index(array) << _COLUMN_BITS | column


def _keys(codes: Counts | int, columns: Counts, values: Floats) -> Counts:
    """Numbers that order rows by array, column and bin, and are equal where all three are."""
    return ((codes << _COLUMN_BITS | columns) << _BIN_BITS) + _bins(values)


def _bins(values: Floats) -> Counts:
    """Bin of each finite value, from 0, in the order of the values."""
    bits = values.view(np.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFF_FFFF)  # negative numbers are stored by their magnitude
    return (ordered.astype(np.int64) >> _DROPPED_BITS) + (1 << (_BIN_BITS - 1))
