"""`oxcart transcode`: a compiled dataset in another codec, frame size or shard size."""

from __future__ import annotations

from typing import Any

import click

from oxcart.cli.options import (
    PathOrUrl,
    encoding_quality,
    output_options,
    parse_bytes,
    quiet_option,
    resize,
    workers_option,
)


@click.command()
@click.argument("dataset", type=PathOrUrl())
@click.argument("out", type=PathOrUrl())
@output_options(codec=None)
@click.option(
    "--on-error",
    type=click.Choice(["fail", "reject"]),
    default="fail",
    help="At a frame that cannot be decoded: fail, or list its episode in rejected.parquet. Bytes that do "
    "not match their digest always fail.",
)
@workers_option("Processes.")
@quiet_option
def transcode(
    dataset: str,
    out: str,
    size: str | None,
    fit: str | None,
    codec: str | None,
    jpeg_quality: int | None,
    crf: int | None,
    max_gop: int | None,
    shard_size: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Store the frames of DATASET in another way, in OUT, without its source.

    Episodes, splits and metadata stay the same. Codecs raw and zstd hold the same frames,
    so there and back gives the same bytes. The JPEGs of a jpeg DATASET and the videos of
    others are kept, unless --size changes them or --jpeg-quality or --crf asks for another
    encoding. An interrupted transcode resumes: run the command again.

    \b
    Example:
      oxcart transcode bridge bridge-zstd --codec zstd
      oxcart transcode bridge bridge-128 --size 128 --shard-size 1GiB
      oxcart transcode bridge-jpeg bridge-small --codec jpeg --jpeg-quality 70
    """
    from oxcart.cli.compile import done_text, warn
    from oxcart.cli.progress import progress
    from oxcart.compile.transcode import TranscodeConfig, execute, prepare

    prepared = prepare(
        TranscodeConfig(
            dataset=dataset,
            out=out,
            codec=codec,
            quality=encoding_quality(codec, jpeg_quality, crf),
            group=max_gop,
            resize=resize(size, fit, "stretch"),
            shard_size=parse_bytes("--shard-size", shard_size),
            **options,
        )
    )
    with progress(
        "transcoding", total=prepared.frames, unit="frames", quiet=quiet, start=prepared.frames_done
    ) as report:
        manifest = execute(prepared, report, warn)
    if not quiet:
        click.echo(done_text(out, manifest))
