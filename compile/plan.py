"""The plan: which episode goes to which shard, a pure function of the census and the configuration.

Within a split, episodes are in the order of the sha256 of their keys and are packed into shards of a
budget of uncompressed frame bytes; so the shards of a split, read in sequence, are already shuffled. The
hash of the plan says whether two compiles are the same one.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.features
import pyarrow as pa
import pyarrow.compute as pc

from oxcart.compile.census import Census
from oxcart.compile.images import Resize
from oxcart.compile.sources.base import episode_error
from oxcart.manifests.assign import UNKNOWN, Assignment, SplitEpisode, assign
from oxcart.manifests.canonical import canonical_json, sha256_json
from oxcart.manifests.manifest import FORMAT, MOST_BYTES, NAME, Manifest, encoded_as
from oxcart.manifests.split import SPLITS, SplitRule
from oxcart.manifests.tables import EPISODES, FILE_BYTES, MAX_MEMBER
from oxcart.shards.codec import VIDEO_EXTENSIONS, Encoding
from oxcart.shards.errors import ConfigError
from oxcart.shards.names import make_stem, parse_stem, stem_of

SHARD_BYTES = {"raw": 512 << 20, "zstd": 1 << 30, "jpeg": 3 << 30}
VIDEO_SHARD_BYTES = 16 << 30
"""Codec -> default budget of a shard, in bytes of uncompressed frames; and that of all codecs of videos."""

VIDEO_LIBRARIES = ("av", "libavcodec", "libavformat", "libswscale", "opencv", "scenedetect")
"""Libraries that read videos; only datasets of videos name them."""
SOURCE_LIBRARIES = ("tensorflow-datasets", *VIDEO_LIBRARIES)
"""Libraries that read a source; their results are kept by every transcode."""
VIDEO_ENCODER = "libsvtav1"
"""Encoder of videos, given with the version of PyAV that it came with; only datasets that it made name it."""
PIXEL_LIBRARIES = (*SOURCE_LIBRARIES, VIDEO_ENCODER, "libjpeg", "pillow", "pyspng", "simplejpeg")
"""Libraries that also make frames; their results are kept if no frame is decoded, resized or encoded."""

PACKAGES = (
    "oxcart",
    "numpy",
    "pillow",
    "pyarrow",
    "pyspng",
    "simplejpeg",
    "tensorflow-datasets",
    "zstandard",
)
"""Packages that determine the bytes of any dataset."""

_AT_ONCE = 4096

UNKNOWN_OF = {
    "hdf5": "name an attribute with --environment FIELD, or part of the file's name with --environment "
    "file~REGEX, or use --split-by instruction",
    "lerobot": "pass --environment with a column of the steps or of the table of episodes, "
    "or use --split-by instruction",
    "recordings": "pass environment= to add_episode, or use --split-by instruction",
    "videos": "put a .info.json with a channel_id beside each video, "
    "or use --split-by instruction with --instruction title",
}
"""Kind of source -> remedy if no environment is known, where it differs from the usual one."""
ROW_BYTES, CAMERA_BYTES = 144, 24
"""Measured bytes of an episode in the file of its table, and of each camera after the first."""
ENTRY_BYTES, PLACE_BYTES, COUNTS_BYTES = 460, 88, 140
"""Bytes in the manifest per shard, per environment without its name, and for its counts per split."""

MAX_NAME = 100
"""Maximum length of a member's name, since USTAR divides names only at a "/"."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that, with the source, determine the bytes of a compiled dataset."""

    rule: SplitRule = field(default_factory=SplitRule)
    """How episodes are split."""
    resize: Resize = field(default_factory=Resize)
    """How frames get their size."""
    encoding: Encoding = field(default_factory=Encoding)
    """How frames are stored."""
    encodings: Mapping[str, Encoding] = field(default_factory=dict)
    """Camera -> how its frames are stored, where that differs."""
    shard_size: int | None = None
    """Bytes of uncompressed frames per shard (a single episode may exceed it); None: the codec's default."""
    limit: int | None = None
    """Maximum number of train episodes to compile, first in the order of the sha256 of keys; None for all."""

    def __post_init__(self) -> None:
        if self.shard_size is not None and self.shard_size < 1:
            raise ConfigError(f"shard size: expected at least 1 byte, got {self.shard_size}")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit: expected at least 1 episode, got {self.limit}")

    def encoding_of(self, camera: str) -> Encoding:
        """How the frames of a camera are stored."""
        return self.encodings.get(camera, self.encoding)

    @property
    def shard_bytes(self) -> int:
        """Budget of a shard, in bytes of uncompressed frames."""
        return self.shard_size or SHARD_BYTES.get(self.encoding.codec, VIDEO_SHARD_BYTES)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard to write: one task of the execution."""

    name: str
    """Name with split and number: `train-00000`."""
    split: str
    """Split of all episodes in the shard."""
    rows: pa.Table
    """Census rows of the shard's episodes, in order."""


