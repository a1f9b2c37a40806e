"""Compile a source into a dataset: census -> split -> plan -> execute -> commit.

    prepared = prepare(CompileConfig(source=SourceConfig(url="bridge_dataset/1.0.0"), out="bridge"))
    manifest = execute(prepared)

The output directory is claimed by creating `.oxcart/plan.json`, which holds the plan's hash: a compile of
the same plan joins and goes on where another stopped, a compile of another plan is refused. Nothing is
locked. So one plan can be executed in parts, by machines that share nothing but the output:

    execute_part(prepare(CompileConfig(..., part=Part(0, 8))))        # on each of eight machines
    finish("bridge")                                                  # then, anywhere
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from oxcart.compile import census as census_module
from oxcart.compile.census import Census
from oxcart.compile.commit import commit
from oxcart.compile.engines import PROCESSES, Part, engine
from oxcart.compile.engines.processes import Progress, default_workers
from oxcart.compile.execute import ShardJob, write_shard
from oxcart.compile.plan import Plan, Settings, Shard, make
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import LEFT_OUT, Source, SourceConfig
from oxcart.compile.workspace import (
    CENSUS,
    OVERWRITING,
    Claim,
    awaited,
    check_out,
    claim_of,
    drop_extension,
    finished,
    joins,
    made,
    read_done,
    save_census,
    saved_attribution,
    saved_census,
    settle,
    take,
    unfinished_claim,
)
from oxcart.manifests.manifest import CLAIM, NAME, Manifest, read_manifest
from oxcart.manifests.ownership import resolved, same_file, within
from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError, OxcartError, SourceError
from oxcart.shards.store import WORK, Store

ON_ERROR = ("fail", "reject")


@dataclass(frozen=True, kw_only=True)
class CompileConfig:
    """One compile."""

    source: SourceConfig
    """What to compile."""
    out: str
    """The directory or URL of the compiled dataset."""
    settings: Settings = field(default_factory=Settings)
    """What decides its bytes."""
    census: str | None = None
    """A file or URL that holds the source's census; None takes it."""
    on_error: str = "fail"
    """`fail` ends at an episode that cannot be compiled, `reject` lists it in `rejected.parquet`."""
    overwrite: bool = False
    """Delete the dataset or the unfinished compile that is in `out`; to extend, an unfinished extension."""
    workers: int = field(default_factory=default_workers)
    """Tasks at a time at most."""
    engine: str = PROCESSES
    """Who does them: `processes` of this machine, or `ray`."""
    ray_address: str | None = None
    """ray: of a cluster; None starts one on this machine."""
    part: Part | None = None
    """Which of the plan's shards `execute_part` writes."""

    def __post_init__(self) -> None:
        one_of("on error", self.on_error, ON_ERROR)
        if not self.out:
            raise ConfigError("out: expected a directory, got ''")
        if self.workers < 1:
            raise ConfigError(f"workers: expected at least 1, got {self.workers}")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A compile whose plan is made; nothing is written yet."""

    config: CompileConfig
    source: Source
    census: Census
    plan: Plan
    claim: Claim
    """What the compile claims `out` with."""
    shards: Sequence[Shard]
    """Those to be written: all of the plan's, or a part."""
    frames: int
    """Frames of those shards, summed over cameras."""
    frames_done: int
    """Those of shards that a compile of this plan has already written."""

    @cached_property
    def attribution(self) -> pa.Table | None:
        """Whose work the episodes of the plan are; None if the source does not say."""
        keys = pa.chunked_array(
            [pa.array([], pa.string()), *(c for s in self.plan.shards for c in s.rows["key"].chunks)]
        )
        return self.source.attribution(self.census.table, keys)


Warn = Callable[[str], None]
"""Told of what nobody may expect, in a line."""


def ignore(done: int, size: int) -> None:
    """A report that tells nobody."""


def hush(warning: str) -> None:
    """A warning that nobody hears."""


def prepare(config: CompileConfig, report: Progress = ignore) -> Prepared:
    """Take or read the census, split it, and plan the shards.

    Raises:
        ConfigError: an option is impossible, or `out` holds something else.
        SourceError: the source is not complete, or an episode cannot be compiled and `on_error` is `fail`.
    """
    store = Store(config.out)
    check_apart("source", config.source.url, config.out)
    check_out(store, config.overwrite)
    source = open_source(config.source)
    census = take_census(config, store, source, report)
    if config.on_error == "fail":
        refuse_faults(census)
    return planned(config, source, census, make(census, config.settings, source.aliases))


def refuse_faults(census: Census) -> None:
    """Refuse a source with an episode that cannot be compiled, unless a rule leaves it out."""
    faults = [row for row in census.rejected.to_pylist() if not row["rejected"].startswith(LEFT_OUT)]
    if faults:
        first, others = faults[0], len(faults) - 1
        more = f" (and {others} more)" if others else ""
        raise SourceError(
            f"{first['rejected']}{more}; --on-error reject compiles the rest and lists what it left out",
            file=first["source_file"],
            record=first["source_record"],
            offset=first["source_offset"],
        )


def planned(config: CompileConfig, source: Source, census: Census, plan: Plan) -> Prepared:
    """What can be executed, with what is done of it already."""
    store = Store(config.out)
    shards = config.part.of(plan.shards) if config.part else plan.shards
    claim = claim_of(plan, source)
    joined = shards if joins(store, claim) else ()
    done = [shard for shard in joined if read_done(store, shard.name, plan.hash)]
    return Prepared(
        config=config,
        source=source,
        census=census,
        plan=plan,
        claim=claim,
        shards=shards,
        frames=_frames(shards, source),
        frames_done=_frames(done, source),
    )


