"""Options that name a file to write: where the file may be, and what it may replace.

    @output_option("-o", "--output", writes=AUDIT_PAGE, help="The report.")
    @overwrite_option()

An `OutputOption` judges its value before the command begins, and so before any long work. It refuses

    a place inside a dataset, inside a source or among the files of a run (`oxcart.manifests.ownership`)
    a file that the command reads, one file for two options, and a file in the dataset that the command makes
    a folder, a device or a pipe, and a file in a folder that cannot be written to
    an existing file that is not an output of the same kind, unless --overwrite is given; --overwrite does not
        apply in folders that the command reads

The file is then written by `oxcart.shards.files.write_file`, so a full disk leaves what was there.
"""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click

from oxcart.cli.options import Decorator, LocalPath, PathOrUrl, options
from oxcart.shards.errors import ConfigError, OxcartError
from oxcart.shards.files import WRITTEN_BY

_LARGEST_JSON, _LARGEST_IMAGE = 1 << 30, 1 << 28


@dataclass(frozen=True, kw_only=True)
class Output:
    """A kind of file that commands write."""

    name: str
    """Name of the kind in messages, with its article."""
    left_by_us: Callable[[BinaryIO], bool]
    """Tells whether an existing file, open for reading, is an output of this kind."""
    suffixes: tuple[str, ...] = ()
    """Suffixes that the name may have; empty allows any."""


def _page(title: bytes) -> Callable[[BinaryIO], bool]:
    return lambda file: title in file.read(4096)


def _json(*formats: str) -> Callable[[BinaryIO], bool]:
    def left_by_us(file: BinaryIO) -> bool:
        text = file.read(_LARGEST_JSON)
        if not any(name.encode() in text for name in formats):
            return False
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return False
        return isinstance(found, dict) and found.get("format") in formats

    return left_by_us


def _parquet(key: bytes, *names: str) -> Callable[[BinaryIO], bool]:
    def left_by_us(file: BinaryIO) -> bool:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            about = json.loads((pq.read_schema(file).metadata or {})[key])
        except (pa.ArrowException, OSError, KeyError, ValueError):
            return False
        return not names or (isinstance(about, dict) and about.get("name") in names)

    return left_by_us


def _image(file: BinaryIO) -> bool:
    return WRITTEN_BY.encode() in file.read(_LARGEST_IMAGE)


AUDIT_PAGE = Output(name="an audit report", left_by_us=_page(b"<title>oxcart audit"))
AUDIT_JSON = Output(name="the JSON of an audit", left_by_us=_json("oxcart-audit/1", "oxcart-audit/2"))
ANALYSIS_PAGE = Output(name="an analysis", left_by_us=_page(b"<title>oxcart evaluate"))
ANALYSIS_JSON = Output(
    name="the JSON of an analysis",
    left_by_us=_json("oxcart-analysis/1", "oxcart-analysis/2", "oxcart-analysis/3"),
)
ROLLOUT_PAGE = Output(name="a page of a rollout", left_by_us=_page(b"<title>oxcart rollout"))
ROLLOUT_JSON = Output(name="the JSON of a rollout", left_by_us=_json("oxcart-rollout/1"))
CENSUS = Output(name="a census", left_by_us=_parquet(b"oxcart.census"))
SCENES = Output(
    name="safe to replace, since names may have been corrected in it",
    left_by_us=lambda file: False,
    suffixes=(".parquet", ".csv"),
)
SCENES_PAGE = Output(name="a page of scenes", left_by_us=_page(b"<title>oxcart scenes"))
CODES = Output(name="latent-action labels", left_by_us=_parquet(b"oxcart.annotation", "codes", "actions"))
MOTION_FILE = Output(name="motion labels", left_by_us=_parquet(b"oxcart.annotation", "motion"))
ACTION_FILE = Output(name="action labels", left_by_us=_parquet(b"oxcart.annotation", "action"))
RULE = Output(
    name="a split rule that oxcart wrote", left_by_us=lambda file: file.read(19) == b"# oxcart split rule"
)
SHEET = Output(
    name="an image that oxcart drew", left_by_us=_image, suffixes=(".png", ".jpg", ".jpeg", ".webp")
)
PLOT = Output(name="a plot that oxcart drew", left_by_us=_image, suffixes=(".png", ".pdf", ".svg"))
FRAME = Output(name="an image that oxcart drew", left_by_us=_image, suffixes=(".png",))


