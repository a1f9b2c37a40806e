"""The output of a compile until it is a dataset: who has claimed it, what is written, what may be deleted.

    OUT/.oxcart/overwriting                a dataset is being deleted to make room for another
        .oxcart/plan.json                  the claim: the hash of a plan, and what a commit must know of it
        .oxcart/attribution.parquet        authors and licences of the episodes, if the source states them
        .oxcart/census.parquet             the census
        .oxcart/rows/train-00000.parquet   values and rows of a shard: the mark that the shard is written
        shards/train-00000.tar, shards/train-00000.chunks.parquet
        episodes.parquet, rejected.parquet, values.parquet, attribution.parquet
        manifest.json

Each state differs from the one above it by the files that are written in between, in this order:

    empty         Any plan may claim the output. The claim can only be created, so one plan has it.
      |  the claim
    claimed       Any number of processes of that plan may join; every other plan is refused.
      |  the attribution, then the census
    writing       They write shards: the tar, its chunk table, then its rows.
      |  the last rows
    written       Any process commits, on any machine, without the source.
      |  the tables
    committing    Any process commits again, to the same bytes.
      |  the manifest
    settling      The dataset stands. Whoever comes next, of its plan or to extend it, deletes `.oxcart`.
      |  `.oxcart` is deleted
    finished      Processes of its plan return it; every other plan is refused.

    overwriting   Reached by --overwrite from any other state. The marker is written, then the claim, the
                  manifest, tables and shards are deleted, then all of `.oxcart` but the marker. While the
                  marker is there, whoever comes to claim the output deletes all of this once more. The next
                  claim ends it, and the marker goes.
    extending     Reached from finished by a claim that names the plan of the dataset as `extends`. The states
                  are those from claimed on. Shards and tables get new names, so the dataset stays as it is
                  until the new manifest replaces its manifest; settling deletes the tables that it replaces.
    dropping      Reached from extending by --overwrite: the claim loses its plan, then the rest of `.oxcart`
                  is deleted, then the shards and tables that the manifest does not name, then the claim.

Nothing is locked. A file of a compile gets its name only if the claim is still that of its plan
(`claimed_writer`), and a process that takes an output away deletes the claim first. So every step can be
interrupted and repeated, by any number of processes at once.

A finished dataset has its digests in its manifest. The files of `.oxcart` have none yet, can lie in a bucket
for days, and Parquet reads one flipped bit in ten as data. So they are sealed: each is the BLAKE3 digest of
its data, then the data.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from oxcart.compile import census as census_module
from oxcart.compile.census import Census
from oxcart.compile.moments import Moments
from oxcart.compile.plan import Plan
from oxcart.compile.sources.base import LEFT_OUT, Source
from oxcart.manifests.canonical import pretty_json, sha256_json
from oxcart.manifests.columns import described
from oxcart.manifests.manifest import CLAIM, FORMAT, NAME, Manifest, read_claim, read_manifest
from oxcart.manifests.ownership import DATASET, check_directory, holds_dataset
from oxcart.manifests.tables import REJECTED, TABLE_FILE, parse_table, read_table, table_bytes
from oxcart.shards.errors import ConfigError, CorruptError, OxcartError
from oxcart.shards.names import SHARDS, is_shard_file, rows_name
from oxcart.shards.store import WORK, Store

CENSUS = f"{WORK}/census.parquet"
OWNERS = f"{WORK}/attribution.parquet"
OVERWRITING = f"{WORK}/overwriting"

_DIGEST_BYTES, _LENGTH_BYTES = 32, 8
_METADATA = b"oxcart.shard"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a commit must know of a plan and its source, as plain JSON."""

    format: str
    """Format of the shards."""
    plan: str
    """Hash of the plan."""
    shards: list[str]
    """Names of all shards, in plan order."""
    limited: int
    """Number of train episodes beyond the limit."""
    pixels: dict[str, Any]
    """Settings that shape the frames, as in the manifest."""
    config: dict[str, Any]
    """The remaining configuration, as in the manifest."""
    versions: dict[str, str]
    """Versions of the libraries that make the bytes."""
    dataset: dict[str, Any]
    """Name, version and kind of the source, licence and citation, as in the manifest."""
    cameras: list[dict[str, Any]]
    """Entry of each camera in the manifest, without the size of its frames."""
    array_sizes: dict[str, list[int]]
    """Array -> values of each of its fields."""
    array_columns: dict[str, list[dict[str, Any]]]
    """Array -> its columns, as in the manifest."""
    control_rate: dict[str, Any] | None
    """`hz`, `verified` and `source`; None where the rate is not known."""
    extends: str | None = None
    """Hash of the plan of the dataset to which the shards are added; None for a new dataset."""
    known: int = 0
    """Number of episodes of the census that the extended dataset already has."""

    def to_bytes(self) -> bytes:
        """JSON with a digest, because a commit relies on it without the source."""
        value = asdict(self)
        return pretty_json({**value, "digest": sha256_json(value)})


