"""Options that several commands have, and how their texts become values."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oxcart.shards.errors import ConfigError

if TYPE_CHECKING:
    from oxcart.compile.images import Resize

_UNITS = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9}
_UNITS |= {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


class LocalPath(click.Path):
    """A path on this machine; a URL would become a folder of that name."""

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
            ConfigError: it is empty or a URL.
        """
        if not os.fspath(value):
            raise ConfigError(f"{_called(param)}: expected a path on this machine, got ''")
        if re.match(r"[A-Za-z0-9]+://|(s3|gs|az|https?):/", os.fspath(value), re.IGNORECASE):
            raise ConfigError(f"{_called(param)}: expected a path on this machine, got {os.fspath(value)!r}")
        return super().convert(value, param, ctx)


class Place(click.types.StringParamType):
    """A directory, a file or a URL, as text; an empty one would be the current directory."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text.

        Raises:
            ConfigError: it is empty.
        """
        if not value:
            raise ConfigError(f"{_called(param)}: expected a path or a URL, got ''")
        return str(value)


def _called(param: click.Parameter | None) -> str:
    """What the user calls an argument or an option."""
    if param is None:
        return "path"
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return (param.metavar or param.name or "").strip("[].").upper()


@contextlib.contextmanager
def needs_video() -> Iterator[None]:
    """What is imported inside needs the extra `video`; a package that is not there is a ConfigError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("oxcart"):
            raise
        raise ConfigError(
            f"videos: expected the package {error.name}, which is not installed; pip install 'oxcart[video]'"
        ) from error


def output_options(codec: str | None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options that say how a dataset is written.

    Args:
        codec: the default; None is that of the dataset that is read.
    """
    options = [
        click.option("--size", metavar="N|HxW", help="Height and width of frames.  [default: as they are]"),
        click.option(
            "--fit",
            type=click.Choice(["stretch", "crop"]),
            help="How another aspect ratio gets to --size.  [default: crop for videos, else stretch]"
            if codec
            else "How another aspect ratio gets to --size.  [default: stretch]",
        ),
        click.option(
            "--codec",
            type=click.Choice(["raw", "zstd", "jpeg"]),
            show_default=codec or "as they are",
            help="How frames are stored: as they are; lossless in less than half the bytes; or as JPEG, "
            "the source's own where it has them and no --size changes them.",
        ),
        click.option(
            "--jpeg-quality",
            type=click.IntRange(1, 100),
            help="Of frames that codec jpeg has to encode.  [default: 95]"
            if codec
            else "Of codec jpeg; every frame is encoded at it, those of a jpeg DATASET too.  "
            "[default: that of DATASET, else 95]",
        ),
        click.option(
            "--shard-size",
            metavar="BYTES",
            help="Uncompressed frame bytes in a shard, e.g. 256MiB.  "
            "[default: raw 512MiB, zstd 1GiB, jpeg 3GiB]",
        ),
        click.option(
            "--overwrite",
            is_flag=True,
            help="Replace the dataset that is in OUT.",
        ),
    ]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def resize(size: str | None, fit: str | None, default: str) -> Resize:
    """How frames are brought to --size by --fit, or by `default`."""
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
        ConfigError: it is not UTF-8.
    """
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: expected UTF-8 text: {error}") from error
