"""Find the samples in which something happens, by annotations of the dataset.

`oxcart annotate motion` writes how much each step differs from the next, as the cameras see it, and `oxcart
annotate action` how far the action of each step moves. The score of a sample is the mean of these values from
its first frame to the step before its last; that of a single frame is the value at its step. A sample is
active if one of its scores reaches its threshold; `Idle` says which idle samples stay nevertheless. All of it
is configuration, so a change needs neither a compile nor a new annotation, and the order of the samples that
remain is a pure function of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.manifests.annotation import ACTION, StoredValues, beside, read_annotation
from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.prefetch import in_threads
from oxcart.train.data.annotations import rows_of
from oxcart.train.data.index import SplitIndex
from oxcart.train.data.workers import own_cores

Int64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BLOCK = 1 << 17
"""Steps that are compared together."""


@dataclass(frozen=True, kw_only=True)
class Idle:
    """Which samples stay although they score less than the threshold.

    Raises:
        ConfigError: a value is out of its range.
    """

    hold: float = 1.0
    """Share of the threshold, 0 to 1, that keeps a sample active which follows an active one."""
    run: int = 1
    """Shortest run of idle samples that is left out; shorter ones stay."""
    ends: bool = False
    """Leave out idle samples only before the first active one of an episode, and after the last."""

    def __post_init__(self) -> None:
        if not isinstance(self.hold, int | float) or not 0 <= self.hold <= 1:
            raise ConfigError(f"idle.hold: expected a share from 0 to 1, got {self.hold!r}")
        if not isinstance(self.run, int) or self.run < 1:
            raise ConfigError(f"idle.run: expected a whole number, at least 1, got {self.run!r}")
        if not isinstance(self.ends, bool):
            raise ConfigError(f"idle.ends: expected True or False, got {self.ends!r}")

    def active(self, scores: Sequence[npt.NDArray[Any]], least: Sequence[float], anchors: Mask) -> Mask:
        """Which anchors of some episodes stay.

        Args:
            scores: arrays [N, T], one for each threshold.
            least: the thresholds.
            anchors: [N, T], the steps that are anchors: one run in each episode, or none.
        """
        length = anchors.shape[1]
        steps = np.arange(length, dtype=np.int16 if length < 1 << 15 else np.int64)
        found = np.zeros_like(anchors)
        for score, threshold in zip(scores, least, strict=True):
            if self.hold == 1:
                found |= anchors & (score >= threshold)
                continue
            began = _last(steps, anchors & (score >= threshold))
            ended = _last(steps, anchors & (score < threshold * self.hold))
            found |= anchors & (began > ended)
        if not self.ends and self.run == 1:
            return found
        before = _last(steps, found)
        after = len(steps) - 1 - _last(steps, found[:, ::-1])[:, ::-1]
        inside = (before >= 0) & (after < len(steps))
        first = anchors.argmax(axis=1)[:, None]
        end = first + anchors.sum(axis=1)[:, None]
        length = np.minimum(after, end) - np.maximum(before, first - 1) - 1
        stays = length < self.run
        kept: Mask = anchors & (found | stays | inside if self.ends else found | stays)
        return kept


def _last(steps: npt.NDArray[Any], mask: Mask) -> npt.NDArray[Any]:
    """The last step of each row, up to each step, at which the mask holds; -1 before the first."""
    found: npt.NDArray[Any] = np.maximum.accumulate(np.where(mask, steps, steps.dtype.type(-1)), axis=1)
    return found


@dataclass(frozen=True, kw_only=True)
class ActiveSteps:
    """The anchors of one dataset that are active."""

    room: Int64
    """[N]: number of active anchors of each episode."""
    starts: Int64
    """[N]: number of each episode's first step among all steps."""
    steps: npt.NDArray[np.int32]
    """[N]: steps of each episode."""
    bits: npt.NDArray[np.uint8]
    """A bit for each step of all episodes: whether it is an active anchor."""
    before: int
    """Number of anchors if there were no thresholds."""
    described: dict[str, dict[str, Any]]
    """`motion`, `action` -> everything that determines the active anchors, as plain JSON."""
    said: str
    """The thresholds in words."""

    def at(self, episodes: Int64, numbers: Int64) -> Int64:
        """The steps with given numbers among the active anchors of their episodes."""
        found = np.empty_like(numbers)
        begins, ends = self.starts[episodes], self.starts[episodes] + self.steps[episodes]
        for i, (begin, end, number) in enumerate(
            zip(begins.tolist(), ends.tolist(), numbers.tolist(), strict=True)
        ):
            bits = np.unpackbits(self.bits[begin // 8 : -(-end // 8)])[begin % 8 :][: end - begin]
            found[i] = np.flatnonzero(bits)[number]
        return found


def open_active(
    index: SplitIndex,
    urls: Sequence[str],
    least: Mapping[str, float],
    idle: Idle,
    first: Int64,
    room: Int64,
    seen: tuple[int, int],
    leave: int,
) -> ActiveSteps | None:
    """The anchors at which samples are active; None, for all, if there is no threshold.

    Args:
        index: episodes of the dataset.
        urls: annotations, of which those of this dataset count; by default those beside it.
        least: `motion`, `action` -> least score, in the annotation's unit.
        idle: which of the other anchors stay.
        first: [N], first anchor of each episode.
        room: [N], number of anchors of each episode.
        seen: first and last step of the frames of a sample, relative to its anchor.
        leave: steps at the end of each episode that `room` leaves out.

    Raises:
        ConfigError: an annotation of the dataset is missing, or it lacks an episode or a step.
    """
    if not least:
        return None
    given = [_open(index, urls, name) for name in least]
    starts = np.cumsum(index.steps, dtype=np.int64) - index.steps
    number = np.zeros(len(index), np.int64)
    flags = np.zeros(int(index.steps.sum(dtype=np.int64)), np.bool_)

    def mark(rows: Int64, length: int) -> None:
        steps = np.arange(length)
        anchors = (steps >= first[rows][:, None]) & (steps < (first[rows] + room[rows])[:, None])
        scores = [one.scores(rows, length, seen) for one in given]
        active = idle.active(scores, list(least.values()), anchors)
        flags[starts[rows][:, None] + steps] = active
        number[rows] = np.count_nonzero(active, axis=1)

    for _ in in_threads(own_cores(), (partial(mark, *block) for block in _blocks(index.steps))):
        pass
    kept = {} if idle == Idle() else asdict(idle)
    if leave:
        kept["leave"] = leave
    return ActiveSteps(
        room=number,
        starts=starts,
        steps=index.steps,
        bits=np.packbits(flags),
        before=int(room.sum()),
        described={one.name: {"at_least": least[one.name], **one.described, **kept} for one in given},
        said=" or ".join(one.said(least[one.name]) for one in given),
    )


@dataclass(frozen=True, kw_only=True)
class _Scores:
    """An annotation of one dataset, ready to score samples."""

    values: npt.NDArray[Any]
    """One value for each step of all episodes of the annotation."""
    begins: Int64
    """[N]: where the values of each episode begin."""
    described: dict[str, Any]
    name: str
    """`motion` or `action`."""
    cameras: tuple[str, ...]
    """Cameras that count; none for actions."""

    def scores(self, rows: Int64, length: int, seen: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Scores [n, T] of samples at every step of some episodes of one length."""
        steps = np.arange(length)
        values = self.values[self.begins[rows][:, None] + steps].astype(np.float64)
        begin, end = (np.clip(steps + step, 0, length - 1) for step in seen)
        if seen[0] == seen[1]:
            single: npt.NDArray[np.float64] = values[:, begin]
            return single
        sums = np.zeros((len(rows), length + 1))
        np.cumsum(values, axis=1, out=sums[:, 1:])
        means: npt.NDArray[np.float64] = (sums[:, end] - sums[:, begin]) / np.maximum(end - begin, 1)
        same = begin == end  # both lie beyond an end
        means[:, same] = values[:, begin[same]]
        return means

    def said(self, least: float) -> str:
        """The threshold in words."""
        if self.name == ACTION:
            return f"those whose action moves by {least:g}"
        who = f"camera {self.cameras[0]} sees" if len(self.cameras) == 1 else f"{', '.join(self.cameras)} see"
        return f"those that move by {least:g} as {who} it"


def _open(index: SplitIndex, urls: Sequence[str], name: str) -> _Scores:
    """The annotation of a dataset by which one threshold goes."""
    manifest, place = index.dataset.manifest, index.dataset.store.url
    remedy = f"run oxcart annotate {name} {place}"
    for url in urls or [beside(place, name)]:
        try:
            found = read_annotation(url)
        except StoreError as error:
            raise ConfigError(f"min_{name}: {url} cannot be read; {remedy}") from error
        if found.dataset == manifest.fingerprint and found.name == name:
            break
    else:
        raise ConfigError(
            f"min_{name}: no annotation belongs to {place} ({manifest.fingerprint[:12]}); {remedy}"
        )
    rows = rows_of(found, index, f"min_{name}: {url}")
    assert isinstance(found.values, StoredValues)
    values, said = found.values.flat, found.parameters
    measured = [str(one) for one in said.get("cameras", [said["camera"]] if "camera" in said else [])]
    read = {one.name for one in index.cameras.values()}
    counts = [one for one in measured if one in read] or measured
    if values.ndim > 1:
        if values.shape[1] != len(measured):
            raise ConfigError(f"min_{name}: {url}: expected one value per step, got {values.shape[1]}")
        values = values[:, [measured.index(one) for one in counts]].max(axis=1)
    several = {"cameras": counts} if len(measured) > 1 else {}
    return _Scores(
        values=values,
        begins=found.values.bounds[rows],
        described={"producer": found.producer, "parameters": dict(said), **several},
        name=name,
        cameras=tuple(counts),
    )


def _blocks(steps: npt.NDArray[np.int32]) -> Iterator[tuple[Int64, int]]:
    """The episodes in blocks of one length, of about `BLOCK` steps together; and that length."""
    order = np.argsort(steps, kind="stable")
    bounds = np.flatnonzero(np.diff(steps[order], prepend=-1, append=-1))
    for begin, end in itertools.pairwise(bounds.tolist()):
        length = int(steps[order[begin]])
        count = max(1, BLOCK // length)
        for i in range(begin, end, count):
            yield order[i : min(i + count, end)], length
