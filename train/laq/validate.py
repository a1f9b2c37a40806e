"""Validation: what the codes are worth on environments that training never saw.

Every number is over pairs that were drawn once by seed and stay the same over the run, of each dataset and
split by itself. Beside the prediction from a pair's own codes stand those from other codes:

    copy_ratio       MSE(prediction) / MSE(frame t as it is): below 1, the model knows more than "nothing
    moves"
    constant_ratio   the same with the most frequent codes for all: what the decoder guesses from frame t
    alone
    permuted_ratio   the same with the codes of another pair
    delta_psnr       PSNR(own codes) - PSNR(random codes), in dB

A model that ignores its codes has three equal ratios. Usage, perplexities and dead codes are those of these
pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional

from oxcart.manifests.dataset import Dataset
from oxcart.train import statistics
from oxcart.train.data import Batch, Loader, Pairs
from oxcart.train.data.order import derive
from oxcart.train.finite import refuse
from oxcart.train.laq.config import LaqConfig
from oxcart.train.laq.model import NONE, LatentActionModel, mse, to_float
from oxcart.train.loaders import chunks, held_out_loader
from oxcart.train.ranks import gathered
from oxcart.train.statistics import Floats, Ints

KINDS = ("prediction", "copy", "constant", "permuted", "random")
THUMB = 8
"""Pixels of a side of what the probe from the frame alone sees."""


@dataclass(frozen=True, kw_only=True)
class ExamplePairs:
    """Some pairs as they are and as they are predicted; all uint8 [N, H, W, 3]."""

    first: npt.NDArray[np.uint8]
    second: npt.NDArray[np.uint8]
    prediction: npt.NDArray[np.uint8]
    codes: Ints
    """[N, n]."""
    names: list[str]
    """Environment of each."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Pairs of one dataset and split, through the encoder."""

    codes: Ints
    """[N, n]."""
    thumbs: Floats
    """[N, 192]: frame t, made small."""
    actions: Floats | None
    """[N, A]: sums over the pair."""
    keys: list[str]


def pairs_of(config: LaqConfig) -> Pairs:
    """The pairs of a configuration, every t of every episode."""
    return Pairs(frames=config.data.offset, seconds=config.data.seconds, per_episode="all")


def open_split(config: LaqConfig, dataset: Dataset, split: str) -> Loader:
    """A loader of one dataset's split for validation."""
    return held_out_loader(
        config.data,
        dataset,
        split,
        sample=pairs_of(config),
        size=config.model.image_size,
        seed=config.val.seed,
        batch_size=config.val.batch_size,
        action="sum" if dataset.manifest.action is not None else None,
    )


@torch.no_grad()
def validate(
    model: LatentActionModel, config: LaqConfig, loaders: Mapping[str, Loader], accelerator: Accelerator
) -> tuple[dict[str, float], Seen, ExamplePairs | None]:
    """Metrics of one dataset and split, on every rank; what the probes need; pictures.

    Args:
        model: in eval mode.
        config: of the run.
        loaders: `{"split": loader}` of one split.
        accelerator: whose ranks share the work.

    Raises:
        NotFiniteError: latents or predictions of a pair are not; on every rank.
    """
    (loader,) = loaders.values()
    share = accelerator.process_index, accelerator.num_processes
    device, size = accelerator.device, config.quantizer.codes
    kept: list[tuple[int, Batch, Tensor]] = []
    pictures = None

    def encode() -> list[tuple[int, Any]]:
        for i, batch in chunks(loader, config.val.samples, config.val.seed, share):
            kept.append((i, batch, _codes(model, batch, to_float(batch.frames.to(device)))))
        return [(i, own) for i, _, own in kept]

    codes = np.concatenate([own.numpy() for _, own in gathered(encode, accelerator)])
    names, counts = np.unique(codes, axis=0, return_counts=True)
    others_of = torch.from_numpy(np.roll(codes, 1, 0))
    constant = torch.from_numpy(names[counts.argmax()])[None].to(device)

    def decode() -> list[tuple[int, Any]]:
        nonlocal pictures
        parts: list[tuple[int, Any]] = []
        for i, batch, own in kept:
            frames = to_float(batch.frames.to(device))
            own = own.to(device)
            generator = torch.Generator().manual_seed(derive(config.val.seed, 6, i) >> 1)
            others = torch.randint(size, own.shape, generator=generator).to(device)
            variants = {
                "prediction": own,
                "constant": constant.expand_as(own),
                "permuted": others_of[i * loader.config.batch_size :][: len(own)].to(device),
                "random": others,
            }
            errors = {"copy": mse(frames[:, 0], frames[:, 1]).cpu().numpy()}
            for kind, given in variants.items():
                made = model.decode(frames[:, 0], given).clamp(-1, 1)
                error = mse(made, frames[:, 1]).cpu()
                refuse(~error.isfinite(), batch, "predictions")
                errors[kind] = error.numpy()
                if kind == "prediction" and i == 0:
                    pictures = _pictures(batch, made, own, config.val.pictures)
            parts.append((i, (errors, *_about(batch, frames))))
        return parts

    everything = [part for _, part in gathered(decode, accelerator)]
    errors = {kind: np.concatenate([part[0][kind] for part in everything]) for kind in KINDS}
    actions = [part[2] for part in everything]
    seen = Seen(
        codes=codes,
        thumbs=np.concatenate([part[1] for part in everything]),
        actions=None if actions[0] is None else np.concatenate(actions),
        keys=[key for part in everything for key in part[3]],
    )
    shared = config.quantizer.shared or config.quantizer.kind != "nsvq"
    return {**quality(errors), **usage(codes, size, shared), "samples": len(codes)}, seen, pictures


