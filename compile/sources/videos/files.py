"""The files of a folder of videos: the videos, yt-dlp's metadata for each, and tables of scenes.

    DIR/
      Flipping a pancake [pancake0001].mkv          a video, in a folder of any depth
      Flipping a pancake [pancake0001].info.json    its metadata; without it, its licence is unknown
      Basketball [hoops000001].mp4.part                an unfinished download: a row of rejected.parquet
      cut/
        long [abcdefghijk].mp4
        scenes.csv                                start_frame,end_frame,label,...: the only clips here

An `info.json` comes from strangers: only a few texts are taken from it, without control characters and of
bounded length. One that is not JSON rejects its video, because the author cannot be determined. This module
imports no decoder, so recognising files stays cheap.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from xxhash import xxh3_64_hexdigest

from oxcart.compile.sources.base import clean
from oxcart.compile.sources.videos.config import UNKNOWN, VideoConfig
from oxcart.shards.errors import SourceError
from oxcart.shards.store import Store

SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".nut", ".ogg", ".ogv", ".ts", ".webm", ".wmv"),
)
UNFINISHED = (".part", ".ytdl", ".temp")
"""Suffixes of unfinished downloads of yt-dlp."""
INFO, SCENES = ".info.json", "scenes.csv"
MAX_INFO = 64 << 20
"""Size limit of an `info.json`, in bytes."""
LONGEST = 300
"""Maximum number of letters of a text taken from an `info.json`."""
LONGEST_ID = 48
"""Maximum number of letters of an id in keys; a longer id is cut and gets a hash."""

_YTDLP_NAME = re.compile(r"\[([^\[\]]+)\]$")
_OF = ("video", "file", "filename", "video_id", "id")
"""Columns of `scenes.csv` that can name the video of a row."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """The metadata of one video."""

    video: str
    """The video's id."""
    title: str = ""
    channel: str | None = None
    """The channel's name."""
    channel_id: str | None = None
    uploader_id: str | None = None
    licence: str = UNKNOWN
    """The licence as the site calls it; `unknown` if the site states none."""
    url: str | None = None
    uploaded: str | None = None
    """Date of the upload, as YYYYMMDD."""
    chapters: tuple[tuple[float, str], ...] = ()
    """(second at which the chapter begins, title) of each chapter."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Frames of a video that belong together, as a row of `scenes.csv` says."""

    start: int
    """Number of the scene's first frame, in the order in which frames are shown."""
    stop: int
    """Number of the first frame after the scene."""


def is_video(name: str) -> bool:
    """Whether a file has the name of a video or of an unfinished download."""
    lower = name.lower()
    return lower.endswith(SUFFIXES) or (lower.endswith(UNFINISHED) and any(s in lower for s in SUFFIXES))


def is_unfinished(name: str) -> bool:
    """Whether yt-dlp has not finished the file."""
    return name.lower().endswith(UNFINISHED)


def info_name(name: str) -> str:
    """Name of the file in which yt-dlp writes the metadata of a video."""
    path = PurePosixPath(name)
    while path.suffix.lower() in (*SUFFIXES, *UNFINISHED):
        path = path.with_suffix("")
    return f"{path}{INFO}"


def read_info(store: Store, name: str, info: str | None) -> Info:
    """Read the metadata of a video.

    Args:
        store: the folder of videos.
        name: name of the video's file.
        info: name of the video's `info.json`; None if there is none.

    Raises:
        SourceError: the `info.json` cannot be understood.
    """
    value: Mapping[str, Any] = {} if info is None else _parse(store, info)

    def text(field: str) -> str | None:
        return _text(value.get(field))

    stem = PurePosixPath(info_name(name).removesuffix(INFO))
    named = _YTDLP_NAME.search(stem.name)
    chapters = value.get("chapters")
    return Info(
        video=text("id") or (_line(named[1]) if named else "") or _line(str(stem)),
        title=text("title") or _line(stem.name[: named.start()] if named else stem.name),
        channel=text("channel") or text("uploader"),
        channel_id=text("channel_id"),
        uploader_id=text("uploader_id"),
        licence=text("license") or UNKNOWN,
        url=text("webpage_url") or text("original_url"),
        uploaded=text("upload_date"),
        chapters=_chapters(chapters) if isinstance(chapters, list) else (),
    )


