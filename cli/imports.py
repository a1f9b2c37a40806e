"""`oxcart import`: turn a model that another program trained into a run."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from oxcart.cli.options import LocalPath, need_train


@click.group("import")
def import_() -> None:
    """Import a model that another program trained.

    \b
    Example:
      oxcart import laq laq_openx.pt run.dir=runs/lapa
    """


@import_.command()
@click.argument("file", type=LocalPath(exists=True, dir_okay=False), metavar="FILE")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--preset", default="lapa", help="Preset with the sizes and the frame offset of the checkpoint."
)
def laq(file: Path, overrides: tuple[str, ...], preset: str) -> None:
    """Make a run of FILE, a checkpoint (.pt) of the latent-action model of LAPA's own code.

    KEY=VALUE sets a key of the configuration: run.dir= the directory to write, data.offset=
    the steps between two frames, model.width= and others the sizes where they differ from the
    preset's. A file that holds more than tensors is refused, and no code in it is run.

    \b
    Example:
      oxcart import laq laq_openx.pt --preset lapa run.dir=runs/lapa data.offset=10
      oxcart label bridge --laq runs/lapa -o codes.parquet
    """
    need_train()
    from oxcart.train.laq.config import laq_config
    from oxcart.train.laq.published import import_lapa

    config = laq_config([f"preset={preset}", *overrides])
    count = import_lapa(file, config)
    run = shlex.quote(config.run.dir)
    click.echo(f"{config.run.dir}: {count:,} weights of {file}")
    click.echo(f"next: oxcart label DATASET --laq {run} -o codes.parquet")
