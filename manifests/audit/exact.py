"""Exact duplicates across splits: frames by their digests, trajectories by their quantised values.

Chunk tables hold a digest of every chunk of every camera, so equal chunks of one codec are found over *all*
frames without decoding any; only what is found is decoded, to tell a real frame from a black one. Frames of
other codecs or of a dataset that was compressed anew are compared by the digests of the pixels that the
audit decoded anyway. Memory holds the digests of what is held out, 8 bytes a chunk; those of train pass by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from PIL import Image
from xxhash import xxh3_64_intdigest

from oxcart.manifests.audit.episodes import Episode, Source
from oxcart.manifests.audit.features import FLAT_BITS, Features, entropy
from oxcart.manifests.audit.result import Check, count, failed, passed, some, unchecked
from oxcart.manifests.dataset import read_chunks
from oxcart.shards.errors import CorruptError

DECODED = 2000
"""Chunks found twice that are decoded to see whether they show anything."""
QUANTUM = 1e-4
"""Of a trajectory's values: what differs by less is the same."""

FRAMES, FRAMES_TITLE = "frames", "No frame stands in two splits"
TRAJECTORIES, TRAJECTORIES_TITLE = "trajectories", "No trajectory of actions and states stands in two splits"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two episodes of different splits that share something exactly; by dataset and key."""

    one: tuple[int, str]
    """The one that is held out, or val_seen's."""
    other: tuple[int, str]
    """The other one, of train where there is one."""


@dataclass(frozen=True, kw_only=True)
class _Chunks:
    """Chunks of one camera, or of many."""

    digest: npt.NDArray[np.uint64]
    episode: npt.NDArray[np.int64]
    """Row in the dataset's table."""
    number: npt.NDArray[np.int64]
    """Which chunk of the episode."""
    camera: list[str]


def check_frames(
    sources: Sequence[Source],
    episodes: Sequence[Episode],
    features: Features,
    report: Callable[[int], None] = lambda done: None,
) -> tuple[Check, list[Pair]]:
    """Frames that stand in two splits.

    Args:
        sources: the datasets.
        episodes: those whose frames were decoded.
        features: of them.
        report: told of shards read so far.
    """
    shared: dict[tuple[tuple[int, str], tuple[int, str]], int] = {}
    held = _held(sources)
    flat: dict[int, bool] = {}
    done = 0
    for index, source in enumerate(sources):
        for shard in source.dataset.manifest.shards:
            for chunks in _chunks(source, shard):
                for digest, one, other in _hits(chunks, index, shard["split"], held):
                    if _is_flat(sources, digest, other, flat):
                        continue
                    at = _names(sources, other), _names(sources, one)
                    shared[at] = shared.get(at, 0) + 1
            done += 1
            report(done)
    for pair in _decoded_hits(episodes, features):
        shared.setdefault(pair, 1)
    splits = (
        {
            (i, row["key"]): row["split"]
            for i, source in enumerate(sources)
            for row in source.table.select(["key", "split"]).to_pylist()
        }
        if shared
        else {}
    )
    rows = [
        {
            "episode": one[1],
            "of": splits[one],
            "also in": other[1],
            "of split": splits[other],
            "frames or chunks": number,
        }
        for (one, other), number in sorted(shared.items(), key=lambda item: (-item[1], item[0]))
    ]
    pairs = [Pair(one=one, other=other) for one, other in sorted(shared)]
    ignored = sum(flat.values())
    note = f"; {count(ignored, 'constant frame')} shared and ignored" if ignored else ""
    if rows:
        text = some(
            [f"{row['episode']} ({row['of']}) and {row['also in']} ({row['of split']})" for row in rows], 2
        )
        summary = f"{count(len(rows), 'pair')} of episodes share frames: {text}{note}"
        return failed(FRAMES, FRAMES_TITLE, summary, rows, duplicate=True), pairs
    total = sum(s["frames"] for source in sources for s in source.dataset.manifest.shards)
    return passed(FRAMES, FRAMES_TITLE, f"{total:,} frames of all cameras, none in two splits{note}"), []