class OutputOption(click.Option):
    """An option whose value is a file to write; the docstring of the module lists what it refuses."""

    def __init__(
        self, *args: Any, writes: Output, folder: bool = False, replaces: bool = True, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.writes = writes
        self.folder = folder
        """Whether the value may be a folder for several files; the command then checks each with
        `check_output`."""
        self.replaces = replaces
        """Whether --overwrite of the command applies to this file."""

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """The value, once the file is known to be writable.

        Raises:
            ConfigError: the file may not be written.
        """
        from oxcart.manifests.ownership import check_file

        parsed = super().handle_parse_result(ctx, opts, args)
        value = ctx.params.get(self.name or "")
        if not isinstance(value, str | os.PathLike) or ctx.resilient_parsing:
            return parsed
        option, text = max(self.opts, key=len), os.fspath(value)
        overwrite = bool(opts.get("overwrite")) if self.replaces else None
        for other in ctx.command.params:
            for given in _given(other, opts):
                if other is not self and _inside(text, given):
                    _check_apart(option, text, other, given)
                    overwrite = None
        if self.folder and os.path.isdir(text):
            check_file(option, text)
        else:
            check_output(option, text, self.writes, overwrite=overwrite)
        return parsed


def output_option(*names: str, writes: Output, remote: bool = False, **settings: Any) -> Decorator:
    """An option that names a file to write, on this machine or, where `remote`, at a URL too."""
    kind = PathOrUrl() if remote else LocalPath()
    return click.option(*names, cls=OutputOption, writes=writes, type=kind, **settings)


def report_options(*, page: Output, json: Output) -> Decorator:
    """Options of commands that write a report: as a page, as JSON, over something else."""
    return options(
        output_option("-o", "--output", writes=page, help="Write the report as one HTML page."),
        output_option("--json", "json_file", writes=json, help="Write the report as JSON."),
        overwrite_option(),
    )


def overwrite_option(*, exposed: bool = False) -> Decorator:
    """`--overwrite` of commands that write files; `OutputOption` acts on it.

    Args:
        exposed: also pass the value to the command.
    """
    return click.option(
        "--overwrite",
        is_flag=True,
        expose_value=exposed,
        help="Replace a file that this command did not write.",
    )


def check_output(
    option: str, target: str | os.PathLike[str], writes: Output, *, overwrite: bool | None
) -> None:
    """Refuse a file that may not be written; the docstring of the module lists the reasons.

    Args:
        option: name of the option, for the message.
        target: path or URL of the file.
        writes: kind of output that will be written.
        overwrite: replace a file of another kind; None refuses, and the message does not offer --overwrite.

    Raises:
        ConfigError: the file may not be written; the message says why.
    """
    from oxcart.manifests.ownership import check_file
    from oxcart.shards.store import Store

    text = os.fspath(target)
    if writes.suffixes and os.path.splitext(text)[1].lower() not in writes.suffixes:
        raise ConfigError(f"{option}: expected a name that ends in {_any_of(writes.suffixes)}, got {text!r}")
    if "://" in text:
        Store(text.rpartition("/")[0]).check_writable()
    else:
        _check_local(option, Path(text))
    check_file(option, text)
    if not overwrite and not _replaceable(text, writes):
        remedy = "" if overwrite is None else ", or pass --overwrite to replace it"
        raise ConfigError(f"{option}: {text!r} exists and is not {writes.name}; choose another name{remedy}")


def _check_local(option: str, path: Path) -> None:
    """Refuse a path that is not a regular file, or lies in a folder that cannot be written to."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except OSError as error:
        raise ConfigError(f"{option}: {str(path)!r} cannot be written: {error.strerror}") from error
    if mode is not None and stat.S_ISDIR(mode):
        raise ConfigError(f"{option}: {str(path)!r} is a folder; expected a file, such as one in it")
    if mode is not None and not stat.S_ISREG(mode):
        raise ConfigError(f"{option}: {str(path)!r} is not a regular file; expected the name of one")
    folder = Path(os.path.realpath(path.parent))
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        why = "cannot be written to" if folder.is_dir() else "is no folder"
        raise ConfigError(f"{option}: {str(path)!r} cannot be written, {str(folder)!r} {why}")


def _replaceable(place: str, writes: Output) -> bool:
    """Whether a path or URL can be written without loss: it is free, empty, or an output of the same kind."""
    from oxcart.shards.store import Store

    if "://" not in place:
        if not os.path.exists(place) or not os.path.getsize(place):
            return True
        with open(place, "rb") as file:
            return writes.left_by_us(file)
    folder, _, name = place.rpartition("/")
    store = Store(folder)
    data = store.read(name) if store.exists(name) else b""
    return not data or writes.left_by_us(io.BytesIO(data))


def _given(param: click.Parameter, opts: Mapping[str, Any]) -> Iterator[str]:
    """Paths and URLs that are given for an argument, or for an option that names a file."""
    if not isinstance(param, click.Argument | OutputOption) and not isinstance(
        param.type, click.Path | PathOrUrl
    ):
        return
    given = opts.get(param.name or "")
    for one in given if isinstance(given, list | tuple) else [given]:
        if isinstance(one, str) and one:
            yield one


def _inside(place: str, given: str) -> bool:
    """Whether a place is, or lies inside, the place that another parameter names."""
    from oxcart.manifests.ownership import resolved, same_file, within

    try:
        mine, theirs = resolved(place), resolved(given.removeprefix("videos:"))
    except (OxcartError, ValueError):
        return False  # no path or URL; whoever takes it will say what is wrong
    return within(mine, theirs) or same_file(mine, theirs)


def _check_apart(option: str, text: str, other: click.Parameter, given: str) -> None:
    """Refuse one file for two parameters, and a file in the dataset that the command is about to make.

    Other files in the folder of another parameter are left to `check_output`.
    """
    name = other.human_readable_name if isinstance(other, click.Argument) else max(other.opts, key=len)
    folder = not isinstance(other, OutputOption) and (
        other.name == "out" or os.path.isdir(given.removeprefix("videos:"))
    )
    if folder and other.name != "out":
        return
    raise ConfigError(
        f"{option}: {text!r} is {'inside ' if folder else ''}{name} ({given!r}) of the same command; choose "
        "another path"
    )


def _any_of(suffixes: tuple[str, ...]) -> str:
    return f"{', '.join(suffixes[:-1])} or {suffixes[-1]}" if len(suffixes) > 1 else suffixes[0]
