"""Meaning of codes: shares of variance, agreement of mean actions, and labels of motions.

The length of a mean of few pairs is too large by itself, so a share of variance sums products of
independent values alone. Functions give NaN where the pairs do not determine a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oxcart.train import statistics
from oxcart.train.statistics import Floats, Ints, Units

SIZES = 4
"""Number of bins of magnitude."""


def standardised(values: Floats, groups: Ints, *, together: bool = False) -> Floats:
    """Values [N, A] less the mean of their group, with each column divided by its deviation.

    Args:
        values: values to scale.
        groups: [N]: group of each row.
        together: whether all columns share one deviation, which keeps directions.

    Returns:
        [N, B]: without the columns that vary in no group.
    """
    found = np.zeros_like(values)
    for group in np.unique(groups):
        mine = groups == group
        centred = values[mine] - values[mine].mean(0)
        deviation = np.sqrt((centred**2).mean(0))
        if together:
            deviation = np.full_like(deviation, np.sqrt((deviation**2).sum()))
        still = deviation < 1e-9
        found[mine] = np.where(still, 0, centred / np.where(still, 1, deviation))
    varies = (found != 0).any(0)
    kept: Floats = found if together else found[:, varies]
    return kept


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Sums of standardised values by episode and token, from which shares of variance follow.

    There are far fewer sums than pairs. Its statistics take rows of it.
    """

    sums: Floats
    """[P, A]: sums of standardised values."""
    counts: Floats
    """[P]: number of pairs in each sum."""
    token: Ints
    """[P]: token of each sum: place and code as one number, below `width`."""
    group: Ints
    """[P]: group of each sum."""
    units: Units
    """[P]: where each sum comes from."""
    apart: Ints
    """[P]: number of what counts as independent in a group; see `tally`."""
    width: int
    """Number of tokens."""
    size: int
    """Number of codes per place."""

    def within(self, rows: Ints) -> float:
        """Share of the variance that the codes of one place tell, given the group; mean over places.

        Products are of values that are `apart` in one group. What any two of them share is subtracted; it is
        below 0, since values are deviations from their mean.
        """
        times = np.bincount(rows, minlength=len(self.counts)).astype(np.float64)
        sums, counts = self.sums * times[:, None], self.counts * times
        place = self.token // self.size
        units, cells = self.apart * self.width + place, self.group * self.width + place
        alike = _shared(*_added(sums, counts, units, cells))
        tokens = self.group * self.width + self.token
        return _shared(*_added(sums, counts, self.apart * self.width + self.token, tokens)) - alike

    def across(self, rows: Ints) -> float:
        """Share of the variance that codes tell by what they mean in other groups; mean over places."""
        times = np.bincount(rows, minlength=len(self.counts)).astype(np.float64)
        cells = self.group * self.width + self.token
        number = int(cells.max(initial=0)) + 1
        counts = np.bincount(cells, self.counts * times, number).astype(np.float64)
        sums: Floats = np.stack([np.bincount(cells, column * times, number) for column in self.sums.T], 1)
        return _shared(sums, counts, np.arange(number) % self.width)