@dataclass(frozen=True, kw_only=True)
class Extends:
    """The dataset that a plan adds shards to."""

    plan: str
    """Hash of the plan of this dataset."""
    known: int
    """Number of episodes of the source that are already in the dataset."""
    gone: int
    """Number of episodes of the dataset that are no longer in the source."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All shards to write, and the episodes left out."""

    shards: tuple[Shard, ...]
    """All shards in plan order: split by split, then by number."""
    limited: int
    """Number of train episodes beyond the limit."""
    frame_bytes: int
    """Bytes of the uncompressed frames of all shards."""
    assignment: Assignment | None
    """Split of each episode, with the reasons; None for a transcode, whose dataset is already split."""
    pixels: Mapping[str, Any]
    """Settings that shape the frames of all cameras, as in the manifest."""
    encodings: Mapping[str, Encoding]
    """Camera -> how its frames are stored."""
    config: Mapping[str, Any]
    """The remaining configuration, as in the manifest."""
    versions: Mapping[str, str]
    """Versions of the libraries that make the bytes."""
    extends: Extends | None
    """Dataset that the shards are added to; None for a new dataset."""
    hash: str
    """sha256 over pixels, codecs, configuration, versions, and key, shard and digest of every episode."""

    @property
    def base(self) -> str | None:
        """Hash of the plan of the dataset that the shards are added to."""
        return self.extends.plan if self.extends else None


def plan_compile(census: Census, settings: Settings, aliases: Mapping[str, tuple[str, ...]]) -> Plan:
    """Plan a new dataset: split the census, and pack it into shards.

    Args:
        census: census of the source.
        settings: settings that determine the bytes.
        aliases: environments -> other names by which they are known; the rule's own table comes first.

    Raises:
        ConfigError: the split cannot be made, or a key is too long.
        SourceError: no episode can be compiled.
    """
    usable = census.usable
    if not usable.num_rows:
        first = census.table.slice(0, 1).to_pylist()[0]
        raise episode_error(
            f"{first['rejected']}; none of {census.table.num_rows} episodes can be compiled", first
        )
    cameras = list(census.source["cameras"])
    _check_names(usable["key"], cameras)
    rule = with_aliases(settings.rule, aliases)
    unknown = UNKNOWN_OF.get(census.source["kind"], UNKNOWN)
    assignment = assign(rule, census.source["name"], split_episodes(usable), unknown=unknown)
    config = {
        "source": dict(census.source),
        "split": asdict(rule),
        "shard_size": settings.shard_bytes,
        "limit": settings.limit,
    }
    pixels = {"cameras": cameras, **settings.resize.describe()}
    shards, limited = _pack_splits(usable, np.array(assignment.splits), settings)
    _check_sizes(shards, cameras)
    return _plan(shards, limited, assignment, pixels, config, settings, _versions(census, settings))


