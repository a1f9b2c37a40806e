"""Extend a dataset: compile new episodes of its source into new shards, and leave the old shards unchanged.

    config = adopt(CompileConfig(source=SourceConfig(url="bridge_dataset/1.1.0"), out="bridge"), {})
    manifest = execute(prepare(config))    # `oxcart.compile.pipeline.execute`

The census of the grown source is matched with the dataset by the digests of the records, wherever a rebuilt
source has put them. Episodes without a match are new, and are split by the frozen rule
(`oxcart.manifests.frozen`). From then on this is a compile like any other: claimed, resumed, shared out and
committed. The trade-off: the whole source is read again, because only the records identify themselves.

For an episode that is no longer in the source, only the first instruction is known, its duplicates are not,
and it may have become another record. So new episodes are refused if they would go to another split than such
an episode.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from oxcart.compile.census import Census
from oxcart.compile.copying import copying
from oxcart.compile.engines.processes import Progress
from oxcart.compile.images import Resize
from oxcart.compile.pipeline import (
    CompileConfig,
    Prepared,
    check_apart,
    ignore,
    planned,
    refuse_faults,
    take_census,
)
from oxcart.compile.plan import Extends, Settings, plan_extension, split_episodes, with_aliases
from oxcart.compile.sources import open_source, pinned
from oxcart.compile.sources.base import EnvironmentRule, Source, SourceConfig, SuccessRule
from oxcart.compile.sources.videos.config import VideoConfig
from oxcart.compile.workspace import OVERWRITING, check_out
from oxcart.manifests.assign import Assignment, SplitEpisode
from oxcart.manifests.columns import parse_columns
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.frozen import FROZEN_BY, assign_new
from oxcart.manifests.manifest import Manifest
from oxcart.manifests.split import SplitRule, listed_names
from oxcart.manifests.tables import ATTRIBUTION, EPISODES
from oxcart.shards.codec import VIDEO, VIDEO_EXTENSIONS, Encoding
from oxcart.shards.errors import ConfigError
from oxcart.shards.store import Store

Places = npt.NDArray[np.int64]
"""For each row of the census, the row of its episode in the dataset; -1 for a new episode."""

_COLUMNS = ("key", "split", "environment", "session", "instruction", "source_split", "source_digest")


def adopt(config: CompileConfig, given: Mapping[str, Any]) -> CompileConfig:
    """Give a compile the options with which the dataset in its output was compiled.

    Args:
        config: the compile; its settings do not count, and where its source is None the dataset decides.
        given: settings that must hold, by their names in `pixels`, `config` and the split rule of the
            manifest; `prepare` refuses those that the dataset was not compiled with.

    Raises:
        ConfigError: there is no dataset, it cannot be extended, or its source is of another kind.
    """
    manifest = Dataset.open(config.out).manifest
    try:
        _refuse_unfit(manifest, config)
        pixels, rule = manifest.pixels, manifest.config["split"]
        size, fit = given.get("size", pixels.get("size")), given.get("fit", pixels.get("fit") or "stretch")
        settings = Settings(
            rule=SplitRule(**{name: given.get(name, rule[name]) for name in rule}),
            resize=Resize(size=size and (size[0], size[1]), fit=fit),
            encodings={camera["name"]: _adopt_encoding(camera, given) for camera in manifest.cameras},
            shard_size=given.get("shard_size", manifest.config["shard_size"]),
        )
        source = _adopt_source(config.source, manifest.config["source"])
    except ConfigError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise ConfigError(
            f"{config.out}: its manifest does not say how it was compiled: {error!r}"
        ) from error
    return replace(config, source=source, settings=settings)


def prepare(config: CompileConfig, report: Progress = ignore) -> Prepared:
    """Take or read the census, find what is new, split it, and plan its shards; no shards if nothing is new.

    Raises:
        ConfigError: there is no dataset, it cannot be extended or was compiled with other options, or new
            episodes tie names of different splits together.
        SourceError: the source is not complete, or an episode cannot be compiled and `on_error` is `fail`.
    """
    config = replace(config, source=pinned(config.source))
    store = Store(config.out)
    check_apart("source", config.source.url, config.out)
    check_out(store, overwrite=False)
    dataset = Dataset.open(config.out)
    manifest = dataset.manifest
    if store.exists(OVERWRITING):
        raise ConfigError(f"{config.out}: is being overwritten by a compile; finish that one")
    _refuse_unfit(manifest, config)
    store.check_writable()
    source = open_source(config.source)
    _refuse_other(manifest, source, config)
    census = take_census(config, store, source, report)
    before = dataset.table(EPISODES, _COLUMNS)
    matched = _match(census.table, before)
    census, _ = copying(census, source, config.settings)
    census = _renamed(census, before, matched)
    if config.on_error == "fail":
        refuse_faults(census)

    known = matched[matched >= 0]
    gone = pc.is_in(before["source_split"], pc.unique(census.table["source_split"])).to_numpy()
    gone[known] = False
    new = (matched < 0) & census.table["rejected"].is_null().to_numpy()
    rows = census.table.filter(pa.array(new))
    _refuse_excluded(config, dataset)
    _refuse_unknown_names(config, manifest, before, census.table)
    assignment = _assign(config, manifest, source, before, census.table, matched, rows)
    left = before["split"].filter(pa.array(gone))
    _refuse_copies(config, len(known), left, assignment.splits[before.num_rows :])
    extends = Extends(plan=manifest.plan, known=len(known), gone=len(left))
    plan = plan_extension(census, rows, assignment, manifest, config.settings, extends)
    return planned(config, source, census, plan)


def _adopt_encoding(camera: Mapping[str, Any], given: Mapping[str, Any]) -> Encoding:
    """How the frames of a camera are stored: as its entry of the manifest says, unless `given` says more."""
    stored, quality = camera["codec"], camera["quality"]
    video = stored in VIDEO_EXTENSIONS
    copied = video and quality is None
    codec = given.get("codec", stored)
    if codec == VIDEO and copied:
        codec = stored
    return Encoding(
        codec=codec,
        quality=given.get("quality", quality if codec == stored else None),
        anew=video and not copied and codec == stored,
        group=given.get("group", camera["chunk"] if video and codec == stored else None),
    )


def _adopt_source(config: SourceConfig, was: Mapping[str, Any]) -> SourceConfig:
    """How to read the source: as before (`was`), except where `config` says otherwise."""
    if config.kind != was["kind"]:
        raise ConfigError(
            f"{config.url}: expected a source of kind {was['kind']}, as the dataset's is; got {config.kind}"
        )

    def either(one: tuple[str, ...] | None, other: Any) -> tuple[str, ...]:
        return tuple(other) if one is None else one

    config = replace(config, instruction=either(config.instruction, was["instruction"]))
    if config.kind == "videos":
        described, video = VideoConfig.described(was["video"]), config.video or VideoConfig()
        if replace(video, exclude=frozenset()) == VideoConfig():
            video = replace(described, exclude=video.exclude)
        return replace(config, video=video, licence=config.licence or was["licence"])
    if config.kind == "lerobot" and config.catalog is None:
        port = was.get("port") or {"repo_id": None, "dataset": "none"}
        config = replace(config, catalog=port["repo_id"] or port["dataset"])
    cameras = either(config.cameras, was["cameras"].values())
    same = {name: path for name, path in was["cameras"].items() if {name, path} & {*cameras}}
    environment = was["environment"]
    if environment is not None:
        patterns = tuple(environment.get("patterns", ()))
        environment = EnvironmentRule(**{**environment, "patterns": patterns})
    return replace(
        config,
        cameras=cameras,
        roles=config.roles or {path: was["roles"][name] for name, path in same.items() if was["roles"][name]},
        bgr=either(config.bgr, (path for name, path in same.items() if was["channels"][name] == "bgr")),
        licence=config.licence or was["licence"],
        action=either(config.action, was["action"]),
        state=either(config.state, was["state"]),
        reward=either(config.reward, was["reward"]),
        success=config.success or (SuccessRule(**was["success"]) if was["success"] else None),
        environment=config.environment or environment,
        no_action=either(config.no_action, was["no_action"]),
        known_columns={name: parse_columns({"columns": one}) for name, one in was["columns"].items()},
    )


def _refuse_unfit(manifest: Manifest, config: CompileConfig) -> None:
    """Refuse a dataset that is not the whole source as it was compiled."""
    if manifest.config["limit"] is not None or config.settings.limit is not None:
        raise ConfigError(
            f"{config.out}: expected a dataset without --limit, as what it leaves out would seem new; "
            "compile the source without it into another directory"
        )
    if "transcoded_from" in manifest.config:
        raise ConfigError(
            f"{config.out}: its frames were transcoded, so those of new episodes would differ; extend the "
            "dataset that it was transcoded from, and transcode that"
        )


def _refuse_copies(config: CompileConfig, known: int, gone: pa.ChunkedArray, new: Sequence[str]) -> None:
    """Refuse new episodes that could be missing ones in another record, if their splits differ."""
    if not known:
        raise ConfigError(
            f"{config.out}: holds no episode of {config.source.url} as it is now, so all would be new; "
            "expected the source that it was compiled from, with more episodes"
        )
    left, others = set(gone.to_pylist()), set(new)
    if len(left | others) > 1 and left and others:
        raise ConfigError(
            f"{config.out}: {len(gone):,} episodes of {', '.join(sorted(left))} are no longer in the source "
            "as they were, and new episodes, which could be the same with other metadata, would go to "
            f"{', '.join(sorted(others))}; compile the source into another directory"
        )


def _refuse_excluded(config: CompileConfig, dataset: Dataset) -> None:
    """Refuse to exclude videos whose clips are in the dataset, because no shard of it changes."""
    video = config.source.video
    if video is None or not video.exclude or ATTRIBUTION not in dataset.manifest.tables:
        return
    there = set(dataset.table(ATTRIBUTION, ["video"])["video"].to_pylist()) & set(video.exclude)
    if there:
        raise ConfigError(
            f"--exclude-ids: {config.out} holds {', '.join(sorted(there)[:4])}; an extension removes "
            "nothing; compile into another directory"
        )


def _refuse_unknown_names(
    config: CompileConfig, manifest: Manifest, before: pa.Table, census: pa.Table
) -> None:
    """Refuse lists and aliases of unknown environments, because no later extension would know of them."""
    was, wanted = SplitRule(**manifest.config["split"]), config.settings.rule
    if was.by != "environment":
        if wanted.aliases != was.aliases:
            raise ConfigError(
                f"aliases: expected those that {config.out} was split with, as it is split by {was.by}"
            )
        return

    def names(rule: SplitRule) -> set[str]:
        listed = {name for own in listed_names(rule).values() for name in own}
        return listed | {name for one, others in rule.aliases.items() for name in (one, *others)}

    here = set(before["environment"].to_pylist()) | set(census["environment"].to_pylist())
    if unknown := names(wanted) - names(was) - here:
        raise ConfigError(
            f"{', '.join(map(repr, sorted(unknown)[:4]))}: neither {config.out} nor its source has such an "
            "environment; name it once it is there"
        )


def _refuse_other(manifest: Manifest, source: Source, config: CompileConfig) -> None:
    """Refuse options that would make the episodes differ from those of the dataset, and name the options.

    The version of the source, its splits if they are named, the excluded videos and the rows of a table of
    environments may differ.
    """
    settings, was, now = config.settings, dict(manifest.config["source"]), source.described()
    new_splits = [split for split in now["source_splits"] if split not in was["source_splits"]]
    if new_splits and config.source.source_splits is None:
        raise ConfigError(
            f"{config.out}: was compiled from the source's {', '.join(was['source_splits'])}, and the source "
            f"also has {', '.join(new_splits)}; say which to read with --source-split"
        )
    if bool(was.get("environment_table")) != bool(now.get("environment_table")):
        said = "with" if was.get("environment_table") else "without"
        raise ConfigError(f"{config.out}: was compiled {said} --environment-table; expected the same")
    if was.get("video", {}).get("exclude") and not now["video"]["exclude"]:
        raise ConfigError(
            f"{config.out}: was compiled with --exclude-ids; expected that list, or a longer one"
        )
    pairs = list(_sides(was, now))
    pairs += [(name, manifest.pixels.get(name), value) for name, value in settings.resize.describe().items()]
    for camera in manifest.cameras:
        stored = settings.encoding_of(camera["name"]).describe()
        pairs += [(name, camera[name], value) for name, value in stored.items()]
    pairs.append(("shard_size", manifest.config["shard_size"], settings.shard_bytes))
    for name, array in manifest.arrays.items():
        pairs.append((f"{name} sizes", (array or {"sizes": []})["sizes"], list(source.array_sizes[name])))
    rule = SplitRule(**manifest.config["split"])
    for name in ("by", "salt", "val", "test", "val_seen"):
        wanted = getattr(settings.rule, name)
        if rule.by not in FROZEN_BY or not isinstance(wanted, tuple):  # lists are added
            pairs.append((name, getattr(rule, name), wanted))
    told = dict.fromkeys(  # of several cameras once
        f"{name} {json.dumps(one)}, not {json.dumps(two)}"
        for name, one, two in pairs
        if json.dumps(one) != json.dumps(two)  # as text, for the order of the cameras
    )
    if told:
        raise ConfigError(
            f"{config.out}: was compiled with {'; '.join(told)}; leave such options out, "
            "or compile into another directory"
        )


_MAY_DIFFER = {"version", "source_splits", "exclude", "roles", "licence", "citation", "environment_table"}
"""Names of settings of a source that change no episode, or only which episodes there are."""


def _sides(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name, old value and new value of each setting of the source; settings of `video` one by one."""
    for name in sorted({*was, *now} - _MAY_DIFFER):
        if name == "video":
            yield from _sides(was[name], now[name])
        elif name == "columns":
            for array in was[name]:
                old, new = ([f"{c['name']}={c['kind']}" for c in side[name][array]] for side in (was, now))
                if len(old) == len(new):  # else their sizes differ, which is said
                    yield f"{array} columns", old, new
        else:
            yield name, was.get(name), now.get(name)


