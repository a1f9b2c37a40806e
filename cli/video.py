"""Options that say how videos become clips, and `oxcart fetch-videos`, which downloads some."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oxcart.cli.options import LocalPath, need, options, quiet_option, read_text
from oxcart.shards.errors import ConfigError

if TYPE_CHECKING:
    from oxcart.compile.sources.videos.config import VideoConfig


video_options = options(
    click.option("--rate", help="Videos: steps per second of every clip.  [default: 10]"),
    click.option(
        "--clip-seconds",
        metavar="MIN:MAX",
        help="Videos: length of the shortest and the longest clip; longer shots are cut.  [default: 1:10]",
    ),
    click.option(
        "--shot-detector",
        type=click.Choice(["content", "adaptive"]),
        help="Videos: PySceneDetect's detector.  [default: content]",
    ),
    click.option(
        "--shot-threshold",
        type=float,
        help="Videos: threshold of the detector.  [default: content 27, adaptive 3]",
    ),
    click.option(
        "--still",
        type=float,
        help="Videos: mean difference of grey levels, from step to step, up to which nothing moves; such "
        "clips, and stretches of a second, are left out.  [default: 0.1]",
    ),
    click.option(
        "--licence",
        multiple=True,
        metavar="NAME",
        help="Licence of the data, such as CC-BY-4.0, or its URL.  [default: that of the catalog]  Videos: "
        "licence to compile, as the site calls it; cc-by is YouTube's, unknown means a video that states "
        "none.  [default: all]",
    ),
    click.option(
        "--exclude-ids",
        type=LocalPath(dir_okay=False, exists=True),
        help="Videos: a file of ids to leave out, one per line.",
    ),
    click.option(
        "--where",
        multiple=True,
        metavar="COLUMN=VALUE[,VALUE]",
        help="Videos: rows of scenes.csv to compile.",
    ),
    click.option(
        "--keep-reuploads-apart",
        is_flag=True,
        help="Videos: do not merge channels that share a near-duplicate video.",
    ),
)
"""Options of sources that are videos."""


def video_config(
    kind: str,
    rate: str | None,
    clip_seconds: str | None,
    shot_detector: str | None,
    shot_threshold: float | None,
    still: float | None,
    licence: tuple[str, ...],
    exclude_ids: Path | None,
    where: tuple[str, ...],
    keep_reuploads_apart: bool,
) -> VideoConfig | None:
    """What the options say about videos; None for a source of another kind.

    Raises:
        ConfigError: an option cannot be parsed, or is about videos and the source has none.
    """
    from oxcart.compile.sources.videos.config import VideoConfig, parse_rate

    given = {
        "--rate": rate,
        "--clip-seconds": clip_seconds,
        "--shot-detector": shot_detector,
        "--shot-threshold": shot_threshold,
        "--still": still,
        "--licence": licence or None,
        "--exclude-ids": exclude_ids,
        "--where": where or None,
        "--keep-reuploads-apart": keep_reuploads_apart or None,
    }
    used = [name for name, value in given.items() if value is not None]
    if kind != "videos":
        if used:
            raise ConfigError(f"{used[0]}: expected a source of videos, got one of {kind}; leave it out")
        return None
    chosen: dict[str, Any] = {"detector": shot_detector, "threshold": shot_threshold, "still": still}
    if rate is not None:
        chosen["rate"] = parse_rate(rate)
    if clip_seconds is not None:
        chosen["min_s"], chosen["max_s"] = _range(clip_seconds)
    if exclude_ids is not None:
        chosen["exclude"] = frozenset(_lines(exclude_ids))
    return VideoConfig(
        licences=licence,
        where=tuple(_where(one) for one in where),
        reuploads=not keep_reuploads_apart,
        **{name: value for name, value in chosen.items() if value is not None},
    )


@click.command("fetch-videos")
@click.argument("urls", type=LocalPath(dir_okay=False, exists=True))
@click.argument("directory", type=LocalPath(file_okay=False))
@click.option(
    "--licence",
    multiple=True,
    metavar="NAME",
    help="Licence to download, as the site calls it; cc-by is YouTube's, unknown means a video that "
    "states none, any takes all.  [default: cc-by]",
)
@click.option("--max-height", default=720, help="Pixels; larger versions are not downloaded.")
@quiet_option
def fetch_videos(urls: Path, directory: Path, licence: tuple[str, ...], max_height: int, quiet: bool) -> None:
    """Download the videos of URLS, a file of addresses, into DIRECTORY with yt-dlp.

    Only videos under a licence that is named are downloaded, without sound. An interrupted
    download resumes: run the command again. You are responsible for what the site allows.
    Needs the extra `video`.

    \b
    Example:
      oxcart fetch-videos urls.txt downloads
      oxcart fetch-videos urls.txt downloads --licence any --max-height 360
    """
    need("video", "yt_dlp")
    from oxcart.cli.progress import progress
    from oxcart.compile.sources.videos.fetch import fetch, read_urls
    from oxcart.shards.errors import SourceError

    wanted = read_urls(urls)
    with progress("fetching", total=len(wanted), unit="addresses", quiet=quiet) as report:
        found = fetch(wanted, directory, licences=licence or ("cc-by",), max_height=max_height, report=report)
    for line in found.refused:
        click.echo(f"oxcart: warning: not downloaded, for its licence: {line}", err=True)
    if not quiet:
        click.echo(
            f"{directory}: {found.there:,} videos downloaded, {found.before:,} addresses done before, "
            f"{len(found.refused):,} refused for their licence, {len(found.failed):,} failed"
        )
    if found.failed:
        more = f" (and {len(found.failed) - 1} more)" if len(found.failed) > 1 else ""
        raise SourceError(f"{found.failed[0]}{more}; the same command tries again")


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise ConfigError(f"--clip-seconds: expected two numbers like 1:10, got {text!r}") from None


def _where(text: str) -> tuple[str, tuple[str, ...]]:
    column, equals, values = text.partition("=")
    if not column or not equals:
        raise ConfigError(f"--where: expected COLUMN=VALUE, got {text!r}")
    return column, tuple(values.split(","))


def _lines(file: Path) -> list[str]:
    """The lines of a file that are neither empty nor comments."""
    return [
        line.strip()
        for line in read_text(file).splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