def plan_extension(
    census: Census,
    rows: pa.Table,
    assignment: Assignment,
    manifest: Manifest,
    settings: Settings,
    extends: Extends,
) -> Plan:
    """Plan the shards to add to a dataset; the plan has no shards if there is nothing to add.

    Args:
        census: census of the source as it is now.
        rows: census rows of the episodes to add.
        assignment: splits of the episodes of the dataset, then of those to add.
        manifest: manifest of the dataset; its pixels and its split rule stay.
        settings: how the dataset's shards are made; the rule and the limit do not count.
        extends: the dataset.

    Raises:
        ConfigError: a key is too long, or an episode does not fit a member.
    """
    shards: list[Shard] = []
    if rows.num_rows:
        cameras = list(census.source["cameras"])
        _check_names(rows["key"], cameras)
        there = sorted(parse_stem(stem_of(shard["name"])) for shard in manifest.shards)
        first = {split: number + 1 for split, number in there}
        splits = np.array(assignment.splits[-rows.num_rows :], np.str_)
        shards, _ = _pack_splits(rows, splits, replace(settings, limit=None), first)
        _check_sizes(shards, cameras, manifest)
    before = manifest.config["source"]["source_splits"]
    both = list(dict.fromkeys([*before, *census.source["source_splits"]]))
    config = {**manifest.config, "source": {**census.source, "source_splits": both}}
    versions = dict(manifest.versions)
    for name, now in _versions(census, settings).items():
        versions[name] = ", ".join(dict.fromkeys([*versions.get(name, now).split(", "), now]))
    return _plan(shards, 0, assignment, dict(manifest.pixels), config, settings, versions, extends)


def plan_transcode(
    census: Census, splits: npt.NDArray[np.str_], manifest: Manifest, settings: Settings
) -> Plan:
    """Plan a dataset that is stored in another way: the same episodes in the same splits.

    Args:
        census: the episodes of the dataset.
        splits: split of each usable episode.
        manifest: manifest of the dataset; its source and its split are kept.
        settings: how frames are to be stored; the rule and the limit do not count.

    Raises:
        ConfigError: an episode does not fit a member.
    """
    resized = settings.resize.size is not None
    pixels = dict(manifest.pixels) | (settings.resize.describe() if resized else {})
    config = dict(manifest.config) | {"shard_size": settings.shard_bytes}
    if remade := resized or any(_reencodes(camera, settings) for camera in manifest.cameras):
        was = encoded_as(manifest.pixels, manifest.cameras)  # the frames may not be the source's any more
        config["transcoded_from"] = [*config.get("transcoded_from", []), was]
    kept = SOURCE_LIBRARIES if remade else PIXEL_LIBRARIES
    names = [camera["name"] for camera in manifest.cameras]
    versions = library_versions() | _encoder_version(names, settings)
    versions |= {name: manifest.versions[name] for name in kept if name in manifest.versions}
    shards, _ = _pack_splits(census.usable, splits, replace(settings, limit=None))
    _check_sizes(shards, names)
    return _plan(shards, census.unlisted, None, pixels, config, settings, versions)


def _reencodes(camera: Mapping[str, Any], settings: Settings) -> bool:
    """Whether a transcode loses or makes pixels of a camera: it decodes or encodes JPEGs or videos.

    Args:
        camera: the camera's entry of the manifest.
        settings: how frames are to be stored.
    """
    encoding = settings.encoding_of(camera["name"])
    exact = ("raw", "zstd")
    both_exact = camera["codec"] in exact and encoding.codec in exact
    return encoding.anew or not (both_exact or camera["codec"] == encoding.codec)


def _pack_splits(
    usable: pa.Table,
    splits: npt.NDArray[np.str_],
    settings: Settings,
    first: Mapping[str, int] | None = None,
) -> tuple[list[Shard], int]:
    """The shards of every split, in plan order, and the number of episodes of train beyond the limit.

    Args:
        usable: census rows of the episodes.
        splits: split of each episode.
        settings: settings that limit how many episodes go into a shard.
        first: split -> number of its first shard, if it is not 0.
    """
    usable = usable.combine_chunks()  # else each `take` below does so for itself
    order = _hash_order(usable["key"])
    sizes = _frame_bytes(usable, settings.resize)
    shards: list[Shard] = []
    limited = 0
    for split in SPLITS:
        chosen = order[splits[order] == split]
        if split == "train" and settings.limit is not None:
            limited = max(0, len(chosen) - settings.limit)
            chosen = chosen[: settings.limit]
        runs = _pack(sizes[chosen], settings.shard_bytes)
        for number, run in enumerate(runs, (first or {}).get(split, 0)):
            rows = usable.take(pa.array(chosen[run]))
            shards.append(Shard(name=make_stem(split, number), split=split, rows=rows))
    return shards, limited


