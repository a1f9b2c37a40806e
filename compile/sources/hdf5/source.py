"""HDF5 files as a source: one file of many episodes (robomimic), or one file per episode (ALOHA).

    image.hdf5                        a file, or a folder of files at any depth
    episodes/episode_0.hdf5
    episodes/episode_1.hdf5
    ...

`fields` shows what lies in a file. Fields are chosen once, from the first episode, and every other episode
must have them, or it is rejected. A census reads the images that are compiled, for their digests, and decodes
none.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import h5py
import numpy as np
from xxhash import xxh3_64

from oxcart.compile.images import Frame, Resize, resize_into
from oxcart.compile.sources.base import (
    Camera,
    CensusRow,
    Film,
    Floats,
    Images,
    Source,
    SourceConfig,
    SourceEpisode,
    clean,
    episode_error,
    refuse_options,
)
from oxcart.compile.sources.cameras import with_roles
from oxcart.compile.sources.hdf5.fields import (
    ACTIONS,
    FILE,
    OBSERVATIONS,
    REWARD,
    Pictures,
    choose_numbers,
    default_cameras,
    flag_of,
    is_camera,
    no_such,
    pictures,
    resolve,
    shown,
    text_of,
    texts_there,
    value_of,
)
from oxcart.compile.sources.hdf5.files import (
    UnfitError,
    as_text,
    check_stored,
    datasets,
    explained,
    find,
    groups,
    natural,
    not_followed,
    opened,
)
from oxcart.compile.sources.kinds import HDF5
from oxcart.manifests.canonical import canonical_json
from oxcart.manifests.columns import Column, described, given, unnamed
from oxcart.manifests.licence import check_licence
from oxcart.manifests.schema import ENDS
from oxcart.shards.choices import did_you_mean, one_of
from oxcart.shards.errors import ConfigError, SourceError
from oxcart.shards.store import Store

VERSION = "1"
SPLITS = ("train", "valid", "val", "test")
"""Masks of robomimic that are splits; the others overlap with them."""
CHANGED = "has changed since the census"


class Hdf5Source(Source):
    """The episodes of HDF5 files.

    Raises:
        ConfigError: the layout is unknown and no option names its fields, or one names what is not there.
        SourceError: no file can be read.
    """

    origin = "hdf5"
    control_rate = None

    def __init__(self, config: SourceConfig) -> None:
        refuse_options(config, ("--catalog",), "no HDF5 files are in the catalog; leave it out")
        self._store, self._files = _files(config.url)
        self.remote = self._store.remote
        self._sizes = self._store.sizes(self._files)
        self._numbers_of = {name: number for number, name in enumerate(self._files)}
        name = os.path.basename(os.path.abspath(config.url))
        self.name, self.version = clean(os.path.splitext(name)[0]) or self.origin, VERSION
        self.licence = check_licence(config.licence) if config.licence else None
        self._instruction = config.instruction or ()
        self._environment, self._success = config.environment, config.success
        for end in config.no_action or ():
            one_of("--no-action", end, ENDS)
        self.no_action = tuple(end for end in ENDS if end in (config.no_action or ()))
        self._choose(config)

    def _choose(self, config: SourceConfig) -> None:
        """Choose every field, by the first episode of the first file that can be read."""
        name = self._first()
        with opened(self._path(name), name) as file:
            place = episodes_in(file)[0]
            there, links = datasets(_group(file, place))
            for path in links:
                if path in (*ACTIONS, REWARD) or path.startswith(OBSERVATIONS):
                    raise UnfitError(not_followed(path))
            self.cameras = _choose_cameras(config, name, there)
            chosen = {"action": config.action, "state": config.state, "reward": config.reward}
            self._numbers = {what: choose_numbers(what, names, there) for what, names in chosen.items()}
            self._splits = _choose_splits(config, splits_in(file))
            fields = {
                "environment": self._environment and self._environment.field,
                "success": self._success and self._success.field,
            }
            for option, field in [*fields.items(), *(("instruction", one) for one in self._instruction)]:
                if field and field != FILE and value_of(file, place, field) is None:
                    known = texts_there(file, place)
                    hint = did_you_mean(field, known)
                    raise ConfigError(
                        f"--{option} {field}: no such attribute; {name} has {', '.join(known)}{hint}"
                    )
            self._succeeded(file, name, place)
        self.array_sizes = {what: tuple(one.size for one in found) for what, found in self._numbers.items()}
        columns = {what: _columns(what, found, config) for what, found in self._numbers.items()}
        self.array_columns = {
            "action": given(columns["action"], "action", config.action_names, config.action_kinds),
            "state": given(columns["state"], "state", config.state_names, config.state_kinds),
            "reward": tuple(Column(name="reward", kind="other") for _ in self._numbers["reward"]),
        }

    def _first(self) -> str:
        """The first file that can be read; the census rejects those before it."""
        errors = []
        for name in self._files:
            try:
                with opened(self._path(name), name) as file:
                    episodes_in(file)
            except SourceError as error:
                errors.append(error)
            else:
                return name
        raise errors[0]

    def describe(self) -> dict[str, Any]:
        """Everything that determines the census rows and episodes, as plain JSON."""
        rule = self._environment
        return {
            "kind": self.origin,
            "name": self.name,
            "version": self.version,
            "source_splits": list(self._splits),
            "cameras": {camera.name: camera.field for camera in self.cameras},
            "roles": {camera.name: camera.role for camera in self.cameras},
            "channels": {camera.name: camera.channels for camera in self.cameras},
            "instruction": list(self._instruction),
            **{what: [one.name for one in found] for what, found in self._numbers.items()},
            "columns": {what: described(columns) for what, columns in self.array_columns.items()},
            "no_action": list(self.no_action),
            "environment": rule.describe() if rule else None,
            "success": asdict(self._success) if self._success else None,
            "control_rate": self.control_rate,
            "licence": self.licence,
            "citation": self.citation,
        }

    def files(self) -> list[str]:
        """The HDF5 files, in natural order of their names."""
        return list(self._files)

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of every file, when the source was opened."""
        return dict(self._sizes)

    def census(self, file: str) -> Iterator[CensusRow]:
        """One row per episode of a file; what cannot be read is rejected."""
        try:
            with opened(self._path(file), file) as open_file:
                splits = splits_in(open_file)
                for record, place in enumerate(episodes_in(open_file)):
                    split = splits.get(place, "")
                    if not self._splits or split in self._splits:
                        yield self._row(file, record, split, partial(self._seen, open_file, file, place))
        except SourceError as error:
            yield self._row(file, 0, "", partial(_refuse, error.reason))

    def read(self, row: Mapping[str, Any]) -> SourceEpisode:
        """Read the episode of a census row; frames that are not encoded are read when they are played."""
        file, place = row["source_file"], json.loads(row["detail"])["episode"]
        try:
            with opened(self._path(file), file) as open_file:
                digests = json.loads(row["detail"])["cameras"]
                episode = self._episode(open_file, file, place)
                if self._digest(episode, digests) != row["source_digest"]:
                    raise UnfitError(CHANGED)
                images: dict[str, Images] = {}
                for camera in self.cameras:
                    found = episode.images[camera.name]
                    if found.encoded:
                        encoded = found.files()
                        if _digest_of_files(encoded) != digests[camera.name]:
                            raise UnfitError(CHANGED)
                        images[camera.name] = encoded
                    else:
                        play = partial(self._play, row, place, camera, digests[camera.name])
                        images[camera.name] = Film(steps=len(found), play=play)
        except SourceError as error:
            raise episode_error(error.reason, row) from error
        bgr = (one.name for one in self.cameras if one.channels == "bgr" and episode.images[one.name].encoded)
        return SourceEpisode(
            images=images,
            action=episode.arrays.get("action"),
            state=episode.arrays.get("state"),
            reward=episode.arrays.get("reward"),
            instructions=episode.instructions,
            bgr=frozenset(bgr),
        )

    def _play(
        self, row: Mapping[str, Any], place: str, camera: Camera, digest: str, out: Frame, resize: Resize
    ) -> None:
        """Fill `out` [T, H, W, 3] with the frames of a camera."""
        same = xxh3_64()
        try:
            with opened(self._path(row["source_file"]), row["source_file"]) as file:
                found = pictures(_group(file, place), camera.field)
                if found.encoded or len(found) != len(out):
                    raise UnfitError(CHANGED)
                for first, frames in found.blocks():
                    same.update(np.ascontiguousarray(frames).data)
                    shown_as = frames[..., ::-1] if camera.channels == "bgr" else frames
                    if out.shape[1:] == frames.shape[1:]:
                        out[first : first + len(frames)] = shown_as
                        continue
                    for i, frame in enumerate(shown_as, first):
                        resize_into(out[i], np.ascontiguousarray(frame), resize)
            if same.hexdigest() != digest:
                raise SourceError(CHANGED)
        except SourceError as error:
            raise episode_error(error.reason, row) from error

    def _row(self, file: str, record: int, split: str, see: Callable[[], dict[str, Any]]) -> CensusRow:
        nowhere = (0,) * len(self.cameras)
        row: dict[str, Any] = {
            "key": "-".join(
                filter(None, (self.name, clean(split), f"{self._numbers_of[file]:05d}-{record:06d}"))
            ),
            "source_split": split,
            "source_file": file,
            "source_record": record,
            "source_offset": 0,
            "source_length": 0,
            "source_digest": 0,
            "heights": nowhere,
            "widths": nowhere,
        }
        try:
            with explained():
                return CensusRow(**{**row, **see()})
        except UnfitError as error:
            return CensusRow(**row, rejected=str(error))

    def _seen(self, file: h5py.File, name: str, place: str) -> dict[str, Any]:
        """Values of the census row of an episode that can be read."""
        episode = self._episode(file, name, place)
        primary = self.cameras[0].name
        digests = {
            camera: _digest_of_files(found.files()) if found.encoded else _digest_of_frames(found)
            for camera, found in episode.images.items()
        }
        same = xxh3_64(digests[primary].encode())
        if "action" in episode.arrays:
            same.update(episode.arrays["action"].tobytes())
        stored = sum(found.dataset.id.get_storage_size() for found in episode.images.values())
        return {
            "source_length": stored + sum(one.nbytes for one in episode.arrays.values()),
            "source_digest": self._digest(episode, digests),
            "steps": episode.steps,
            "environment": episode.environment,
            "environment_known": self._environment.known
            if self._environment and episode.environment
            else "unknown",
            "session": episode.session,
            "success": episode.success,
            "instructions": tuple(dict.fromkeys(runs[0][1] for runs in episode.instructions.values())),
            "duplicate": same.intdigest(),
            "heights": tuple(episode.images[camera.name].size[0] for camera in self.cameras),
            "widths": tuple(episode.images[camera.name].size[1] for camera in self.cameras),
            "detail": json.dumps({"episode": place, "cameras": digests}),
        }

    def _episode(self, file: h5py.File, name: str, place: str) -> _Episode:
        """Everything of an episode but its images.

        Raises:
            UnfitError: a field is missing, or has other steps than the primary camera.
        """
        group = _group(file, place)
        images = {camera.name: pictures(group, camera.field) for camera in self.cameras}
        first = self.cameras[0]
        steps = len(images[first.name])
        if steps < 2:
            raise UnfitError(f"has {steps} steps; at least 2 are needed")
        parts = {what: [(one, one.values(group)) for one in found] for what, found in self._numbers.items()}
        lengths = [(camera.field, len(images[camera.name])) for camera in self.cameras]
        lengths += [(one.path, len(values)) for found in parts.values() for one, values in found]
        for path, length in lengths:
            if length != steps:
                raise UnfitError(f"{path} has {length} steps where {first.field} has {steps}")
        arrays = {
            what: np.concatenate([values for _, values in found], axis=1)
            for what, found in parts.items()
            if found
        }
        for what, values in arrays.items():
            if not np.isfinite(values).all():
                step = int(np.argmin(np.isfinite(values).all(axis=1)))
                raise UnfitError(f"{what} is NaN or infinite at step {step}")
        rule, environment, session = self._environment, None, None
        if rule is not None:
            told = text_of(file, place, name, rule.field) if rule.field is not None else None
            environment, session = rule.find(told or "")
        texts = ((field, text_of(file, place, name, field)) for field in self._instruction)
        return _Episode(
            images=images,
            steps=steps,
            arrays=arrays,
            instructions={field: [(0, text)] for field, text in texts if text},
            environment=environment,
            session=session,
            success=self._succeeded(file, name, place),
        )

    def _succeeded(self, file: h5py.File, name: str, place: str) -> bool | None:
        rule = self._success
        if rule is None:
            return None
        if rule.pattern is None:
            return flag_of(file, place, rule.field)
        text = text_of(file, place, name, rule.field)
        return re.search(rule.pattern, text) is not None if text else None

    def _digest(self, episode: _Episode, cameras: Mapping[str, str]) -> int:
        """Digest of everything that is compiled of an episode, given those of its cameras."""
        told = {
            "cameras": [cameras[camera.name] for camera in self.cameras],
            "instructions": list(episode.instructions.items()),
            "environment": episode.environment,
            "session": episode.session,
            "success": episode.success,
        }
        same = xxh3_64(canonical_json(told))
        for what, values in episode.arrays.items():
            same.update(what.encode())
            same.update(np.ascontiguousarray(values).data)
        return same.intdigest()

    def _path(self, name: str) -> str:
        return os.path.join(self._store.url, name)