def short_id(name: str) -> str:
    """An id as used in keys."""
    found = clean(name)
    if len(found) <= LONGEST_ID:
        return found
    return f"{found[: LONGEST_ID - 17]}-{xxh3_64_hexdigest(name.encode())}"


def read_scenes(
    store: Store, name: str, table: str, alone: bool, video: str, config: VideoConfig
) -> tuple[list[Scene], int]:
    """Read the wanted scenes of a video from `scenes.csv`, and count the unwanted ones.

    Args:
        store: the folder of videos.
        name: name of the video's file.
        table: name of the `scenes.csv` beside the video.
        alone: whether the video is the only one in its folder.
        video: the video's id.
        config: configuration that says which rows are wanted.

    Raises:
        SourceError: a row cannot be understood, or scenes overlap.
    """
    try:
        rows = csv.DictReader(io.StringIO(store.read(table).decode("utf-8-sig"), newline=""), strict=True)
        columns = list(rows.fieldnames or ())
        found = list(rows)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"is not a table of scenes: {error}", file=table) from error
    needed = ["start_frame", "end_frame", *(column for column, _ in config.where)]
    if missing := [column for column in needed if column not in columns]:
        raise SourceError(f"has no column {', '.join(missing)}, but {', '.join(columns)}", file=table)
    of = next((column for column in _OF if column in columns), None)
    if of is None and not alone:
        expected = f"expected a column {' or '.join(_OF[:2])} that names the video of each row"
        raise SourceError(f"its folder has several videos; {expected}", file=table)
    names = {name, PurePosixPath(name).name, PurePosixPath(name).stem, video}
    scenes, unwanted = [], 0
    for line, row in enumerate(found, 2):
        if of is not None and row[of] not in names:
            continue
        try:
            scene = Scene(start=int(row["start_frame"]), stop=int(row["end_frame"]))
        except (TypeError, ValueError) as error:
            raise SourceError(f"line {line}: expected two frame numbers", file=table) from error
        if not 0 <= scene.start < scene.stop:
            got = f"got {scene.start} and {scene.stop}"
            raise SourceError(f"line {line}: expected 0 <= start_frame < end_frame, {got}", file=table)
        if all((row[column] or "") in values for column, values in config.where):
            scenes.append(scene)
        else:
            unwanted += 1
    scenes.sort(key=lambda one: (one.start, one.stop))
    for before, after in pairwise(scenes):
        if after.start < before.stop:
            both = " and ".join(f"{one.start} to {one.stop}" for one in (before, after))
            raise SourceError(f"scenes overlap: {both}", file=table)
    return scenes, unwanted


def _parse(store: Store, info: str) -> Mapping[str, Any]:
    if store.size(info) > MAX_INFO:
        raise SourceError(f"has more than {MAX_INFO >> 20} MiB; nobody's description is that long", file=info)
    try:
        value = json.loads(store.read(info))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"is not JSON, so nobody knows whose video it is: {error}", file=info) from error
    if not isinstance(value, dict):
        raise SourceError("is not a JSON object, so nobody knows whose video it is", file=info)
    return value


def _text(value: Any) -> str | None:
    """A value as Unicode text on one line, of bounded length; None if it is empty or not text."""
    if not isinstance(value, str):
        return None
    whole = value[: 8 * LONGEST].encode("utf-8", "replace").decode()
    return _line(whole)[:LONGEST].strip() or None


def _line(text: str) -> str:
    """A text on one line, without control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _chapters(found: Sequence[Any]) -> tuple[tuple[float, str], ...]:
    chapters = []
    for one in found[:10_000]:
        start = one.get("start_time") if isinstance(one, dict) else None
        title = _text(one.get("title")) if isinstance(one, dict) else None
        if isinstance(start, int | float) and not isinstance(start, bool) and 0 <= start < 1e9 and title:
            chapters.append((float(start), title))
    return tuple(sorted(chapters))