def _plan(
    shards: list[Shard],
    limited: int,
    assignment: Assignment | None,
    pixels: dict[str, Any],
    config: dict[str, Any],
    settings: Settings,
    versions: dict[str, str],
    extends: Extends | None = None,
) -> Plan:
    """A plan of the given shards, with its hash."""
    encodings = {camera: settings.encoding_of(camera) for camera in pixels["cameras"]}
    channels = config["source"].get("channels", {})
    stored = [
        {"name": camera, "channels": channels.get(camera), **encoding.describe()}
        for camera, encoding in encodings.items()
    ]
    what: dict[str, Any] = {"format": FORMAT, "config": config, "versions": versions}
    what["pixels"] = encoded_as(pixels, stored)
    if any(encoding.anew for encoding in encodings.values()):
        what["anew"] = True
    if extends is not None:
        what["extends"] = [extends.plan, extends.known]
    digest = hashlib.sha256(sha256_json(what).encode())
    for shard in shards:
        columns = [shard.rows[name].to_pylist() for name in ("key", "source_digest")]
        digest.update(canonical_json([shard.name, *columns]))
    return Plan(
        shards=tuple(shards),
        limited=limited,
        frame_bytes=sum(int(_frame_bytes(shard.rows, settings.resize).sum()) for shard in shards),
        assignment=assignment,
        pixels=pixels,
        encodings=encodings,
        config=config,
        versions=versions,
        extends=extends,
        hash=digest.hexdigest(),
    )


def _check_names(keys: pa.ChunkedArray, cameras: list[str]) -> None:
    """Refuse keys of episodes whose members would have names that a tar header cannot hold."""
    key = max(keys.to_pylist(), key=len)
    suffix = max(("action.npy", *(f"{camera}.mjpeg" for camera in cameras)), key=len)
    length = len(key) + 1 + len(suffix)
    if length > MAX_NAME:
        raise ConfigError(
            f"member {key}.{suffix}: {length} characters, a tar header holds {MAX_NAME}; "
            "the dataset's or the camera's name is too long"
        )


def _check_sizes(shards: list[Shard], cameras: list[str], base: Manifest | None = None) -> None:
    """Refuse a dataset whose manifest or episode table would be too large to be read again.

    Args:
        shards: shards to write.
        cameras: names of the cameras.
        base: manifest of the dataset that the shards are added to.

    Raises:
        ConfigError: one of the two would be too large, as far as can be told before it is written.
    """
    episodes = sum(shard.rows.num_rows for shard in shards)
    places = {
        (name, shard.split) for shard in shards for name in pc.unique(shard.rows["environment"]).to_pylist()
    }
    entries = len(shards)
    if base is not None:
        episodes += base.counts["compiled"]
        entries += len(base.shards)
        places |= {(one["name"], split) for one in base.environments for split in one["splits"]}
    table = episodes * (ROW_BYTES + CAMERA_BYTES * (len(cameras) - 1))
    if table > FILE_BYTES:
        raise ConfigError(
            f"{episodes:,} episodes: {EPISODES} would have about {table >> 20:,} MiB, "
            f"expected at most {FILE_BYTES >> 20:,}; compile several datasets"
        )
    names = {name for name, _ in places}
    manifest = ENTRY_BYTES * entries + PLACE_BYTES * len(names) + COUNTS_BYTES * len(places)
    manifest += sum(len((name or "").encode()) for name in names)
    if manifest > MOST_BYTES:
        raise ConfigError(
            f"{len(names):,} environments and {entries:,} shards: {NAME} would have about "
            f"{manifest / 2**20:.1f} MiB, expected at most {MOST_BYTES >> 20}; "
            "pass a larger --shard-size, or compile several datasets"
        )