@dataclass(frozen=True, kw_only=True)
class Done:
    """The results of the task of a shard."""

    shard: Mapping[str, Any]
    """Entry of the shard in the manifest; a shard without episodes has no files."""
    episodes: pa.Table
    """Rows of `episodes.parquet`."""
    rejected: Sequence[Mapping[str, Any]]
    """Rows of `rejected.parquet`."""
    again: int
    """Number of JPEGs of the source that already had the wanted size but had to be encoded again."""
    swapped: int
    """Number of JPEGs of the source that hold BGR, and were encoded again as RGB for that alone."""
    moments: Mapping[str, Moments | None]
    """Array -> its moments; None without the array, and in all splits but train."""
    values: pa.Table
    """Rows of `values.parquet`; none in all splits but train."""


def claim_of(plan: Plan, source: Source) -> Claim:
    """The claim of a compile of a plan."""
    return Claim(
        format=FORMAT,
        plan=plan.hash,
        shards=[shard.name for shard in plan.shards],
        limited=plan.limited,
        pixels=dict(plan.pixels),
        config=dict(plan.config),
        versions=dict(plan.versions),
        dataset={
            "name": source.name,
            "version": source.version,
            "kind": source.origin,
            "licence": source.licence,
            "citation": source.citation,
        },
        cameras=[
            {
                "name": camera.name,
                "source": camera.field,
                "role": camera.role,
                "channels": camera.channels,
                **plan.encodings[camera.name].describe(),
            }
            for camera in source.cameras
        ],
        array_sizes={name: list(sizes) for name, sizes in source.array_sizes.items()},
        array_columns={name: described(columns) for name, columns in source.array_columns.items()},
        control_rate=source.control_rate,
        extends=plan.base,
        known=plan.extends.known if plan.extends else 0,
    )


def unfinished_claim(store: Store) -> Claim:
    """Read the claim of the unfinished compile in a store.

    Raises:
        ConfigError: there is no unfinished compile, or another version of oxcart began it.
        CorruptError: the claim is damaged.
        StoreError: the claim cannot be read.
    """
    try:
        value = read_claim(store)
        if value is not None:
            digest = value.pop("digest")
            claim, found = Claim(**value), sha256_json(value)
            if claim.format != FORMAT:
                raise ValueError(claim.format)
    except (CorruptError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{store.url}: its unfinished compile was begun by another version of oxcart; "
            "compile again with --overwrite"
        ) from error
    if value is None:
        raise ConfigError(f"{store.url}: holds no unfinished compile; run oxcart compile SOURCE {store.url}")
    if found != digest:
        raise CorruptError(f"{store.url}/{CLAIM}: is damaged, or is still being written; commit again")
    return claim


def claimed_plan(store: Store) -> str | None:
    """Hash of the plan that has claimed a store; None if there is no claim or it is damaged."""
    with contextlib.suppress(CorruptError, KeyError):
        return str((read_claim(store) or {})["plan"])
    return None


def awaited(store: Store, base: str | None) -> bool:
    """Whether the dataset of a plan has yet to be made.

    Args:
        store: the output.
        base: hash of the plan of the dataset that is to be extended; None for a new dataset.
    """
    if not store.exists(NAME):
        return base is None
    return base is not None and read_manifest(store).plan == base


def joins(store: Store, claim: Claim) -> bool:
    """Whether a store holds an unfinished compile of the plan of this claim."""
    joined = claimed_plan(store) == claim.plan and awaited(store, claim.extends)
    return joined and not store.exists(OVERWRITING)


def finished(store: Store, plan: str, on_error: str) -> Manifest:
    """Read the manifest of a store that must hold the finished dataset of a plan.

    Raises:
        ConfigError: the dataset is of another plan, or lacks episodes and `on_error` is `fail`.
    """
    manifest = read_manifest(store)
    if manifest.plan != plan:
        raise ConfigError(
            f"{store.url}: holds another compile ({manifest.dataset['name']}, plan {manifest.plan[:12]}, "
            f"this is {plan[:12]}); choose another directory or pass --overwrite, "
            "or --extend if the source has grown"
        )
    if on_error == "fail":
        reasons = read_table(store, manifest.file(REJECTED), ["reason"])["reason"]
        if faults := len(reasons) - int(pc.sum(pc.starts_with(reasons, LEFT_OUT)).as_py() or 0):
            raise ConfigError(
                f"{store.url}: was compiled with --on-error reject and lacks {faults} "
                f"episodes, listed in {REJECTED}; pass --on-error reject to accept that, or fix the source"
            )
    settle(store, manifest)
    return manifest


