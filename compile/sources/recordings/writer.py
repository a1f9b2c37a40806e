"""Write one's own recordings: `oxcart.create`, which leaves a source that `oxcart compile` takes.

    with oxcart.create("mine", cameras={"image_0": "primary"}, action=["dx", "dy", "gripper"]) as out:
        out.add_episode(frames={"image_0": frames}, action=action, environment="kitchen 3")

`add_episode` returns when the episode is durable: its file is written under a temporary name, fsynced and
renamed. A kill at any moment loses at most the episode that was being written, and the same `create` goes on
after those that are there. One process writes at a time; a lock of the system says so, which a kill releases.
Threads of that process may all add episodes, which are written one after another.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from oxcart.compile.engines.processes import default_workers
from oxcart.compile.sources.recordings.checks import Size, checked
from oxcart.compile.sources.recordings.description import (
    EPISODES,
    MOST_BYTES,
    Description,
    file_name,
    make_key,
    numbered,
    parse_description,
)
from oxcart.compile.sources.recordings.episodes import Recorded, parse_episode, write_episode
from oxcart.manifests.canonical import differences
from oxcart.manifests.columns import Column
from oxcart.manifests.ownership import RECORDINGS, SOURCE, check_directory, holds_recordings
from oxcart.shards.codec import Encoding
from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.shards.files import UNFINISHED, naming, new_file, sync_folder
from oxcart.shards.store import WORK, Store

THREADS = 4
"""Most threads that encode one episode."""


def create(
    folder: str | os.PathLike[str],
    *,
    cameras: Mapping[str, str | None] | Iterable[str],
    action: Iterable[str | Column] = (),
    state: Iterable[str | Column] = (),
    reward: bool = False,
    name: str | None = None,
    control_rate: float | None = None,
    licence: str | None = None,
    codec: str = "zstd",
    jpeg_quality: int | None = None,
) -> Recorder:
    """Create a folder of recordings, or go on with one that the same arguments have created.

    Args:
        folder: a directory on this machine, new or empty.
        cameras: names of the cameras, or name -> role (`primary`, `secondary` or `wrist`; None for no role).
        action: columns of the action: names such as `dx`, or `oxcart.Column` with kind, unit and frame.
        state: columns of the state, likewise.
        reward: whether every step has a reward.
        name: name of the dataset, with which every key begins; None is the name of the folder.
        control_rate: steps per second, if it is known.
        licence: licence of the data: an SPDX expression or a URL.
        codec: how frames are stored: `zstd` (lossless), `raw` or `jpeg`.
        jpeg_quality: quality of codec `jpeg`, 1 to 100; None is 95.

    Raises:
        ConfigError: an argument is wrong, the folder holds something else or was created with other
            arguments, or another process is writing to it.
        CorruptError: an episode in the folder is damaged.
        StoreError: the folder cannot be written.
    """
    place = os.fspath(folder)
    if "://" in place or not place:
        raise ConfigError(f"folder: expected a directory on this machine, got {place!r}")
    description = Description(
        name=Path(os.path.abspath(place)).name if name is None else name,
        cameras=dict(cameras) if isinstance(cameras, Mapping) else _named(cameras),
        action=_columns("action", action),
        state=_columns("state", state),
        reward=reward,
        control_rate=control_rate,
        licence=licence,
        encoding=Encoding(codec=codec, quality=jpeg_quality),
    )
    return Recorder(Path(place), description)


class Recorder:
    """A folder of recordings that is open for writing; `create` opens one.

    It is a context manager. Its length is the number of episodes that the folder holds.
    """

    def __init__(self, folder: Path, description: Description) -> None:
        self.folder, self.description = folder, description
        _describe(folder, description)
        self._lock, self._turn = _locked(folder), threading.RLock()
        try:
            self._pool = ThreadPoolExecutor(min(THREADS, default_workers()))
            _make_ready(folder / EPISODES)
            store = Store(folder)
            there = numbered(store.list(EPISODES))
            self._count, self._next = len(there), max(there, default=-1) + 1
            self._sizes: dict[str, Size] = {}
            for file in list(there.values())[:1]:
                try:
                    stored = parse_episode(store.read(file), file, description)
                except CorruptError as error:
                    raise CorruptError(f"{folder / file}: {error}; remove it to go on") from error
                self._sizes = {camera: (shape[1], shape[2]) for camera, shape in stored.shapes.items()}
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<oxcart recordings {str(self.folder)!r}: {self._count:,} episodes>"

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes write; every episode is durable already."""
        with self._turn:
            self._lock.close()
            self._pool.shutdown()

    def add_episode(
        self,
        *,
        frames: Mapping[str, Any],
        environment: str | None,
        action: Any = None,
        state: Any = None,
        reward: Any = None,
        instruction: str | Iterable[tuple[int, str]] | None = None,
        session: str | None = None,
        success: bool | None = None,
    ) -> str:
        """Check an episode, write it durably, and return its key. What is refused leaves nothing behind.

        Args:
            frames: camera -> frames [T, H, W, 3] uint8, RGB; at least 2 steps.
            environment: the place where it was recorded, which `oxcart compile` holds out as a whole; None
                if it is not known.
            action: [T, A]; row t is the action that was taken on seeing frame t.
            state: [T, S].
            reward: [T] or [T, 1].
            instruction: what the episode is about: a text, or (step at which it begins, text) of several.
            session: the recording session.
            success: whether the episode succeeded.

        Raises:
            ConfigError: an argument is wrong, or the recorder is closed.
            StoreError: the disk is full, or the folder cannot be written.
        """
        with self._turn:
            if self._lock.closed:
                raise ConfigError(f"{self.folder}: is closed; create it again to go on")
            episode = checked(
                self.description,
                self._sizes,
                frames=frames,
                arrays={"action": action, "state": state, "reward": reward},
                instruction=instruction,
                environment=environment,
                session=session,
                success=success,
            )
            return self._write(episode)

    def _write(self, episode: Recorded) -> str:
        """Write the next episode durably, and return its key."""
        key = make_key(self.description.name, self._next)
        folder = self.folder / EPISODES
        with naming(folder), new_file(folder) as file:
            digest = write_episode(file, key, episode, self.description, self._pool)
            file.flush()
            os.fsync(file.fileno())
            path = self.folder / file_name(self._next, digest)
            try:
                os.replace(file.name, path)
                sync_folder(folder)
                self._count, self._next = self._count + 1, self._next + 1
            except BaseException:  # the next episode would be a second one of this number
                path.unlink(missing_ok=True)
                raise
        self._sizes = {camera: (one.shape[1], one.shape[2]) for camera, one in episode.frames.items()}
        return key


