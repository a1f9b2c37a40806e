"""`oxcart export`: a compiled dataset in the formats of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from oxcart.cli.options import LocalPath, PathOrUrl, json_option, quiet_option, workers_option


@click.group()
def export() -> None:
    """Write a compiled dataset in the format of another program.

    \b
    Example:
      oxcart export lerobot bridge bridge-lerobot
    """


@export.command()
@click.argument("dataset", type=PathOrUrl())
@click.argument("out", type=PathOrUrl())
@click.option(
    "--images",
    is_flag=True,
    help="Store frames as PNG images, exactly.  [default: as AV1 videos, of which every second frame is a "
    "key]",
)
@click.option(
    "--fps",
    type=click.IntRange(min=1),
    help="Frames per second that the export says; LeRobot needs a whole number. All frames are kept, so "
    "times are wrong if this is not the control rate.  [default: the control rate]",
)
@click.option(
    "--audit",
    type=LocalPath(dir_okay=False),
    help="JSON of the audit of DATASET, from oxcart audit --json: its verdict goes into the card.",
)
@click.option("--overwrite", is_flag=True, help="Replace the export that is in OUT.")
@workers_option()
@json_option
@quiet_option
def lerobot(dataset: str, out: str, audit: Path | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Write DATASET as LeRobot datasets (v3.0) in OUT, one per split, with a dataset card.

    OUT/train, OUT/val and so on open in LeRobot. Their table of episodes says which episode each is
    and where it was recorded, so that oxcart compile OUT takes all of them back, with the same
    splits. An export that was interrupted starts anew when the command is run again.

    \b
    Example:
      oxcart export lerobot bridge bridge-lerobot
      oxcart export lerobot bridge bridge-lerobot --images --audit audit.json
    """
    from oxcart.cli.compile import warn
    from oxcart.cli.progress import progress
    from oxcart.compile.export.lerobot import ExportConfig, prepare
    from oxcart.compile.export.lerobot import export as run
    from oxcart.manifests.audit.repair import read_report

    report_of = read_report(audit, "--audit") if audit is not None else None
    prepared = prepare(ExportConfig(dataset=dataset, out=out, audit=report_of, **options))
    for line in prepared.warnings:
        warn(line)
    with progress("exporting", total=prepared.frames, unit="frames", quiet=quiet) as report:
        made = run(prepared, report)
    if as_json:
        click.echo(json.dumps(made, ensure_ascii=False))
    elif not quiet:
        splits = ", ".join(f"{counts['episodes']:,} {name}" for name, counts in made["splits"].items())
        click.echo(f"{out}: {splits} episodes as {made['frames']}s at {made['fps']} fps")
        first = next(iter(made["splits"]))
        click.echo(f'next: LeRobotDataset("local/{first}", root="{out}/{first}")')