def tally(values: Floats, codes: Ints, size: int, groups: Ints, units: Units) -> Tally:
    """Sums of standardised values [N, A] of pairs with codes [N, n]; each episode is of one group.

    Pairs of different clusters are independent. Where a group is a cluster, those of different episodes are,
    given the group.
    """
    clusters = units.clusters
    whole = len(np.unique(np.stack([groups, clusters], 1), axis=0)) == len(np.unique(groups))
    apart = units.episode if whole else clusters
    places = codes.shape[1]
    width = places * size
    tokens = (np.arange(places) * size + codes).ravel()
    cells, firsts, inverse = np.unique(
        np.repeat(units.episode, places) * width + tokens, return_index=True, return_inverse=True
    )
    columns = [np.bincount(inverse, np.repeat(column, places)) for column in values.T]
    return Tally(
        sums=np.stack(columns, 1),
        counts=np.bincount(inverse).astype(np.float64),
        token=cells % width,
        group=groups[firsts // places],
        units=units[firsts // places],
        apart=apart[firsts // places],
        width=width,
        size=size,
    )


def _added(sums: Floats, counts: Floats, units: Ints, cells: Ints) -> tuple[Floats, Floats, Ints]:
    """Sums, counts and cells of units, added up over the rows of each unit."""
    _, firsts, unit = np.unique(units, return_index=True, return_inverse=True)
    added: Floats = np.stack([np.bincount(unit, column) for column in sums.T], 1)
    return added, np.bincount(unit, counts).astype(np.float64), cells[firsts]


def _shared(sums: Floats, counts: Floats, cells: Ints) -> float:
    """Mean product, per column, of two values of one cell from different units.

    It is the squared length of the common part of a cell's values, without the bias that noise gives to the
    squared length of a mean. Cells are weighted by their rows; NaN where no cell has two units.

    Args:
        sums: [U, A]: sums of the values of one unit in one cell.
        counts: [U]: number of those values.
        cells: [U]: cell of each unit.
    """
    rows = np.bincount(cells, counts)
    products = rows**2 - np.bincount(cells, counts**2)
    there = products > 0.5
    if not there.any():
        return math.nan
    total = sum(np.bincount(cells, column) ** 2 - np.bincount(cells, column**2) for column in sums.T)
    means = np.asarray(total)[there] / products[there]
    return float((rows[there] * means).sum() / rows[there].sum() / sums.shape[1])


def arrows(
    values: Floats, codes: Ints, size: int, groups: Ints
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sums [G, n, K, A] and counts [G, n, K] of values [N, A] for each group, place and code."""
    number, places = int(groups.max(initial=0)) + 1, codes.shape[1]
    cells = ((groups[:, None] * places + np.arange(places)) * size + codes).ravel()
    shape = number, places, size
    total = number * places * size
    counts = np.bincount(cells, minlength=total).astype(np.float64).reshape(shape)
    columns = [np.bincount(cells, np.repeat(column, places), total).reshape(shape) for column in values.T]
    return np.stack(columns, -1), counts


def agreement(sums: Floats, counts: Floats, mine: npt.NDArray[np.bool_] | None = None) -> float:
    """Cosine of each group's arrows with the arrows of the same token in all other groups.

    Tokens are weighted by their rows in the group and by the lengths of both arrows, so that short arrows,
    whose direction is noise, count little. NaN where there is nothing to compare.

    Args:
        sums: [G, n, K, A], of `arrows`.
        counts: [G, n, K], of `arrows`.
        mine: [G]: groups to compare with the rest; None compares each with all others.
    """
    if mine is None:
        others, rest = sums.sum(0) - sums, counts.sum(0) - counts
    else:
        others, rest = sums[~mine].sum(0)[None], counts[~mine].sum(0)[None]
        sums, counts = sums[mine], counts[mine]
    there = (counts > 0) & (rest > 0)
    one = sums / np.where(there, counts, 1)[..., None]
    other = others / np.where(rest > 0, rest, 1)[..., None]
    weights = np.where(there, counts, 0)
    lengths = (weights * np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)).sum()
    return float((weights * (one * other).sum(-1)).sum() / lengths) if lengths > 0 else math.nan


def directions(values: Floats, datasets: Ints) -> Ints:
    """Direction of values [N, A] as `statistics.directions` has it, each dataset by itself."""
    return _by_dataset(statistics.directions, values, datasets)


def magnitudes(values: Floats, datasets: Ints) -> Ints:
    """Bin of the length of values [N, A], 0 to SIZES - 1, by quantiles of their own dataset."""

    def bins(lengths: Floats) -> Ints:
        return np.searchsorted(np.quantile(lengths, np.arange(1, SIZES) / SIZES), lengths, side="right")

    return _by_dataset(bins, np.linalg.norm(values, axis=1), datasets)


def _by_dataset(label: Callable[[Floats], Ints], values: Floats, datasets: Ints) -> Ints:
    found = np.zeros(len(values), np.int64)
    for dataset in np.unique(datasets):
        found[datasets == dataset] = label(values[datasets == dataset])
    return found
