"""Web video: clips of the videos in a folder, downloaded by yt-dlp or of any other origin (see `files`).

An episode is a clip: a part of one shot, resampled to a declared rate. Its environment is the channel,
because a channel has one kitchen and one style. A video without a channel has an unknown environment, because
another video may show the same place, or the same moment from another side. Every clip carries its licence,
channel and URL. The census decodes each video once, at low resolution, in a process of its own, which may
crash without harm. `read` seeks to the clip's part of the file, and refuses the clip if its packets are not
those that the census saw.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from operator import itemgetter
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64_hexdigest, xxh3_64_intdigest

from oxcart.compile.images import Frame, ImageError, Resize
from oxcart.compile.sources.base import (
    LEFT_OUT,
    OPTIONS,
    Camera,
    CensusRow,
    Film,
    Source,
    SourceConfig,
    SourceEpisode,
    clean,
    refuse_options,
)
from oxcart.compile.sources.kinds import refuse_lerobot
from oxcart.compile.sources.videos.clips import Clip, clips
from oxcart.compile.sources.videos.config import INSTRUCTIONS, VideoConfig
from oxcart.compile.sources.videos.decode import Packet, Reel, VideoError, clip_digest, play
from oxcart.compile.sources.videos.files import (
    INFO,
    SCENES,
    Info,
    Scene,
    info_name,
    is_unfinished,
    is_video,
    read_info,
    read_scenes,
    short_id,
)
from oxcart.compile.sources.videos.isolated import DiedError, Isolated
from oxcart.compile.sources.videos.phash import near_duplicates
from oxcart.compile.sources.videos.survey import Survey, detector_version, survey
from oxcart.manifests.canonical import canonical_json
from oxcart.manifests.columns import ARRAYS
from oxcart.manifests.licence import check_licence
from oxcart.manifests.tables import ATTRIBUTION_SCHEMA
from oxcart.shards.errors import ConfigError, SourceError
from oxcart.shards.store import Store

CAMERA = "video"
VERSION = "1"
_OF_DATASET = ("key", "same_as")
"""Columns of the attribution that depend on the whole dataset."""

BESIDE = Isolated()
"""Process in which videos are decoded for the first time; it starts on first use."""


class VideoSource(Source):
    """The clips of a folder of videos.

    Raises:
        ConfigError: an option belongs to another kind of source, or the folder is part of a LeRobot dataset.
        SourceError: the folder holds no video, or the name of a video is not UTF-8.
    """

    origin = "videos"
    effort = 256
    cameras: tuple[Camera, ...] = (Camera(name=CAMERA, field=CAMERA, role="primary"),)

    def __init__(self, config: SourceConfig) -> None:
        _refuse_others(config)
        self._config = config.video or VideoConfig()
        self._instruction = config.instruction or ()
        self._store = Store(config.url)
        self.remote = self._store.remote
        if not self._store.listable:
            raise ConfigError(f"{config.url}: a web server cannot say which videos it has; copy them first")
        found = self._store.list()
        refuse_lerobot(self._store, found)
        there = set(found)
        self._files = [name for name in found if is_video(name)]
        if not self._files:
            raise SourceError(f"{config.url}: holds no video")
        for name in self._files:
            try:
                name.encode()
            except UnicodeEncodeError:
                raise SourceError(f"{config.url}: the name of {name!r} is not UTF-8; rename it") from None
        self._info = {name: info if (info := info_name(name)) in there else None for name in self._files}
        folders = {name: PurePosixPath(name).parent for name in self._files}
        videos_in = Counter(folders.values())
        self._scenes = {
            name: (table, videos_in[folder] == 1)
            for name, folder in folders.items()
            if (table := str(folder / SCENES)) in there
        }
        beside = {*filter(None, self._info.values()), *(table for table, _ in self._scenes.values())}
        self._sizes = self._store.sizes([*self._files, *sorted(beside)])
        self.name = clean(self._store.folder) or "videos"
        self.version = VERSION
        said = "Frames are sampled at this rate"
        self.control_rate = {"hz": float(self._config.rate), "verified": True, "source": said}
        self.licence = config.licence and check_licence(config.licence)

    def describe(self) -> dict[str, Any]:
        """Everything that determines the census rows and episodes, as plain JSON."""
        return {
            "kind": self.origin,
            "name": self.name,
            "version": self.version,
            "source_splits": [],
            "cameras": {CAMERA: CAMERA},
            "instruction": list(self._instruction),
            "action": [],
            "state": [],
            "reward": [],
            "columns": {name: [] for name in ARRAYS},
            "no_action": [],
            "environment": {"fields": ["channel_id", "uploader_id"]},
            "control_rate": self.control_rate,
            "licence": self.licence,
            "video": {**self._config.describe(), "scenedetect": detector_version()},
        }

    def files(self) -> list[str]:
        """The videos."""
        return list(self._files)

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of the videos and of the files beside them, as of when the source was opened."""
        return dict(self._sizes)

    def census(self, file: str) -> Iterator[CensusRow]:
        """One row per clip and per part that is left out; one row for a video that cannot be read."""
        info = Info(video=info_name(file).removesuffix(INFO))
        try:
            info = read_info(self._store, file, self._info[file])
            if why := self._unwanted(file, info):
                yield self._row(file, info, 0, rejected=why)
                return
            scenes = None
            if file in self._scenes:
                table, alone = self._scenes[file]
                scenes, unwanted = read_scenes(self._store, file, table, alone, info.video, self._config)
                if not scenes:
                    rows = f"has {unwanted} rows, none of them wanted"
                    why = f"{table} {rows if unwanted else 'names none of its frames'}"
                    yield self._row(file, info, 0, rejected=f"{LEFT_OUT}{why}")
                    return
            seen = self._survey(file, scenes)
        except SourceError as error:
            beside = f"{error.file}: " if error.file not in (None, file) else ""
            yield self._row(file, info, 0, rejected=f"{beside}{error.reason}")
            return
        yield from self._rows(file, info, seen)

    def join(self, table: pa.Table) -> pa.Table:
        """Refuse a second file of one id, let a channel have one name, and tie re-uploads together."""
        rows = [{**row, "detail": json.loads(row["detail"])} for row in table.to_pylist()]
        _reject_twins(rows)
        _name_channels(rows)
        if self._config.reuploads:
            _tie_reuploads(rows)
        for row in rows:
            row["detail"].pop("looks", None)
            row["detail"] = canonical_json(row["detail"]).decode()
        return pa.Table.from_pylist(rows, table.schema)

    def attribution(self, census: pa.Table, keys: pa.ChunkedArray) -> pa.Table | None:
        """Authors and licences of the given episodes, one row per key."""
        details = dict(zip(census["key"].to_pylist(), census["detail"].to_pylist(), strict=True))
        rows = [{"key": key, **json.loads(details[key])} for key in keys.to_pylist()]
        return pa.Table.from_pylist(rows, ATTRIBUTION_SCHEMA)

    def read(self, row: Mapping[str, Any]) -> SourceEpisode:
        """Read the clip of a census row; its frames are decoded when it is played."""
        detail = json.loads(row["detail"])
        instructions = {}
        if self._instruction:
            instructions = {self._instruction[0]: [(int(step), text) for step, text in detail["texts"]]}
        return SourceEpisode(
            images={CAMERA: Film(steps=row["steps"], play=partial(self._play, row, detail))},
            action=None,
            state=None,
            instructions=instructions,
            # Not `same_as`: nothing beside an episode depends on which other videos there are.
            attribution={name: detail[name] for name in ATTRIBUTION_SCHEMA.names if name not in _OF_DATASET},
        )

    def _play(self, row: Mapping[str, Any], detail: Mapping[str, Any], frames: Frame, resize: Resize) -> None:
        file, span = row["source_file"], (detail["start"], detail["stop"], detail["gap"])
        try:
            with Reel(self._store, file) as reel:
                play(reel, *span, self._config.rate, resize, frames)
                if _digest(reel.packets, detail) != row["source_digest"]:
                    raise SourceError("has changed since the census", file=file, record=row["source_record"])
        except VideoError as error:
            raise ImageError(str(error)) from error

    def _unwanted(self, file: str, info: Info) -> str | None:
        """Reason why a video is left out before it is decoded; None if it is kept."""
        if is_unfinished(file):
            return "is an unfinished download; run yt-dlp again"
        if info.video in self._config.exclude:
            return f"{LEFT_OUT}its id {info.video} is on the list of those to exclude"
        if not self._config.allows(info.licence):
            return f"{LEFT_OUT}its licence is {info.licence!r}, which --licence does not name"
        return None

    def _survey(self, file: str, scenes: list[Scene] | None) -> Survey:
        if not self._sizes[file]:
            raise SourceError("is empty", file=file)
        try:
            seen = BESIDE.call(survey, self._store, file, self._config, scenes)
        except DiedError as error:
            raise SourceError(f"crashes the decoder, whose process died of {error}", file=file) from error
        except RuntimeError as error:
            raise SourceError(f"cannot be decoded: {error}", file=file) from error
        assert isinstance(seen, Survey)
        return seen

    def _rows(self, file: str, info: Info, seen: Survey) -> Iterator[CensusRow]:
        pts = np.array([one.pts for one in seen.packets], np.int64)
        base = seen.time_base
        for number, clip in enumerate(clips(seen, self._config)):
            inside = [seen.packets[i] for i in np.flatnonzero((pts >= clip.start) & (pts < clip.stop))]
            detail: dict[str, Any] = {
                "start": clip.start,
                "stop": clip.stop,
                "gap": _gap(seen, inside, clip),
                "start_s": round(float(clip.start * base), 6),
                "stop_s": round(float(clip.stop * base), 6),
                "motion": clip.moved,
                "texts": self._texts(info, clip, seen),
                **_about(info),
            }
            looks = [
                [int(one) for one in look]
                for frame, look in seen.looks
                if clip.start <= seen.pts[frame] < clip.stop
            ]
            yield self._row(
                file,
                info,
                number,
                source_offset=max(0, min((one.position for one in inside), default=0)),
                source_length=sum(one.size for one in inside),
                source_digest=_digest(inside, detail),
                steps=clip.steps,
                instructions=tuple(dict.fromkeys(text for _, text in detail["texts"] if text)),
                heights=(seen.height,),
                widths=(seen.width,),
                rejected=clip.rejected,
                detail=canonical_json({**detail, "looks": looks}).decode(),
            )

    def _row(self, file: str, info: Info, number: int, **known: Any) -> CensusRow:
        channel = info.channel_id or info.uploader_id
        values: dict[str, Any] = {
            "key": f"{self.name}-{short_id(info.video)}-{number:04d}",
            "source_split": "",
            "source_file": file,
            "source_record": number,
            "source_offset": 0,
            "source_length": self._sizes[file],
            "source_digest": 0,
            "environment": channel,
            "environment_known": "declared" if channel else "unknown",
            "session": info.video,
            "heights": (0,),
            "widths": (0,),
            "detail": canonical_json(_about(info)).decode(),
            **known,
        }
        duplicate = xxh3_64_intdigest(f"{values['source_digest']} {values['key']}".encode())
        return CensusRow(**values, duplicate=duplicate)

    def _texts(self, info: Info, clip: Clip, seen: Survey) -> list[list[Any]]:
        """(step at which it begins, text), one per change of the text."""
        if not self._instruction:
            return []
        if self._instruction[0] == "title":
            return [[0, info.title]]
        starts = [second for second, _ in info.chapters]
        texts: list[list[Any]] = []
        for step in range(clip.steps):
            second = float(clip.start * seen.time_base + step / self._config.rate)
            at = bisect_right(starts, second) - 1
            text = info.chapters[at][1] if at >= 0 else ""
            if not texts or texts[-1][1] != text:
                texts.append([step, text])
        return texts


