"""`oxcart bench`: where the time of reading goes, and what the shuffle does, on the user's machine."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click

from oxcart.cli.options import PathOrUrl, json_option, need, options
from oxcart.cli.outputs import PLOT, output_option, overwrite_option


@click.group()
def bench() -> None:
    """Measure reading and shuffling on this machine.

    \b
    Example:
      oxcart bench read s3://bucket/bridge
    """


sample_options = options(
    click.option("--split", default="train", help="Split to read."),
    click.option(
        "--offset", type=click.IntRange(min=1), default=1, help="Steps between the frames of a pair."
    ),
    click.option("--per-episode", default="1", metavar="N|all", help="Pairs per episode in an epoch."),
    click.option("--batch-size", type=click.IntRange(min=1), default=64, help="Pairs per batch."),
    json_option,
)
"""Options that say what is sampled."""


@bench.command()
@click.argument("url", type=PathOrUrl())
@click.option("--seconds", type=click.FloatRange(min=0.5), default=10.0, help="Seconds to measure for.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads that read.  [default: one per core; 32 if remote]"
)
@click.option("--size", type=click.IntRange(min=1), help="Pixels per side that frames are resized to.")
@sample_options
def read(
    url: str,
    seconds: float,
    threads: int | None,
    size: int | None,
    split: str,
    offset: int,
    per_episode: str,
    batch_size: int,
    as_json: bool,
) -> None:
    """Say how fast the dataset at URL can be read, and what limits it.

    Data in the page cache is read from there. To measure the disk or the link, read data
    that was not read before, or a bucket.

    \b
    Example:
      oxcart bench read bridge --per-episode all
    """
    need("train", "torch")
    from dataclasses import asdict

    from oxcart.cli.benchmark import measure
    from oxcart.shards.errors import ConfigError
    from oxcart.train.data.loader import Loader

    if not math.isfinite(seconds):
        raise ConfigError(f"--seconds: expected a number of seconds like 10, got {seconds}")
    loader = Loader(
        url, split, sample=_pairs(offset, per_episode), batch_size=batch_size, threads=threads, size=size
    )
    report = measure(loader, seconds)
    click.echo(json.dumps(asdict(report)) if as_json else f"{loader}\n\n{_read_text(report)}")


def _read_text(report: Any) -> str:
    from oxcart.cli.table import table

    rates = {stage.name: stage for stage in report.stages}
    mine = report.loader_samples_per_s
    rows = [("loader", f"{mine:,.0f}", f"{report.loader_bytes_per_s / 1e9:.2f}", "")]
    rows += [
        (
            f"{stage.name} alone",
            f"{stage.samples_per_s:,.0f}",
            f"{stage.bytes_per_s / 1e9:.2f}",
            f"{mine / stage.samples_per_s:.0%}",
        )
        for stage in report.stages
    ]
    where = "remote" if report.remote else "local"
    link = rates["fetch"].bytes_per_s
    lines = [
        f"codec {report.codec}, {where}, {report.threads} threads, batches of {report.batch_size}; "
        f"first batch after {report.first_batch_s:.2f} s",
        "",
        table(("stage", "pairs/s", "GB/s", "loader's share of it"), rows),
        "",
        f"limit: {report.limit}, the slowest stage alone",
        "",
        "codecs here, from the size and speed of some of these frames:",
        table(
            ("codec", "KB/frame", "link: pairs/s", "decode: pairs/s", "both"),
            [
                (
                    one.codec,
                    f"{one.frame_bytes / 1e3:.1f}",
                    f"{one.link_samples_per_s:,.0f}",
                    "any" if one.codec == "raw" else f"{one.decode_samples_per_s:,.0f}",
                    f"{one.samples_per_s:,.0f}",
                )
                for one in report.forecasts
            ],
        ),
        f"  link: {link / 1e6:,.0f} MB/s / KB read per pair; decode: {report.threads} threads, "
        "2 chunks per pair",
        f"best codec for this machine and link: {report.best}",
        f"prefetch: {report.latency_s * 1e3:.1f} ms per request x {mine:,.0f} pairs/s / {report.batch_size} "
        f"per batch -> prefetch={report.prefetch}",
    ]
    return "\n".join(lines)


@bench.command()
@click.argument("url", type=PathOrUrl())
@output_option(
    "-o", "--output", writes=PLOT, default="shuffle.png", help="Plot to write: .png, .pdf or .svg."
)
@overwrite_option()
@click.option("--seed", type=int, default=0, help="Seed of the order.")
@sample_options
def shuffle(
    url: str,
    output: Path,
    seed: int,
    split: str,
    offset: int,
    per_episode: str,
    batch_size: int,
    as_json: bool,
) -> None:
    """Say how well lanes and blocks mix the batches of the dataset at URL.

    \b
    Example:
      oxcart bench shuffle bridge --per-episode all -o shuffle.png
    """
    need("train", "torch", "matplotlib")
    from dataclasses import asdict

    from oxcart.cli.shuffling import mixing, plot
    from oxcart.cli.table import table
    from oxcart.train.data.loader import Loader
    from oxcart.train.data.order import Order

    loader = Loader(url, split, sample=_pairs(offset, per_episode), batch_size=batch_size, seed=seed, size=8)
    stream = loader.streams[0]
    environments = stream.index.texts["environment"].codes.astype("int64")
    assert isinstance(stream.order, Order)
    found = mixing(stream.order, environments, batch_size, (1, 4, 16, 64), (1, 32, 128, 512, 2048))
    name = stream.index.dataset.manifest.dataset["name"]
    plot(found, batch_size, f"{name}, {split}: {len(stream.order):,} samples", output)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
        return
    rows = [
        (
            "perfect" if not one.lanes else one.lanes,
            "" if not one.lanes else one.block,
            f"{one.episodes:.1f}",
            f"{one.environments:.1f}",
            f"{one.correlation:.3f}",
            f"{one.memory:,}",
        )
        for one in found
    ]
    head = ("lanes", "block", "episodes/batch", "environments/batch", "rank correlation", "samples in reach")
    click.echo(f"{loader}\n\n{table(head, rows)}\n\nplot: {output}")


def _pairs(offset: int, per_episode: str) -> Any:
    from oxcart.shards.errors import ConfigError
    from oxcart.train.data.sampling import Pairs

    if per_episode != "all" and not per_episode.isdecimal():
        raise ConfigError(f'--per-episode: expected a number or "all", got {per_episode!r}')
    return Pairs(frames=offset, per_episode=per_episode if per_episode == "all" else int(per_episode))
