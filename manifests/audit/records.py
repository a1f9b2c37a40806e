"""Is any record, file, session, video or channel both in train and held out? Answered from the tables.

An episode that is in two splits, by its key or by its source record, is an exact duplicate. Across two
datasets it is a duplicate only if the bytes are the same, since another dataset may use the same names. A
recording session in two splits fails whatever the images say. Source files count only if a file is a
recording: a TFRecord file is a package into which a builder shuffles episodes, so most of them feed both
splits. Instructions are shared by design, and are counted for information.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow.compute as pc

from oxcart.manifests.audit.episodes import HELD, Audited, names_by_side
from oxcart.manifests.audit.exact import Pair
from oxcart.manifests.audit.result import FAILED, STATUSES, Check, Criterion, count, some
from oxcart.manifests.split import SPLITS, normalise

_STAMP = re.compile(r"\d{4}-?\d\d-?\d\d[_T-]?\d\d[-:]?\d\d(?:[-:]?\d\d)?")
_VIDEO = ("video_id", "video")
_CHANNEL = ("channel_id", "channel", "uploader_id")
_NAMES = ["key", "split", "source_split", "source_file", "source_record", "source_digest"]

Value = tuple[str, str]
"""Identifies an episode: the name of its dataset, and its key or record there."""


class _Member(NamedTuple):
    """An episode identified by a value."""

    dataset: int
    digest: int
    """Digest of the episode's source record."""
    key: str

    def same(self, other: _Member) -> bool:
        """Whether two members with the same name are one episode."""
        return self.dataset == other.dataset or self.digest == other.digest


Name = Callable[[Audited, Mapping[str, Any]], Value]
Shared = Mapping[Value, Mapping[str, Sequence[_Member]]]
"""Values found in several splits -> split -> the episodes there."""


def check_keys(datasets: Sequence[Audited]) -> Check:
    """Check that no key is in two splits, over all datasets together."""
    return _exact(Criterion("keys", "Keys of episodes, across splits"), *_across(datasets, _key), "key")


def check_records(datasets: Sequence[Audited]) -> Check:
    """Check that no source record, by its place in the source or by its bytes, is in two splits."""
    criterion = Criterion("records", "Source records, across splits")
    check = _exact(criterion, *_across(datasets, _place), "source record")
    if check.duplicate:
        return check
    by_bytes = _exact(criterion, *_across(datasets, _bytes), "source record")
    return by_bytes if by_bytes.duplicate else check


def duplicate_pairs(datasets: Sequence[Audited]) -> list[Pair]:
    """Pairs of episodes of two splits that share a key or record; enough pairs to tie all such episodes."""
    found: dict[Pair, None] = {}
    for name in (_key, _place, _bytes):
        for _, by_split in sorted(_across(datasets, name)[1].items()):
            everyone = [(split, member) for split in SPLITS for member in by_split.get(split, ())]
            for split, one in everyone:
                there = (o for o in everyone if o[0] != split and o[1].same(one))
                for other_split, other in itertools.islice(there, 1):
                    sides = [(one.dataset, one.key), (other.dataset, other.key)]
                    if SPLITS.index(split) < SPLITS.index(other_split):
                        sides.reverse()
                    found[Pair(one=sides[0], other=sides[1])] = None
    return list(found)


PACKED = ("rlds", "lerobot")
"""Kinds of sources whose files hold many recordings each."""


def check_files(datasets: Sequence[Audited]) -> Check:
    """Check that no source file that is a recording is both in train and held out."""
    criterion = Criterion("files", "Files of recordings, train against held out")
    packed = [s for s in datasets if s.manifest.dataset.get("kind") in PACKED]
    recordings = [s for s in datasets if s not in packed]
    if not recordings:
        return criterion.unchecked(
            "the files of RLDS and LeRobot mix recordings, so source records are compared instead"
        )
    return _places(criterion, names_by_side(recordings, "source_file"), "source file", seen=True)


def check_sessions(datasets: Sequence[Audited]) -> Check:
    """Check that no recording session is both in train and held out, val_seen included."""
    criterion = Criterion("sessions", "Recording sessions, train against held out")
    sides = names_by_side(datasets, "session")
    if not any(sides.values()):
        return criterion.unchecked("no recording session is known")
    check = _places(criterion, sides, "recording session", seen=True)
    if check.status != "passed":
        return check
    stamps: dict[str, dict[str, str]] = {}
    for split, values in sides.items():
        for _, session in sorted(values):
            for stamp in _STAMP.findall(session):
                stamps.setdefault(stamp, {})["train" if split == "train" else "held out"] = session
    both = [{"time": stamp, **where} for stamp, where in sorted(stamps.items()) if len(where) == 2]
    if both:
        return criterion.suspicious(
            f"{count(len(both), 'session')} of one time under two names: {some([r['time'] for r in both])}",
            both,
        )
    return check


