"""Codes to learn: latent-action labels in files, or made by a frozen latent-action model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from oxcart.manifests.annotation import read_annotation
from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError
from oxcart.train.data import Batch, Frames, Loader, Pairs
from oxcart.train.data.config import rate_of
from oxcart.train.laq.label import Labeller, open_producer, open_run
from oxcart.train.laq.model import NONE, to_float
from oxcart.train.laq.validate import pairs_of
from oxcart.train.pieces import to_device
from oxcart.train.vla.config import VlaDataConfig

NAME = "codes"


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The codes to learn: their source and form."""

    tokens: int
    """Codes per action."""
    codes: int
    """Entries of the codebook."""
    producer: str
    """Fingerprint of the latent-action model."""
    files: Mapping[str, str]
    """Fingerprint of each dataset -> its labels; empty where codes are made during training."""
    leave: int
    """Steps at the end of each episode that have no codes."""
    laq: Labeller | None
    """The latent-action model; None where the configuration names no run."""

    def files_of(self, datasets: Sequence[Dataset]) -> list[str]:
        """Labels of datasets, in their order."""
        return [self.files[one.manifest.fingerprint] for one in datasets] if self.files else []

    def sample(self, per_episode: int | str) -> Frames | Pairs:
        """Kind of sample: one frame, or two if their codes have yet to be made."""
        if self.files:
            return Frames(per_episode=per_episode, leave=self.leave)
        assert self.laq is not None
        pairs = pairs_of(self.laq.config)
        return Pairs(frames=pairs.frames, seconds=pairs.seconds, per_episode=per_episode)

    def frames(self, batch: Batch) -> Tensor:
        """Frames for the model: uint8 [B, H, W, 3]."""
        frames: Tensor = batch.frames if self.files else batch.frames[:, 0]
        return frames

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """What the codes of a batch are made of, on the CPU: the codes themselves, or pairs of frames."""
        return {"codes": batch.annotations[NAME].long()} if self.files else {"pairs": batch.frames}

    @torch.no_grad()
    def codes_of(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Codes int64 [B, n], on the device of their inputs; `NONE` where latents are not finite."""
        if self.files:
            return inputs["codes"]
        assert self.laq is not None
        return self.laq.model.encode(to_float(inputs["pairs"])).long()

    def of(self, batch: Batch, device: torch.device) -> Tensor:
        """Codes of a batch on a device."""
        return self.codes_of(to_device(self.inputs(batch), device))

    def check(self, loader: Loader) -> None:
        """Refuse labels that lack the codes of a sample, or are out of range.

        Raises:
            ConfigError: an episode has no valid codes at a step that is sampled.
        """
        for i, stream in enumerate(loader.streams if self.files else ()):
            values = loader.annotation(NAME, i)
            for episode, steps in enumerate(stream.index.steps.tolist()):
                start = int(values.starts[episode])
                own = values.values[start : start + max(0, steps - self.leave)]
                wrong = np.flatnonzero(((own < 0) | (own >= self.codes)).any(axis=1))
                if len(wrong):
                    raise ConfigError(
                        f"data.codes: episode {stream.index.key(episode)} of "
                        f"{stream.index.dataset.store.url} has codes {own[wrong[0]].tolist()} "
                        f"at step {wrong[0]}, expected 0 to {self.codes - 1}; "
                        "label it again with oxcart label"
                    )


def open_labels(data: VlaDataConfig, datasets: Sequence[Dataset], device: torch.device) -> Labels:
    """Open the codes of a configuration.

    Raises:
        ConfigError: neither labels nor a run are given, or they belong to another dataset, offset or
            latent-action model.
    """
    if not data.codes and data.laq is None:
        raise ConfigError(
            "data.codes: expected labels of each dataset, made by: oxcart label DATASET --laq RUN -o "
            "codes.parquet; or data.laq=RUN"
        )
    if data.codes:
        labels = read_labels(data.codes, data.offset, datasets)
        if data.laq is None:
            return labels
        laq = open_producer(Path(data.laq), labels.producer, device.type)
        if laq.fingerprint != labels.producer:
            raise ConfigError(
                f"data.laq: {data.laq} is the model {laq.fingerprint[:12]}, but the codes come from "
                f"{labels.producer[:12]}; label with that run, or leave data.laq out"
            )
        return replace(labels, laq=laq)
    assert data.laq is not None
    laq = open_run(Path(data.laq), device=device.type)
    laq.model.requires_grad_(False)
    size = laq.config.model.image_size
    if data.image_size not in (None, size):
        raise ConfigError(
            f"data.image_size: the codes of {data.laq} come from frames of {size} pixels, got "
            f"{data.image_size}; use {size}, or label the datasets first and pass data.codes"
        )
    window = pairs_of(laq.config).window
    offsets = set()
    for one in datasets:
        rate = rate_of(one.manifest, data.control_rate)
        offsets.add(window.relative(data.camera, rate, one.store.url).seen[1])
    _check_offset(data.offset, offsets)
    return Labels(
        tokens=laq.config.quantizer.tokens,
        codes=laq.config.quantizer.codes,
        producer=laq.fingerprint,
        files={},
        leave=0,
        laq=laq,
    )


def read_labels(urls: Sequence[str], offset: int | None, datasets: Sequence[Dataset]) -> Labels:
    """Read the form of labels that `oxcart label` wrote, one file for each dataset.

    Args:
        urls: the files.
        offset: steps that the codes must look ahead; None takes theirs.
        datasets: the opened datasets.

    Raises:
        ConfigError: they are not codes of these datasets, of one latent-action model and of this offset.
    """
    prints = {one.manifest.fingerprint: one.store.url for one in datasets}
    files: dict[str, str] = {}
    forms: dict[str, tuple[str, int, int]] = {}
    offsets: set[int] = set()
    for url in urls:
        found = read_annotation(url)
        about = found.parameters
        if found.name != NAME or not {"tokens", "codes", "offset"} <= about.keys():
            raise ConfigError(f"data.codes: {url} holds {found.name!r}, expected codes of oxcart label")
        if about.get("none", NONE) != NONE or about["offset"] is None:
            raise ConfigError(f"data.codes: {url} does not state the offset of its codes; label it again")
        if found.dataset not in prints:
            raise ConfigError(
                f"data.codes: {url} belongs to the dataset {found.dataset[:12]}, "
                f"expected {' or '.join(one[:12] for one in prints)}"
            )
        if found.dataset in files:
            raise ConfigError(f"data.codes: {url} and {files[found.dataset]} are of one dataset; pass one")
        files[found.dataset] = url
        forms[url] = found.producer, int(about["tokens"]), int(about["codes"])
        offsets.add(int(about["offset"]))
    for mark, url in prints.items():
        if mark not in files:
            raise ConfigError(
                f"data.codes: none is of {url}; make one: oxcart label {url} --laq RUN -o codes.parquet"
            )
    if len(set(forms.values())) > 1:
        said = ", ".join(f"{url} of {form[0][:12]}" for url, form in forms.items())
        raise ConfigError(f"data.codes: expected codes of one latent-action model, got {said}")
    ((producer, tokens, codes),) = set(forms.values())
    _check_offset(offset, offsets)
    return Labels(tokens=tokens, codes=codes, producer=producer, files=files, leave=max(offsets), laq=None)


def _check_offset(wanted: int | None, offsets: set[int]) -> None:
    if wanted is not None and offsets != {wanted}:
        said = ", ".join(map(str, sorted(offsets)))
        raise ConfigError(
            f"data.offset: the codes have an offset of {said}, got {wanted}; use theirs, or null"
        )
