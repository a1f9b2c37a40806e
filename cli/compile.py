"""`oxcart scan` and `oxcart compile`: from a source to its census, and on to a compiled dataset."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oxcart.cli.options import (
    LocalPath,
    PathOrUrl,
    encoding_quality,
    json_option,
    output_options,
    parse_bytes,
    resize,
)
from oxcart.cli.outputs import CENSUS, RULE, output_option, overwrite_option
from oxcart.cli.source import source_config, source_options, task_count
from oxcart.manifests.columns import ARRAYS
from oxcart.shards.files import write_file

if TYPE_CHECKING:
    from oxcart.compile.census import Census
    from oxcart.compile.pipeline import Prepared
    from oxcart.manifests.assign import Assignment
    from oxcart.manifests.manifest import Manifest


@click.command()
@click.argument("source", type=PathOrUrl())
@click.argument("files", nargs=-1, type=PathOrUrl(), metavar="[CENSUS]...")
@source_options
@json_option
@output_option("--parquet", writes=CENSUS, help="Write the census to this file, for compile --census.")
@overwrite_option()
@click.option("--merge", is_flag=True, help="Merge the CENSUS files of all parts into one.")
def scan(
    source: str,
    files: tuple[str, ...],
    workers: int | None,
    engine: str,
    ray_address: str | None,
    part: str | None,
    quiet: bool,
    as_json: bool,
    parquet: Path | None,
    merge: bool,
    **options: Any,
) -> None:
    """Take the census of SOURCE: environments, episodes, steps, cameras, duplicates.

    SOURCE is a TFDS directory with an RLDS dataset, or its URL: gs://, s3://, az://, hf://
    or https://. No image is decoded. Or SOURCE is a LeRobot dataset, whose metadata is checked
    against its steps and videos. Or SOURCE is a folder of videos, or videos:FOLDER; videos
    are decoded once, at low resolution. Or SOURCE holds recordings, which oxcart.create has
    written, or HDF5 files, or is one. Machines can share the work: each scans a --part, and
    --merge makes one census of the parts.

    \b
    Example:
      oxcart scan bridge_dataset/1.0.0
      oxcart scan bridge_dataset/1.0.0 --parquet census.parquet --json
      oxcart scan bridge_dataset/1.0.0 --part 0/8 --parquet part-0.parquet
      oxcart scan bridge_dataset/1.0.0 --merge part-*.parquet --parquet census.parquet
      oxcart scan gs://gresearch/robotics/bridge/0.1.0
    """
    from oxcart.cli.progress import progress
    from oxcart.compile import census as census_module
    from oxcart.compile.engines import Part
    from oxcart.compile.engines import engine as make_engine
    from oxcart.compile.sources import open_source
    from oxcart.manifests.alike import alike, apart, said_alike
    from oxcart.manifests.split import joined
    from oxcart.shards.errors import ConfigError

    if merge != bool(files):
        raise ConfigError("--merge: expected together with the CENSUS files of all parts, or neither")
    if merge and part is not None:
        raise ConfigError("--merge: merges all parts; leave out --part")
    if part is not None and parquet is None:
        raise ConfigError("--part: expected with --parquet FILE, which keeps the part; pass it")
    config = source_config(source, **options)
    opened = open_source(config)
    if merge:
        census = census_module.merge([census_module.read_file(file) for file in files], opened)
    else:
        total = opened.expected if part is None else None
        with progress("scanning", total=total, unit="episodes", quiet=quiet) as report:
            census = census_module.take(
                config,
                workers=task_count(workers, ray_address),
                report=report,
                source=opened,
                part=Part.parse(part) if part is not None else None,
                run=make_engine(engine, ray_address),
            )
    for warning in census_module.warnings(census, opened):
        warn(warning)
    if parquet is not None:
        write_file(parquet, census.to_bytes())
    names = [name for name in census.table["environment"].unique().to_pylist() if name is not None]
    known = joined([(name, *others) for name, others in opened.aliases.items()])
    if places := apart(alike(names), known):
        warn(said_alike(places))
    if as_json:
        found = {**_census_json(census), "catalog": dict(opened.catalogued)}
        click.echo(json.dumps(found, ensure_ascii=False))
    elif not quiet:
        click.echo(_census_text(census, opened.catalogued))


def _census_json(census: Census) -> dict[str, Any]:
    from oxcart.compile.census import summary

    return {**summary(census), "source": dict(census.source)}


def _census_text(census: Census, catalogued: Mapping[str, str]) -> str:
    from oxcart.cli.table import table
    from oxcart.compile.census import summary

    found = summary(census)
    source = census.source
    lines = [
        f"{source['name']} {source['version']} ({source['kind']}): {found['episodes']:,} episodes "
        f"({found['duplicates']:,} repeat another), {found['steps']:,} steps",
        "",
        table(
            ("environment", "known", "sessions", "episodes", "steps"),
            [
                (e["name"] or "(unknown)", e["known"], e["sessions"], e["episodes"], e["steps"])
                for e in found["environments"]
            ],
        ),
        "",
        table(
            ("camera", "read from", "height x width"),
            [(c["name"], c["source"], ", ".join(c["sizes"])) for c in found["cameras"]],
        ),
        "",
        table(("instruction", "episodes"), list(found["instructions"].items())[:20]),
    ]
    if len(found["instructions"]) > 20:
        lines.append(f"... and {len(found['instructions']) - 20:,} more instructions")
    for what in ARRAYS:
        lines.append(f"\n{what}: {', '.join(source[what]) or 'none'}")
    if catalogued:
        lines += ["", "from the catalog:", *(f"  {what}: {told}" for what, told in catalogued.items())]
    if found["rejected"]:
        lines += ["", f"{len(found['rejected'])} episodes cannot be compiled:"]
        lines += [
            f"  {r['source_file']}, record {r['source_record']}: {r['reason']}"
            for r in found["rejected"][:20]
        ]
        if len(found["rejected"]) > 20:
            lines.append(f"  ... and {len(found['rejected']) - 20:,} more")
    return "\n".join(lines)


@click.command("compile")
@click.argument("source", type=PathOrUrl())
@click.argument("out", type=PathOrUrl())
@click.option(
    "--split",
    "rule_file",
    type=LocalPath(dir_okay=False),
    help="Split rule, a YAML file; replaces the options below.",
)
@click.option(
    "--split-by",
    type=click.Choice(["environment", "instruction", "dataset", "episode", "source"]),
    help="What is held out as a whole.  [default: environment]",
)
@click.option("--val-fraction", type=float, help="Share of the episodes to hold out.  [default: 0.1]")
@click.option("--val", multiple=True, metavar="NAME", help="Name of a group to hold out; none for no val.")
@click.option(
    "--val-seen", type=float, help="Share of the episodes to hold out from environments that stay in train."
)
@output_option(
    "--write-rule",
    writes=RULE,
    replaces=False,
    help="Write the resolved split as a rule that names every group, for a later --split.",
)
@source_options
@output_options(codec="raw")
@click.option("--census", type=PathOrUrl(), help="Census of the source, from scan --parquet: a file or URL.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Compile at most this many episodes of train; val stays whole.",
)
@click.option(
    "--on-error",
    type=click.Choice(["fail", "reject"]),
    help="At a broken episode: fail, or list it in rejected.parquet.  "
    "[default: reject for videos, else fail]",
)
@click.option("--dry-run", is_flag=True, help="Print the split and the plan; compile nothing.")
@click.option(
    "--extend",
    is_flag=True,
    help="Add the new episodes of SOURCE to the dataset in OUT, with the options of that dataset.",
)
def compile_(
    source: str,
    out: str,
    rule_file: Path | None,
    split_by: str | None,
    val_fraction: float | None,
    val: tuple[str, ...],
    val_seen: float | None,
    write_rule: Path | None,
    workers: int | None,
    engine: str,
    ray_address: str | None,
    part: str | None,
    quiet: bool,
    size: str | None,
    fit: str | None,
    codec: str | None,
    jpeg_quality: int | None,
    crf: int | None,
    max_gop: int | None,
    shard_size: str | None,
    census: str | None,
    limit: int | None,
    on_error: str | None,
    dry_run: bool,
    extend: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Compile SOURCE into a dataset in OUT.

    SOURCE and OUT are directories or URLs: gs://, s3:// or az://; SOURCE also hf://
    and https://.
    SOURCE is an RLDS dataset, a LeRobot dataset, recordings, which oxcart.create has written,
    or HDF5. A folder of videos, or videos:FOLDER, is cut into clips. Whole environments (for
    videos, channels) are held out for val. An interrupted compile resumes: run the command
    again. The same source and options give the same bytes. Machines can share the work: each
    compiles a --part, and oxcart commit finishes. With --extend, the new episodes of a
    source that has grown are added to OUT in new shards, and no environment changes its
    split; --overwrite then drops an unfinished extension.

    \b
    Example:
      oxcart compile bridge_dataset/1.0.0 bridge
      oxcart compile bridge_dataset/1.0.0 bridge --split-by instruction --val-fraction 0.25
      oxcart compile bridge_dataset/1.0.0 bridge --size 224 --fit crop --write-rule split.yaml
      oxcart compile bridge_dataset/1.0.0 bridge --codec jpeg
      oxcart compile bridge_dataset/1.1.0 bridge --extend
      oxcart compile gs://gresearch/robotics/bridge/0.1.0 s3://bucket/bridge
      oxcart compile videos:downloads clips --size 256 --rate 10 --licence cc-by
      oxcart compile bridge_dataset/1.0.0 bridge --census census.parquet --part 0/8
      oxcart compile my_robot/1.0.0 out --action 'action[:7]' --environment episode_metadata/lab
    """
    from oxcart.cli.progress import progress
    from oxcart.compile import extend as extension
    from oxcart.compile.census import warnings
    from oxcart.compile.engines import Part
    from oxcart.compile.pipeline import CompileConfig, execute, execute_part, prepare
    from oxcart.compile.plan import Settings
    from oxcart.compile.sources import open_source
    from oxcart.manifests import split
    from oxcart.shards.codec import Encoding

    config_of = source_config(source, **options)
    videos = config_of.kind == "videos"
    wanted_rule = _rule(rule_file, split_by, val_fraction, val, val_seen)
    resized = resize(size, fit, "crop" if videos else "stretch")
    budget = parse_bytes("--shard-size", shard_size)
    if extend and codec is None and None in (jpeg_quality, crf):  # the dataset says which of them counts
        quality = crf if jpeg_quality is None else jpeg_quality
    else:
        quality = encoding_quality(codec, jpeg_quality, crf)
    config = CompileConfig(
        source=config_of,
        out=out,
        settings=Settings(limit=limit),
        census=census,
        on_error=on_error or ("reject" if videos else "fail"),
        overwrite=overwrite,
        workers=task_count(workers, ray_address),
        engine=engine,
        ray_address=ray_address,
        part=Part.parse(part) if part is not None else None,
    )
    if extend:
        pixels = {
            "size": resized.size,
            "fit": fit,
            "codec": codec,
            "quality": quality,
            "group": max_gop,
            "shard_size": budget,
        }
        given = {name: value for name, value in pixels.items() if value is not None}
        config = extension.adopt(config, given | wanted_rule)
    opened = open_source(config.source)
    if not extend:
        kept = opened.keeps_splits and not wanted_rule
        settings = Settings(
            rule=split.SplitRule(by="source") if kept else split.SplitRule(**wanted_rule),
            resize=resized,
            encoding=Encoding(codec=codec or "raw", quality=quality, anew=codec == "av1", group=max_gop),
            shard_size=budget,
            limit=limit,
        )
        config = replace(config, settings=settings)
    with progress("scanning", total=opened.expected, unit="episodes", quiet=quiet) as report:
        prepared = (extension.prepare if extend else prepare)(config, report)
    assignment = prepared.plan.assignment
    assert assignment is not None
    if val:
        _check_names(prepared, assignment)
    for warning in (*warnings(prepared.census, prepared.source), *assignment.warnings):
        warn(warning)
    rule = split.write_rule(assignment.rule).encode()
    if dry_run:
        click.echo(_plan_text(prepared, assignment))
        said = _found_text(prepared) if extend else ""
    elif extend and not prepared.plan.shards:
        if config.part is None:
            execute(prepared)
        said = _found_text(prepared)
    else:
        with progress(
            "compiling", total=prepared.frames, unit="frames", quiet=quiet, start=prepared.frames_done
        ) as report:
            if config.part is None:
                manifest = execute(prepared, report, warn)
                said = (f"{_found_text(prepared)}\n" if extend else "") + done_text(config.out, manifest)
            else:
                execute_part(prepared, report)
                mine, every = len(prepared.shards), len(prepared.plan.shards)
                said = (
                    f"{config.out}: part {config.part} is there, {mine} of {every} shards; "
                    f"when all are: oxcart commit {shlex.quote(config.out)}"
                )
    if write_rule is not None:
        write_file(write_rule, rule)
    if said and not quiet:
        click.echo(said)


