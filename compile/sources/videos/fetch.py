"""Download videos with yt-dlp, as `oxcart compile videos:DIR` reads them: the video stream and what is known
of it.

    fetch("urls.txt", Path("downloads"), FetchConfig(licences=("cc-by",)))

What this adds to yt-dlp is what one should not forget: only licences that are named (a video that states
none has none to name), a cap on the resolution, no sound (so nothing needs to be merged by ffmpeg), names
that hold the id, and an archive of what is done, by which the same call goes on where it stopped. Whether a
site allows downloads is for whoever calls it to know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yt_dlp

from oxcart.compile.sources.videos.config import LICENCES, UNKNOWN
from oxcart.manifests.ownership import VIDEOS, check_directory
from oxcart.shards.errors import ConfigError

ARCHIVE = ".fetched.txt"
"""In the folder: ids of what is there already, as yt-dlp's own archive."""
NAME = "%(title).120B [%(id)s].%(ext)s"
ANY = "any"


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """What to download.

    Raises:
        ConfigError: a value is impossible.
    """

    licences: tuple[str, ...] = ("cc-by",)
    """Those that are downloaded; `unknown` is that of a video that states none, `any` is all."""
    max_height: int = 720
    """Pixels; of several forms of a video the largest that is not higher."""
    retries: int = 10
    """After an error of the network."""

    def __post_init__(self) -> None:
        if not self.licences:
            raise ConfigError("licence: expected at least one to download, or any; got none")
        if self.max_height < 1:
            raise ConfigError(f"max height: expected at least 1 pixel, got {self.max_height}")

    def allows(self, licence: str | None) -> bool:
        """Whether a video of this licence is downloaded."""
        named = {LICENCES.get(one, one) for one in self.licences}
        return ANY in named or (licence or UNKNOWN) in named


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What became of the addresses."""

    there: int
    """Videos that were downloaded now."""
    before: int
    """Addresses of which an earlier call has everything."""
    refused: tuple[str, ...]
    """Videos that the licences do not allow, each with its own."""
    failed: tuple[str, ...]
    """What went wrong, one line each."""


def read_urls(file: Path) -> list[str]:
    """The addresses of a file: one a line, without comments (`#`).

    Raises:
        ConfigError: there is none, or a line is no http or https address.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: expected lines of UTF-8 text: {error}") from error
    urls = [line for line in lines if line and not line.startswith("#")]
    for url in urls:
        if not url.lower().startswith(("https://", "http://")):
            raise ConfigError(f"{file}: expected addresses that begin with https://, got {url!r}")
    if not urls:
        raise ConfigError(f"{file}: expected at least one address, got none")
    return urls


def fetch(
    urls: Sequence[str],
    directory: Path,
    config: FetchConfig,
    report: Callable[[int, int], None] = lambda done, size: None,
) -> Fetched:
    """Download what the addresses lead to.

    Args:
        urls: of videos, playlists or channels.
        directory: where they go.
        config: which, and in what form.
        report: told of addresses that are done, and of bytes.

    Raises:
        ConfigError: the folder holds a link or a FIFO where a download goes on.
    """
    check_directory("directory", directory, VIDEOS)
    directory.mkdir(parents=True, exist_ok=True)
    for path in (directory / ARCHIVE, *sorted(directory.glob("*.part")), *sorted(directory.glob("*.ytdl"))):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise ConfigError(f"{path}: is no plain file, and the download would write through it; remove it")
    refused: list[str] = []
    failed: list[str] = []
    finished: list[str] = []
    passed: list[str] = []
    done = size = 0

    def allowed(info: dict[str, Any], *, incomplete: bool = False) -> str | None:
        if incomplete and not info.get("license"):
            return None  # an entry of a playlist, of which more will be known
        licence = info.get("license")
        passed.append(str(info.get("id")))
        if config.allows(licence):
            return None
        refused.append(f"{info.get('webpage_url') or info.get('id')}: {licence or UNKNOWN}")
        return f"its licence is {licence or UNKNOWN}"

    def progress(state: dict[str, Any]) -> None:
        nonlocal size
        if state.get("status") == "finished":
            size += int(state.get("total_bytes") or state.get("downloaded_bytes") or 0)
            finished.append(str(state.get("filename")))
        report(done, size)

    cap = f"[height<=?{config.max_height}]"
    options: dict[str, Any] = {
        "paths": {"home": str(directory)},
        "outtmpl": {"default": NAME},
        "format": f"bestvideo{cap}[ext=mp4]/bestvideo{cap}/best{cap}",
        "writeinfojson": True,
        "allow_playlist_files": False,
        "download_archive": str(directory / ARCHIVE),
        "match_filter": allowed,
        "progress_hooks": [progress],
        "retries": config.retries,
        "fragment_retries": config.retries,
        "continuedl": True,
        "noprogress": True,
        "quiet": True,
        "no_warnings": True,
        "color": {"stderr": "never", "stdout": "never"},
        "logger": _Log(failed),
        "ignoreerrors": True,
        "cachedir": False,
    }
    before = 0
    with yt_dlp.YoutubeDL(options) as downloader:
        for url in urls:
            seen, wrong, now = len(passed), len(failed), len(finished)
            downloader.download([url])
            if (len(passed), len(failed), len(finished)) == (seen, wrong, now):
                before += 1
            done += 1
            report(done, size)
    return Fetched(there=len(finished), before=before, refused=tuple(refused), failed=tuple(failed))


class _Log:
    """Keeps errors, and nothing else, of what yt-dlp says."""

    def __init__(self, errors: list[str]) -> None:
        self._errors = errors

    def debug(self, message: str) -> None:
        """Of no interest."""

    def warning(self, message: str) -> None:
        """Of no interest."""

    def error(self, message: str) -> None:
        """What went wrong with one video; the others go on."""
        self._errors.append(" ".join(message.removeprefix("ERROR: ").split()))
