"""`oxcart inspect`, `oxcart show` and `oxcart verify`: look at a compiled dataset."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oxcart.cli.main import DAMAGED
from oxcart.cli.options import PathOrUrl, json_option, workers_option
from oxcart.cli.outputs import SHEET, output_option, overwrite_option

if TYPE_CHECKING:
    from oxcart.manifests.manifest import Manifest

SIDES = {".png": 1 << 31, ".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}
"""Suffix of an image that `show` writes -> pixels that a side of one can have."""


@click.command()
@click.argument("dataset", type=PathOrUrl())
@click.option("--episodes", is_flag=True, help="List every episode.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the manifest, or one line per episode.")
def inspect(dataset: str, episodes: bool, as_json: bool) -> None:
    """Say what DATASET holds: counts per split and environment, shards, cameras, statistics.

    DATASET is a directory or a URL: gs://, s3://, az://, hf:// or https://.

    \b
    Example:
      oxcart inspect bridge
      oxcart inspect bridge --episodes --json | jq -r 'select(.split == "val").key'
    """
    from oxcart.manifests.dataset import Dataset
    from oxcart.manifests.tables import EPISODES, rows_of

    opened = Dataset.open(dataset)
    if episodes:
        names = ("key", "split", "shard", "environment", "steps", "instruction")
        rows = rows_of(opened.table(EPISODES, None if as_json else names))
        if as_json:
            for row in rows:
                click.echo(json.dumps(row, ensure_ascii=False))
            return
        from oxcart.cli.table import table

        click.echo(table(names, [[row[name] for name in names] for row in rows]))
    elif as_json:
        click.echo(json.dumps(asdict(opened.manifest), ensure_ascii=False))
    else:
        click.echo(_text(opened.manifest))


def _text(manifest: Manifest) -> str:
    from oxcart.cli.table import size, table
    from oxcart.manifests.split import SPLITS

    counts = ("episodes", "steps", "frames")
    environments = []
    for environment in manifest.environments:
        name, known = environment["name"] or "(unknown)", environment["known"]
        for split, count in environment["splits"].items():
            environments.append((name, known, split, *(count[what] for what in counts), size(count["bytes"])))
    environments.sort(key=lambda row: SPLITS.index(row[2]))
    rate = manifest.control_rate
    hertz = f", {rate['hz']:g} Hz{'' if rate['verified'] else ' (unverified)'}" if rate else ""
    said = {name: manifest.dataset[name] for name in ("licence", "citation")}
    said["control rate"] = rate and rate["source"]
    about = [f"\n{name}: {text}" for name, text in said.items() if text]
    left_out = ", ".join(f"{manifest.counts[what]:,} {what}" for what in ("source", "rejected", "limited"))
    parents = manifest.config.get("parents", [])
    extends = f"\nextends {', which extends '.join(reversed(parents))}" if parents else ""
    blocks = [
        f"{manifest.dataset['name']} {manifest.dataset['version']} ({manifest.format}{hertz})\n"
        f"fingerprint {manifest.fingerprint}{extends}\n"
        f"episodes: {left_out}{''.join(about)}",
        table(
            ("split", *counts, "size"),
            [(name, *(c[what] for what in counts), size(c["bytes"])) for name, c in manifest.splits.items()],
        ),
        table(("environment", "known", "split", *counts, "size"), environments),
        table(
            ("shard", "episodes", "frames", "size"),
            [
                (shard["name"], shard["episodes"], shard["frames"], size(shard["bytes"]))
                for shard in manifest.shards
            ],
        ),
        table(
            ("camera", "role", "read from", "channels", "codec", "height", "width"),
            [
                tuple(c[what] for what in ("name", "role", "source", "channels", "codec", "height", "width"))
                for c in manifest.cameras
            ],
        ),
        *(_array(name, array) for name, array in manifest.arrays.items()),
    ]
    return "\n\n".join(blocks)


def _array(name: str, array: dict[str, Any] | None) -> str:
    from oxcart.cli.table import table

    if array is None:
        return f"{name}: none"
    title = f"{name} ({', '.join(array['source'])})"
    head, numbers = ("#", "column", "kind", "unit", "frame"), array["statistics"]
    names = ("mean", "std", "min", "q01", "q50", "q99", "max")
    shown = [what for what in names if numbers is not None]
    rows = [
        (
            *(i, one["name"], one["kind"], one["unit"] or "", one["frame"] or ""),
            *(f"{numbers[what][i]:.4g}" for what in shown),
        )
        for i, one in enumerate(array["columns"])
    ]
    said = f"{title}, statistics of train" if shown else f"{title}: no step of train has one"
    return f"{said}\n" + table((*head, *shown), rows)


@click.command()
@click.argument("dataset", type=PathOrUrl())
@click.argument("key", required=False)
@output_option("-o", "--output", writes=SHEET, required=True, help="Image to write: .png, .jpg or .webp.")
@overwrite_option()
@click.option("--frames", type=click.IntRange(1, 64), default=8, help="Frames to draw.")
@click.option("--height", type=click.IntRange(16, 1024), default=128, help="Pixels per frame.")
def show(dataset: str, key: str | None, output: Path, frames: int, height: int) -> None:
    """Draw a contact sheet of the episode KEY of DATASET.

    Without KEY, the first episode of val is drawn; without val, the first of train.

    \b
    Example:
      oxcart show bridge bridge_dataset-train-00000-000007 -o strip.png
    """
    from oxcart.manifests.dataset import Dataset
    from oxcart.manifests.show import contact_sheet, default_episode, encode_image
    from oxcart.shards.errors import ConfigError
    from oxcart.shards.files import write_file

    opened = Dataset.open(dataset)
    episode = default_episode(opened) if key is None else opened[key]
    sheet = contact_sheet(episode, frames=frames, height=height)
    limit = SIDES[output.suffix.lower()]
    if max(sheet.size) > limit:
        raise ConfigError(
            f"--output: {output.suffix} holds {limit} pixels per side, the sheet has {max(sheet.size)}: "
            "choose .png, fewer --frames or a smaller --height"
        )
    write_file(output, encode_image(sheet, output.suffix))
    click.echo(f"{output}: {episode.key}")


@click.command()
@click.argument("dataset", type=PathOrUrl())
@workers_option("Shards to read at a time.")
@click.option("--decode", is_flag=True, help="Decode every frame as well: slower, and rarely needed.")
@json_option
@click.option("--quiet", is_flag=True, help="No progress and no summary; only damage.")
def verify(dataset: str, workers: int, decode: bool, as_json: bool, quiet: bool) -> None:
    """Check every byte of DATASET against its digests, and every count against its tables.

    With codec jpeg the bytes may be the source's own images, which nothing has decoded yet;
    --decode finds those that cannot be decoded.

    If anything is damaged, exits with 1 and lists each episode, camera and chunk.

    \b
    Example:
      oxcart verify bridge
    """
    from oxcart.cli.progress import progress
    from oxcart.manifests.dataset import Dataset
    from oxcart.manifests.verify import verify as verify_dataset

    opened = Dataset.open(dataset)
    frames = sum(shard["frames"] for shard in opened.manifest.shards)
    with progress("verifying", total=frames, unit="frames", quiet=quiet) as report:
        damage = verify_dataset(opened, decode=decode, workers=workers, report=report)
    if as_json:
        found = [{"file": one.file, "reason": one.reason} for one in damage]
        click.echo(json.dumps({"intact": not damage, "damage": found}, ensure_ascii=False))
    else:
        for one in damage:
            click.echo(f"{one.file}: {one.reason}")
        if not damage and not quiet:
            click.echo(f"{dataset}: intact, {len(opened.manifest.shards)} shards, {frames:,} frames")
    if damage:
        raise SystemExit(DAMAGED)
