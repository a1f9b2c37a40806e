"""What files of videos are called. Kept apart, because asking that must not import a decoder."""

from __future__ import annotations

from pathlib import PurePosixPath

SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".nut", ".ogg", ".ogv", ".ts", ".webm", ".wmv"),
)
UNFINISHED = (".part", ".ytdl", ".temp")
INFO = ".info.json"


def is_video(name: str) -> bool:
    """Whether a file is called as a video, or as what a download of one left."""
    lower = name.lower()
    return lower.endswith(SUFFIXES) or (lower.endswith(UNFINISHED) and any(s in lower for s in SUFFIXES))


def is_unfinished(name: str) -> bool:
    """Whether yt-dlp has not finished it."""
    return name.lower().endswith(UNFINISHED)


def info_name(name: str) -> str:
    """Where yt-dlp writes what it knows of a video."""
    path = PurePosixPath(name)
    while path.suffix.lower() in (*SUFFIXES, *UNFINISHED):
        path = path.with_suffix("")
    return f"{path}{INFO}"