@click.command()
@click.argument("out", type=PathOrUrl())
@click.option(
    "--on-error",
    type=click.Choice(["fail", "reject"]),
    default="fail",
    help="If a part has rejected an episode: fail, or accept that.",
)
@click.option("--quiet", is_flag=True, help="No summary.")
def commit(out: str, on_error: str, quiet: bool) -> None:
    """Finish the compile in OUT once all its parts are there: write its tables and its manifest.

    The source is not needed. An interrupted commit can be run again.

    \b
    Example:
      oxcart commit bridge
      oxcart commit s3://bucket/bridge --on-error reject
    """
    from oxcart.compile.pipeline import finish

    manifest = finish(out, on_error=on_error, warn=warn)
    if not quiet:
        click.echo(done_text(out, manifest))


def _check_names(prepared: Prepared, assignment: Assignment) -> None:
    """Refuse --val NAME of a group that does not exist: on the command line that is a typing mistake."""
    from oxcart.shards.choices import did_you_mean
    from oxcart.shards.errors import ConfigError

    rule = prepared.config.settings.rule
    if not isinstance(rule.val, tuple):
        return
    known = {name for group in assignment.groups for name in group.names}
    for name in rule.val:
        if name not in known:
            hint = did_you_mean(name, known, "oxcart scan lists all of them")
            raise ConfigError(f"--val {name!r}: no such {rule.by} in {prepared.source.name}{hint}")


