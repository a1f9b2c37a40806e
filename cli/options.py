"""Options that several commands have, and how their texts become values."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oxcart.shards.errors import ConfigError

if TYPE_CHECKING:
    from oxcart.compile.images import Resize

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_UNITS = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9}
_UNITS |= {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


class LocalPath(click.Path):
    """A path on this machine. A URL is refused: it would become a folder of that name."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """The path.

        Raises:
            ConfigError: the text is empty or a URL.
        """
        if not os.fspath(value):
            raise ConfigError(f"{_called(param)}: expected a path on this machine, got ''")
        if re.match(r"[A-Za-z0-9]+://|(s3|gs|az|hf|https?):/", os.fspath(value), re.IGNORECASE):
            raise ConfigError(f"{_called(param)}: expected a path on this machine, got {os.fspath(value)!r}")
        return super().convert(value, param, ctx)


class PathOrUrl(click.types.StringParamType):
    """A directory, a file or a URL, as text. An empty text is refused: it would be the current directory."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text.

        Raises:
            ConfigError: the text is empty.
        """
        if not value:
            raise ConfigError(f"{_called(param)}: expected a path or a URL, got ''")
        return str(value)


def _called(param: click.Parameter | None) -> str:
    """Name of an argument or option on the command line."""
    if param is None:
        return "path"
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return (param.metavar or param.name or "").strip("[].").upper()


def options(*each: Decorator) -> Decorator:
    """Several options as one decorator; the help lists them in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(each):
            command = option(command)
        return command

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress and no summary.")
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="auto: a GPU where there is one.",
)
model_options = options(
    click.option(
        "--checkpoint",
        type=PathOrUrl(),
        default="last",
        metavar="last|best|FOLDER",
        help="Weights of the run to use.",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=64,
        help="Pairs that the model is given at a time.",
    ),
    device_option,
)
"""Options of commands that run a trained latent-action model."""


def workers_option(what: str = "Threads.") -> Decorator:
    """`--workers`; the command gets the number of cores where it is not given."""

    def count(context: click.Context, param: click.Parameter, given: int | None) -> int:
        from oxcart.compile.engines.processes import default_workers

        return given or default_workers()

    return click.option(
        "--workers", type=click.IntRange(min=1), callback=count, help=f"{what}  [default: one per core]"
    )


def encoding_quality(codec: str | None, jpeg_quality: int | None, crf: int | None) -> int | None:
    """Quality of the frames that a codec has to encode, from the option of that codec.

    Raises:
        ConfigError: an option of another codec is given.
    """
    from oxcart.shards.errors import ConfigError

    for option, value, of in (("--jpeg-quality", jpeg_quality, "jpeg"), ("--crf", crf, "av1")):
        if value is not None and codec != of:
            raise ConfigError(
                f"{option}: expected with --codec {of}, got {f'--codec {codec}' if codec else 'alone'}"
            )
    return crf if jpeg_quality is None else jpeg_quality


def output_options(codec: str | None) -> Decorator:
    """Options that say how a dataset is written.

    Args:
        codec: the default codec; None keeps that of the dataset that is read.
    """
    return options(
        click.option(
            "--size", metavar="N|HxW", help="Height and width of frames, in pixels.  [default: as they are]"
        ),
        click.option(
            "--fit",
            type=click.Choice(["stretch", "crop"]),
            help="How frames of another aspect ratio are brought to --size.  "
            + ("[default: crop for videos, else stretch]" if codec else "[default: stretch]"),
        ),
        click.option(
            "--codec",
            type=click.Choice(["raw", "zstd", "jpeg", "video", "av1"]),
            show_default=codec or "as they are",
            help="How frames are stored: raw; zstd, lossless in less than half the bytes; jpeg, which "
            "keeps the source's own JPEGs unless --size changes them; video, the source's own videos as they "
            "are; or av1, videos that are encoded here.",
        ),
        click.option(
            "--jpeg-quality",
            type=click.IntRange(1, 100),
            help="Quality of the frames that codec jpeg has to encode.  [default: 95]"
            if codec
            else "Encode every frame of codec jpeg at this quality, also those that are JPEG already.  "
            "[default: that of DATASET, else 95]",
        ),
        click.option(
            "--crf",
            type=click.IntRange(1, 63),
            help="Quality of the frames that codec av1 encodes; less is better.  [default: 30]",
        ),
        click.option(
            "--max-gop",
            type=click.IntRange(1, 256),
            help="Most frames from one key frame to the next: videos with more are refused by codec video "
            "[default: 8], and codec av1 makes groups of as many [default: 2].",
        ),
        click.option(
            "--shard-size",
            metavar="BYTES",
            help="Uncompressed frame bytes per shard, e.g. 256MiB.  "
            "[default: raw 512MiB, zstd 1GiB, jpeg 3GiB, videos 16GiB]",
        ),
        click.option("--overwrite", is_flag=True, help="Replace the dataset that is in OUT."),
    )


def need(extras: str, *packages: str) -> None:
    """Refuse to run without packages of optional extras.

    Raises:
        ConfigError: a package is not installed; the message says how to install it.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"this command needs {', '.join(missing)}, not installed: "
            f"pip install -c constraints.txt '.[{extras}]'"
        )


def need_train() -> None:
    """Refuse to run without the extra `train`; see `need`."""
    need("train", "torch", "accelerate", "matplotlib", "omegaconf", "safetensors")


def need_vla() -> None:
    """Refuse to run without the extras `train` and `vla`; see `need`."""
    need_train()
    need("train,vla", "transformers", "tokenizers", "num2words")


def resize(size: str | None, fit: str | None, default: str) -> Resize:
    """How frames are resized: to --size, by --fit or by `default`."""
    from oxcart.compile.images import Resize

    if fit is not None and size is None:
        raise ConfigError(f"--fit: expected with --size, got {fit} alone; add --size N or leave --fit out")
    return Resize(size=parse_size(size), fit=fit or default)


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Height and width from `N` or `HxW`."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and len(side) < 9 for side in sides):
        raise ConfigError(f"--size: expected pixels like 256, or height x width like 240x320; got {text!r}")
    return int(sides[0]), int(sides[-1])


def parse_bytes(option: str, text: str | None) -> int | None:
    """Bytes from a number and a unit such as `256MiB`."""
    if text is None:
        return None
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text[len(digits) :].strip().lower()
    try:
        return int(float(digits) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise ConfigError(f"{option}: expected bytes like 256MiB or 1GB, got {text!r}") from None


def read_text(file: Path) -> str:
    """The text of a file, with or without a byte order mark.

    Raises:
        ConfigError: the file is not UTF-8.
    """
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: expected UTF-8 text: {error}") from error
