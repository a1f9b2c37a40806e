"""`oxcart sample`: small synthetic sources and models, for the demo and for trying things without data."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from oxcart.cli.options import LocalPath, need, need_vla
from oxcart.cli.progress import progress


@click.group()
def sample() -> None:
    """Write small synthetic sources, or a small random model.

    The sources have what matters to a compile (environments, sessions, cameras,
    instructions) and take seconds to write.

    \b
    Example:
      oxcart sample rlds source
    """


@sample.command()
@click.argument("directory", type=LocalPath(file_okay=False))
@click.option("--kitchens", default=12, help="Environments.")
@click.option("--sessions", default=2, help="Recording sessions per kitchen.")
@click.option("--episodes", default=4, help="Episodes per session.")
@click.option("--steps", default=24, help="Steps per episode on average.")
@click.option("--size", default=96, help="Pixels per side of the main camera's frames.")
@click.option("--files", default=4, help="TFRecord files of the train split.")
@click.option("--seed", default=0, help="Another seed draws other kitchens.")
@click.option("--duplicates", default=0, help="Episodes to repeat under another kitchen.")
@click.option("--perturbed", default=0.0, help="Share of episodes that begin after something went wrong.")
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
    perturbed: float,
    quiet: bool,
) -> None:
    """Write a synthetic RLDS dataset of kitchens under DIRECTORY.

    \b
    Example:
      oxcart sample rlds source
      oxcart sample rlds source --kitchens 40 --size 256 --seed 1
    """
    from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds

    config = RldsSampleConfig(
        kitchens=kitchens,
        sessions=sessions,
        episodes=episodes,
        steps=steps,
        size=size,
        files=files,
        seed=seed,
        duplicates=duplicates,
        perturbed=perturbed,
    )
    with progress("writing", total=config.total, unit="episodes", quiet=quiet) as report:
        written = write_rlds(directory, config, report)
    click.echo(f"wrote {config.total:,} episodes of {kitchens:,} kitchens to {written}")
    click.echo(f"next: oxcart compile {shlex.quote(str(written))} OUT --val-fraction 0.2")


@sample.command()
@click.argument("directory", type=LocalPath(file_okay=False))
@click.option("--channels", default=5, help="Environments.")
@click.option("--videos", default=2, help="Videos per channel.")
@click.option("--shots", default=3, help="Shots per video.")
@click.option("--seconds", default=2.0, help="Seconds per shot.")
@click.option("--height", default=96, help="Pixels; videos are a third wider.")
@click.option("--seed", default=0, help="Another seed draws other scenes.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def videos(
    directory: Path,
    channels: int,
    videos: int,
    shots: int,
    seconds: float,
    height: int,
    seed: int,
    quiet: bool,
) -> None:
    """Write a few drawn web videos into DIRECTORY, as yt-dlp leaves them.

    There are several channels, cuts, a re-upload by another channel, a slide on which
    nothing moves, a video of variable rate and a damaged one. Needs the extra `video`.

    \b
    Example:
      oxcart sample videos vids
      oxcart sample videos vids --channels 8 --height 240 --seed 1
    """
    need("video", "av")
    from oxcart.compile.sample.videos import VideoSampleConfig, write_videos

    config = VideoSampleConfig(
        channels=channels, videos=videos, shots=shots, seconds=seconds, height=height, seed=seed
    )
    with progress("writing", total=config.total, unit="videos", quiet=quiet) as report:
        written = write_videos(directory, config, report)
    click.echo(f"wrote {config.total:,} videos to {written}")
    click.echo(f"next: oxcart compile {shlex.quote(f'videos:{written}')} OUT --val-fraction 0.2")


@sample.command()
@click.argument("directory", type=LocalPath(file_okay=False))
@click.option("--family", default="qwen3-vl", help="qwen3-vl, qwen2.5-vl or smolvlm.")
@click.option("--width", default=64, help="Width of the tokens; a multiple of 32.")
@click.option("--layers", default=2, help="Layers of the language model.")
@click.option("--image-size", default=64, help="Pixels per side of its images; a multiple of 64.")
@click.option("--spare", default=16, help="Rows of the embedding that have no token.")
@click.option("--tied/--untied", default=True, help="Use one matrix to read and to write tokens.")
@click.option("--seed", default=0, help="Another seed draws other weights.")
def vlm(
    directory: Path, family: str, width: int, layers: int, image_size: int, spare: int, tied: bool, seed: int
) -> None:
    """Write a tiny random vision-language model of a family's real classes.

    Writes model, tokenizer, processor and chat template, as from_pretrained reads them.
    Nothing is downloaded. Needs the extras `train` and `vla`.

    \b
    Example:
      oxcart sample vlm scratch/vlm
      oxcart sample vlm scratch/smol --family smolvlm --untied
    """
    need_vla()
    from oxcart.train.vla.tiny import VlmConfig, write_vlm

    config = VlmConfig(
        family=family,
        width=width,
        layers=layers,
        vision_layers=layers,
        image_size=image_size,
        spare=spare,
        tied=tied,
        seed=seed,
    )
    weights = write_vlm(directory, config)
    click.echo(f"wrote a random {family} of {weights:,} weights to {directory}")
    where = shlex.quote(str(directory))
    click.echo(f"next: oxcart train vla preset=tiny model={where} data.datasets=[OUT] data.codes=[CODES]")