def _rule(
    file: Path | None,
    by: str | None,
    fraction: float | None,
    val: tuple[str, ...],
    val_seen: float | None,
) -> dict[str, Any]:
    """Fields of the split rule that the options set."""
    from oxcart.manifests.split import read_rule
    from oxcart.shards.errors import ConfigError

    given = {"--split-by": by, "--val-fraction": fraction, "--val": val or None, "--val-seen": val_seen}
    used = [name for name, value in given.items() if value is not None]
    if file is not None:
        if used:
            raise ConfigError(f"--split: the rule file says it all; leave out {', '.join(used)}")
        return dict(vars(read_rule(file)))
    if "none" in val and val != ("none",):
        raise ConfigError("--val: expected names or none, got both; leave one out")
    if fraction is not None and val:
        raise ConfigError("--val-fraction: expected alone or --val alone, got both; leave one out")
    chosen: dict[str, Any] = {}
    if by is not None:
        chosen["by"] = by
    if val:
        chosen["val"] = None if val == ("none",) else val
    elif fraction is not None:
        chosen["val"] = fraction
    if val_seen is not None:
        chosen["val_seen"] = val_seen
    return chosen


def _found_text(prepared: Prepared) -> str:
    """How many episodes of the source are new to a dataset and how many are known, in one line."""
    extends, rejected = prepared.plan.extends, prepared.census.rejected.num_rows
    assert extends is not None
    new = sum(shard.rows.num_rows for shard in prepared.plan.shards)
    gone = f"; {extends.gone:,} are no longer in the source and stay" if extends.gone else ""
    more = f"; {rejected:,} cannot be compiled" if rejected else ""
    found = f"{new:,} new" if new else "nothing new"
    return f"{prepared.config.out}: {found}, {extends.known:,} known{gone}{more}"


