"""`oxcart sample`: small synthetic sources, for the demo and for trying things before the data is there."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from oxcart.cli.options import LocalPath
from oxcart.cli.progress import progress


@click.group()
def sample() -> None:
    """Write small synthetic sources.

    They have what matters to a compile in the real ones (environments, sessions,
    cameras, instructions) and take seconds to write.

    \b
    Example:
      oxcart sample rlds source
    """


@sample.command()
@click.argument("directory", type=LocalPath(file_okay=False))
@click.option("--kitchens", default=12, show_default=True, help="Environments.")
@click.option("--sessions", default=2, show_default=True, help="Recording sessions per kitchen.")
@click.option("--episodes", default=4, show_default=True, help="Episodes per session.")
@click.option("--steps", default=24, show_default=True, help="Steps per episode on average.")
@click.option("--size", default=96, show_default=True, help="Pixels of a side of the main camera's frames.")
@click.option("--files", default=4, show_default=True, help="TFRecord files of the train split.")
@click.option("--seed", default=0, show_default=True, help="Another seed draws other kitchens.")
@click.option("--duplicates", default=0, show_default=True, help="Episodes to repeat under another kitchen.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def rlds(
    directory: Path,
    kitchens: int,
    sessions: int,
    episodes: int,
    steps: int,
    size: int,
    files: int,
    seed: int,
    duplicates: int,
    quiet: bool,
) -> None:
    """Write a synthetic RLDS dataset of kitchens under DIRECTORY.

    \b
    Example:
      oxcart sample rlds source
      oxcart sample rlds source --kitchens 40 --size 256 --seed 1
    """
    from oxcart.compile.sample.rlds import SampleConfig, write_rlds

    config = SampleConfig(
        kitchens=kitchens,
        sessions=sessions,
        episodes=episodes,
        steps=steps,
        size=size,
        files=files,
        seed=seed,
        duplicates=duplicates,
    )
    total = kitchens * sessions * episodes + duplicates
    with progress("writing", total=total, unit="episodes", quiet=quiet) as report:
        written = write_rlds(directory, config, lambda done, _: report(done))
    click.echo(f"wrote {total:,} episodes of {kitchens:,} kitchens to {written}")
    click.echo(f"next: oxcart compile {shlex.quote(str(written))} OUT --val-fraction 0.2")