def _named(given: Any) -> dict[str, str | None]:
    """Cameras of which nothing but the names is given."""
    found = _each(given)
    for i, one in enumerate(found):
        if not isinstance(one, str) or one in found[:i]:
            raise ConfigError(f"cameras: expected names that differ, or name -> role; got {one!r}"[:200])
    return dict.fromkeys(found)


def _each(given: Any) -> list[Any]:
    """The items of an argument; a text or what has no items is the only one."""
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]


def _columns(what: str, given: Iterable[str | Column]) -> tuple[Column, ...]:
    found = _each(given)
    for one in found:
        if not isinstance(one, str | Column):
            raise ConfigError(f"{what}: expected names or oxcart.Column, got {one!r}")
    return tuple(one if isinstance(one, Column) else Column(name=one) for one in found)


def _describe(folder: Path, description: Description) -> None:
    """Write the description into a new folder, or check that the folder has the same one.

    Raises:
        ConfigError: the folder holds something else, or another description.
    """
    check_directory("folder", folder, SOURCE)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"folder: {str(folder)!r} is a file; expected a directory")
    with naming(folder):
        store = Store(folder)
        if not holds_recordings(store):
            if folder.exists() and any(one.name != WORK for one in folder.iterdir()):
                raise ConfigError(
                    f"folder: {str(folder)!r} holds other files; expected recordings, or an empty folder"
                )
            store.create(RECORDINGS, description.to_bytes())
            sync_folder(folder.absolute().parent)
    there = parse_description(store.read(RECORDINGS, MOST_BYTES))
    told = [
        f"{name} {json.dumps(before)}, not {json.dumps(after)}"
        for name, before, after in differences(there.to_json(), description.to_json())
    ]
    if told:
        raise ConfigError(f"{folder}: was created with {'; '.join(told)}; create others in another folder")


def _locked(folder: Path) -> BinaryIO:
    """The open description, locked until it is closed.

    Raises:
        ConfigError: another process holds the lock.
    """
    with naming(folder):
        file = open(folder / RECORDINGS, "r+b")  # noqa: SIM115 (open as long as the recorder)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ConfigError(
                f"{folder}: somebody else is writing to it; wait for them, or create others in another folder"
            ) from None
    return file


def _make_ready(folder: Path) -> None:
    """Create the folder of the episodes, and remove what a killed writer has left; called under the lock."""
    with naming(folder):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
        for path in folder.glob(UNFINISHED):
            path.unlink()
