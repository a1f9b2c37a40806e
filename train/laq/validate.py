"""Validation: how useful codes are in environments that training never saw.

The pairs of each dataset and split are drawn once by seed and stay the same over the run. The prediction from
a pair's own codes is compared with two baselines and with other codes:

    copy_ratio       MSE(prediction) / MSE(unchanged frame t), the copy-frame baseline: below 1, the model
                     knows more than "nothing moves"
    constant_ratio   the same with the most frequent codes for all pairs, the constant-code baseline: what the
                     decoder guesses from only frame t
    permuted_ratio   the same with the codes of another pair
    delta_psnr       PSNR(own codes) - PSNR(random codes), in dB

A model that ignores its codes has three equal ratios. Usage, perplexities and dead codes are over these
pairs, and `codebook` says whether they are `in use`, or have `collapsed` to a few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor

from oxcart.manifests.columns import Column, motion_columns
from oxcart.manifests.dataset import Dataset
from oxcart.train import frame_baseline, statistics
from oxcart.train.data import Batch, Loader, Pairs
from oxcart.train.data.order import derive
from oxcart.train.data.summing import known_actions, summed, summed_actions
from oxcart.train.finite import refuse
from oxcart.train.laq.config import LaqConfig
from oxcart.train.laq.model import NONE, LatentActionModel, mse, to_float, to_uint8
from oxcart.train.loaders import chunks, held_out_loader
from oxcart.train.ranks import gathered
from oxcart.train.statistics import Floats, Ints, Units, make_units

Places = list[tuple[str | None, str, int]]
"""Environment, key of the episode and step of each pair."""
DECODED = ("prediction", "copy", "constant", "permuted", "random")
IN_USE, COLLAPSED = "in use", "collapsed"
"""Verdicts on a codebook."""
REMEDY = (
    "take a smaller train.lr, and the defaults of quantizer.follow, .start, .replace, .replace_every and "
    ".replace_noise"
)
"""What to do about a codebook that has collapsed."""
LEAST_USED = 0.5
"""Share of the codes that would be used if all were alike; a codebook that uses no more has collapsed."""


@dataclass(frozen=True, kw_only=True)
class ExamplePairs:
    """Some pairs and their predictions; frames are uint8 [N, H, W, 3]."""

    first: npt.NDArray[np.uint8]
    second: npt.NDArray[np.uint8]
    prediction: npt.NDArray[np.uint8]
    codes: Ints
    """[N, n]: codes of each pair."""
    names: list[str]
    """Environment of each pair."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Pairs of one dataset and split, as encoded by the model."""

    codes: Ints
    """[N, n]: codes of each pair."""
    features: Floats
    """[N, D]: `frame_baseline.features` of frame t."""
    actions: Floats | None
    """[N, A]: actions summed over the pair, NaN where a step holds none; None if the dataset has none."""
    columns: tuple[Column, ...]
    """The A columns of the actions."""
    units: Units
    """Where each pair comes from."""

    def acting(self) -> Seen:
        """The pairs whose steps all hold actions."""
        assert self.actions is not None
        rows = np.flatnonzero(np.isfinite(self.actions).all(1))
        return Seen(
            codes=self.codes[rows],
            features=self.features[rows],
            actions=self.actions[rows],
            columns=self.columns,
            units=self.units[rows],
        )


def pairs_of(config: LaqConfig) -> Pairs:
    """The pairs of a configuration: every t of every episode."""
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
        **summed_actions(dataset.manifest),
    )


