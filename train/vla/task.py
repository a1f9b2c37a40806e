"""The vision-language-action model as a task of the training loop: batches, loss, validation, figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError, NotFiniteError
from oxcart.shards.files import write_file
from oxcart.train.data import Batch, Loader
from oxcart.train.data.order import derive
from oxcart.train.device import in_bf16
from oxcart.train.finite import refuse
from oxcart.train.laq.augment import draw_numbers, lit, shifted
from oxcart.train.laq.model import NONE, to_float, to_uint8
from oxcart.train.loaders import (
    chunks,
    held_out_loader,
    open_datasets,
    open_splits,
    scored,
    training_loader,
)
from oxcart.train.loop import Result
from oxcart.train.pieces import to_device
from oxcart.train.ranks import ALONE, gathered, together
from oxcart.train.report import by_split, describe, last_validation, read_metrics
from oxcart.train.run import run_task
from oxcart.train.statistics import make_units
from oxcart.train.task import BatchSlice
from oxcart.train.trained_on import TrainedOn
from oxcart.train.vla.config import VlaConfig
from oxcart.train.vla.emit import Policy, emit, score
from oxcart.train.vla.figures import Panel, draw_codes, draw_curves, draw_panel
from oxcart.train.vla.labels import open_labels
from oxcart.train.vla.metrics import CodedSamples, Guess, guesses, measure
from oxcart.train.vla.model import ActionModel, Shape, build, groups
from oxcart.train.vla.policy import save_policy
from oxcart.train.vla.processor import check_fast, load_processor
from oxcart.train.vla.prompt import Prompter, read_prompt

THUMB = 16
"""Side, in pixels, of the small frames among which the nearest is found."""


class VlaTask:
    """See `oxcart.train.task.Task`.

    Args:
        config: configuration of the run.
        device: device for training.

    Raises:
        ConfigError: the model, a dataset or the codes lack something that the configuration requires.
    """

    label = "vla"

    def __init__(self, config: VlaConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self._datasets = open_datasets(config.data)
        self._prompt = read_prompt(config.vla.prompt)
        self._labels = open_labels(config.data, list(self._datasets.values()), device)
        self._processor = load_processor(config.model)
        check_fast(self._processor, config.model, device)
        self._shape = Shape(
            head=config.vla.head,
            decoding=config.vla.decoding,
            tokens=self._labels.tokens,
            codes=self._labels.codes,
        )
        online = (
            self._labels.laq.config.model.image_size if not self._labels.files and self._labels.laq else None
        )
        self._size = online or config.data.image_size
        self.score = f"{config.val.splits[0]}/nll"
        # Opened now, so that what is missing is said before a GPU is busy.
        self._held_out = self._open(config.val.splits) if config.val.every else {}
        compares = config.val.every and config.val.baselines
        self._known = self._open(["train"]).get("train", {}) if compares else {}
        self._guesses: dict[tuple[str, str], dict[str, Guess]] = {}
        self._train: dict[str, CodedSamples] = {}
        self._policy: Policy | None = None
        self._frames: tuple[int, int] = (0, 0)
        self._panel: Panel | None = None
        self._sharded = config.train.shard == "full"

    def _open(self, splits: Sequence[str]) -> dict[str, dict[str, Loader]]:
        """Split -> dataset -> loader, for datasets that have the split."""
        config = self._config

        def open_(dataset: Dataset, split: str) -> Loader:
            loader = held_out_loader(
                config.data,
                dataset,
                split,
                sample=self._labels.sample("all"),
                size=self._size,
                seed=config.val.seed,
                batch_size=config.val.batch_size,
                annotations=self._labels.files_of([dataset]),
            )
            self._labels.check(loader)
            return loader

        return open_splits(self._datasets, splits, config.val.splits[0], open_)

    @property
    def fingerprints(self) -> dict[str, str]:
        """URL of each dataset -> its fingerprint."""
        return {one.store.url: one.manifest.fingerprint for one in self._datasets.values()}

    def build(self) -> ActionModel:
        config = self._config
        model = build(config, self._processor, self._shape)
        prompter = Prompter(
            self._processor, self._prompt, model.ids, config.vla.decoding, self._labels.tokens, config.model
        )
        self._policy = Policy(
            model=model,
            prompter=prompter,
            shape=self._shape,
            device=self._device,
            bf16=in_bf16(config.train.precision, self._device),
        )
        return model

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        assert isinstance(model, ActionModel)
        return groups(model, self._config.train.weight_decay, self._config.vla.new_rate)

    def loader(self, rank: int, world_size: int) -> Loader:
        datasets = list(self._datasets.values())
        loader = training_loader(
            self._config.data,
            datasets,
            self._labels.sample(self._config.data.per_episode),
            size=self._size,
            seed=self._config.train.seed,
            place=(rank, world_size),
            pieces=self._config.train.accumulate if self._device.type == "cpu" else None,
            quiet=self._config.run.quiet,
            annotations=self._labels.files_of(datasets),
            instructions=True,
        )
        self._labels.check(loader)
        self._frames = loader.size
        return loader

    def begin(self, model: nn.Module, pieces: Sequence[dict[str, Tensor]], accelerator: Accelerator) -> None:
        """Do nothing: there is no codebook to start."""

    def together(self, batch: Batch, piece: BatchSlice) -> Tensor | None:
        """Order samples by length, so that there is little padding."""
        assert self._policy is not None
        lengths = self._policy.prompter.lengths(self._drawn(batch, piece))
        return torch.tensor(lengths).argsort(stable=True)

    def inputs(self, batch: Batch, piece: BatchSlice) -> dict[str, Tensor]:
        assert self._policy is not None
        frames = self._changed(self._labels.frames(batch), piece)
        encoded = self._policy.prompter.encode(frames, self._drawn(batch, piece), room=True)
        return {**self._policy.model.positions(encoded), **self._labels.inputs(batch)}

    def loss(
        self, model: nn.Module, inputs: dict[str, Tensor], piece: BatchSlice
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert self._policy is not None
        codes = self._labels.codes_of(inputs)
        nothing = (codes == NONE).any()  # not read here, which would wait for the GPU; the loss becomes NaN
        codes = codes.clamp_min(0)
        encoded = {name: value for name, value in inputs.items() if name not in ("codes", "pairs")}
        loss, among, logits = score(self._policy, encoded, codes, model)
        right = (logits.argmax(-1) == codes).float().mean()
        return loss.masked_fill(nothing, torch.nan), {"nll": among, "accuracy": right}

    def _drawn(self, batch: Batch, piece: BatchSlice) -> list[str]:
        """One instruction per sample, drawn by seed, step and place."""
        assert batch.instructions is not None
        key = derive(self._config.train.seed, 42, piece.step)
        return [
            texts[derive(key, row) % len(texts)] if texts else ""
            for texts, row in zip(batch.instructions, piece.rows.tolist(), strict=True)
        ]

    def _changed(self, frames: Tensor, piece: BatchSlice) -> Tensor:
        """Augmented frames, uint8 [B, H, W, 3]."""
        config = self._config.augment
        if not config.shift and not config.light:
            return frames
        numbers = 2 * draw_numbers(self._config.train.seed, piece.step, piece.batch_size)[piece.rows] - 1
        pixels = to_float(frames[:, None])
        pixels = lit(shifted(pixels, numbers[:, :2] * config.shift), numbers[:, 2:7] * config.light)
        return to_uint8(pixels)[:, 0]

    def after_step(self, model: nn.Module, step: int, accelerator: Accelerator) -> dict[str, float]:
        return {}

    def validate(
        self, model: nn.Module, step: int, accelerator: Accelerator, record: TrainedOn | None
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        size, val = self._labels.codes, self._config.val
        for name, loader in self._known.items():
            if name not in self._train:
                self._train[name], _, _ = self._look(loader, val.baselines, accelerator, model=False)
        for split, loaders in self._held_out.items():
            by_dataset: dict[str, dict[str, Any]] = {}
            for name, loader in loaders.items():
                seen, codes, nll = self._look(loader, val.samples, accelerator, model=True)
                if name in self._train and (split, name) not in self._guesses:
                    self._guesses[split, name] = guesses(self._train[name], seen, size)
                by_dataset[name] = measure(seen, codes, nll, self._guesses.get((split, name), {}), size)
                if split == val.splits[0] and name == next(iter(loaders)):
                    self._panel = self._show(loader)
                if record is not None:
                    by_dataset[name]["held_out (%)"] = 100 * record.share_held_out(loader)
            values |= by_split(split, by_dataset)
        return values

    @torch.no_grad()
    def _look(
        self, loader: Loader, count: int, accelerator: Accelerator, *, model: bool
    ) -> tuple[CodedSamples, Any, Any]:
        """Samples of a loader, with emitted codes and their losses if `model`; the same on every rank.

        Raises:
            NotFiniteError: logits, or latents of codes, are not finite; raised on every rank.
        """
        policy, labels = self._policy, self._labels
        assert policy is not None
        share = accelerator.process_index, accelerator.num_processes

        def read() -> Iterator[tuple[int, Batch, Tensor, Tensor, dict[str, Tensor]]]:
            for i, batch in chunks(loader, count, self._config.val.seed, share, even=self._sharded):
                true, frames = labels.of(batch, policy.device), labels.frames(batch)
                encoded = policy.prompter.encode(frames, batch.instruction, room=True) if model else {}
                refuse((true == NONE).any(1), batch, "latents")
                yield i, batch, true, frames, encoded

        def ask() -> list[tuple[int, Any]]:
            parts: list[tuple[int, Any]] = []
            failure, batches = None, read()
            # A pass of a sharded model needs all ranks, so none begins one before all have read theirs.
            ranks = accelerator if self._sharded else ALONE
            while (item := together(lambda: next(batches, None), ranks)) is not None:
                i, batch, true, frames, encoded = item
                pixels = frames.permute(0, 3, 1, 2).float()
                thumbs = functional.adaptive_avg_pool2d(pixels, THUMB).flatten(1).double().numpy()
                codes, nll = true, torch.zeros(true.shape)
                if model:
                    with accelerator.autocast():
                        # First, since a model that is sharded begins with a whole pass.
                        _, _, logits = score(policy, to_device(encoded, policy.device), true, policy.model)
                    codes = emit(policy, frames, batch.instruction)[0]
                    told = logits.log_softmax(-1)
                    nll = -told.gather(-1, true[..., None])[..., 0].cpu()
                    try:
                        refuse(~nll.isfinite().all(1), batch, "logits")
                    except NotFiniteError as error:
                        failure = failure or error  # raised once no rank waits for this one's passes
                if i < 0:
                    continue
                places = zip(batch.environment, batch.key, batch.t.tolist(), strict=True)
                about = thumbs, list(batch.instruction), list(places)
                parts.append((i, (true.cpu().numpy(), codes.cpu().numpy(), nll.double().numpy(), *about)))
            if failure is not None:
                raise failure
            return parts

        found = [part for _, part in gathered(ask, accelerator)]
        arrays = [np.concatenate([one[i] for one in found]) for i in range(4)]
        instructions, places = ([text for one in found for text in one[i]] for i in (4, 5))
        environments, keys, steps = zip(*places, strict=True)
        units = make_units(environments, keys, np.array(steps))
        seen = CodedSamples(codes=arrays[0], thumbs=arrays[3], instructions=instructions, units=units)
        return seen, arrays[1], arrays[2]

    def _show(self, loader: Loader) -> Panel:
        assert self._policy is not None
        batch = loader.draw(min(self._config.val.images, loader.epoch_length), seed=self._config.val.seed)
        frames = self._labels.frames(batch)
        codes, _ = emit(self._policy, frames, batch.instruction)
        return Panel(
            frames=frames,
            true=self._labels.of(batch, self._device).cpu(),
            predicted=codes.cpu(),
            instructions=list(batch.instruction),
        )

    def warnings(self, values: Mapping[str, Any]) -> list[str]:
        return []

    def finish(self, model: nn.Module, run: Path, weights: Mapping[str, Tensor] | None) -> None:
        assert self._policy is not None
        config = self._config
        about = {
            "frames": list(self._frames),
            "producer": self._labels.producer,
            "laq": config.data.laq,
            "lora": config.vla.tune == "lora",
            "precision": config.train.precision,
            "tf32": config.train.tf32,
        }
        if weights is not None:
            save_policy(self._policy, self._processor, run, config.model, about, weights)
        metrics = read_metrics(run)
        draw_curves(run / "loss.png", metrics, list(self._held_out))
        last = last_validation(run)
        if last is None:
            return
        draw_codes(run / "codes.png", last)
        if self._panel is not None:
            for path in (run / "samples.png", run / "samples" / f"step-{last['step']:06d}.png"):
                draw_panel(path, self._panel, self._labels.laq, config.val.splits[0], last)
        names = {split: list(loaders) for split, loaders in self._held_out.items()}
        figures = ("loss.png", "codes.png", "samples.png")
        write_file(run / "report.md", describe(last, names, "docs/vla.md", figures).encode())

    def identity(self) -> dict[str, Any]:
        config = self._config
        lora = asdict(config.lora) if config.vla.tune == "lora" else None
        return {
            "model": config.model,
            "head": config.vla.head,
            "decoding": config.vla.decoding,
            "tune": config.vla.tune,
            "lora": lora,
            "prompt": asdict(self._prompt),
            "codes": {"of": self._labels.producer, "tokens": self._labels.tokens, "size": self._labels.codes},
            "camera": config.data.camera,
            "image_size": self._size,
        }

    def scored(self) -> dict[str, Any]:
        return scored(self._config.data, self._config.val, self.fingerprints)

    def state(self) -> dict[str, Any]:
        return {"config": asdict(self._config), "datasets": self.fingerprints}


def train_vla(config: VlaConfig, *, resume: bool = False, allow_changes: bool = False) -> Result:
    """Train a vision-language-action model; see `oxcart.train.run.run_task`.

    Raises:
        ConfigError: no model is named.
    """
    if not config.model:
        raise ConfigError(
            "model: expected a vision-language model, e.g. model=Qwen/Qwen3-VL-2B-Instruct, or a directory "
            "such as that of: oxcart sample vlm DIR"
        )
    return run_task(config, VlaTask, resume=resume, allow_changes=allow_changes)
