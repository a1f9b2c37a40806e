"""Compile a source into a dataset: census -> split -> plan -> execute -> commit.

    prepared = prepare(CompileConfig(source=SourceConfig(url="bridge_dataset/1.0.0"), out="bridge"))
    manifest = execute(prepared)

The output is claimed for the plan (`oxcart.compile.workspace`): a compile of the same plan resumes where
another stopped, a compile of another plan is refused. Nothing is locked, so the parts of a plan can be
executed by machines that share nothing but the output:

    execute_part(prepare(CompileConfig(..., part=Part(0, 8))))        # on each of eight machines
    finish("bridge")                                                  # then, anywhere
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from oxcart.compile import census as census_module
from oxcart.compile import workspace
from oxcart.compile.census import Census
from oxcart.compile.commit import commit
from oxcart.compile.copying import copying
from oxcart.compile.engines import PROCESSES, Part, engine
from oxcart.compile.engines.processes import Progress, default_workers
from oxcart.compile.execute import ShardJob, write_shard
from oxcart.compile.plan import Plan, Settings, Shard, plan_compile
from oxcart.compile.sources import open_source, pinned
from oxcart.compile.sources.base import LEFT_OUT, Source, SourceConfig, episode_error
from oxcart.compile.workspace import Claim
from oxcart.manifests.manifest import CLAIM, NAME, Manifest, read_manifest
from oxcart.manifests.ownership import resolved, same_file, within
from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError, OxcartError
from oxcart.shards.store import WORK, Store

ON_ERROR = ("fail", "reject")


@dataclass(frozen=True, kw_only=True)
class CompileConfig:
    """Configuration of a compile."""

    source: SourceConfig
    """The source to compile, and how to read it."""
    out: str
    """Directory or URL of the compiled dataset."""
    settings: Settings = field(default_factory=Settings)
    """Settings that determine the bytes of the dataset."""
    census: str | None = None
    """File or URL with the census of the source; None takes the census."""
    on_error: str = "fail"
    """`fail` ends at an episode that cannot be compiled, `reject` lists it in `rejected.parquet`."""
    overwrite: bool = False
    """Whether to delete the dataset or the unfinished compile in `out`; an extension keeps the dataset."""
    workers: int = field(default_factory=default_workers)
    """Upper limit of tasks at a time."""
    engine: str = PROCESSES
    """Engine that runs the tasks: `processes` on this machine, or `ray`."""
    ray_address: str | None = None
    """Address of a Ray cluster; None starts one on this machine."""
    part: Part | None = None
    """Part of the plan's shards that `execute_part` writes."""

    def __post_init__(self) -> None:
        one_of("on error", self.on_error, ON_ERROR)
        if not self.out:
            raise ConfigError("out: expected a directory, got ''")
        if self.workers < 1:
            raise ConfigError(f"workers: expected at least 1, got {self.workers}")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A compile whose plan is made; nothing has been written yet."""

    config: CompileConfig
    """Configuration of the compile."""
    source: Source
    """The open source."""
    census: Census
    """Census of the source."""
    plan: Plan
    """Plan with all shards of the dataset, or all shards to be added to it."""
    claim: Claim
    """Claim of the compile on `out`."""
    shards: Sequence[Shard]
    """Shards to write: those of the whole plan, or of a part."""
    frames: int
    """Number of frames of `shards`, summed over cameras."""
    frames_done: int
    """Number of frames in shards that are already written for this plan."""

    @cached_property
    def attribution(self) -> pa.Table | None:
        """Authors and licences of the plan's episodes; None if the source states none."""
        keys = [chunk for shard in self.plan.shards for chunk in shard.rows["key"].chunks]
        return self.source.attribution(self.census.table, pa.chunked_array(keys, pa.string()))


Warn = Callable[[str], None]
"""Called with one line about something unexpected."""


def ignore(done: int, size: int) -> None:
    """Report no progress."""


def hush(warning: str) -> None:
    """Drop a warning."""


def prepare(config: CompileConfig, report: Progress = ignore) -> Prepared:
    """Take or read the census, split it, and plan the shards.

    Raises:
        ConfigError: an option is invalid, or `out` holds something else.
        SourceError: the source is not complete, or an episode cannot be compiled and `on_error` is `fail`.
    """
    config = replace(config, source=pinned(config.source))
    store = Store(config.out)
    check_apart("source", config.source.url, config.out)
    workspace.check_out(store, config.overwrite)
    source = open_source(config.source)
    census = take_census(config, store, source, report)
    census, settings = copying(census, source, config.settings)
    config = replace(config, settings=settings)
    if config.on_error == "fail":
        refuse_faults(census)
    return planned(config, source, census, plan_compile(census, settings, source.aliases))


def refuse_faults(census: Census) -> None:
    """Refuse a source with an episode that cannot be compiled, unless a rule leaves it out."""
    faults = [row for row in census.rejected.to_pylist() if not row["rejected"].startswith(LEFT_OUT)]
    if faults:
        first, others = faults[0], len(faults) - 1
        more = f" (and {others} more)" if others else ""
        raise episode_error(
            f"{first['rejected']}{more}; --on-error reject compiles the rest and lists what it left out",
            first,
        )