def _match(census: pa.Table, before: pa.Table) -> Places:
    """For each row of the census, the episode of the dataset with the same record; -1 if there is none.

    An episode is matched once. Among equal records, one that still has its key comes first.
    """
    digests, old_digests = census["source_digest"].to_pylist(), before["source_digest"].to_pylist()
    old = {pair: at for at, pair in enumerate(zip(before["key"].to_pylist(), old_digests, strict=True))}
    pairs = zip(census["key"].to_pylist(), digests, strict=True)
    matched = np.array([old.get(pair, -1) for pair in pairs], np.int64)
    taken = set(matched.tolist())
    left: dict[int, list[int]] = defaultdict(list)
    for at in reversed(range(len(old_digests))):  # backwards, because `pop` takes the last
        if at not in taken:
            left[old_digests[at]].append(at)
    for i in np.flatnonzero(matched < 0):
        if left.get(digests[i]):
            matched[i] = left[digests[i]].pop()
    return matched


def _renamed(census: Census, before: pa.Table, matched: Places) -> Census:
    """The census with the dataset's keys for its episodes, and unused keys for all others."""
    old, keys = before["key"].to_pylist(), census.table["key"].to_pylist()
    there, taken = set(old), {*old, *keys}
    for i, at in enumerate(matched.tolist()):
        if at >= 0:
            keys[i] = old[at]
        elif keys[i] in there:
            numbered = (f"{keys[i]}-{number}" for number in count(2))
            keys[i] = next(key for key in numbered if key not in taken)
            taken.add(keys[i])
    table, names = census.table, census.table.column_names
    table = table.set_column(names.index("key"), "key", pa.array(keys, pa.string()))
    rejected = pc.if_else(pa.array(matched >= 0), pa.scalar(None, pa.string()), table["rejected"])
    return replace(census, table=table.set_column(names.index("rejected"), "rejected", rejected))


