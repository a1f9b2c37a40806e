"""Write the latent-action labels of a dataset: the codes of every step, as an annotation.

    label("bridge", Path("runs/laq"), "codes.parquet")

Step t has the codes of the pair (t, t + k), with the k of the run. The last k steps of an episode have no
pair and get -1 everywhere. Work is done in pieces, which are kept in `codes.parquet.parts/` until the file is
written. So interrupted work resumes, ranks share the pieces, and machines that share the folder can each do a
part of them; whoever is asked for the whole then finds all pieces and joins them. A piece has the same
batches whoever does it, and so the same codes. The model computes in the precision of the run, `auto` being
that of the device; another machine of the same kind writes the same file.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.nn import functional

from oxcart.manifests.annotation import Annotation, write_annotation
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.tables import EPISODES
from oxcart.shards.errors import ConfigError, CorruptError, NotFiniteError
from oxcart.shards.files import naming, private_folder, replacing, write_file
from oxcart.train import checkpoint as checkpoints
from oxcart.train.data import Batch, Loader
from oxcart.train.data.config import rate_given
from oxcart.train.data.sampling import TooShortError
from oxcart.train.device import in_bf16, pick_device, use_tf32
from oxcart.train.explain import explained
from oxcart.train.finite import refuse
from oxcart.train.laq.build import build_model, shapes_of
from oxcart.train.laq.config import LaqConfig, laq_config
from oxcart.train.laq.model import NONE, LatentActionModel, to_float, to_uint8
from oxcart.train.laq.validate import pairs_of
from oxcart.train.ranks import ALONE, Ranks, gathered, on_main
from oxcart.train.trained_on import TrainedOn, read_record

PIECE = 16
"""Number of batches per piece of work."""


@dataclass(frozen=True, kw_only=True)
class Labeller:
    """A trained model, ready to encode pairs."""

    model: LatentActionModel
    config: LaqConfig
    step: int
    fingerprint: str
    """BLAKE3 over the configuration of the model and every weight."""
    record: TrainedOn | None
    """What the run was trained on; None if it kept no record."""
    device: torch.device


def open_run(run: Path, name: str = checkpoints.LAST, device: str = "auto") -> Labeller:
    """Read a run's checkpoint.

    Args:
        run: directory of the run.
        name: `last`, `best`, or the folder of a checkpoint.
        device: `cpu`, `cuda`, or `auto`.

    Raises:
        ConfigError: the checkpoint does not exist, or there is no GPU.
        CorruptError: it is not a checkpoint of a latent-action model.
    """
    named = name in (checkpoints.LAST, checkpoints.BEST)
    path = checkpoints.find(run, name) if named else Path(name)
    if path is None or not (path / checkpoints.ABOUT).is_file():
        where = f"{run}: there is no checkpoint {name}" if named else f"{path}: there is no such checkpoint"
        raise ConfigError(f"{where}; train first: oxcart train laq run.dir={run}")
    on = pick_device(device)
    header = checkpoints.read_header(path)
    identity = checkpoints.entry(path, header.state, "identity", dict)
    try:
        config = laq_config([], checkpoints.entry(path, header.state, "config", dict))
    except ConfigError as error:
        raise CorruptError(f"{path}: config: is not that of a latent-action model: {error}") from error
    # Shapes are compared first: a configuration may ask for any amount of memory, and so may a file.
    wanted = shapes_of(config.model, config.quantizer, config.flow)
    checkpoints.check_shapes(path, header.model, wanted, whole=False)
    model = build_model(config.model, config.quantizer, config.flow)
    shapes = {name: one.shape for name, one in model.state_dict().items()}
    checkpoints.check_shapes(path, header.model, shapes)
    weights = checkpoints.read(path, header, "model/")
    model.load_state_dict(weights)
    model.bf16 = in_bf16(config.train.precision, on)
    if on.type == "cuda":
        use_tf32(config.train.tf32)
    return Labeller(
        model=model.to(on).eval(),
        config=config,
        step=header.step,
        fingerprint=checkpoints.fingerprint(identity, weights),
        record=read_record(path, header.state),
        device=on,
    )


def open_producer(run: Path, producer: str, device: str = "auto") -> Labeller:
    """Read the checkpoint of a run that made the codes, or its last if none did.

    Args:
        run: directory of the run.
        producer: fingerprint of the model that made the codes.
        device: `cpu`, `cuda`, or `auto`.

    Raises:
        ConfigError: the run has no checkpoint, or there is no GPU.
    """
    last = open_run(run, device=device)
    if last.fingerprint == producer or checkpoints.find(run, checkpoints.BEST) is None:
        return last
    best = open_run(run, checkpoints.BEST, device)
    return best if best.fingerprint == producer else last


@torch.no_grad()
def imagine(labeller: Labeller, frames: Tensor, codes: Tensor) -> npt.NDArray[np.uint8]:
    """Draw the next frames for frames and codes with a model.

    Args:
        labeller: the model.
        frames: uint8 [B, H, W, 3] of any size.
        codes: int64 [B, n].

    Returns:
        uint8 [B, H, W, 3].

    Raises:
        NotFiniteError: a frame is not finite.
    """
    height, width = frames.shape[1:3]
    side = labeller.config.model.image_size
    pixels = to_float(frames.to(labeller.device)[:, None])[:, 0]
    if (height, width) != (side, side):
        pixels = functional.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    made = labeller.model.decode(pixels, codes.to(labeller.device)).clamp(-1, 1)
    if not made.isfinite().all():
        raise NotFiniteError("the frames that the latent-action model draws are not finite")
    if (height, width) != (side, side):
        made = functional.interpolate(made, (height, width), mode="bilinear")
    drawn: npt.NDArray[np.uint8] = to_uint8(made[:, None])[:, 0].cpu().numpy()
    return drawn


def count_pairs(url: str, labeller: Labeller) -> int:
    """Number of pairs of a dataset, over all splits."""
    dataset = Dataset.open(url)
    return sum(loader.epoch_length for loader in _loaders(dataset, labeller, 64).values())


@explained("--batch-size", "take a smaller batch")
def label(
    url: str,
    labeller: Labeller,
    output: str,
    *,
    batch_size: int = 64,
    part: tuple[int, int] | None = None,
    ranks: Ranks = ALONE,
    report: Callable[[int], None] = lambda done: None,
) -> dict[str, int] | None:
    """Write the annotation of a dataset, or do a part of the work for it.

    Args:
        url: address of the dataset.
        labeller: the model.
        output: file to write.
        batch_size: number of pairs per batch.
        part: number of the part, from 0, and of all parts: only its pieces are encoded, and kept beside
            `output`. None encodes what is missing of all pieces, and joins them.
        ranks: the processes that share the work.
        report: called with the number of pairs done, by all ranks.

    Returns:
        Counts of episodes, steps, and steps with codes; None if only a part was done.

    Raises:
        ConfigError: `output` has parts of other work, or no episode is long enough for a pair.
        CorruptError: a part cannot be read.
        OxcartError: memory has run out, or another rank has gone.
    """
    dataset = Dataset.open(url)
    loaders = _loaders(dataset, labeller, batch_size)
    offsets = {split: loader.streams[0].offset for split, loader in loaders.items()}
    about = {
        "producer": labeller.fingerprint,
        "dataset": dataset.manifest.fingerprint,
        "batch_size": batch_size,
        "precision": "bf16" if labeller.model.bf16 else "fp32",
        "offsets": offsets,
    }
    folder = Path(f"{output}.parts")
    pieces = [
        (split, start)
        for split, loader in loaders.items()
        for start in range(0, loader.epoch_length, PIECE * batch_size)
    ]
    number, count = part or (0, 1)
    wanted = pieces[len(pieces) * number // count : len(pieces) * (number + 1) // count]
    sizes = {piece: min(PIECE * batch_size, loaders[piece[0]].epoch_length - piece[1]) for piece in wanted}

    def find() -> list[tuple[int, Any]]:
        """Claim the folder and list what is missing: in one process, so that all ranks see the same."""
        if not ranks.is_main_process:
            return []
        _claim(folder, about)
        return [(0, [piece for piece in wanted if not _path(folder, *piece).exists()])]

    ((_, missing),) = gathered(find, ranks)
    done = sum(sizes.values()) - sum(sizes[piece] for piece in missing)
    report(done)
    world, rank = ranks.num_processes, ranks.process_index
    mine = missing[len(missing) * rank // world : len(missing) * (rank + 1) // world]
    encoding = _encode(loaders, labeller, folder, mine)
    for _ in range(-(-len(missing) // world)):
        # Ranks wait for each other after each piece: a failure of one soon ends all.
        done += sum(pairs for _, pairs in gathered(lambda: [(rank, next(encoding, 0))], ranks))
        report(done)
    if part is not None:
        return None
    found: dict[str, int] | None = on_main(
        lambda: _join(dataset, labeller, folder, pieces, offsets, output), ranks
    )
    return found


def _join(
    dataset: Dataset,
    labeller: Labeller,
    folder: Path,
    pieces: Sequence[tuple[str, int]],
    offsets: Mapping[str, int],
    output: str,
) -> dict[str, int]:
    """Write the file from all pieces, and remove them."""
    steps = _steps(dataset)
    width = labeller.config.quantizer.tokens
    values = {key: np.full((count, width), NONE, np.int32) for key, count in steps.items()}
    coded = 0
    for piece in pieces:
        path = _path(folder, *piece)
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:
                keys, times, codes = found["key"].tolist(), found["t"].tolist(), found["codes"]
        except (BadZipFile, EOFError, KeyError, ValueError) as error:
            raise CorruptError(f"{path}: cannot be read ({error}); remove it, and label again") from error
        for key, t, code in zip(keys, times, codes, strict=True):
            values[key][t] = code
        coded += len(keys)
    distinct = sorted(set(offsets.values()))
    annotation = Annotation(
        name="codes",
        producer=labeller.fingerprint,
        dataset=dataset.manifest.fingerprint,
        parameters={
            "offset": distinct[0] if len(distinct) == 1 else None,
            "tokens": width,
            "codes": labeller.config.quantizer.codes,
            "step": labeller.step,
            "image_size": labeller.config.model.image_size,
            "none": NONE,
        },
        values=values,
    )
    write_annotation(output, annotation)
    shutil.rmtree(folder)
    return {"episodes": len(steps), "steps": sum(steps.values()), "coded": coded}


def _loaders(dataset: Dataset, labeller: Labeller, batch_size: int) -> dict[str, Loader]:
    """A loader of all pairs of each split in a fixed order; without splits whose episodes are too short."""
    config = labeller.config
    found = {}
    short = "it has no episodes"
    for split, counts in sorted(dataset.manifest.splits.items()):
        if not counts["episodes"]:
            continue
        try:
            found[split] = Loader(
                dataset,
                split,
                sample=pairs_of(config),
                batch_size=batch_size,
                size=config.model.image_size,
                camera=config.data.camera,
                control_rate=rate_given(dataset.manifest, config.data.control_rate),
                rank=0,
                world_size=1,
                repeat=False,
                pin=False,
            )
        except TooShortError as error:
            short = str(error).removeprefix("sample: ")
    if not found:
        raise ConfigError(f"DATASET: no pair of {dataset.store.url} can be labelled: {short}")
    return found


def _steps(dataset: Dataset) -> dict[str, int]:
    """Key -> number of steps, of every episode."""
    table = dataset.table(EPISODES, ["key", "steps"])
    keys = pc.cast(table["key"], pa.large_string()).to_pylist()
    return dict(zip(keys, table["steps"].to_pylist(), strict=True))


def _claim(parts: Path, about: dict[str, Any]) -> None:
    """Begin or resume work, in a folder into which no other user can put parts."""
    os.close(private_folder(parts, "--output"))
    mark, text = parts / "work.json", json.dumps(about, sort_keys=True)
    if not mark.exists():
        write_file(mark, text.encode())
    elif mark.read_text(encoding="utf-8") != text:
        raise ConfigError(
            f"--output: {parts} has parts of other work (another run, dataset, batch size or precision); "
            "remove it, or write to another file"
        )


def _path(folder: Path, split: str, start: int) -> Path:
    """File of the piece of a split that begins at a position."""
    return folder / f"{split}-{start:012d}.npz"


def _encode(
    loaders: Mapping[str, Loader], labeller: Labeller, folder: Path, pieces: Sequence[tuple[str, int]]
) -> Iterator[int]:
    """Encode and write pieces, and yield the number of pairs of each. Neighbours are read in one stream."""
    batches: Iterator[Batch] = iter(())
    here = None
    for split, start in pieces:
        loader = loaders[split]
        if here != (split, start):
            loader.load_state_dict({**loader.state_dict(), "position": start})
            batches = iter(loader)
        keys: list[str] = []
        times: list[npt.NDArray[np.int64]] = []
        codes: list[npt.NDArray[np.int32]] = []
        for batch in itertools.islice(batches, PIECE):
            with torch.no_grad():
                made = labeller.model.encode(to_float(batch.frames.to(labeller.device))).cpu()
            refuse((made == NONE).any(1), batch, "latents")
            keys += batch.key
            times.append(batch.t.numpy())
            codes.append(made.numpy().astype(np.int32))
        _write_piece(_path(folder, split, start), keys, np.concatenate(times), np.concatenate(codes))
        here = split, start + PIECE * loader.config.batch_size
        yield len(keys)


def _write_piece(
    path: Path, keys: list[str], times: npt.NDArray[np.int64], codes: npt.NDArray[np.int32]
) -> None:
    with naming(path), replacing(path) as file:
        np.savez(file, key=np.array(keys), t=times, codes=codes)