def check_trajectories(
    sources: Sequence[Source], episodes: Sequence[Episode], digests: Sequence[int | None]
) -> tuple[Check, list[Pair]]:
    """Trajectories that stand in two splits; `digests` are `trajectory`'s, None where there is none."""
    if all(digest is None for digest in digests):
        return unchecked(TRAJECTORIES, TRAJECTORIES_TITLE, "no episode has actions or states that move"), []
    members: dict[int, list[int]] = {}
    for i, digest in enumerate(digests):
        if digest is not None:
            members.setdefault(digest, []).append(i)
    rows: list[dict[str, Any]] = []
    pairs: list[Pair] = []
    for same in members.values():
        for i in same:
            for j in same:
                if episodes[i].split != "train" and (episodes[j].split == "train" or i < j):
                    if episodes[i].split == episodes[j].split:
                        continue
                    one, other = episodes[i], episodes[j]
                    rows.append(
                        {"episode": one.key, "of": one.split, "also in": other.key, "of split": other.split}
                    )
                    pairs.append(Pair(one=(one.source, one.key), other=(other.source, other.key)))
    total = sum(digest is not None for digest in digests)
    if rows:
        text = some(
            [f"{row['episode']} ({row['of']}) and {row['also in']} ({row['of split']})" for row in rows], 2
        )
        summary = f"{count(len(rows), 'pair')} of episodes move the same way: {text}"
        return failed(TRAJECTORIES, TRAJECTORIES_TITLE, summary, rows, duplicate=True), pairs
    what = count(total, "trajectory", "trajectories")
    return passed(TRAJECTORIES, TRAJECTORIES_TITLE, f"{what}, none in two splits"), []


def trajectory(arrays: Sequence[npt.NDArray[np.float32]]) -> int | None:
    """Digest of quantised actions and states [T, A], None where nothing in them ever changes."""
    whole = b""
    moving = False
    for values in arrays:
        exact = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=1e12, neginf=-1e12)
        steps = np.round(np.clip(exact, -1e12, 1e12) / QUANTUM).astype(np.int64)
        moving = moving or bool((steps != steps[:1]).any())
        whole += str(steps.shape).encode() + steps.tobytes()
    return xxh3_64_intdigest(whole) if moving else None


def _chunks(source: Source, shard: dict[str, Any]) -> Iterator[_Chunks]:
    """The chunks of a shard, camera by camera."""
    table = read_chunks(source.dataset.store, shard)
    stem = shard["name"].removeprefix("shards/").removesuffix(".tar")
    rows = np.flatnonzero(pc.equal(source.table["shard"], stem).to_numpy())
    row_of = dict(zip(source.table["key"].take(rows).to_pylist(), rows.tolist(), strict=True))
    for camera in (camera["name"] for camera in source.dataset.manifest.cameras):
        mine = table.filter(pc.equal(table["camera"], camera))
        if not mine.num_rows:
            continue
        lengths = pc.list_value_length(mine["digests"]).to_numpy()
        keys = mine["key"].to_pylist()
        if any(key not in row_of for key in keys):
            raise CorruptError(f"{shard['chunks']}: lists an episode that is not in the episode table")
        yield _Chunks(
            digest=pc.list_flatten(mine["digests"]).to_numpy(),
            episode=np.repeat(np.array([row_of[key] for key in keys], np.int64), lengths),
            number=np.concatenate([np.arange(n) for n in lengths]) if len(lengths) else np.zeros(0, np.int64),
            camera=[camera],
        )


