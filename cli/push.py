"""`oxcart push`: a compiled dataset on the Hugging Face Hub."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from oxcart.cli.options import LocalPath, PathOrUrl, json_option, quiet_option
from oxcart.shards.errors import ConfigError


@click.command()
@click.argument("dataset", type=PathOrUrl())
@click.argument("name", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Make the repository private; one that exists must be.")
@click.option(
    "--revision",
    "branch",
    metavar="BRANCH",
    default="main",
    show_default=True,
    help="Branch to push to; it is made if there is none.",
)
@click.option(
    "--audit",
    type=LocalPath(dir_okay=False),
    help="JSON of the audit of DATASET, from oxcart audit --json: its verdict goes into the card.",
)
@click.option("--overwrite", is_flag=True, help="Replace another dataset that is in the repository.")
@json_option
@quiet_option
def push(dataset: str, name: str, audit: Path | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Upload DATASET to the dataset repository OWNER/NAME of the Hugging Face Hub.

    It is then read as hf://datasets/OWNER/NAME. The repository is made if there is none, and
    gets a dataset card. The manifest is uploaded last, so nobody reads half a dataset. An
    interrupted push resumes: run the command again. HF_TOKEN, or hf auth login, says who you
    are.

    \b
    Example:
      oxcart push bridge me/bridge --private
      oxcart push bridge me/bridge --audit audit.json
    """
    from oxcart.cli.progress import progress
    from oxcart.manifests.audit.repair import read_report

    try:
        from oxcart.manifests.push import PushConfig, execute, prepare  # huggingface_hub is an extra
    except ModuleNotFoundError as error:
        raise ConfigError(f"push: needs the package {error.name}; pip install 'oxcart[hub]'") from error

    report_of = read_report(audit, "--audit") if audit is not None else None
    config = PushConfig(dataset=dataset, name=name, audit=report_of, **options)
    with progress("comparing", total=None, unit="MiB", quiet=quiet) as report:
        prepared = prepare(config, lambda done: report(done >> 20, done))
    there, total = prepared.bytes_there, prepared.bytes_there + prepared.bytes_left
    with progress("pushing", total=total >> 20, unit="MiB", quiet=quiet, start=there >> 20) as report:
        made = execute(prepared, lambda done, size: report(done >> 20, size))
    if as_json:
        click.echo(json.dumps(asdict(made), ensure_ascii=False))
    elif not quiet:
        what = f"{made.uploaded:,} files" if made.uploaded else "nothing to upload"
        click.echo(f"{made.page}: {what}, fingerprint {made.fingerprint[:12]}")
        click.echo(f"next: oxcart inspect {made.url}")