def _assign(
    config: CompileConfig,
    manifest: Manifest,
    source: Source,
    before: pa.Table,
    census: pa.Table,
    matched: Places,
    rows: pa.Table,
) -> Assignment:
    """Splits of all episodes: first those of the dataset, then those of the new `rows`."""
    here = np.flatnonzero(matched >= 0)
    now = dict(zip(matched[here].tolist(), split_episodes(census.take(pa.array(here))), strict=True))
    columns = [before[name].to_pylist() for name in _COLUMNS]
    there, names = [], []
    for at, values in enumerate(zip(*columns, strict=True)):
        key, split, environment, session, instruction, source_split, _ = values
        found = now.get(at)
        there.append(
            SplitEpisode(
                key=key,
                environment=environment,
                session=session,
                instructions=found.instructions if found else tuple(filter(None, [instruction])),
                source_split=source_split,
                duplicate=found.duplicate if found else -1 - at,  # that of no other episode
            )
        )
        if found and found.environment and found.environment != environment:
            names.append((found.environment, split))  # a channel of videos may have another name now
    was, wanted = SplitRule(**manifest.config["split"]), config.settings.rule
    try:
        return assign_new(
            with_aliases(was, wanted.aliases, source.aliases),
            manifest.dataset["name"],
            there,
            columns[1],
            split_episodes(rows),
            lists=wanted,
            names=names if was.by == "environment" else (),
        )
    except ConfigError as error:
        raise ConfigError(f"{config.out}: existing episodes keep their split: {error}") from error