@torch.no_grad()
def validate(
    model: LatentActionModel, config: LaqConfig, loader: Loader, accelerator: Accelerator
) -> tuple[dict[str, Any], Seen, ExamplePairs | None]:
    """Metrics of one dataset and split, the pairs for the probes, and examples; the same on every rank.

    Args:
        model: a model in eval mode.
        config: configuration of the run.
        loader: loader of one dataset and split.
        accelerator: its ranks share the work.

    Raises:
        NotFiniteError: latents or predictions of a pair are not finite; raised on every rank.
    """
    share = accelerator.process_index, accelerator.num_processes
    device, size = accelerator.device, config.quantizer.codes
    kept: list[tuple[int, Batch, Tensor]] = []
    examples = None

    def encode() -> list[tuple[int, Any]]:
        for i, batch in chunks(loader, config.val.samples, config.val.seed, share):
            kept.append((i, batch, _codes(model, batch, to_float(batch.frames.to(device)))))
        return [(i, own) for i, _, own in kept]

    encoded = gathered(encode, accelerator)
    codes = np.concatenate([own.numpy() for _, own in encoded])
    names, counts = np.unique(codes, axis=0, return_counts=True)
    others_of = torch.from_numpy(np.roll(codes, 1, 0))
    constant = torch.from_numpy(names[counts.argmax()])[None].to(device)

    def decode() -> list[tuple[int, Any]]:
        nonlocal examples
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
                    examples = _examples(batch, made, own, config.val.images)
            parts.append((i, (errors, *_about(batch, frames))))
        return parts

    everything = [part for _, part in gathered(decode, accelerator)]
    errors = {kind: np.concatenate([part[0][kind] for part in everything]) for kind in DECODED}
    seen = _joined([(own.numpy(), *part[1:]) for (_, own), part in zip(encoded, everything, strict=True)])
    used = usage(codes, size, model.quantizer.shared)
    found = {**quality(errors), **used, **judge_codebook(places_of(codes, size)), "samples": len(codes)}
    return found, seen, examples


@torch.no_grad()
def look(model: LatentActionModel, config: LaqConfig, loader: Loader, accelerator: Accelerator) -> Seen:
    """Encode pairs of train, to which the probes are fitted.

    Raises:
        NotFiniteError: latents of a pair are not finite; raised on every rank.
    """
    share = accelerator.process_index, accelerator.num_processes

    def encode() -> list[tuple[int, Any]]:
        parts = []
        for i, batch in chunks(loader, config.val.probe_samples, config.val.seed, share):
            frames = to_float(batch.frames.to(accelerator.device))
            parts.append((i, (_codes(model, batch, frames).numpy(), *_about(batch, frames))))
        return parts

    return _joined([part for _, part in gathered(encode, accelerator)])