@dataclass(frozen=True, kw_only=True)
class _Episode:
    """One episode of an open file; its images are still in it."""

    images: Mapping[str, Pictures]
    steps: int
    arrays: Mapping[str, Floats]
    instructions: Mapping[str, list[tuple[int, str]]]
    environment: str | None
    session: str | None
    success: bool | None


def episodes_in(file: h5py.File) -> list[str]:
    """Paths of the groups of the episodes of a file; "" is the file itself.

    Raises:
        UnfitError: the groups are reached over links that are not followed.
    """
    data = find(file, "data")
    demos = groups(data) if isinstance(data, h5py.Group) else []
    return [f"data/{name}" for name in demos] or [""]


def splits_in(file: h5py.File) -> dict[str, str]:
    """Path of an episode's group -> the split that the masks of robomimic say, of those in `SPLITS`."""
    found: dict[str, str] = {}
    for split in SPLITS:
        mask = find(file, f"mask/{split}")
        if isinstance(mask, h5py.Dataset) and mask.ndim == 1:
            check_stored(mask, f"mask/{split}")
            for name in mask[()]:
                found.setdefault(f"data/{as_text(name, f'mask/{split}')}", split)
    return found


def _files(url: str) -> tuple[Store, list[str]]:
    """The store of a source, and the names of its files."""
    if os.path.isfile(url):
        folder, name = os.path.split(os.path.abspath(url))
        return Store(folder), [name]
    store = Store(url)
    if store.remote:
        raise ConfigError(f"{url}: HDF5 is read from directories of this machine; copy the files first")
    names = [name for name in store.list() if name.endswith(HDF5)]
    if not names:
        raise SourceError(f"{url}: holds no file that ends in {' or '.join(HDF5)}")
    return store, sorted(names, key=natural)