@contextlib.contextmanager
def unless_finished(store: Store, plan: str) -> Iterator[None]:
    """Ignore an error of a compile if another process of the same plan has finished the dataset."""
    try:
        yield
    except OxcartError:
        if not store.exists(NAME) or read_manifest(store).plan != plan:
            raise


def check_out(store: Store, overwrite: bool) -> None:
    """Refuse an output that cannot be claimed, before a long census.

    Raises:
        ConfigError: the store cannot be written, or holds files that oxcart did not write.
    """
    if not store.writable:
        store.check_writable()
    check_directory("OUT", store.url, DATASET)
    ours = store.exists(CLAIM) or store.exists(OVERWRITING) or holds_dataset(store)
    if ours and not overwrite:
        return
    store.check_writable()
    if ours:
        return
    others = store.list(limit=1)
    if others:
        raise ConfigError(f"{store.url}: holds {others[0]}, which is not oxcart's; choose an empty directory")


def take(store: Store, claim: Claim, overwrite: bool) -> None:
    """Claim a store for a plan, or join the processes that have claimed it for the same plan.

    Args:
        store: the output.
        claim: what to claim.
        overwrite: delete the existing dataset or unfinished compile; for an extension, only an unfinished
            extension.

    Raises:
        ConfigError: another plan has claimed the store, or it has become another dataset in the meantime.
    """
    if store.exists(OVERWRITING) or (overwrite and not joins(store, claim)):
        if claim.extends is None:
            _delete_dataset(store)
        else:
            drop_extension(store)
    if claim.extends is not None and claimed_plan(store) == claim.extends:
        settle(store, read_manifest(store))  # left behind by a compile that was killed at its very end
    if not store.create(CLAIM, claim.to_bytes()):
        found = claimed_plan(store)
        if found != claim.plan:
            what, remedy = "compile", "choose another directory or pass --overwrite"
            if claim.extends is not None:
                what, remedy = "extension", "or drop it with --extend --overwrite, which keeps the dataset"
            raise ConfigError(
                f"{store.url}: holds an unfinished {what} of another plan ({str(found)[:12]}, this is "
                f"{claim.plan[:12]}); finish that one, {remedy}"
            )
    store.delete(OVERWRITING)
    if not awaited(store, claim.extends):
        # Whoever had the claim before has made another dataset between the look at it and the claim.
        store.delete(CLAIM)
        raise ConfigError(f"{store.url}: has become another dataset in the meantime; run the command again")


def _delete_dataset(store: Store) -> None:
    """Delete only what oxcart wrote; the marker makes the next process repeat it after a crash."""
    store.put(OVERWRITING, b"")
    store.delete(CLAIM)  # first, so that a compile that is still running notices
    found = store.list()
    store.delete(NAME, *filter(TABLE_FILE.fullmatch, found), *filter(is_shard_file, found))
    store.delete(*(name for name in store.list(WORK) if name != OVERWRITING))


def drop_extension(store: Store) -> None:
    """Delete only what an unfinished extension wrote.

    The claim is deleted last, because it marks those shards as no damage. First it loses its plan, so that a
    compile that is still running notices.

    Raises:
        ConfigError: the extension has been finished in the meantime.
        StoreError: the claim cannot be read or replaced; nothing has been deleted.
    """
    claim = None
    with contextlib.suppress(ConfigError, CorruptError):  # no claim, one of another version, or a damaged one
        claim = unfinished_claim(store)
    if claim is not None:
        store.put(CLAIM, replace(claim, plan="").to_bytes())
    manifest = read_manifest(store)
    if claim is not None and claim.plan == manifest.plan:
        raise ConfigError(f"{store.url}: its extension has been finished; run the command again")
    store.delete(*(name for name in store.list(WORK) if name != CLAIM))
    named = {shard[what] for shard in manifest.shards for what in ("name", "chunks")}
    found = filter(is_shard_file, store.list(SHARDS))
    store.delete(*(name for name in found if name not in named))
    _delete_old_tables(store, manifest)
    store.delete_folder(WORK)


