"""Commit: merge what the tasks left, reconcile the counts, write the tables and, last, the manifest.

Everything here is a pure function of what the claim says of the plan, of the census and of what the tasks
left. So a commit that was cut off is simply done again, and any machine can make it, without the source; the
folder of work in progress goes only after the manifest stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from oxcart.compile.census import Census
from oxcart.compile.execute import CLAIM, Done, check_claim, read_done
from oxcart.compile.plan import Plan
from oxcart.compile.sources.base import Source
from oxcart.compile.statistics import merge, summary
from oxcart.manifests.canonical import pretty_json, sha256_json
from oxcart.manifests.counts import frame_size, per_environment, per_split
from oxcart.manifests.manifest import FORMAT, NAME, Manifest, fingerprint, read_manifest
from oxcart.manifests.tables import (
    ATTRIBUTION,
    EPISODES,
    REJECTED,
    REJECTED_SCHEMA,
    episodes_schema,
    table_bytes,
)
from oxcart.shards.errors import ConfigError, CorruptError, SourceError
from oxcart.shards.store import WORK, Store


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a plan and its source are, as far as a commit must know; plain JSON, which the claim holds."""

    plan: str
    """The plan's hash."""
    shards: list[str]
    """Names of all shards, in plan order."""
    limited: int
    pixels: dict[str, Any]
    config: dict[str, Any]
    versions: dict[str, str]
    dataset: dict[str, Any]
    """Name, version and kind of the source."""
    cameras: list[dict[str, str]]
    """Name and source field of each."""
    action_sizes: list[int]
    state_sizes: list[int]
    control_rate: dict[str, Any] | None

    def to_bytes(self) -> bytes:
        """As JSON, with a digest: a commit believes it without the source."""
        value = asdict(self)
        return pretty_json({**value, "digest": sha256_json(value)})


def work_of(plan: Plan, source: Source) -> Work:
    """Of a plan."""
    return Work(
        plan=plan.hash,
        shards=[shard.name for shard in plan.shards],
        limited=plan.limited,
        pixels=dict(plan.pixels),
        config=dict(plan.config),
        versions=dict(plan.versions),
        dataset={"name": source.name, "version": source.version, "kind": source.kind},
        cameras=[{"name": camera.name, "source": camera.field} for camera in source.cameras],
        action_sizes=list(source.action_sizes),
        state_sizes=list(source.state_sizes),
        control_rate=source.control_rate,
    )


def read_work(store: Store) -> Work:
    """The work that has claimed a store.

    Raises:
        ConfigError: there is none, or it is of another version.
        CorruptError: it is damaged.
    """
    if not store.exists(CLAIM):
        raise ConfigError(f"{store.url}: holds no unfinished compile; run oxcart compile SOURCE {store.url}")
    try:
        value = json.loads(store.read(CLAIM))
        digest = value.pop("digest")
        work = Work(**value)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{store.url}: its unfinished compile is of another version of oxcart; "
            "compile again with --overwrite"
        ) from error
    if sha256_json(value) != digest:
        raise CorruptError(f"{store.url}/{CLAIM}: is damaged, or was on its way; commit again")
    return work


