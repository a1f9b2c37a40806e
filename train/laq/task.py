"""The latent-action model as a task of the training loop: batches, loss, codebook, validation, examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn
from torch.nn import functional

from oxcart.shards.errors import ConfigError
from oxcart.shards.files import write_file
from oxcart.train import plots
from oxcart.train.data import Batch, Loader, Pairs
from oxcart.train.data.memory import check_fits
from oxcart.train.data.order import derive
from oxcart.train.device import autocast, in_bf16
from oxcart.train.evaluate import strategies
from oxcart.train.evaluate.analysis import Analysis
from oxcart.train.evaluate.gather import Draw
from oxcart.train.evaluate.laq import EvaluateOptions, analyse
from oxcart.train.evaluate.report import report_html, report_json
from oxcart.train.flow import build_teacher, flow_loss
from oxcart.train.laq.augment import augment, draw_numbers
from oxcart.train.laq.build import build_model, identity_of, parameter_groups, shapes_of
from oxcart.train.laq.config import AugmentConfig, LaqConfig
from oxcart.train.laq.model import (
    LaqOutput,
    LatentActionModel,
    to_float,
    to_uint8,
)
from oxcart.train.laq.quantize import count_codes
from oxcart.train.laq.validate import (
    ExamplePairs,
    look,
    measure_probes,
    open_split,
    validate,
    warnings_of,
)
from oxcart.train.laq.watch import CodeWatch
from oxcart.train.loaders import open_datasets, open_splits, scored, training_loader
from oxcart.train.loop import Result
from oxcart.train.report import by_split, describe, last_validation, read_metrics
from oxcart.train.run import run_task
from oxcart.train.task import BatchSlice
from oxcart.train.trained_on import TrainedOn

RATIOS = ("copy_ratio", "constant_ratio", "permuted_ratio")


class LaqTask:
    """See `oxcart.train.task.Task`.

    Args:
        config: configuration of the run.
        device: device for training.

    Raises:
        ConfigError: a dataset lacks something that the configuration requires.
    """

    label = "laq"

    def __init__(self, config: LaqConfig, device: torch.device) -> None:
        self._config = config
        self._datasets = open_datasets(config.data)
        self.score = f"{config.val.splits[0]}/copy_ratio"
        # Opened now, so that what is missing is said before a GPU is busy.
        self._held_out = self._open(config.val.splits) if config.val.every else {}
        self._probed = self._open(["train"]) if config.val.every and config.val.probes else {}
        self._check_memory(device)
        self._teacher = build_teacher(config.flow.teacher, config.flow.weights, device)
        quantizer = config.quantizer
        self._counts = torch.zeros(quantizer.tokens, quantizer.codes, dtype=torch.int64, device=device)
        self._watch = CodeWatch(quantizer, config.train.log_every, device)
        self._examples: ExamplePairs | None = None
        self._strategies = config.evaluate.strategies
        if self._strategies == ["all"]:
            self._strategies = strategies.names()
        strategies.load(self._strategies)
        self._analysis: Analysis | None = None

    def _check_memory(self, device: torch.device) -> None:
        """Refuse a model that does not fit into this machine's memory, where it is built even for a GPU."""
        shapes = shapes_of(self._config.model, self._config.quantizer, self._config.flow)
        count = sum(map(math.prod, shapes.values()))
        what = f"{count:,} weights" + (", their gradients and moments" if device.type == "cpu" else "")
        size = count * (16 if device.type == "cpu" else 4)
        check_fits("model.width", size, what, "take a smaller width, depth or image_size")

    def _open(self, splits: Sequence[str]) -> dict[str, dict[str, Loader]]:
        """Split -> dataset -> loader, for datasets that have the split."""
        return open_splits(
            self._datasets, splits, self._config.val.splits[0], partial(open_split, self._config)
        )

    @property
    def fingerprints(self) -> dict[str, str]:
        """URL of each dataset -> its fingerprint."""
        return {one.store.url: one.manifest.fingerprint for one in self._datasets.values()}

    def build(self) -> LatentActionModel:
        config = self._config
        model = build_model(config.model, config.quantizer, config.flow)
        model.bf16 = in_bf16(config.train.precision, self._counts.device)
        return model

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        return parameter_groups(model, self._config.train.weight_decay, self._config.quantizer.rate)

    def loader(self, rank: int, world_size: int) -> Loader:
        data, model = self._config.data, self._config.model
        loader = training_loader(
            data,
            list(self._datasets.values()),
            Pairs(frames=data.offset, seconds=data.seconds, per_episode=data.per_episode),
            size=model.image_size,
            seed=self._config.train.seed,
            place=(rank, world_size),
            pieces=self._config.train.accumulate if self._counts.device.type == "cpu" else None,
            quiet=self._config.run.quiet,
        )
        for stream in loader.streams:
            smallest = min(int(view.camera.sizes.min()) for view in stream.views)
            if smallest < model.patch:
                raise ConfigError(
                    f"model.patch: {model.patch} pixels are more than the {smallest} of frames of "
                    f"{stream.index.dataset.store.url}; choose a smaller patch"
                )
        return loader

    def begin(self, model: nn.Module, pieces: Sequence[dict[str, Tensor]], accelerator: Accelerator) -> None:
        assert isinstance(model, LatentActionModel)
        if self._config.quantizer.kind == "nsvq" and self._config.quantizer.start == "normal":
            return
        model.eval()
        with torch.no_grad(), autocast(model.bf16, self._counts.device):
            mine = torch.cat([model.latents(self._frames(one)).float().cpu() for one in pieces])
        every = gather_object([mine]) if accelerator.num_processes > 1 else [mine]
        # Rank r has the rows r, r + W, ...: back in the order of the whole batch.
        model.quantizer.start(torch.stack(every, 1).flatten(0, 1), self._config.train.seed)
        self._agree(model, accelerator)

    def together(self, batch: Batch, piece: BatchSlice) -> Tensor | None:
        return None

    def inputs(self, batch: Batch, piece: BatchSlice) -> dict[str, Tensor]:
        found = {"frames": batch.frames, "noise": self._noise(piece)}
        if self._config.augment != AugmentConfig():
            numbers = draw_numbers(self._config.train.seed, piece.step, piece.batch_size)
            found["augment"] = numbers[piece.rows]
        return found

    def loss(
        self, model: nn.Module, inputs: dict[str, Tensor], piece: BatchSlice
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config = self._config
        frames = self._frames(inputs)
        out: LaqOutput = model(frames, inputs["noise"], self.hardness(piece.step))
        if model.training:
            self._counts += count_codes(out.codes, config.quantizer.codes)
        error = functional.mse_loss(out.prediction, frames[:, 1])
        scale = 0.25 if config.model.kind == "lapa" else 1.0  # its loss is of pixels in [0, 1]
        loss = scale * error + out.loss.float()
        metrics = {"mse": error / 4}
        if out.flow is not None:
            assert self._teacher is not None
            apart = flow_loss(out.flow, self._teacher(to_uint8(frames), frames))
            rise = min(1.0, piece.step / max(1, config.flow.warmup))
            loss = loss + config.flow.weight * rise * apart
            metrics["flow"] = apart
        return loss, metrics

    def hardness(self, step: int) -> float:
        """Share, 0 to 1, by which the quantizer's noise has turned towards the code."""
        begin, end = (share * self._config.train.steps for share in self._config.quantizer.harden)
        if begin >= self._config.train.steps:
            return 0.0
        return min(1.0, max(0.0, (step - begin) / max(1.0, end - begin)))

    def after_step(self, model: nn.Module, step: int, accelerator: Accelerator) -> dict[str, float]:
        assert isinstance(model, LatentActionModel)
        counts = accelerator.reduce(self._counts, "sum") if accelerator.num_processes > 1 else self._counts
        model.quantizer.count(counts)
        self._watch.add(counts)
        self._counts.zero_()
        train, batch_size = self._config.train, self._config.data.batch_size
        replaced = model.quantizer.replace(train.seed, step, train.steps, batch_size)
        if replaced:
            self._agree(model, accelerator)
        return {**({"codes_replaced": float(replaced)} if replaced else {}), **self._watch.look(step)}

    def validate(
        self, model: nn.Module, step: int, accelerator: Accelerator, record: TrainedOn | None
    ) -> dict[str, Any]:
        assert isinstance(model, LatentActionModel)
        values: dict[str, Any] = {}
        train = {
            name: look(model, self._config, loader, accelerator)
            for name, loader in self._probed.get("train", {}).items()
        }
        for split, loaders in self._held_out.items():
            by_dataset: dict[str, dict[str, Any]] = {}
            for name, loader in loaders.items():
                found, seen, examples = validate(model, self._config, loader, accelerator)
                by_dataset[name] = {**found}
                if name in train:
                    by_dataset[name] |= measure_probes(train[name], seen, self._config.quantizer.codes)
                if split == self._config.val.splits[0] and name == next(iter(loaders)):
                    self._examples = examples
                if record is not None:
                    by_dataset[name]["held_out (%)"] = 100 * record.share_held_out(loader)
            values |= by_split(split, by_dataset)
        if self._evaluates(step):
            values |= self._evaluate(model, step, accelerator, record)
        return values

    def _evaluates(self, step: int) -> bool:
        config = self._config
        number = step // config.val.every
        return bool(self._strategies) and (number % config.evaluate.every == 0 or step == config.train.steps)

    def _evaluate(
        self, model: LatentActionModel, step: int, accelerator: Accelerator, record: TrainedOn | None
    ) -> dict[str, float]:
        """Evaluate the codes. The last step makes the whole page."""
        last = step == self._config.train.steps
        wanted = self._config.evaluate
        options = EvaluateOptions(
            strategies=tuple(self._strategies),
            draw=Draw(samples=wanted.samples, frames=wanted.frames, batch_size=self._config.val.batch_size),
            flow=wanted.flow,
            subsets=None if last else (),
            untrained=last,
            figures=last,
        )
        about = {"run": self._config.run.dir, "step": step}
        found = analyse(
            model,
            self._config,
            self._datasets,
            options,
            accelerator.device,
            record=record,
            about=about,
            ranks=accelerator,
        )
        if last:
            self._analysis = found
        return {f"evaluate/{name}": value for name, value in found.scalars().items()}

    def warnings(self, values: Mapping[str, Any]) -> list[str]:
        return [*warnings_of(values, self._config.val.splits[0]), *self._watch.warnings(values)]

    def finish(self, model: nn.Module, run: Path, weights: Mapping[str, Tensor] | None) -> None:
        metrics = read_metrics(run)
        draw_curves(run / "loss.png", metrics, list(self._held_out))
        last = last_validation(run)
        if last is None:
            return
        if self._examples is not None:
            for path in (run / "samples.png", run / "samples" / f"step-{last['step']:06d}.png"):
                draw_samples(path, self._examples, self._config.val.splits[0], last)
        names = {split: list(loaders) for split, loaders in self._held_out.items()}
        text = describe(last, names, "docs/laq.md", warnings=self.warnings(last))
        write_file(run / "report.md", text.encode())
        if self._analysis is not None:
            write_file(run / "analysis.html", report_html(self._analysis))
            write_file(run / "analysis.json", report_json(self._analysis))

    def identity(self) -> dict[str, Any]:
        return identity_of(self._config)

    def scored(self) -> dict[str, Any]:
        return scored(self._config.data, self._config.val, self.fingerprints)

    def state(self) -> dict[str, Any]:
        return {"config": asdict(self._config), "datasets": self.fingerprints}

    def _frames(self, inputs: dict[str, Tensor]) -> Tensor:
        """Frames as float [B, 2, 3, H, W], augmented."""
        frames = to_float(inputs["frames"])
        return augment(frames, inputs["augment"], self._config.augment) if "augment" in inputs else frames

    def _noise(self, piece: BatchSlice) -> Tensor:
        """Noise [b, n, d] for samples: a function of seed, step and the sample's place in the step."""
        generator = torch.Generator().manual_seed(derive(self._config.train.seed, 31, piece.step) >> 1)
        shape = piece.batch_size, self._config.quantizer.tokens, self._config.quantizer.dim
        return torch.randn(shape, generator=generator)[piece.rows]

    def _agree(self, model: LatentActionModel, accelerator: Accelerator) -> None:
        """Give every rank the codebook of the first rank."""
        if accelerator.num_processes > 1:
            for tensor in model.quantizer.state_dict().values():
                tensor.copy_(broadcast(tensor.clone()))


def train_laq(config: LaqConfig, *, resume: bool = False, allow_changes: bool = False) -> Result:
    """Train a latent-action model; see `oxcart.train.run.run_task`."""
    return run_task(config, LaqTask, resume=resume, allow_changes=allow_changes)


def draw_curves(path: Path, metrics: list[dict[str, Any]], splits: list[str]) -> None:
    """Draw loss.png: the loss, the prediction beside its baselines, and the use of codes."""
    ratios = [
        (f"{split}/{name}", f"{split}, {label}")
        for split in splits[:1]
        for name, label in zip(
            RATIOS, ("own codes", "constant-code baseline", "codes of another pair"), strict=True
        )
    ]
    ratios += [(f"{split}/copy_ratio", f"{split}, own codes") for split in splits[1:]]
    first = splits[0] if splits else "val"
    panels = [
        plots.Curves(
            title="training error",
            quantity="mean squared error, pixels in [0, 1]",
            kind="train",
            lines=[("mse", "decoded frame t + k")],
        ),
        plots.Curves(
            title="held-out error",
            quantity="error / error of the copy-frame baseline",
            kind="val",
            lines=ratios,
            ends=(0, None),
        ),
        plots.Curves(
            title="codes in use",
            quantity="share of (token, code) that occurs",
            kind="val",
            lines=[(f"{first}/usage", first)],
            ends=(0, 1),
        ),
        plots.Curves(
            title="actions told by codes",
            quantity="R2 of a linear probe, 1 at best",
            kind="val",
            lines=[(f"{first}/probe_r2", first)],
        ),
        plots.Curves(
            title="perplexity of codes",
            quantity="equally frequent values",
            kind="val",
            lines=[
                (f"{first}/perplexity", "of one token"),
                (f"{first}/perplexity_joint", "of whole actions"),
            ],
            ends=(0, None),
        ),
    ]
    plots.curves(path, metrics, panels)


def draw_samples(path: Path, examples: ExamplePairs, split: str, last: Mapping[str, Any]) -> None:
    """Draw the grid of frames t and t + k, predictions and differences."""
    gap = plots.difference(examples.prediction, examples.second)
    moved = plots.difference(examples.first, examples.second)
    columns = [
        ("frame t", examples.first),
        ("frame t + k", examples.second),
        ("prediction", examples.prediction),
        ("error x 3", gap),
        ("change x 3", moved),
    ]
    rows = [
        f"{name}\n{'-'.join(map(str, codes))}"
        for name, codes in zip(examples.names, examples.codes.tolist(), strict=True)
    ]
    ratio = last.get(f"{split}/copy_ratio")
    said = f"error / error of the copy-frame baseline: {ratio:.2f}" if ratio is not None else ""
    plots.grid(path, columns, rows, f"{split}, step {last['step']:,}; {said}")
