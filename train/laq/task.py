"""The latent-action model as a task of the training loop: batches, loss, codebook, validation, pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn
from torch.nn import functional

from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError
from oxcart.train import plots
from oxcart.train.data import Batch, Loader, Mixture, Pairs
from oxcart.train.data.order import derive
from oxcart.train.evaluate import strategies
from oxcart.train.evaluate.cache import Draw
from oxcart.train.evaluate.laq import Options, analyse
from oxcart.train.laq.augment import augment, draw_numbers
from oxcart.train.laq.config import AugmentConfig, LaqConfig
from oxcart.train.laq.flow import build_teacher, flow_loss, flow_weight
from oxcart.train.laq.model import LatentActionModel, Output, parameter_groups, to_float
from oxcart.train.laq.quantize import count_codes
from oxcart.train.laq.validate import Pictures, look, mean_of, measure_probes, open_split, validate
from oxcart.train.loop import Place
from oxcart.train.report import read_metrics

SETTLING = 0.1
"""Share of the steps, the last ones, in which no codes are replaced."""
RATIOS = ("copy_ratio", "constant_ratio", "permuted_ratio")


class LaqTask:
    """See `oxcart.train.loop.Task`.

    Args:
        config: of the run.
        device: that training will use.

    Raises:
        ConfigError: a dataset lacks what the configuration asks for.
    """

    label = "laq"

    def __init__(self, config: LaqConfig, device: torch.device) -> None:
        self._config = config
        if not config.data.datasets:
            raise ConfigError("data.datasets: expected at least one dataset, e.g. data.datasets=[bridge]")
        self._datasets = [Dataset.open(url) for url in config.data.datasets]
        names = [one.manifest.dataset["name"] for one in self._datasets]
        self._names = [
            name if names.count(name) == 1 else one.store.url
            for name, one in zip(names, self._datasets, strict=True)
        ]
        self.score = f"{config.val.splits[0]}/copy_ratio"
        # Opened now, so that what is missing is said before a GPU is busy.
        self._held_out = self._open(config.val.splits) if config.val.every else {}
        self._probed = self._open(("train",)) if config.val.every and config.val.probes else {}
        self._teacher = build_teacher(config.flow, device)
        quantizer = config.quantizer
        self._counts = torch.zeros(quantizer.tokens, quantizer.codes, dtype=torch.int64, device=device)
        self._pictures: Pictures | None = None
        strategies.load(config.evaluate.strategies)

    def _open(self, splits: tuple[str, ...] | list[str]) -> dict[str, dict[str, Loader]]:
        """Split -> dataset -> loader, where there is one."""
        found: dict[str, dict[str, Loader]] = {}
        for split in splits:
            for name, dataset in zip(self._names, self._datasets, strict=True):
                loader = open_split(self._config, dataset, split)
                if loader is not None:
                    found.setdefault(split, {})[name] = loader
        return found

    @property
    def fingerprints(self) -> dict[str, str]:
        """URL of each dataset -> its fingerprint."""
        return {one.store.url: one.manifest.fingerprint for one in self._datasets}

    def build(self) -> LatentActionModel:
        config = self._config
        return LatentActionModel(config.model, config.quantizer, self._teacher is not None)

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        return parameter_groups(model, self._config.train.weight_decay)

    def loader(self, rank: int, world_size: int) -> Loader:
        data, model = self._config.data, self._config.model
        loader = Loader(
            Mixture(datasets=self._datasets, weights=data.weights, epoch=data.epoch),
            "train",
            sample=Pairs(frames=data.offset, seconds=data.seconds, per_episode=data.per_episode),
            batch_size=data.batch_size,
            seed=self._config.train.seed,
            size=model.image_size,
            camera=data.camera,
            limit=data.limit.train,
            control_rate=data.control_rate,
            rank=rank,
            world_size=world_size,
            lanes=data.lanes,
            window=data.window,
            reading=data.reading,
            memory=data.memory_mb << 20,
            ahead=data.ahead,
            threads=data.threads,
            cache=data.cache,
            cache_bytes=int(data.cache_gb * 1e9),
        )
        for part in loader.parts:
            smallest = int(part.index.sizes.min())
            if smallest < model.patch:
                raise ConfigError(
                    f"model.patch: {model.patch} pixels are more than the {smallest} of frames of "
                    f"{part.index.dataset.store.url}; choose a smaller patch"
                )
        return loader

    def begin(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> None:
        assert isinstance(model, LatentActionModel)
        device = accelerator.device
        world, rank = accelerator.num_processes, accelerator.process_index
        rows = torch.arange(len(batch)) * world + rank
        place = Place(0, rows, self._config.data.batch_size)
        model.eval()
        with torch.no_grad():
            mine = model.latents(self._frames(batch, place, device)).float().cpu()
        every = gather_object([mine]) if world > 1 else [mine]
        # Rank r has the rows r, r + W, ...: back in the order of the whole batch.
        model.quantizer.start(torch.stack(every, 1).flatten(0, 1), self._config.train.seed)
        self._agree(model, accelerator)

    def loss(self, model: nn.Module, batch: Batch, place: Place) -> tuple[Tensor, dict[str, Tensor]]:
        config = self._config
        frames = self._frames(batch, place, self._counts.device)
        noise = self._noise(place).to(frames.device)
        out: Output = model(frames, noise, self.hardness(place.step))
        if model.training:
            self._counts += count_codes(out.codes.detach(), config.quantizer.codes)
        error = functional.mse_loss(out.prediction, frames[:, 1])
        loss, metrics = error + out.loss.float(), {"mse": error / 4}
        if out.flow is not None:
            assert self._teacher is not None
            pixels = frames.add(1).mul(127.5).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
            apart = flow_loss(out.flow, self._teacher(pixels, frames))
            loss = loss + flow_weight(place.step, config.flow) * apart
            metrics["flow"] = apart
        return loss, metrics

    def hardness(self, step: int) -> float:
        """How far the quantizer's noise has turned towards the code: 0 to 1."""
        begin, end = (share * self._config.train.steps for share in self._config.quantizer.harden)
        if begin >= self._config.train.steps:
            return 0.0
        return min(1.0, max(0.0, (step - begin) / max(1.0, end - begin)))

    def after_step(self, model: nn.Module, step: int, accelerator: Accelerator) -> dict[str, float]:
        assert isinstance(model, LatentActionModel)
        counts = accelerator.reduce(self._counts, "sum") if accelerator.num_processes > 1 else self._counts
        model.quantizer.count(counts)
        self._counts.zero_()
        # A copy needs steps to find a use of its own, so none is made at the end.
        early = step <= (1 - SETTLING) * self._config.train.steps
        replaced = model.quantizer.replace(self._config.train.seed, step) if early else 0
        if replaced:
            self._agree(model, accelerator)
        return {"codes_replaced": float(replaced)} if replaced else {}

    def validate(self, model: nn.Module, step: int, accelerator: Accelerator) -> dict[str, Any]:
        assert isinstance(model, LatentActionModel)
        values: dict[str, Any] = {}
        train = {
            name: look(model, self._config, loader, accelerator)
            for name, loader in self._probed.get("train", {}).items()
        }
        for split, loaders in self._held_out.items():
            by_dataset: dict[str, dict[str, Any]] = {}
            for name, loader in loaders.items():
                found, seen, pictures = validate(model, self._config, {split: loader}, accelerator)
                by_dataset[name] = {**found}
                if name in train:
                    by_dataset[name] |= measure_probes(train[name], seen, self._config.quantizer.codes)
                if split == self._config.val.splits[0] and name == next(iter(loaders)):
                    self._pictures = pictures
            values |= {f"{split}/{key}": v for key, v in mean_of(list(by_dataset.values())).items()}
            if len(by_dataset) > 1:
                values |= {
                    f"{split}/{name}/{key}": v
                    for name, found in by_dataset.items()
                    for key, v in found.items()
                }
            else:
                (only,) = by_dataset.values()
                values |= {f"{split}/{key}": v for key, v in only.items()}
        if self._evaluates(step) and accelerator.is_main_process:
            values |= self._evaluate(model, accelerator.device)
        return values

    def _evaluates(self, step: int) -> bool:
        config = self._config
        number = step // config.val.every
        return bool(config.evaluate.strategies) and (
            number % config.evaluate.every == 0 or step == config.train.steps
        )

    def _evaluate(self, model: LatentActionModel, device: torch.device) -> dict[str, float]:
        """What codes mean, of the main process alone: the others wait."""
        wanted = self._config.evaluate
        options = Options(
            strategies=tuple(wanted.strategies),
            draw=Draw(samples=wanted.samples, frames=wanted.frames, batch_size=self._config.val.batch_size),
            flow=wanted.flow,
            buckets=(),
            untrained=False,
            figures=False,
        )
        datasets = dict(zip(self._names, self._datasets, strict=True))
        found = analyse(model, self._config, datasets, options, device)
        return {f"evaluate/{name}": value for name, value in found.scalars().items()}

    def finish(self, model: nn.Module, run: Path) -> None:
        metrics = read_metrics(run)
        last = [line for line in metrics if line["kind"] == "val"][-1]
        draw_curves(run / "loss.png", metrics, list(self._held_out))
        if self._pictures is not None:
            for path in (run / "samples.png", run / "samples" / f"step-{last['step']:06d}.png"):
                draw_samples(path, self._pictures, self._config.val.splits[0], last)
        (run / "report.md").write_text(describe(last, list(self._held_out)), encoding="utf-8")

    def identity(self) -> dict[str, Any]:
        config = self._config
        shape = {**asdict(config.model)}
        shape.pop("checkpointing")
        kept = ("kind", "tokens", "codes", "dim", "shared", "bound")
        quantizer = {name: value for name, value in asdict(config.quantizer).items() if name in kept}
        return {
            "model": shape,
            "quantizer": quantizer,
            "flow": config.flow.teacher,
            "camera": config.data.camera,
        }

    def state(self) -> dict[str, Any]:
        return {"config": asdict(self._config), "datasets": self.fingerprints}

    def _frames(self, batch: Batch, place: Place, device: torch.device) -> Tensor:
        """float [B, 2, 3, H, W], changed as augmentation says."""
        frames = to_float(batch.frames.to(device, non_blocking=True))
        if self._config.augment == AugmentConfig():
            return frames
        numbers = draw_numbers(self._config.train.seed, place.step, place.batch_size)[place.rows]
        return augment(frames, numbers, self._config.augment)

    def _noise(self, place: Place) -> Tensor:
        """Of these samples, [b, n, d]: a function of seed, step and the sample's place in the step."""
        generator = torch.Generator().manual_seed(derive(self._config.train.seed, 31, place.step) >> 1)
        shape = place.batch_size, self._config.quantizer.tokens, self._config.quantizer.dim
        return torch.randn(shape, generator=generator)[place.rows]

    def _agree(self, model: LatentActionModel, accelerator: Accelerator) -> None:
        """Give every rank the codebook of the first."""
        if accelerator.num_processes > 1:
            for tensor in model.quantizer.state_dict().values():
                tensor.copy_(broadcast(tensor.clone()))