def _refuse_others(config: SourceConfig) -> None:
    """Refuse options that say how to read robot data, which have no meaning for videos."""
    others = [option for option in OPTIONS if option != "--instruction"]
    refuse_options(config, others, "videos have none to choose from; leave it out")
    if config.instruction and (len(config.instruction) > 1 or config.instruction[0] not in INSTRUCTIONS):
        raise ConfigError(
            f"--instruction: expected one of {', '.join(INSTRUCTIONS)} for videos, or none; "
            f"got {', '.join(config.instruction)}"
        )


def _gap(seen: Survey, packets: Sequence[Packet], clip: Clip) -> int:
    """Longest gap between frames of a clip, in `pts`; 0 if frames and packets differ in time."""
    low, high = np.searchsorted(seen.pts, [clip.start, clip.stop])
    stamps: list[int] = [*seen.pts[low:high].tolist(), clip.stop]
    if sorted(one.pts for one in packets) != stamps[:-1]:
        return 0
    return max(after - before for before, after in pairwise(stamps))


def _about(info: Info) -> dict[str, Any]:
    """The values shared by all rows of a video."""
    return {name: value for name, value in asdict(info).items() if name != "chapters"}


def _digest(packets: Sequence[Packet], detail: Mapping[str, Any]) -> int:
    """Digest of a clip: its packets and metadata, independent of other videos."""
    said = {name: value for name, value in detail.items() if name not in ("looks", "same_as")}
    of_packets = clip_digest(packets, detail["start"], detail["stop"])
    return xxh3_64_intdigest(of_packets.to_bytes(8, "little") + canonical_json(said))