def _plan_text(prepared: Prepared, assignment: Assignment) -> str:
    from oxcart.cli.table import size, table

    plan, census = prepared.plan, prepared.census
    shown = [(g.names, g.split, g.episodes) for g in assignment.groups]
    groups = [(", ".join(names) or "(unknown)", split, episodes) for names, split, episodes in shown[:200]]
    splits: dict[str, list[int]] = {}
    for shard in plan.shards:
        counts = splits.setdefault(shard.split, [0, 0, 0])
        counts[0] += shard.rows.num_rows
        counts[1] += sum(shard.rows["steps"].to_pylist())
        counts[2] += 1
    lines = [
        table((assignment.rule.by, "split", "episodes"), groups),
        *([f"... and {len(shown) - 200:,} more"] if len(shown) > 200 else []),
        "",
        table(("split", "episodes", "steps", "shards"), [(name, *counts) for name, counts in splits.items()]),
        "",
        f"{size(plan.frame_bytes)} of frames; {plan.limited:,} episodes beyond the limit, "
        f"{census.rejected.num_rows:,} rejected; nothing was compiled",
    ]
    return "\n".join(lines)


def warn(warning: str) -> None:
    """Print a warning as one line on stderr."""
    click.echo(f"oxcart: warning: {warning}", err=True)


def done_text(out: str, manifest: Manifest) -> str:
    """What was compiled, in two lines."""
    from oxcart.cli.table import size

    splits = ", ".join(f"{c['episodes']:,} {name}" for name, c in manifest.splits.items())
    frames = sum(count["frames"] for count in manifest.splits.values())
    total = size(sum(shard["bytes"] for shard in manifest.shards))
    left_out = [
        f"{manifest.counts[what]:,} {what}" for what in ("rejected", "limited") if manifest.counts[what]
    ]
    return (
        f"{out}: {manifest.counts['compiled']:,} episodes ({splits}), {frames:,} frames, "
        f"{len(manifest.shards)} shards, {total}{''.join(f', {text}' for text in left_out)}\n"
        f"fingerprint {manifest.fingerprint}"
    )