def _choose_cameras(config: SourceConfig, name: str, there: Mapping[str, h5py.Dataset]) -> tuple[Camera, ...]:
    """The requested cameras; else the first by name of a layout that is known.

    Raises:
        ConfigError: there is no such camera, the episode has no images, or the layout is unknown.
    """
    usual = default_cameras(there)
    if config.cameras is None and not usual and any(path.startswith(OBSERVATIONS) for path in there):
        raise ConfigError(
            f"{name}: its observations have no images, uint8 [T, H, W, 3]; found {shown(there)}; render them "
            "first (robomimic: dataset_states_to_obs.py), or name others with --camera"
        )
    if config.cameras is None and not usual:
        raise ConfigError(
            f"{name}: expected the layout of robomimic (data/demo_0/obs/NAME_image, data/demo_0/actions) or "
            f"ALOHA (observations/images/NAME, action); found {shown(there)}; name the fields with --camera, "
            "--action and --state"
        )
    chosen = []
    for one in dict.fromkeys(config.cameras or usual[:1]):
        path = resolve(one, there)
        if path is None:
            raise ConfigError(no_such("camera", one, there))
        if not is_camera(there[path]):
            raise ConfigError(
                f"--camera {one}: expected uint8 [T, H, W, 3] or encoded images, the file has "
                f"{shown({path: there[path]})}"
            )
        chosen.append(Camera(name=clean(_short(path)), field=path))
    return with_roles(chosen, config, {}, {}, resolve)


