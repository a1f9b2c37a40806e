"""`oxcart transcode`: a compiled dataset in another codec, frame size or shard size."""

from __future__ import annotations

from typing import Any

import click

from oxcart.cli.options import Place, output_options, parse_bytes, resize


@click.command()
@click.argument("dataset", type=Place())
@click.argument("out", type=Place())
@output_options(codec=None)
@click.option(
    "--on-error",
    type=click.Choice(["fail", "reject"]),
    default="fail",
    show_default=True,
    help="End at a frame that cannot be decoded, or list its episode in rejected.parquet. Bytes that do not "
    "match their digest end it either way.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: one a core]")
@click.option("--quiet", is_flag=True, help="No progress and no summary.")
def transcode(
    dataset: str,
    out: str,
    size: str | None,
    fit: str | None,
    codec: str | None,
    jpeg_quality: int | None,
    shard_size: str | None,
    **options: Any,
) -> None:
    """Store the frames of DATASET in another way, in OUT, without its source.

    Episodes, splits and all that is known of them stay. Codecs raw and zstd hold the same
    frames, so there and back gives the same bytes. The JPEGs of a jpeg DATASET stay as they
    are, unless --size changes them or --jpeg-quality has every frame encoded anew. A
    transcode that was cut off goes on where it stopped when the same command is given again.

    \b
    Example:
      oxcart transcode bridge bridge-zstd --codec zstd
      oxcart transcode bridge bridge-128 --size 128 --shard-size 1GiB
      oxcart transcode bridge-jpeg bridge-small --codec jpeg --jpeg-quality 70
    """
    from oxcart.cli.compile import done_text, warn
    from oxcart.cli.progress import progress
    from oxcart.compile.engines.processes import default_workers
    from oxcart.compile.transcode import TranscodeConfig, execute, prepare
    from oxcart.shards.errors import ConfigError

    if codec is None and jpeg_quality is not None:
        raise ConfigError("--jpeg-quality: expected with --codec jpeg, got alone")
    quiet = options.pop("quiet")
    prepared = prepare(
        TranscodeConfig(
            dataset=dataset,
            out=out,
            codec=codec,
            quality=jpeg_quality,
            resize=resize(size, fit, "stretch"),
            shard_size=parse_bytes("--shard-size", shard_size),
            **{**options, "workers": options["workers"] or default_workers()},
        )
    )
    with progress(
        "transcoding", total=prepared.frames, unit="frames", quiet=quiet, start=prepared.frames_done
    ) as report:
        manifest = execute(prepared, report, warn)
    if not quiet:
        click.echo(done_text(out, manifest))
