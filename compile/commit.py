"""Commit: merge what the tasks left, reconcile the counts, write the tables and, last, the manifest.

Everything here is a pure function of the plan and of what the tasks left, so a commit that was cut off is
simply done again; the folder of work in progress goes only after the manifest stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from blake3 import blake3

from oxcart.compile.census import Census
from oxcart.compile.execute import Done, check_claim, read_done
from oxcart.compile.plan import Plan
from oxcart.compile.sources.base import Source
from oxcart.compile.statistics import merge, summary
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
from oxcart.shards.errors import CorruptError, SourceError
from oxcart.shards.store import WORK, Store


def commit(store: Store, census: Census, plan: Plan, source: Source, *, reject: bool) -> Manifest:
    """Write the tables and the manifest of a plan whose tasks are all done.

    Raises:
        CorruptError: a task is not done, or the episodes do not add up to those of the source.
        ConfigError: another compile has taken the output.
        SourceError: an episode was rejected and `reject` is not set, or every episode was.
    """
    done = [_done(store, shard, plan.hash) for shard in plan.shards]
    if not reject:
        _refuse_rejected([dict(row) for one in done for row in one.rejected])
    schema = episodes_schema(list(census.source["cameras"]))
    episodes = pa.concat_tables([schema.empty_table(), *(one.episodes for one in done)])
    rejected = _rejected(census, done)
    counts = {
        "source": census.table.num_rows + census.unlisted,
        "compiled": episodes.num_rows,
        "rejected": rejected.num_rows,
        "limited": plan.limited,
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
    owners = source.attribution(census.table, episodes["key"])
    if owners is not None:
        made[ATTRIBUTION] = owners
    for name, table in made.items():
        data = table_bytes(table)
        store.put(name, data)
        tables[name] = {"rows": table.num_rows, "bytes": len(data), "blake3": blake3(data).hexdigest()}
    train = [one for one, shard in zip(done, plan.shards, strict=True) if shard.split == "train"]
    manifest = Manifest(
        format=FORMAT,
        fingerprint=fingerprint(
            dict(plan.pixels),
            zip(*(episodes[name].to_pylist() for name in ("key", "split", "digest")), strict=True),
        ),
        dataset={"name": source.name, "version": source.version, "kind": source.kind},
        plan=plan.hash,
        counts=counts,
        splits=per_split(episodes, len(source.cameras)),
        environments=per_environment(episodes, len(source.cameras)),
        cameras=[
            {"name": camera.name, "source": camera.field, **frame_size(episodes, camera.name)}
            for camera in source.cameras
        ],
        action=_array(
            census.source["action"], source.action_sizes, merge(_some(one.action for one in train))
        ),
        state=_array(census.source["state"], source.state_sizes, merge(_some(one.state for one in train))),
        control_rate=source.control_rate,
        pixels=dict(plan.pixels),
        shards=[dict(one.shard) for one in done if one.shard["episodes"]],
        tables=tables,
        config=dict(plan.config),
        versions=dict(plan.versions),
    )
    with store.writer(NAME) as file:
        file.write(manifest.to_bytes())
        check_claim(store, plan.hash)
    store.delete_folder(WORK)
    return read_manifest(store)


def _done(store: Store, shard: Any, plan: str) -> Done:
    done = read_done(store, shard, plan)
    if done is None:
        raise CorruptError(f"{store.url}: shard {shard.name} is not there; run the compile again")
    return done


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