@torch.no_grad()
def look(model: LatentActionModel, config: LaqConfig, loader: Loader, accelerator: Accelerator) -> Seen:
    """Pairs of train through the encoder, for the probes to be fitted on.

    Raises:
        NotFiniteError: latents of a pair are not; on every rank.
    """
    share = accelerator.process_index, accelerator.num_processes

    def encode() -> list[tuple[int, Any]]:
        parts = []
        for i, batch in chunks(loader, config.val.probe_samples, config.val.seed, share):
            frames = to_float(batch.frames.to(accelerator.device))
            parts.append((i, (_codes(model, batch, frames).numpy(), *_about(batch, frames))))
        return parts

    found = [part for _, part in gathered(encode, accelerator)]
    return Seen(
        codes=np.concatenate([part[0] for part in found]),
        thumbs=np.concatenate([part[1] for part in found]),
        actions=None if found[0][2] is None else np.concatenate([part[2] for part in found]),
        keys=[key for part in found for key in part[3]],
    )


def quality(errors: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, float]:
    """Ratios and PSNRs from the squared errors of each kind of prediction, [N] each; no ratios to copying
    where nothing moves.
    """
    total = {kind: float(values.astype(np.float64).mean()) for kind, values in errors.items()}
    copy = total["copy"]
    kinds = {"copy": "prediction", "constant": "constant", "permuted": "permuted", "random": "random"}
    signal = {
        kind: float((-10 * np.log10(np.maximum(values.astype(np.float64), 1e-10))).mean())
        for kind, values in errors.items()
    }
    return {
        "mse": total["prediction"],
        "psnr": signal["prediction"],
        **({f"{name}_ratio": total[kind] / copy for name, kind in kinds.items()} if copy > 0 else {}),
        "delta_psnr": signal["prediction"] - signal["random"],
    }


def usage(codes: Ints, size: int, shared: bool) -> dict[str, float]:
    """How codes [N, n] of 0 to `size` - 1 are used.

    `usage` is the share of (place, code) that occurs, `dead_codes` how many entries of the codebook never do
    (each place has its own, unless one is `shared`), `perplexity` the mean over places, `perplexity_joint`
    that of whole latent actions.
    """
    places = [np.bincount(codes[:, i], minlength=size) for i in range(codes.shape[1])]
    perplexities = [float(np.exp(statistics.entropy(counts))) for counts in places]
    whole = np.bincount(statistics.joint(codes))
    found = {
        "usage": float(np.mean([(counts > 0).mean() for counts in places])),
        "dead_codes": float((np.sum(places, axis=0) == 0).sum() if shared else (np.array(places) == 0).sum()),
        "perplexity": float(np.mean(perplexities)),
        "perplexity_joint": float(np.exp(statistics.entropy(whole))),
    }
    return {**found, **{f"perplexity_{i}": value for i, value in enumerate(perplexities)}}


def measure_probes(train: Seen, val: Seen, size: int) -> dict[str, Any]:
    """What codes say of actions; nothing where there are none."""
    if train.actions is None or val.actions is None:
        return {}
    x, x_val = statistics.one_hot(train.codes, size), statistics.one_hot(val.codes, size)
    by_value = statistics.probe(x, train.actions, x_val, val.actions)
    # Judged by itself: a ridge that suits pixels, because there are more of them than environments.
    frame = statistics.probe(train.thumbs, train.actions, val.thumbs, val.actions, ridge=100.0)
    found = statistics.information(val.codes, statistics.directions(val.actions), val.keys)
    known = by_value[np.isfinite(by_value)]
    plane = by_value[:2][np.isfinite(by_value[:2])]
    return {
        "probe_r2": float(known.mean()) if len(known) else 0.0,
        "probe_r2_motion": float(plane.mean()) if len(plane) else 0.0,
        "probe_r2_values": [round(float(one), 4) if np.isfinite(one) else None for one in by_value],
        "probe_r2_frame": float(np.nanmean(frame)) if np.isfinite(frame).any() else 0.0,
        "nmi_direction": found.value,
        "nmi_direction_shuffled": found.shuffled,
        "nmi_direction_excess": found.excess,
        "nmi_direction_excess_low": found.low if np.isfinite(found.low) else None,
        "nmi_direction_excess_high": found.high if np.isfinite(found.high) else None,
    }


def _codes(model: LatentActionModel, batch: Batch, frames: Tensor) -> Tensor:
    """Codes [B, n] of a batch, on the CPU; all of them stand for something."""
    codes = model.encode(frames).cpu()
    refuse((codes == NONE).any(1), batch, "latents")
    return codes


def _about(batch: Batch, frames: Tensor) -> tuple[Floats, Floats | None, list[str]]:
    thumbs = functional.adaptive_avg_pool2d(frames[:, 0], THUMB).flatten(1).cpu().double().numpy()
    actions = None if batch.action is None else batch.action.double().numpy()
    return thumbs, actions, list(batch.key)


def _pictures(batch: Batch, made: Tensor, codes: Tensor, count: int) -> ExamplePairs:
    pixels = made[:count].add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return ExamplePairs(
        first=batch.frames[:count, 0].cpu().numpy(),
        second=batch.frames[:count, 1].cpu().numpy(),
        prediction=pixels.permute(0, 2, 3, 1).cpu().numpy(),
        codes=codes[:count].cpu().numpy(),
        names=[name or "unknown" for name in batch.environment[:count]],
    )
