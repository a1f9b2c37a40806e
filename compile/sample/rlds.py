"""A small dataset of the sample kitchens, as the TFDS directory that an RLDS loader expects.

    DIR/oxcart_kitchens/1.0.0/
        dataset_info.json                                   written last: without it this is no dataset
        features.json
        oxcart_kitchens-train.tfrecord-00000-of-00004 ...
        oxcart_kitchens-val.tfrecord-00000-of-00001

    write_rlds(Path("source"), RldsSampleConfig(kitchens=12))        # or: oxcart sample rlds source

The scripted expert acts in the world that `oxcart.sim` steps: the recorded actions, taken there, give the
same bytes again. The source's own `val` is about every tenth episode, drawn within recording sessions as
Bridge's is: each of its episodes has neighbours in `train` that share its kitchen, clutter and light.
Episodes are encoded session by session into one temporary file and then copied in hash order, so memory holds
one session, and the disk holds the dataset twice for a moment. The same configuration writes the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from oxcart.compile.sample.expert import actions, demonstrate, way
from oxcart.compile.sample.kitchen import (
    Session,
    begin,
    build_kitchen,
    draw_main,
    draw_wrist,
    kitchen_names,
    open_session,
)
from oxcart.compile.sample.world import World
from oxcart.compile.sources.rlds.tfrecord import write_record
from oxcart.manifests.ownership import SOURCE, check_directory
from oxcart.shards.errors import ConfigError, StoreError
from oxcart.shards.store import WORK, Store

NAME, VERSION = "oxcart_kitchens", "1.0.0"

_VAL_SHARE = 0.1
_LEAST = {"kitchens": 1, "sessions": 1, "episodes": 1, "steps": 2, "size": 32, "files": 1, "duplicates": 0}


@dataclass(frozen=True, kw_only=True)
class RldsSampleConfig:
    """Configuration of the sample; every setting changes the bytes.

    Raises:
        ConfigError: a value is invalid.
    """

    kitchens: int = 12
    """Number of environments."""
    sessions: int = 2
    """Number of recording sessions per kitchen."""
    episodes: int = 4
    """Number of episodes per session."""
    steps: int = 24
    """Steps per episode on average; lengths vary by a quarter either way. Below about 16, some demonstrations
    are cut off before the task is done."""
    size: int = 96
    """Side of the main camera's square frames, in pixels; the wrist camera's is half as long."""
    files: int = 4
    """Number of TFRecord files in the train split; val has one."""
    seed: int = 0
    """Random seed; another seed gives other kitchens under the same names."""
    duplicates: int = 0
    """Extra records that repeat an episode's steps exactly, filed under another kitchen if there is one."""
    perturbed: float = 0.0
    """Share of the episodes that begin after something went wrong, so that the expert has to recover. What is
    left to do takes as long as it would at the pace of other episodes."""

    def __post_init__(self) -> None:
        for argument, least in _LEAST.items():
            got = getattr(self, argument)
            if got < least:
                raise ConfigError(
                    f"{argument}: expected at least {least}, got {got}; ask for {least} or more"
                )
        if not 0 <= self.perturbed <= 1:
            raise ConfigError(
                f"perturbed: expected a share from 0 to 1, got {self.perturbed}; ask for 0.25, say"
            )
        episodes = self.total - self.duplicates
        if self.duplicates > episodes:
            raise ConfigError(
                f"duplicates: expected at most the {episodes} episodes, got {self.duplicates}; ask for fewer"
            )
        train = self.total - len(_val_episodes(self))
        if self.files > train:
            raise ConfigError(
                f"files: expected at most the {train} records of train, got {self.files}; ask for fewer files"
            )

    @property
    def total(self) -> int:
        """Total number of records, duplicates included."""
        return self.kitchens * self.sessions * self.episodes + self.duplicates


class _Spooled(NamedTuple):
    """A record in the temporary file, waiting for its place in the dataset."""

    kitchen: str
    task: str
    session: int
    split: str
    episode_id: int
    offset: int
    length: int