def commit(
    store: Store, census: Census, work: Work, attribution: pa.Table | None, *, reject: bool
) -> Manifest:
    """Write the tables and the manifest of a plan whose tasks are all done.

    Args:
        store: the output.
        census: of the source.
        work: what was planned.
        attribution: whose work the episodes of the census are, with a column `key`; None if nobody says.
        reject: accept that episodes were rejected.

    Raises:
        ConfigError: another compile has taken the output, or tasks are not done.
        CorruptError: the episodes do not add up to those of the source.
        SourceError: an episode was rejected and `reject` is not set, or every episode was.
    """
    found = {name: read_done(store, name, work.plan) for name in work.shards}
    if left := [name for name, one in found.items() if one is None]:
        some = ", ".join(left[:4]) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
        raise ConfigError(
            f"{store.url}: {len(left)} of {len(work.shards)} shards are not there yet: {some}; "
            "compile them, or the parts that hold them, again"
        )
    done = [one for one in found.values() if one is not None]
    if not reject:
        _refuse_rejected([dict(row) for one in done for row in one.rejected])
    schema = episodes_schema(list(census.source["cameras"]))
    episodes = pa.concat_tables([schema.empty_table(), *(one.episodes for one in done)])
    rejected = _rejected(census, done)
    counts = {
        "source": census.table.num_rows + census.unlisted,
        "compiled": episodes.num_rows,
        "rejected": rejected.num_rows,
        "limited": work.limited,
    }
    if counts["source"] != counts["compiled"] + counts["rejected"] + counts["limited"]:
        raise CorruptError(f"{store.url}: episodes do not add up: {counts}; compile again with --overwrite")
    if not episodes.num_rows:
        first = rejected.slice(0, 1).to_pylist()[0]
        raise SourceError(
            f"{first['reason']}; all of {rejected.num_rows} episodes were rejected",
            file=first["source_file"],
            record=first["source_record"],
            offset=first["source_offset"],
        )
    tables = {}
    made = {EPISODES: episodes, REJECTED: rejected}
    if attribution is not None:
        made[ATTRIBUTION] = attribution.take(pc.index_in(episodes["key"], attribution["key"]))
    for name, table in made.items():
        data = table_bytes(table)
        store.put(name, data)
        tables[name] = {"rows": table.num_rows, "bytes": len(data), "blake3": blake3(data).hexdigest()}
    train = [one for one in done if one.shard["split"] == "train"]
    cameras = [camera["name"] for camera in work.cameras]
    manifest = Manifest(
        format=FORMAT,
        fingerprint=fingerprint(
            work.pixels,
            zip(*(episodes[name].to_pylist() for name in ("key", "split", "digest")), strict=True),
        ),
        dataset=work.dataset,
        plan=work.plan,
        counts=counts,
        splits=per_split(episodes, len(cameras)),
        environments=per_environment(episodes, len(cameras)),
        cameras=[{**camera, **frame_size(episodes, camera["name"])} for camera in work.cameras],
        action=_array(census.source["action"], work.action_sizes, merge(_some(one.action for one in train))),
        state=_array(census.source["state"], work.state_sizes, merge(_some(one.state for one in train))),
        control_rate=work.control_rate,
        pixels=work.pixels,
        shards=[dict(one.shard) for one in done if one.shard["episodes"]],
        tables=tables,
        config=work.config,
        versions=work.versions,
    )
    with store.writer(NAME) as file:
        file.write(manifest.to_bytes())
        check_claim(store, work.plan)
    store.delete_folder(WORK)
    return read_manifest(store)


def _refuse_rejected(rows: list[dict[str, Any]]) -> None:
    if rows:
        raise SourceError(
            f"{rows[0]['reason']}; an earlier --on-error reject left it out; pass that again to accept it",
            file=rows[0]["source_file"],
            record=rows[0]["source_record"],
            offset=rows[0]["source_offset"],
        )


def _rejected(census: Census, done: Sequence[Done]) -> pa.Table:
    """What the census and the tasks rejected, in the order of the source."""
    seen = census.rejected.rename_columns(
        ["reason" if name == "rejected" else name for name in census.table.column_names]
    )
    later = [dict(row) for one in done for row in one.rejected]
    table = pa.concat_tables(
        [seen.select(REJECTED_SCHEMA.names), pa.Table.from_pylist(later, REJECTED_SCHEMA)]
    )
    return table.cast(REJECTED_SCHEMA).sort_by("key")


def _array(fields: list[str], sizes: Sequence[int], total: Any) -> dict[str, Any] | None:
    if not fields:
        return None
    return {"source": fields, "sizes": list(sizes), "size": sum(sizes), "statistics": summary(total)}


def _some(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]
