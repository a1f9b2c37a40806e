"""Download videos with yt-dlp: the video stream and the info.json that a compile of `videos:DIR` reads.

    fetch(read_urls(Path("urls.txt")), Path("downloads"), licences=("cc-by",))

This adds what is easily forgotten when calling yt-dlp: only named licences (a video that states none counts
as `unknown`), a cap on the resolution, no sound (so that ffmpeg need not merge anything), file names that
hold the id, and an archive of finished downloads, from which the same call resumes. Whether a site allows
downloads is for the caller to know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yt_dlp

from oxcart.compile.sources.videos.config import UNKNOWN, licence_texts
from oxcart.manifests.ownership import VIDEOS, check_directory
from oxcart.shards.errors import ConfigError

ARCHIVE = ".fetched.txt"
"""File in the folder with the ids of finished downloads: yt-dlp's own archive."""
NAME = "%(title).120B [%(id)s].%(ext)s"
ANY = "any"
"""Name that stands for all licences."""
RETRIES = 10
"""Retries after a network error."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """The outcome of a download."""

    there: int
    """Number of videos downloaded by this call."""
    before: int
    """Number of addresses from which earlier calls downloaded everything."""
    refused: tuple[str, ...]
    """Videos whose licence was not requested, each with its licence."""
    failed: tuple[str, ...]
    """Errors, one line each."""


def read_urls(file: Path) -> list[str]:
    """Read the addresses in a file: one per line, without comments (`#`).

    Raises:
        ConfigError: the file holds no address, or a line is not an http or https address.
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
    *,
    licences: Sequence[str] = ("cc-by",),
    max_height: int = 720,
    report: Callable[[int, int], None] = lambda done, size: None,
) -> Fetched:
    """Download the videos at the addresses.

    Args:
        urls: addresses of videos, playlists or channels.
        directory: folder for the videos.
        licences: licences to download; `unknown` is that of a video that states none, `any` allows all.
        max_height: maximum height in pixels; the largest form of a video within it is downloaded.
        report: called with the number of finished addresses and the bytes downloaded.

    Raises:
        ConfigError: a value is invalid, or the folder holds a link or a FIFO that a download would
            write through.
    """
    if not licences:
        raise ConfigError("licence: expected at least one to download, or any; got none")
    if max_height < 1:
        raise ConfigError(f"max height: expected at least 1 pixel, got {max_height}")
    check_directory("directory", directory, VIDEOS)
    directory.mkdir(parents=True, exist_ok=True)
    for path in (directory / ARCHIVE, *sorted(directory.glob("*.part")), *sorted(directory.glob("*.ytdl"))):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise ConfigError(f"{path}: is no plain file, and the download would write through it; remove it")
    named = licence_texts(licences)
    refused: list[str] = []
    failed: list[str] = []
    finished: list[str] = []
    judged: list[str] = []
    done = size = 0

    def allowed(info: dict[str, Any], *, incomplete: bool = False) -> str | None:
        if incomplete and not info.get("license"):
            return None  # an entry of a playlist, of which more will be known
        licence = info.get("license") or UNKNOWN
        judged.append(str(info.get("id")))
        if ANY in named or licence in named:
            return None
        refused.append(f"{info.get('webpage_url') or info.get('id')}: {licence}")
        return f"its licence is {licence}"

    def progress(state: dict[str, Any]) -> None:
        nonlocal size
        if state.get("status") == "finished":
            size += int(state.get("total_bytes") or state.get("downloaded_bytes") or 0)
            finished.append(str(state.get("filename")))
        report(done, size)

    def keep_error(message: str) -> None:
        failed.append(" ".join(message.removeprefix("ERROR: ").split()))

    cap = f"[height<=?{max_height}]"
    options: dict[str, Any] = {
        "paths": {"home": str(directory)},
        "outtmpl": {"default": NAME},
        "format": f"bestvideo{cap}[ext=mp4]/bestvideo{cap}/best{cap}",
        "writeinfojson": True,
        "allow_playlist_files": False,
        "download_archive": str(directory / ARCHIVE),
        "match_filter": allowed,
        "progress_hooks": [progress],
        "retries": RETRIES,
        "fragment_retries": RETRIES,
        "continuedl": True,
        "noprogress": True,
        "quiet": True,
        "no_warnings": True,
        "color": {"stderr": "never", "stdout": "never"},
        "logger": SimpleNamespace(debug=lambda text: None, warning=lambda text: None, error=keep_error),
        "ignoreerrors": True,
        "cachedir": False,
    }
    before = 0
    with yt_dlp.YoutubeDL(options) as downloader:
        for url in urls:
            known = len(judged) + len(failed) + len(finished)
            downloader.download([url])
            before += len(judged) + len(failed) + len(finished) == known
            done += 1
            report(done, size)
    return Fetched(there=len(finished), before=before, refused=tuple(refused), failed=tuple(failed))