def planned(config: CompileConfig, source: Source, census: Census, plan: Plan) -> Prepared:
    """A compile of a plan, with how much of it is already done."""
    store = Store(config.out)
    shards = config.part.of(plan.shards) if config.part else plan.shards
    claim = workspace.claim_of(plan, source)
    joined = shards if workspace.joins(store, claim) else ()
    done = [shard for shard in joined if workspace.read_done(store, shard.name, plan.hash)]
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
    """Write the shards, then the tables, then the manifest; existing results are kept.

    Args:
        prepared: what `prepare` returned.
        report: called with the frames done, earlier ones included, and the bytes written now.
        warn: called if codec `jpeg` had to encode JPEGs of the source again.

    Raises:
        ConfigError: `out` holds another compile.
        SourceError: an episode cannot be compiled and `on_error` is `fail`, or the source has changed.
        StoreError: the output cannot be written.
    """
    config, plan = prepared.config, prepared.plan
    if config.part is not None:
        raise ConfigError("part: this executes a whole plan; execute_part executes one of its parts")
    store = Store(config.out)
    if not workspace.awaited(store, plan.base) and (plan.extends or not config.overwrite):
        return workspace.finished(store, plan.hash, config.on_error)
    rejected = prepared.census.rejected.num_rows
    if plan.extends and not plan.shards and rejected == read_manifest(store).counts["rejected"]:
        if config.overwrite:
            workspace.drop_extension(store)
        manifest = read_manifest(store)
        workspace.settle(store, manifest)
        return manifest
    with workspace.unless_finished(store, plan.hash):
        _write_shards(prepared, store, report)
        reject = config.on_error == "reject"
        return commit(store, prepared.census, prepared.claim, prepared.attribution, reject=reject, warn=warn)
    return workspace.finished(store, plan.hash, config.on_error)


def execute_part(prepared: Prepared, report: Progress = ignore) -> None:
    """Write only the shards of a part of the plan; `finish` makes a dataset of all parts.

    Args:
        prepared: what `prepare` returned.
        report: called with the frames of the part done, earlier ones included, and the bytes written now.

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
    if not workspace.awaited(store, plan.base):
        workspace.finished(store, plan.hash, config.on_error)
        return
    if plan.extends and not plan.shards:
        return
    with workspace.unless_finished(store, plan.hash):
        _write_shards(prepared, store, report)


def finish(out: str, *, on_error: str = "fail", warn: Warn = hush) -> Manifest:
    """Commit an output whose shards are all written to a dataset; the source is not needed.

    Raises:
        ConfigError: `out` holds no unfinished compile, or shards are missing.
        SourceError: episodes were rejected, and `on_error` is `fail`.
    """
    store = Store(out)
    if store.exists(NAME) and not store.exists(CLAIM):
        return read_manifest(store)
    claim = workspace.unfinished_claim(store)
    if not workspace.awaited(store, claim.extends):
        return workspace.finished(store, claim.plan, on_error)
    census, attribution = workspace.saved_census(store), workspace.saved_attribution(store)
    with workspace.unless_finished(store, claim.plan):
        return commit(store, census, claim, attribution, reject=on_error == "reject", warn=warn)
    return workspace.finished(store, claim.plan, on_error)


def _write_shards(prepared: Prepared, store: Store, report: Progress) -> None:
    """Claim the output and write the shards that are missing."""
    config, plan = prepared.config, prepared.plan
    workspace.take(store, prepared.claim, config.overwrite)
    extends = plan.extends is not None
    workspace.save_census(store, prepared.census, lambda: prepared.attribution, extends=extends)
    job = ShardJob(
        source=config.source,
        out=config.out,
        plan=plan.hash,
        resize=config.settings.resize,
        encodings=plan.encodings,
        reject=config.on_error == "reject",
    )
    left = [shard for shard in prepared.shards if workspace.read_done(store, shard.name, plan.hash) is None]

    def count(frames: int, size: int) -> None:
        report(prepared.frames_done + frames, size)

    run = engine(config.engine, config.ray_address)
    for _ in run(write_shard, job, left, workers=config.workers, report=count):
        pass


def _frames(shards: Sequence[Shard], source: Source) -> int:
    """Frames of some shards, summed over cameras."""
    steps: int = sum(pc.sum(shard.rows["steps"]).as_py() for shard in shards)
    return steps * len(source.cameras)


def check_apart(what: str, source: str, out: str) -> None:
    """Refuse an output that would overwrite or delete the data being read, however the two are spelled.

    Args:
        what: one word for the data being read.
        source: directory or URL of the data being read.
        out: directory or URL of the compiled dataset.

    Raises:
        ConfigError: both are the same place, or the source lies in the work in progress of `out`.
    """
    place, work = resolved(source), f"{resolved(out)}/{WORK}"
    if place == resolved(out) or same_file(source, out):
        raise ConfigError(f"{out}: is the {what} itself; choose another directory")
    if same_file(f"{source}/shards", f"{out}/shards"):
        raise ConfigError(f"{out}: its shards are those of the {what} itself; choose another directory")
    if within(place, work):
        raise ConfigError(f"{source}: lies in {work}, which is deleted; move it or choose another OUT")


def take_census(config: CompileConfig, store: Store, source: Source, report: Progress) -> Census:
    """Get the census from the file in `config` or an interrupted compile, or take it now."""
    if config.census is not None:
        return census_module.load(config.census, source)
    if store.exists(workspace.CENSUS) and not config.overwrite and not store.exists(workspace.OVERWRITING):
        # One of another source or another version does not count; whether `out` is free, the claim decides.
        with contextlib.suppress(OxcartError):
            census = workspace.saved_census(store)
            census_module.check(census, source)
            return census
    run = engine(config.engine, config.ray_address)
    return census_module.take(config.source, workers=config.workers, report=report, source=source, run=run)
