"""Is any record, file, session, video or channel in train and held out as well? From the tables alone.

An episode that stands in two splits, by its key or by its source record, is an exact duplicate. A recording
session in two splits fails whatever the pictures say. Source files count only where a file is a recording:
a TFRecord file is a package into which a builder shuffles episodes, and both splits come out of most of
them. Instructions are shared by design, and are counted for information.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from oxcart.manifests.audit.episodes import HELD, Source, names_by_side
from oxcart.manifests.audit.result import Check, count, failed, passed, some, suspicious, unchecked
from oxcart.manifests.split import SPLITS, normalise

_STAMP = re.compile(r"\d{4}-?\d\d-?\d\d[_T-]?\d\d[-:]?\d\d(?:[-:]?\d\d)?")
_VIDEO = ("video_id", "video")
_CHANNEL = ("channel_id", "channel", "uploader_id")

Owners = Mapping[tuple[str, str], tuple[str, str]]


def check_keys(sources: Sequence[Source]) -> Check:
    """Whether a key stands in two splits of the datasets together."""
    title = "No episode key stands in two splits"
    sides = names_by_side(sources, "key")
    return _exact("keys", title, sides, "key", {value: value for side in sides.values() for value in side})


def check_records(sources: Sequence[Source]) -> Check:
    """Whether a source record, by its place in the source or by its bytes, stands in two splits."""
    title = "No source record is compiled into two splits"
    columns = ["key", "split", "source_split", "source_file", "source_record", "source_digest"]
    owner: dict[tuple[str, str], tuple[str, str]] = {}
    by_place: dict[str, set[tuple[str, str]]] = {split: set() for split in SPLITS}
    by_bytes: dict[str, set[tuple[str, str]]] = {split: set() for split in SPLITS}
    for source in sources:
        for row in source.table.select(columns).to_pylist():
            place = f"{row['source_split']} {row['source_file']}, record {row['source_record']}"
            at, content = (source.family, place), ("any", f"record of bytes {row['source_digest']:016x}")
            for side, value in ((by_place, at), (by_bytes, content)):
                side[row["split"]].add(value)
                owner.setdefault(value, (source.family, row["key"]))
    check = _exact("records", title, by_place, "source record", owner)
    return check if check.duplicate else _exact("records", title, by_bytes, "source record", owner)


def check_files(sources: Sequence[Source]) -> Check:
    """Whether a source file that is a recording stands in train and held out."""
    name, title = "files", "No recording's file is in train and held out"
    packed = [s for s in sources if s.dataset.manifest.dataset.get("kind") == "rlds"]
    recordings = [s for s in sources if s not in packed]
    if not recordings:
        return unchecked(
            name, title, "the files of an RLDS source are packages that mix recordings; records are compared"
        )
    return _places(name, title, names_by_side(recordings, "source_file"), "source file", seen=True)


def check_sessions(sources: Sequence[Source]) -> Check:
    """Whether a recording session stands in train and in anything held out, val_seen included."""
    name, title = "sessions", "No recording session is in train and held out"
    sides = names_by_side(sources, "session")
    if not any(sides.values()):
        return unchecked(name, title, "no recording session is known")
    check = _places(name, title, sides, "recording session", seen=True)
    if check.status != "passed":
        return check
    stamps: dict[str, dict[str, str]] = {}
    for split, values in sides.items():
        for _, session in sorted(values):
            for stamp in _STAMP.findall(session):
                stamps.setdefault(stamp, {})["train" if split == "train" else "held out"] = session
    both = [{"time": stamp, **where} for stamp, where in sorted(stamps.items()) if len(where) == 2]
    if both:
        return suspicious(
            name,
            title,
            f"{count(len(both), 'session')} of one time under two names: {some([r['time'] for r in both])}",
            both,
        )
    return check


def check_instructions(sources: Sequence[Source]) -> Check:
    """How many instructions of what is held out train knows too. Information only."""
    name, title = "instructions", "Instructions that are held out and in train (information only)"
    texts: dict[str, set[str]] = {"train": set(), "held": set()}
    for split, values in names_by_side(sources, "instruction").items():
        side = "train" if split == "train" else "held" if split in HELD else None
        if side:
            texts[side] |= {normalise(text) for _, text in values} - {""}
    if not texts["held"]:
        return unchecked(name, title, "no episode of val or test has an instruction")
    shared = sorted(texts["held"] & texts["train"])
    return passed(
        name,
        title,
        f"{len(shared):,} of {count(len(texts['held']), 'instruction')} held out are in train too",
        [{"instruction": text} for text in shared],
    )


def check_videos(sources: Sequence[Source]) -> Check:
    """Whether a video or a channel stands in train and held out, where episodes come from videos."""
    name, title = "videos", "No video or channel is in train and held out"
    columns = [c for s in sources for c in (*_VIDEO, *_CHANNEL) if c in s.table.column_names]
    if not columns:
        return unchecked(name, title, "no dataset names videos or channels")
    for column in dict.fromkeys(columns):
        having = [s for s in sources if column in s.table.column_names]
        check = _places(name, title, names_by_side(having, column), column.replace("_", " "), seen=True)
        if check.status != "passed":
            return check
    return passed(name, title, "none in both")


def _exact(
    name: str, title: str, sides: Mapping[str, set[tuple[str, str]]], what: str, owner: Owners
) -> Check:
    """An episode in two splits, whichever these are."""
    rows: list[dict[str, Any]] = []
    filled = [split for split in SPLITS if sides[split]]
    for i, one in enumerate(filled):
        for other in filled[i + 1 :]:
            for value in sorted(sides[one] & sides[other]):
                rows.append({what: value[1], "episode": owner[value][1], "splits": f"{one} and {other}"})
    if rows:
        text = some([row["episode"] for row in rows])
        return failed(name, title, f"{count(len(rows), what)} in two splits: {text}", rows, duplicate=True)
    total = sum(len(values) for values in sides.values())
    return passed(name, title, f"{count(total, what)}, none in two splits")


def _places(
    name: str, title: str, sides: Mapping[str, set[tuple[str, str]]], what: str, *, seen: bool
) -> Check:
    """Something in train and in what is held out; `seen` takes val_seen for held out too."""
    splits = (*HELD, "val_seen") if seen else HELD
    rows = [
        {what: value, "dataset": family, "splits": f"train and {split}"}
        for split in splits
        for family, value in sorted(sides[split] & sides["train"])
    ]
    held = set().union(*(sides[split] for split in splits))
    if rows:
        return failed(
            name,
            title,
            f"{count(len(rows), what)} in train and held out: {some([r[what] for r in rows])}",
            rows,
        )
    if not held:
        return unchecked(name, title, f"no episode that is held out has a {what}")
    return passed(name, title, f"{count(len(held), what)} held out, none of them in train")


def rejected(source: Source) -> int:
    """Episodes that were left out of a dataset."""
    return int(source.dataset.manifest.counts["rejected"])


def unknown(source: Source) -> int:
    """Episodes of a dataset whose environment is unknown."""
    return int(pc.sum(pc.is_null(source.table["environment"])).as_py() or 0)
