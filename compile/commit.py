"""Commit: merge the results of the tasks, reconcile the counts, write the tables and, last, the manifest.

A commit is a pure function of the claim, the census and the results of the tasks. An interrupted commit can
simply be repeated, on any machine and without the source. Work in progress is deleted only once the manifest
is in place.

An extension is merged with the dataset that it extends. Tables that differ get new names, so only the
manifest is replaced: until then the dataset is the old one, and from then on the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from oxcart.compile.census import Census
from oxcart.compile.moments import merge, moments_of, summary
from oxcart.compile.sources.base import episode_error
from oxcart.compile.workspace import Claim, Done, claimed_writer, read_done, settle
from oxcart.manifests.columns import ARRAYS
from oxcart.manifests.counts import frame_size, per_environment, per_split
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.manifest import FORMAT, NAME, Manifest, encoded_as, fingerprint, order, read_manifest
from oxcart.manifests.split import SPLITS
from oxcart.manifests.tables import (
    ATTRIBUTION,
    EPISODES,
    FILE_BYTES,
    REJECTED,
    REJECTED_SCHEMA,
    VALUES,
    VALUES_SCHEMA,
    episodes_schema,
    later_file,
    table_bytes,
)
from oxcart.manifests.values import merged, quantiles
from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.shards.store import Store


def commit(
    store: Store,
    census: Census,
    claim: Claim,
    attribution: pa.Table | None,
    *,
    reject: bool,
    warn: Callable[[str], None],
) -> Manifest:
    """Write the tables and the manifest of a plan whose tasks are all done.

    Args:
        store: the output.
        census: census of the source.
        claim: claim of the plan.
        attribution: authors and licences of the episodes, with a column `key`; None if there are none.
        reject: whether rejected episodes are accepted.
        warn: called if JPEGs of the source had to be encoded again, and why.

    Raises:
        ConfigError: another compile has taken the output, or tasks are not done.
        CorruptError: the episodes do not add up to those of the source.
        SourceError: an episode was rejected and `reject` is not set, or every episode was rejected.
    """
    base = _base(store, claim)
    found: dict[str, Done | None] = {}
    values = merged(_values(store, claim, base, found))
    if left := [name for name, one in found.items() if one is None]:
        some = ", ".join(left[:4]) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
        raise ConfigError(
            f"{store.url}: {len(left)} of {len(claim.shards)} shards are not there yet: {some}; "
            "compile them, or the parts that hold them, again"
        )
    done = [one for one in found.values() if one is not None]
    rejected_now = [dict(row) for one in done for row in one.rejected]
    if rejected_now and not reject:
        raise episode_error(
            f"{rejected_now[0]['reason']}; an earlier --on-error reject left it out; "
            "pass that again to accept it",
            rejected_now[0],
        )
    schema = episodes_schema(list(census.source["cameras"]))
    episodes = pa.concat_tables([schema.empty_table(), *(one.episodes for one in done)])
    rejected = _rejected(census, rejected_now)
    listed = census.table.num_rows + census.unlisted
    if base is not None:
        elsewhere = _rejected_elsewhere(base, census)
        listed += base.manifest.counts["compiled"] - claim.known + elsewhere.num_rows
        episodes = _in_plan_order(base.table(EPISODES), episodes)
        rejected = pa.concat_tables([rejected, elsewhere]).sort_by("key")
    counts = {
        "source": listed,
        "compiled": episodes.num_rows,
        "rejected": rejected.num_rows,
        "limited": claim.limited,
    }
    if counts["source"] != counts["compiled"] + counts["rejected"] + counts["limited"]:
        again = "--extend --overwrite, which keeps the dataset" if claim.extends else "--overwrite"
        raise CorruptError(f"{store.url}: episodes do not add up: {counts}; compile again with {again}")
    if not episodes.num_rows:
        first = rejected.slice(0, 1).to_pylist()[0]
        raise episode_error(f"{first['reason']}; all of {rejected.num_rows} episodes were rejected", first)
    made = {EPISODES: episodes, REJECTED: rejected, VALUES: values}
    if attribution is not None:
        if base is not None:
            attribution = pa.concat_tables([base.table(ATTRIBUTION), attribution])
        made[ATTRIBUTION] = attribution.take(pc.index_in(episodes["key"], attribution["key"]))
    tables = {name: _write_table(store, name, table, base) for name, table in made.items()}
    cameras = [camera["name"] for camera in claim.cameras]
    shaped = encoded_as(claim.pixels, claim.cameras)
    arrays = {name: _array(name, census, claim, done, base, values) for name in ARRAYS}
    no_action = claim.config["source"]["no_action"]
    mark = fingerprint(shaped, arrays, no_action, _tuples(episodes, "key", "split", "digest"))
    shards = [dict(one.shard) for one in done if one.shard["episodes"]]
    config = dict(claim.config)
    if base is not None:
        if tables == base.manifest.tables:  # every episode that seemed new was rejected once more
            settle(store, base.manifest, "", claim.plan)
            return base.manifest
        shards = sorted([*base.manifest.shards, *shards], key=lambda shard: SPLITS.index(shard["split"]))
        if mark != base.manifest.fingerprint:
            config["parents"] = [*config.get("parents", []), base.manifest.fingerprint]
    manifest = Manifest(
        format=FORMAT,
        fingerprint=mark,
        order=order(_tuples(episodes, "key", "split", "steps", "source_digest")),
        dataset=claim.dataset,
        plan=claim.plan,
        counts=counts,
        splits=per_split(episodes, len(cameras)),
        environments=per_environment(episodes, len(cameras)),
        cameras=[{**camera, **frame_size(episodes, camera["name"])} for camera in claim.cameras],
        **arrays,
        control_rate=claim.control_rate,
        pixels=claim.pixels,
        shards=shards,
        tables=tables,
        config=config,
        versions=claim.versions,
    )
    qualities = dict.fromkeys(str(one["quality"]) for one in claim.cameras if one["codec"] == "jpeg")
    if anew := sum(one.again for one in done):
        warn(
            f"{anew:,} frames are JPEG in the source, but without an end or with an unusual header, and were "
            f"encoded again, at quality {' and '.join(qualities)}"
        )
    if swapped := sum(one.swapped for one in done):
        warn(
            f"{swapped:,} frames are JPEG in the source, but hold BGR, and were encoded again as RGB, "
            f"at quality {' and '.join(qualities)}"
        )
    with claimed_writer(store, NAME, claim.plan) as file:
        file.write(manifest.to_bytes())
    settle(store, manifest, "")
    return read_manifest(store)


def _base(store: Store, claim: Claim) -> Dataset | None:
    """The dataset that a claim extends; None for a new dataset."""
    if claim.extends is None:
        return None
    base = Dataset(store=store, manifest=read_manifest(store))
    if base.manifest.plan != claim.extends:
        raise ConfigError(f"{store.url}: has become another dataset in the meantime; extend it again")
    return base


def _values(
    store: Store, claim: Claim, base: Dataset | None, found: dict[str, Done | None]
) -> Iterator[pa.Table]:
    """Yield the values of train: those of the dataset, then those of each task.

    Puts the other results of the tasks into `found`, by name of the shard. The values of all of them together
    could take gigabytes.
    """
    if base is not None:
        yield base.values()
    for name in claim.shards:
        one = read_done(store, name, claim.plan)
        if one is not None:
            yield one.values
            one = replace(one, values=VALUES_SCHEMA.empty_table())
        found[name] = one


def _tuples(table: pa.Table, *columns: str) -> Iterator[tuple[Any, ...]]:
    """The values of some columns, row by row."""
    return zip(*(table[name].to_pylist() for name in columns), strict=True)


def _in_plan_order(before: pa.Table, added: pa.Table) -> pa.Table:
    """Episodes of the dataset and of its extension, ordered by split."""
    parts = [one.filter(pc.equal(one["split"], split)) for split in SPLITS for one in (before, added)]
    return pa.concat_tables(parts)


def _rejected_elsewhere(base: Dataset, census: Census) -> pa.Table:
    """Rejected episodes of the dataset from splits of the source that were not read this time."""
    table = base.table(REJECTED)
    read = pc.is_in(table["source_split"], pc.unique(census.table["source_split"]))
    return table.filter(pc.invert(read))


def _write_table(store: Store, name: str, table: pa.Table, base: Dataset | None) -> dict[str, Any]:
    """Write a table, unless the dataset has it already; returns its entry in the manifest.

    Raises:
        ConfigError: the table is larger than a reader accepts.
    """
    data = table_bytes(table)
    if len(data) > FILE_BYTES:
        raise ConfigError(
            f"{store.url}: {name} would have {len(data):,} bytes for {table.num_rows:,} episodes, "
            f"expected at most {FILE_BYTES:,}; compile several datasets"
        )
    entry: dict[str, Any] = {"rows": table.num_rows, "bytes": len(data), "blake3": blake3(data).hexdigest()}
    if base is not None:
        before = base.manifest.tables.get(name)
        if before is not None and before["blake3"] == entry["blake3"]:
            return before
        entry["file"] = later_file(name, entry["blake3"])
    store.put(entry.get("file", name), data)
    return entry


def _rejected(census: Census, later: list[dict[str, Any]]) -> pa.Table:
    """Episodes rejected by the census and, later, by the tasks, in the order of the source."""
    names = ["reason" if name == "rejected" else name for name in census.table.column_names]
    seen = census.rejected.rename_columns(names).select(REJECTED_SCHEMA.names)
    table = pa.concat_tables([seen, pa.Table.from_pylist(later, REJECTED_SCHEMA)])
    return table.cast(REJECTED_SCHEMA).sort_by("key")


def _array(
    name: str,
    census: Census,
    claim: Claim,
    done: Sequence[Done],
    base: Dataset | None,
    values: pa.Table,
) -> dict[str, Any] | None:
    """Entry of an array in the manifest; statistics are merged in plan order."""
    fields = census.source[name]
    if not fields:
        return None
    sizes = claim.array_sizes[name]
    size = sum(sizes)
    before = moments_of(getattr(base.manifest, name)["statistics"]) if base is not None else None
    statistics = summary(merge([before, *(one.moments[name] for one in done)]))
    if statistics is not None:
        statistics |= quantiles(values, name, size)
    return {
        "source": fields,
        "sizes": sizes,
        "size": size,
        "columns": claim.array_columns[name],
        "statistics": statistics,
    }