def quality(errors: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, float]:
    """Ratios and PSNRs from the squared errors [N] of each kind of prediction.

    Where nothing moves, the copy-frame baseline is exact and there are no ratios.
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
    """Measure how codes [N, n] of 0 to `size` - 1 are used.

    Beside `usage_of_places` there are `dead_codes`, how many entries of the codebook never occur (each place
    has its own, unless one is `shared`), and `perplexity_joint`, that of whole latent actions.
    """
    places = places_of(codes, size)
    whole = np.bincount(statistics.joint(codes))
    return {
        **usage_of_places(places),
        "dead_codes": float(((places.sum(0) if shared else places) == 0).sum()),
        "perplexity_joint": float(np.exp(statistics.entropy(whole))),
    }


def places_of(codes: Ints, size: int) -> Ints:
    """How often each code occurs in each place of codes [N, n]: counts [n, size]."""
    return np.stack([np.bincount(place, minlength=size) for place in codes.T])


def usage_of_places(places: Ints) -> dict[str, float]:
    """Measure how codes are used, given how often each occurs in each place, [n, K].

    `usage` is the share of (place, code) that occurs, `perplexity` the mean over places, and `perplexity_0`
    and so on that of each place.
    """
    perplexities = np.exp(statistics.entropy(places))
    return {
        "usage": float((places > 0).mean()),
        "perplexity": float(perplexities.mean()),
        **{f"perplexity_{i}": float(value) for i, value in enumerate(perplexities)},
    }


def judge_codebook(places: Ints) -> dict[str, Any]:
    """Whether a codebook is in use or has collapsed, given how often each code occurs in each place, [n, K].

    It has if at most half of the codes that are to be expected are used in a place. A code is used if it has
    a tenth of an equal share, and few pairs cannot use many codes: of N pairs with equally frequent codes, a
    share of 1 - (1 - 1 / size)^N occurs. `usage_least` is the share of the codes that are used in the place
    that uses fewest.
    """
    size, pairs = places.shape[1], int(places[0].sum())
    least = max(1.0, pairs / (10 * size))
    expected = 1 - (1 - 1 / size) ** pairs
    used = float((places >= least).mean(1).min())
    return {"codebook": COLLAPSED if used <= LEAST_USED * expected else IN_USE, "usage_least": used}


def warnings_of(values: Mapping[str, Any], split: str) -> list[str]:
    """What a user has to know of a validation, by its metrics of a split: a line each."""
    places = [
        name.removesuffix("/codebook")
        for name, value in values.items()
        if name.startswith(f"{split}/") and name.endswith("/codebook") and value == COLLAPSED
    ]
    if not places:
        return []
    least = min(values[f"{place}/usage_least"] for place in places)
    return [
        f"the codebook has collapsed: pairs of {', '.join(places)} use {least:.0%} of the codes of a token, "
        f"which say little of what moved then; if later validations say so too, {REMEDY}"
    ]


def measure_probes(train: Seen, val: Seen, size: int) -> dict[str, Any]:
    """Information in codes about actions; empty if there are no actions of known kind."""
    if train.actions is None or val.actions is None:
        return {}
    every, train, val = val, train.acting(), val.acting()
    if not len(train.codes) or not len(val.codes):
        return {}
    assert train.actions is not None
    assert val.actions is not None
    x, x_val = statistics.one_hot(train.codes, size), statistics.one_hot(val.codes, size)
    by_value = statistics.r2(val.actions, val.actions - statistics.ridge(x, train.actions, x_val))
    units = train.units
    places = units.environment if len(np.unique(units.environment)) > 1 else units.episode
    guess = frame_baseline.predict(train.features, train.actions, places, val.features)
    frame = statistics.r2(val.actions, val.actions - guess)
    known = by_value[np.isfinite(by_value)]
    found = {
        "probe_r2": float(known.mean()) if len(known) else 0.0,
        "probe_r2_values": {
            one.name: round(float(value), 4) if np.isfinite(value) else None
            for one, value in zip(val.columns, by_value, strict=True)
        },
        "probe_r2_frame": float(np.nanmean(frame)) if np.isfinite(frame).any() else 0.0,
        "intervals_over": val.units.over,
    }
    axes = list(motion_columns(val.columns).values())
    if not axes:
        return found
    moving = by_value[axes][np.isfinite(by_value[axes])]
    assert every.actions is not None
    rows = np.flatnonzero(np.isfinite(every.actions[:, axes]).all(1))
    directions = statistics.directions(every.actions[rows][:, axes])
    told = statistics.information(every.codes[rows], directions, every.units[rows])
    return found | {
        "probe_r2_motion": float(moving.mean()) if len(moving) else 0.0,
        "nmi_direction": told.value,
        "nmi_direction_shuffled": told.shuffled,
        "nmi_direction_excess": told.excess,
        "nmi_direction_excess_low": told.interval and told.interval.low,
        "nmi_direction_excess_high": told.interval and told.interval.high,
    }


def _codes(model: LatentActionModel, batch: Batch, frames: Tensor) -> Tensor:
    """Codes [B, n] of a batch, on the CPU, none of them `NONE`."""
    codes = model.encode(frames).cpu()
    refuse((codes == NONE).any(1), batch, "latents")
    return codes


def _joined(parts: Sequence[tuple[Ints, Floats, Floats | None, tuple[Column, ...], Places]]) -> Seen:
    """Pairs of chunks, put together."""
    codes, features, actions, columns, places = zip(*parts, strict=True)
    environments, keys, steps = zip(*(place for own in places for place in own), strict=True)
    return Seen(
        codes=np.concatenate(codes),
        features=np.concatenate(features),
        actions=None if actions[0] is None else np.concatenate(actions),
        columns=columns[0],
        units=make_units(environments, keys, np.array(steps)),
    )


def _about(batch: Batch, frames: Tensor) -> tuple[Floats, Floats | None, tuple[Column, ...], Places]:
    features = frame_baseline.features(frames[:, 0]).cpu().double().numpy()
    actions = known_actions(batch)
    numbers = None if actions is None else actions.numpy()
    columns = summed(batch.columns.get(batch.dataset[0], {}).get("action", ()))
    return features, numbers, columns, list(zip(batch.environment, batch.key, batch.t.tolist(), strict=True))


def _examples(batch: Batch, made: Tensor, codes: Tensor, count: int) -> ExamplePairs:
    return ExamplePairs(
        first=batch.frames[:count, 0].cpu().numpy(),
        second=batch.frames[:count, 1].cpu().numpy(),
        prediction=to_uint8(made[:count, None])[:, 0].cpu().numpy(),
        codes=codes[:count].cpu().numpy(),
        names=[name or "unknown" for name in batch.environment[:count]],
    )