class _Held:
    """Digests of all that is not in train, sorted, and where each is."""

    def __init__(self, found: Sequence[tuple[int, str, _Chunks]]) -> None:
        self.cameras = sorted({chunks.camera[0] for _, _, chunks in found})
        self.splits = sorted({split for _, split, _ in found})
        sizes = [len(chunks.digest) for _, _, chunks in found]
        digest = np.concatenate([c.digest for _, _, c in found]) if found else np.zeros(0, np.uint64)
        order = np.argsort(digest, kind="stable")
        self.digest = digest[order]
        self.source = np.repeat(np.array([s for s, _, _ in found], np.int64), sizes)[order]
        self.split = np.repeat(np.array([self.splits.index(s) for _, s, _ in found], np.int64), sizes)[order]
        self.camera = np.repeat(
            np.array([self.cameras.index(c.camera[0]) for _, _, c in found], np.int64), sizes
        )[order]
        self.episode = (np.concatenate([c.episode for _, _, c in found]) if found else self.source)[order]
        self.number = (np.concatenate([c.number for _, _, c in found]) if found else self.source)[order]


def _held(sources: Sequence[Source]) -> _Held:
    return _Held(
        [
            (index, shard["split"], chunks)
            for index, source in enumerate(sources)
            for shard in source.dataset.manifest.shards
            if shard["split"] != "train"
            for chunks in _chunks(source, shard)
        ]
    )


_At = tuple[int, int, str, int]
"""Dataset, row of its table, camera, chunk."""


def _hits(chunks: _Chunks, source: int, split: str, held: _Held) -> Iterator[tuple[int, _At, _At]]:
    """Digest, place here and place there of each chunk that something held out of another split has too.

    Of two splits that are both held out, the later one in `SPLITS` finds the earlier one.
    """
    if not len(held.digest):
        return
    first = np.searchsorted(held.digest, chunks.digest, "left")
    last = np.searchsorted(held.digest, chunks.digest, "right")
    camera = chunks.camera[0]
    for i in np.flatnonzero(last > first):
        seen: set[tuple[int, int]] = set()
        for j in range(first[i], last[i]):
            other = held.splits[held.split[j]]
            if other == split or (split != "train" and other < split):
                continue
            there = int(held.source[j]), int(held.episode[j])
            if there in seen:
                continue
            seen.add(there)
            yield (
                int(chunks.digest[i]),
                (source, int(chunks.episode[i]), camera, int(chunks.number[i])),
                (*there, held.cameras[held.camera[j]], int(held.number[j])),
            )


def _is_flat(sources: Sequence[Source], digest: int, at: _At, known: dict[int, bool]) -> bool:
    """Whether the chunk shows nothing; what is beyond `DECODED` is taken to show something."""
    if digest not in known:
        if len(known) >= DECODED:
            return False
        index, row, camera, number = at
        source = sources[index]
        manifest = source.dataset.manifest
        values = source.table.slice(row, 1).to_pylist()[0]
        found = source.dataset.track(values, camera)
        step = min(number * manifest.pixels["chunk"], values["steps"] - 1)
        frame = np.empty((1, *found.shape[1:]), np.uint8)
        found.read(source.dataset.store, step, step + 1, frame)
        grey = Image.fromarray(frame[0]).resize((32, 32), Image.Resampling.BOX).convert("L")
        known[digest] = entropy(np.asarray(grey)) < FLAT_BITS
    return known[digest]


def _names(sources: Sequence[Source], at: _At) -> tuple[int, str]:
    return at[0], sources[at[0]].table["key"][at[1]].as_py()


def _decoded_hits(
    episodes: Sequence[Episode], features: Features
) -> Iterator[tuple[tuple[int, str], tuple[int, str]]]:
    """Pairs of episodes of different splits that have a decoded frame in common which shows something."""
    owners: dict[int, list[int]] = {}
    for i in range(len(episodes)):
        if episodes[i].split != "train":
            for digest, flat in zip(features.digests[i].tolist(), features.flat[i].tolist(), strict=True):
                if not flat:
                    owners.setdefault(digest, []).append(i)
    for i, episode in enumerate(episodes):
        for digest in features.digests[i].tolist():
            for other in owners.get(digest, ()):
                one = episodes[other]
                if one.split != episode.split and (episode.split == "train" or one.split > episode.split):
                    yield (one.source, one.key), (episode.source, episode.key)