def draw_curves(path: Path, metrics: list[dict[str, Any]], splits: list[str]) -> None:
    """loss.png: the loss, how the prediction compares with doing nothing, and what becomes of the codes."""
    ratios = [
        (f"{split}/{name}", f"{split}, {label}")
        for split in splits[:1]
        for name, label in zip(
            RATIOS, ("own codes", "one constant code", "codes of another pair"), strict=True
        )
    ]
    ratios += [(f"{split}/copy_ratio", f"{split}, own codes") for split in splits[1:]]
    first = splits[0] if splits else "val"
    panels = [
        ("training error", "train", [("mse", "MSE, pixels in [0, 1]")]),
        ("error / error of copying frame t", "val", ratios),
        (
            "codes in use",
            "val",
            [(f"{first}/usage", "share used"), (f"{first}/probe_r2", "R2 codes -> action")],
        ),
        (
            "perplexity",
            "val",
            [(f"{first}/perplexity", "of one token"), (f"{first}/perplexity_joint", "of whole actions")],
        ),
    ]
    plots.curves(path, metrics, panels)


def draw_samples(path: Path, pictures: Pictures, split: str, last: Mapping[str, Any]) -> None:
    """The grid of x_t, x_t+k, prediction and difference."""
    gap = plots.difference(pictures.prediction, pictures.second)
    moved = plots.difference(pictures.first, pictures.second)
    columns = [
        ("frame t", pictures.first),
        ("frame t + k", pictures.second),
        ("prediction", pictures.prediction),
        ("error x 3", gap),
        ("change x 3", moved),
    ]
    rows = [
        f"{name}\n{'-'.join(map(str, codes))}"
        for name, codes in zip(pictures.names, pictures.codes.tolist(), strict=True)
    ]
    ratio = last.get(f"{split}/copy_ratio")
    said = f"error / error of copying: {ratio:.2f}" if ratio is not None else ""
    plots.grid(path, columns, rows, f"{split}, step {last['step']:,}; {said}")


def describe(last: Mapping[str, Any], splits: list[str]) -> str:
    """report.md: the last validation as a table."""
    lines = [f"# Validation at step {last['step']:,}", "", f"| | {' | '.join(splits)} |"]
    lines.append("| --- |" + " --- |" * len(splits))
    names = [
        key.partition("/")[2]
        for key in last
        if key.startswith(f"{splits[0]}/") and isinstance(last[key], int | float) and key.count("/") == 1
    ]
    for name in names:
        cells = [last.get(f"{split}/{name}") for split in splits]
        said = [f"{cell:.4g}" if isinstance(cell, int | float) else "" for cell in cells]
        lines.append(f"| {name} | {' | '.join(said)} |")
    return "\n".join([*lines, "", "docs/laq.md says what each means. ![](loss.png) ![](samples.png)", ""])