def execute(prepared: Prepared, report: Progress = ignore, warn: Warn = hush) -> Manifest:
    """Write the shards, then the tables, then the manifest; whatever of it is done already stays as it is.

    Args:
        prepared: what `prepare` returned.
        report: told of frames, those already done included, and of bytes written now.
        warn: told of frames that are not the source's own where codec `jpeg` could keep them.

    Raises:
        ConfigError: `out` holds another compile.
        SourceError: an episode cannot be compiled and `on_error` is `fail`, or the source has changed.
        StoreError: the output cannot be written.
    """
    config, plan = prepared.config, prepared.plan
    if config.part is not None:
        raise ConfigError("part: this executes a whole plan; execute_part executes one of its parts")
    store = Store(config.out)
    if not awaited(store, plan.base) and (plan.extends or not config.overwrite):
        return finished(store, plan.hash, config.on_error)
    rejected = prepared.census.rejected.num_rows
    if plan.extends and not plan.shards and rejected == read_manifest(store).counts["rejected"]:
        if config.overwrite:
            drop_extension(store)
        manifest = read_manifest(store)
        settle(store, manifest)
        return manifest
    try:
        _write_shards(prepared, store, report)
        reject = config.on_error == "reject"
        return commit(store, prepared.census, prepared.claim, prepared.attribution, reject=reject, warn=warn)
    except OxcartError:
        if made(store, plan.hash):
            return finished(store, plan.hash, config.on_error)  # another process of this plan was faster
        raise


def execute_part(prepared: Prepared, report: Progress = ignore) -> None:
    """Write the shards of a part of the plan, and nothing else; `finish` makes a dataset of all parts.

    Args:
        prepared: what `prepare` returned.
        report: told of frames of the part, those already done included, and of bytes written now.

    Raises:
        ConfigError: `out` holds another compile.
        SourceError: an episode cannot be compiled and `on_error` is `fail`, or the source has changed.
        StoreError: the output cannot be written.
    """
    config, plan = prepared.config, prepared.plan
    if config.overwrite:
        raise ConfigError(
            f"overwrite: one part cannot know whether another has begun; empty {config.out} before the first"
        )
    store = Store(config.out)
    if not awaited(store, plan.base):
        finished(store, plan.hash, config.on_error)
        return
    if plan.extends and not plan.shards:
        return
    try:
        _write_shards(prepared, store, report)
    except OxcartError:
        if not made(store, plan.hash):
            raise


def finish(out: str, *, on_error: str = "fail", warn: Warn = hush) -> Manifest:
    """Make a dataset of an output whose shards are all written; the source is not needed.

    Raises:
        ConfigError: `out` holds no unfinished compile, or shards are missing.
        SourceError: episodes were rejected, and `on_error` is `fail`.
    """
    store = Store(out)
    if store.exists(NAME) and not store.exists(CLAIM):
        return read_manifest(store)
    claim = unfinished_claim(store)
    if not awaited(store, claim.extends):
        return finished(store, claim.plan, on_error)
    census, attribution = saved_census(store), saved_attribution(store)
    try:
        return commit(store, census, claim, attribution, reject=on_error == "reject", warn=warn)
    except OxcartError:
        if made(store, claim.plan):
            return finished(store, claim.plan, on_error)
        raise


def _write_shards(prepared: Prepared, store: Store, report: Progress) -> None:
    """Claim the output and write the shards that are missing."""
    config, plan = prepared.config, prepared.plan
    take(store, prepared.claim, config.overwrite)
    save_census(store, prepared.census, prepared.attribution, extends=plan.extends is not None)
    job = ShardJob(
        source=config.source,
        out=config.out,
        plan=plan.hash,
        resize=config.settings.resize,
        encoding=config.settings.encoding,
        reject=config.on_error == "reject",
    )
    left = [shard for shard in prepared.shards if read_done(store, shard.name, plan.hash) is None]

    def count(frames: int, size: int) -> None:
        report(prepared.frames_done + frames, size)

    run = engine(config.engine, config.ray_address)
    for _ in run(write_shard, job, left, workers=config.workers, report=count):
        pass


def _frames(shards: Sequence[Shard], source: Source) -> int:
    steps: int = sum(pc.sum(shard.rows["steps"]).as_py() for shard in shards)
    return steps * len(source.cameras)


def check_apart(what: str, source: str, out: str) -> None:
    """Refuse to write over what is read, or where the end of a compile deletes, however the two are spelled.

    Args:
        what: what is read, in a word.
        source: its directory or URL.
        out: the directory or URL of the compiled dataset.

    Raises:
        ConfigError: they are one place, or the source lies in the work in progress of `out`.
    """
    place, work = resolved(source), f"{resolved(out)}/{WORK}"
    if place == resolved(out) or same_file(source, out):
        raise ConfigError(f"{out}: is the {what} itself; choose another directory")
    if same_file(f"{source}/shards", f"{out}/shards"):
        raise ConfigError(f"{out}: its shards are those of the {what} itself; choose another directory")
    if within(place, work):
        raise ConfigError(f"{source}: lies in {work}, which is deleted; move it or choose another OUT")


def take_census(config: CompileConfig, store: Store, source: Source, report: Progress) -> Census:
    """The census: from the file that is named, from a compile that was cut off, or taken now."""
    if config.census is not None:
        return census_module.load(config.census, source)
    if store.exists(CENSUS) and not config.overwrite and not store.exists(OVERWRITING):
        try:
            census = saved_census(store)
            census_module.check(census, source)
        except OxcartError:
            pass  # of another source or another version: whether that is fine, the claim decides
        else:
            return census
    run = engine(config.engine, config.ray_address)
    return census_module.take(config.source, workers=config.workers, report=report, source=source, run=run)