def _short(path: str) -> str:
    """The name of a camera, from its path."""
    return re.sub(r"^(obs|observations/images|observations)/", "", path)


def _choose_splits(config: SourceConfig, there: Mapping[str, str]) -> tuple[str, ...]:
    """The source's own splits that are read; none if it has none."""
    known = [split for split in SPLITS if split in there.values()]
    for split in config.source_splits or ():
        one_of("--source-split", split, known)
    return tuple(config.source_splits or ())


def _columns(what: str, numbers: tuple[Any, ...], config: SourceConfig) -> tuple[Column, ...]:
    """Columns of an array: those of the dataset that is extended, else named after their fields."""
    known = config.known_columns.get(what, ())
    if len(known) == sum(one.size for one in numbers):
        return known
    columns: list[Column] = []
    for one in numbers:
        start, stop = one.part or (0, one.width)
        columns += unnamed(one.path, one.width)[start:stop]
    return tuple(columns)


def _group(file: h5py.File, place: str) -> h5py.Group:
    """The group of an episode.

    Raises:
        UnfitError: there is none.
    """
    found = find(file, place)
    if not isinstance(found, h5py.Group):
        raise UnfitError(f"has no group {place}")
    return found


def _refuse(reason: str) -> dict[str, Any]:
    raise UnfitError(reason)


def _digest_of_frames(found: Pictures) -> str:
    same = xxh3_64()
    for _, frames in found.blocks():
        same.update(np.ascontiguousarray(frames).data)
    return same.hexdigest()


def _digest_of_files(files: Sequence[bytes]) -> str:
    same = xxh3_64()
    for file in files:
        same.update(len(file).to_bytes(8, "little"))
        same.update(file)
    return same.hexdigest()