def with_aliases(rule: SplitRule, *tables: Mapping[str, tuple[str, ...]]) -> SplitRule:
    """The rule with more aliases of environments; a rule that splits by something else is unchanged."""
    if rule.by != "environment":
        return rule
    union: dict[str, tuple[str, ...]] = {}
    for table in (*tables, rule.aliases):
        for place, names in table.items():
            union[place] = tuple(dict.fromkeys((*union.get(place, ()), *names)))
    return replace(rule, aliases=union)


def _versions(census: Census, settings: Settings) -> dict[str, str]:
    """Versions of the libraries that make the bytes of a source's episodes."""
    encoder = _encoder_version(census.source["cameras"], settings)
    if census.source["kind"] == "videos":
        from oxcart.compile.sources.videos.survey import video_versions  # decoders are an extra

        return library_versions() | video_versions() | encoder
    if census.source["kind"] == "lerobot":
        from oxcart.compile.sources.videos.decode import decoder_versions  # decoders are an extra

        return library_versions() | decoder_versions() | encoder
    return library_versions() | encoder


def _encoder_version(cameras: Iterable[str], settings: Settings) -> dict[str, str]:
    """The encoder of videos with its version, if frames are encoded with it."""
    encodings = [settings.encoding_of(camera) for camera in cameras]
    if not any(one.anew and one.codec in VIDEO_EXTENSIONS for one in encodings):
        return {}
    import oxcart.shards.video  # noqa: F401  (an extra: here it is missed before anything is written)

    return {VIDEO_ENCODER: f"av {version('av')}"}


def library_versions() -> dict[str, str]:
    """Versions of the libraries that make the bytes of any dataset."""
    jpeg = PIL.features.version("libjpeg_turbo") or PIL.features.version("jpg") or "unknown"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"  # its Unicode tables and its tar headers
    return {"python": python, **{package: version(package) for package in PACKAGES}, "libjpeg": jpeg}


def split_episodes(rows: pa.Table) -> list[SplitEpisode]:
    """The facts about each episode that the split rule uses, from its census row."""
    columns = ("key", "environment", "session", "instructions", "source_split", "duplicate")
    return [
        SplitEpisode(key=k, environment=e, session=s, instructions=tuple(i), source_split=p, duplicate=d)
        for k, e, s, i, p, d in zip(*(rows[name].to_pylist() for name in columns), strict=True)
    ]


def _hash_order(keys: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Positions of the keys, sorted by their sha256; only a few keys at a time become Python objects."""
    digests = np.empty((len(keys), 4), ">u8")
    for start in range(0, len(keys), _AT_ONCE):
        for i, key in enumerate(keys.slice(start, _AT_ONCE).to_pylist(), start):
            digests[i] = np.frombuffer(hashlib.sha256(key.encode()).digest(), ">u8")
    return np.lexsort(digests.T[::-1])


def _frame_bytes(rows: pa.Table, resize: Resize) -> npt.NDArray[np.int64]:
    """Uncompressed bytes of each episode's frames, over all cameras."""
    total = np.zeros(rows.num_rows, np.int64)
    for camera in (name.removesuffix(".height") for name in rows.column_names if name.endswith(".height")):
        height, width = (rows[f"{camera}.{side}"].to_numpy().astype(np.int64) for side in ("height", "width"))
        if resize.size:
            height[:], width[:] = resize.size
        size = 3 * rows["steps"].to_numpy() * height * width
        largest = int(size.argmax())
        if size[largest] >= MAX_MEMBER:
            raise ConfigError(
                f"episode {rows['key'][largest]}: {size[largest] / 2**30:.1f} GiB of frames of camera "
                f"{camera}; a tar member holds less than {MAX_MEMBER >> 30} GiB; pass --size"
            )
        total += size
    return total


def _pack(sizes: npt.NDArray[np.int64], budget: int) -> list[slice]:
    """Runs of episodes that together fit the budget; a single episode that exceeds it is a run of its own."""
    runs, start, used = [], 0, 0
    for i, size in enumerate(sizes.tolist()):
        if i > start and used + size > budget:
            runs.append(slice(start, i))
            start, used = i, 0
        used += size
    if len(sizes):
        runs.append(slice(start, len(sizes)))
    return runs