def _reject_twins(rows: list[dict[str, Any]]) -> None:
    """Keep only the first by name of two files whose clips would have the same keys."""
    first: dict[str, str] = {}
    twins: dict[str, str] = {}
    for row in rows:
        stem = row["key"].rpartition("-")[0]
        if first.setdefault(stem, row["source_file"]) != row["source_file"]:
            twins[row["source_file"]] = first[stem]
    kept = [row for row in rows if row["source_file"] not in twins or row["source_record"] == 0]
    for row in kept:
        if row["source_file"] in twins:
            stem = row["key"].rpartition("-")[0]
            row["key"] = f"{stem}-{xxh3_64_hexdigest(row['source_file'].encode())}"
            row["rejected"] = f"has the id of {twins[row['source_file']]}; keep one of the two"
            row["steps"] = 0
    rows[:] = kept


def _name_channels(rows: list[dict[str, Any]]) -> None:
    """Give videos that name only an `uploader_id` the `channel_id` that other videos have for it."""
    known: dict[str, str] = {}
    for row in rows:
        if row["detail"]["channel_id"] and row["detail"]["uploader_id"]:
            known.setdefault(row["detail"]["uploader_id"], row["detail"]["channel_id"])
    for row in rows:
        if not row["detail"]["channel_id"] and row["detail"]["uploader_id"] in known:
            row["environment"] = known[row["detail"]["uploader_id"]]


def _tie_reuploads(rows: list[dict[str, Any]]) -> None:
    """Give all clips of videos that show the same one `duplicate`, which ties their channels together.

    They also get the id of the first of these videos by name. The hashes of the beginnings of clips come
    first, because copies have their cuts at the same places whenever they begin.
    """
    looks: dict[str, list[tuple[int, list[int]]]] = defaultdict(list)
    for row in rows:
        if row["rejected"] is None:
            looks[row["source_file"]] += enumerate(row["detail"]["looks"])
    same = near_duplicates(
        {
            file: [np.array(look, np.uint64) for _, look in sorted(found, key=itemgetter(0))]
            for file, found in looks.items()
        }
    )
    ids = {row["source_file"]: row["detail"]["video"] for row in rows}
    for row in rows:
        if (first := same.get(row["source_file"])) is not None:
            row["duplicate"] = xxh3_64_intdigest(first.encode())
            row["detail"]["same_as"] = ids[first]