def check_instructions(datasets: Sequence[Audited]) -> Check:
    """Count the held-out instructions that train has too. For information only."""
    criterion = Criterion("instructions", "Instructions, train against held out (information only)")
    texts: dict[str, set[str]] = {"train": set(), "held": set()}
    for split, values in names_by_side(datasets, "instruction").items():
        side = "train" if split == "train" else "held" if split in HELD else None
        if side:
            texts[side] |= {normalise(text) for _, text in values} - {""}
    if not texts["held"]:
        return criterion.unchecked("no episode of val or test has an instruction")
    shared = sorted(texts["held"] & texts["train"])
    return criterion.passed(
        f"{len(shared):,} of {count(len(texts['held']), 'instruction')} held out are in train too",
        [{"instruction": text} for text in shared],
    )


def check_videos(datasets: Sequence[Audited]) -> Check:
    """Check, for episodes from videos, that no video or channel is both in train and held out."""
    criterion = Criterion("videos", "Videos and channels, train against held out")
    columns = [c for s in datasets for c in (*_VIDEO, *_CHANNEL) if c in s.table.column_names]
    if not columns:
        return criterion.unchecked("no dataset names videos or channels")
    checks = []
    for column in dict.fromkeys(columns):
        having = [s for s in datasets if column in s.table.column_names]
        check = _places(criterion, names_by_side(having, column), column.replace("_", " "), seen=True)
        if check.status == FAILED and column == "channel" and "channel_id" in columns:
            # Two channels may have one name; where they have identifiers, these decide.
            check = criterion.suspicious(check.summary, check.evidence)
        checks.append(check)
    return min(checks, key=lambda check: STATUSES.index(check.status))


def _key(dataset: Audited, row: Mapping[str, Any]) -> Value:
    return dataset.family, row["key"]


def _place(dataset: Audited, row: Mapping[str, Any]) -> Value:
    return dataset.family, f"{row['source_split']} {row['source_file']}, record {row['source_record']}"


def _bytes(dataset: Audited, row: Mapping[str, Any]) -> Value:
    return "any", f"record of bytes {row['source_digest']:016x}"


def _rows(datasets: Sequence[Audited]) -> Iterator[tuple[int, Audited, dict[str, Any]]]:
    for index, dataset in enumerate(datasets):
        for batch in dataset.table.select(_NAMES).to_batches(max_chunksize=10_000):
            for row in batch.to_pylist():
                yield index, dataset, row


def _across(datasets: Sequence[Audited], name: Name) -> tuple[int, Shared]:
    """The number of values, and the values found in several splits."""
    first: dict[Value, str] = {}
    several: dict[Value, dict[str, list[_Member]]] = {}
    for _, dataset, row in _rows(datasets):
        value = name(dataset, row)
        if first.setdefault(value, row["split"]) != row["split"]:
            several[value] = {}
    for index, dataset, row in _rows(datasets) if several else ():
        value = name(dataset, row)
        if value in several:
            member = _Member(index, row["source_digest"], row["key"])
            several[value].setdefault(row["split"], []).append(member)
    return len(first), several


def _exact(criterion: Criterion, total: int, shared: Shared, what: str) -> Check:
    """Check for an episode in two splits, whichever these are."""
    rows: list[dict[str, Any]] = []
    alike: list[dict[str, Any]] = []
    for value, by_split in sorted(shared.items()):
        for one, other in itertools.combinations([split for split in SPLITS if split in by_split], 2):
            same = any(a.same(b) for a in by_split[one] for b in by_split[other])
            row = {what: value[1], "episode": by_split[one][0].key, "splits": f"{one} and {other}"}
            (rows if same else alike).append(row)
    if rows:
        text = some([row["episode"] for row in rows])
        return criterion.failed(f"{count(len(rows), what)} in two splits: {text}", rows, duplicate=True)
    if alike:
        text = some([row["episode"] for row in alike])
        summary = (
            f"same name, other bytes: {count(len(alike), what)} of several datasets in two splits: {text}"
        )
        return criterion.suspicious(summary, alike)
    return criterion.passed(f"{count(total, what)}, none in two splits")


def _places(
    criterion: Criterion, sides: Mapping[str, set[tuple[str, str]]], what: str, *, seen: bool
) -> Check:
    """Check for a value in train and held out; with `seen`, val_seen counts as held out too."""
    splits = (*HELD, "val_seen") if seen else HELD
    rows = [
        {what: value, "dataset": family, "splits": f"train and {split}"}
        for split in splits
        for family, value in sorted(sides[split] & sides["train"])
    ]
    held = set().union(*(sides[split] for split in splits))
    if rows:
        return criterion.failed(
            f"{count(len(rows), what)} in train and held out: {some([r[what] for r in rows])}",
            rows,
        )
    if not held:
        return criterion.unchecked(f"no held-out episode has a {what}")
    return criterion.passed(f"{count(len(held), what)} held out, none of them in train")


def unknown(dataset: Audited, split: str | None = None) -> int:
    """Number of episodes of a dataset, or of one of its splits, whose environment is unknown."""
    table = dataset.table
    nameless = pc.is_null(table["environment"])
    if split is not None:
        nameless = pc.and_(nameless, pc.equal(table["split"], split))
    return int(pc.sum(nameless).as_py() or 0)