def write_rlds(
    directory: Path, config: RldsSampleConfig, report: Callable[[int], None] = lambda done: None
) -> Path:
    """Write the dataset under `directory` and return the directory that holds its files.

    Args:
        directory: folder to write into.
        config: what to write.
        report: called after each episode with the number of episodes written so far.

    Raises:
        ConfigError: the directory of the dataset exists and is not empty.
        StoreError: the directory cannot be written.
    """
    root = Path(directory) / NAME / VERSION
    store = Store(root)
    check_directory("directory", root, SOURCE)
    if root.is_dir() and any(root.iterdir()):
        found = "a dataset" if store.exists("dataset_info.json") else "files of a write that was cut off"
        raise ConfigError(
            f"directory: expected no {root} yet, got {found}; remove it or name another directory"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as spool:
            records = _in_hash_order(_spool(spool, config, report), config.seed, "order")
            splits = [
                _write_split(store, spool, split, [r for r in records if r.split == split], files)
                for split, files in (("train", config.files), ("val", 1))
                if any(r.split == split for r in records)
            ]
        with tempfile.TemporaryDirectory() as folder:
            features(config.size).save_config(folder)
            store.put("features.json", (Path(folder) / "features.json").read_bytes())
        info = json.dumps(_dataset_info(splits), indent=4, sort_keys=True)
        store.put("dataset_info.json", info.encode())
        store.delete_folder(WORK)
    except OSError as error:
        raise StoreError(f"{error.filename or root}: write: {error.strerror or error}") from error
    return root


def features(size: int) -> tfds.features.FeaturesDict:
    """The TFDS features of a record, for frames of `size` pixels per side."""
    f = tfds.features

    def image(side: int, encoding: str, doc: str) -> tfds.features.Image:
        return f.Image(shape=(side, side, 3), dtype=np.uint8, encoding_format=encoding, doc=doc)

    def vector(doc: str) -> tfds.features.Tensor:
        return f.Tensor(shape=(3,), dtype=np.float32, doc=doc)

    observation = {
        "image_0": image(size, "jpeg", "Main camera RGB observation, fixed in front of the table."),
        "wrist": image(size // 2, "png", "Wrist camera RGB observation, follows the gripper from above."),
        "state": vector(
            "Gripper x (to the right) and y (away from the main camera) in widths of the table, 0 to 1, "
            "and 1 where the gripper is closed."
        ),
    }
    last = "True on the last step, unless the demonstration was cut off before the task was done."
    steps = {
        "observation": f.FeaturesDict(observation),
        "action": vector(
            "Gripper dx and dy to the next step in widths of the table, and 1 to close the gripper. The next "
            "state's x and y are exactly this one's plus dx and dy."
        ),
        "language_instruction": f.Text(doc="Language instruction."),
        "is_first": f.Scalar(dtype=np.bool_, doc="True on the first step of the episode."),
        "is_last": f.Scalar(dtype=np.bool_, doc="True on the last step of the episode."),
        "is_terminal": f.Scalar(dtype=np.bool_, doc=last),
        "reward": f.Scalar(dtype=np.float32, doc="1 on the last step if the task is done."),
        "discount": f.Scalar(dtype=np.float32, doc="Discount, always 1."),
    }
    metadata = {
        "file_path": f.Text(doc="Path of the raw recording: environment, task, session, split."),
        "episode_id": f.Scalar(dtype=np.int32, doc="Index of the episode in file_path."),
    }
    return f.FeaturesDict({"steps": f.Dataset(steps), "episode_metadata": f.FeaturesDict(metadata)})


def _spool(spool: BinaryIO, config: RldsSampleConfig, report: Callable[[int], None]) -> list[_Spooled]:
    """Encode every episode, session by session, then repeat the duplicates."""
    names, val = kitchen_names(config.kitchens), _val_episodes(config)
    records: list[_Spooled] = []
    held: Counter[str] = Counter()

    def append(example: tf_example_pb2.Example, kitchen: str, task: str, session: int, split: str) -> None:
        path = f"/data/kitchens/bridge_data_v2/{kitchen}/{task}/{session:02d}/{split}/out.npy"
        feature = example.features.feature
        feature["episode_metadata/file_path"].bytes_list.value[:] = [path.encode()]
        feature["episode_metadata/episode_id"].int64_list.value[:] = [held[path]]
        data = example.SerializeToString(deterministic=True)
        records.append(_Spooled(kitchen, task, session, split, held[path], spool.tell(), len(data)))
        spool.write(data)
        held[path] += 1
        report(len(records))

    for name in names:
        kitchen = build_kitchen(name, size=config.size, seed=config.seed)
        for number in range(config.sessions):
            session = open_session(kitchen, number)
            task = session.task.name if session.task else "many_skills"
            for episode in range(config.episodes):
                worlds = demonstrate(*_start(session, episode, config))
                split = "val" if (name, number, episode) in val else "train"
                append(_example(session, worlds), name, task, number, split)
    for original in _in_hash_order(records, config.seed, "duplicates")[: config.duplicates]:
        other = names[(names.index(original.kitchen) + 1) % len(names)]
        spool.seek(original.offset)
        example = tf_example_pb2.Example.FromString(spool.read(original.length))
        spool.seek(0, io.SEEK_END)
        append(example, other, original.task, original.session, "train")
    return records


def _start(session: Session, episode: int, config: RldsSampleConfig) -> tuple[World, int]:
    """First step of an episode, and the number of its steps."""
    at = config.seed, session.kitchen.name, session.number, episode
    length = max(2, round(config.steps * (0.75 + 0.5 * _draw(*at, "length"))))
    world = begin(session, episode=episode)
    if _draw(*at, "perturbed") >= config.perturbed:
        return world, length
    perturbed = begin(session, episode=episode, perturbed=True)
    return perturbed, max(2, round(length * way(perturbed) / way(world)))


def _example(session: Session, worlds: list[World]) -> tf_example_pb2.Example:
    """An episode as TFDS encodes it, without its metadata: one list per feature, with all steps."""
    count = len(worlds)
    last = [0] * (count - 1) + [1]
    done = [0] * (count - 1) + [int(worlds[-1].success)]
    main = [_encoded(draw_main(session, world), "JPEG", quality=90) for world in worlds]
    wrist = [_encoded(draw_wrist(session, world), "PNG", compress_level=1) for world in worlds]
    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["steps/observation/image_0"].bytes_list.value.extend(main)
    feature["steps/observation/wrist"].bytes_list.value.extend(wrist)
    feature["steps/observation/state"].float_list.value.extend(
        np.stack([world.state for world in worlds]).ravel().tolist()
    )
    feature["steps/action"].float_list.value.extend(actions(worlds).ravel().tolist())
    feature["steps/language_instruction"].bytes_list.value.extend([worlds[0].instruction.encode()] * count)
    feature["steps/is_first"].int64_list.value.extend([1] + [0] * (count - 1))
    feature["steps/is_last"].int64_list.value.extend(last)
    feature["steps/is_terminal"].int64_list.value.extend(done)
    feature["steps/reward"].float_list.value.extend(done)
    feature["steps/discount"].float_list.value.extend([1.0] * count)
    return example


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _write_split(
    store: Store, spool: BinaryIO, split: str, records: list[_Spooled], files: int
) -> dict[str, object]:
    """Copy records into the files of a split, which dataset_info.json then describes."""
    bounds = [len(records) * k // files for k in range(files + 1)]
    for k in range(files):
        with store.writer(f"{NAME}-{split}.tfrecord-{k:05d}-of-{files:05d}") as file:
            for waiting in records[bounds[k] : bounds[k + 1]]:
                spool.seek(waiting.offset)
                write_record(file, spool.read(waiting.length))
    return {
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "name": split,
        "numBytes": str(sum(waiting.length for waiting in records)),
        "shardLengths": [str(after - before) for before, after in pairwise(bounds)],
    }


def _dataset_info(splits: list[dict[str, object]]) -> dict[str, object]:
    return {
        "citation": "",
        "description": "Simulated kitchens in which an arm pushes coloured blocks; a small sample.",
        "fileFormat": "tfrecord",
        "moduleName": "oxcart.compile.sample.rlds",
        "name": NAME,
        "releaseNotes": {VERSION: "Initial release."},
        "splits": splits,
        "version": VERSION,
    }


def _val_episodes(config: RldsSampleConfig) -> set[tuple[str, int, int]]:
    """The episodes of the source's own val: a tenth, at least one if there are two or more, and never all."""
    draws = {
        (name, session, episode): _draw(config.seed, name, session, episode, "source split")
        for name in kitchen_names(config.kitchens)
        for session in range(config.sessions)
        for episode in range(config.episodes)
    }
    lowest_first = sorted(draws, key=lambda at: (draws[at], at))
    count = sum(draw < _VAL_SHARE for draw in draws.values())
    return set(lowest_first[: min(max(count, 1), len(draws) - 1)])


def _in_hash_order(records: list[_Spooled], seed: int, purpose: str) -> list[_Spooled]:
    return sorted(
        records, key=lambda r: (_draw(seed, r.kitchen, r.task, r.session, r.split, r.episode_id, purpose), r)
    )


def _draw(*key: object) -> float:
    """A number in [0, 1) for a purpose, the same on every machine."""
    digest = hashlib.sha256("/".join(str(part) for part in key).encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)