def settle(store: Store, manifest: Manifest, *own: str) -> None:
    """Delete what is useless once the manifest is in place: tables that it replaced, and `.oxcart`.

    If another plan has claimed the dataset in the meantime, its work is left alone.

    Args:
        store: the output.
        manifest: the manifest in place.
        own: hashes of other plans whose work is deleted too; "" is a plan that is being dropped.
    """
    if claimed_plan(store) not in (None, manifest.plan, *own) or read_manifest(store).plan != manifest.plan:
        return
    if any("file" in table for table in manifest.tables.values()):
        _delete_old_tables(store, manifest)
    store.delete_folder(WORK)


def _delete_old_tables(store: Store, manifest: Manifest) -> None:
    named = {manifest.file(name) for name in manifest.tables}
    store.delete(*(name for name in store.list() if TABLE_FILE.fullmatch(name) and name not in named))


@contextlib.contextmanager
def claimed_writer(store: Store, name: str, plan: str) -> Iterator[BinaryIO]:
    """Write an object, which gets its name only if the store is still claimed for the plan.

    The claim is checked after the object is written and before it gets its name. A process that takes the
    store deletes the claim first and then every temporary file: either the check misses the claim, or the
    renaming misses the file.

    Raises:
        ConfigError: another compile has taken the store, or finished it.
    """
    with store.writer(name) as file:
        yield file
        if claimed_plan(store) != plan:
            raise ConfigError(f"{store.url}: another compile has taken or finished it in the meantime")


def save_census(
    store: Store, census: Census, attribution: Callable[[], pa.Table | None], *, extends: bool
) -> None:
    """Save the census, so that a commit needs no source; an existing one is kept.

    Args:
        store: the output, already claimed.
        census: census of the source.
        attribution: returns authors and licences of the episodes, or None if the source states none; called
            only if they are to be saved.
        extends: an existing census may be left over from the previous compile, if its end was interrupted.
    """
    if store.exists(CENSUS) and not (extends and store.read(CENSUS) != seal(census.to_bytes())):
        return
    owners = attribution()
    if owners is not None:  # before the census, which says that both are there
        store.put(OWNERS, seal(table_bytes(owners)))
    store.put(CENSUS, seal(census.to_bytes()))


def saved_census(store: Store) -> Census:
    """Read the census that `save_census` saved.

    Raises:
        ConfigError: another version of oxcart wrote the census.
        CorruptError: the census is damaged.
        StoreError: there is no census.
    """
    return census_module.read(read_sealed(store, CENSUS), CENSUS)


def saved_attribution(store: Store) -> pa.Table | None:
    """Read the attribution that `save_census` saved; None if the source states none."""
    return parse_table(read_sealed(store, OWNERS), OWNERS) if store.exists(OWNERS) else None


def write_done(store: Store, shard: str, plan: str, done: Done) -> None:
    """Mark the task of a shard as done, and save its results for the commit.

    The mark holds the table of values, after its length, and the table of episodes with all else as metadata.
    """
    value = {"plan": plan, **vars(done)}
    values = table_bytes(value.pop("values"))
    table = value.pop("episodes").replace_schema_metadata({_METADATA: json.dumps(value)})
    with claimed_writer(store, rows_name(shard), plan) as file:
        file.write(seal(len(values).to_bytes(_LENGTH_BYTES) + values + table_bytes(table)))


def read_done(store: Store, shard: str, plan: str) -> Done | None:
    """The results of the task of a shard under a plan; None if it is not done or its files are missing."""
    if not store.exists(rows_name(shard)):
        return None
    try:
        data = read_sealed(store, rows_name(shard))
        end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES])
        values, table = (parse_table(one, rows_name(shard)) for one in (data[_LENGTH_BYTES:end], data[end:]))
        value = json.loads(table.schema.metadata[_METADATA])
        if value.pop("plan") != plan:
            return None
        done = Done(episodes=table.replace_schema_metadata(None), values=values, **value)
    except (CorruptError, AttributeError, KeyError, TypeError, ValueError):  # damaged, or of another version
        return None
    entry = done.shard
    for name, size in ((entry["name"], entry["bytes"]), (entry["chunks"], entry["chunks_bytes"])):
        if table.num_rows and (not store.exists(name) or store.size(name) != size):
            return None
    return done


def seal(data: bytes) -> bytes:
    """The digest of the data, followed by the data."""
    return blake3(data).digest() + data


def read_sealed(store: Store, name: str) -> bytes:
    """Read the data of an object that `seal` made.

    Raises:
        CorruptError: the object is damaged.
        StoreError: the object cannot be read.
    """
    found = store.read(name)
    data = found[_DIGEST_BYTES:]
    if blake3(data).digest() != found[:_DIGEST_BYTES]:
        raise CorruptError(f"{store.url}/{name}: is damaged, or is still being written; compile again")
    return data
