"""The policy as a task of the training loop: batches, loss, validation, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from oxcart.shards.files import write_file
from oxcart.train import plots
from oxcart.train.data import Batch, Loader
from oxcart.train.data.order import derive
from oxcart.train.finite import refuse
from oxcart.train.laq.augment import draw_numbers, lit, shifted
from oxcart.train.laq.model import to_float, to_uint8
from oxcart.train.loaders import chunks, open_splits, scored
from oxcart.train.loop import Result
from oxcart.train.pieces import to_device
from oxcart.train.policy.config import PolicyConfig
from oxcart.train.policy.data import PolicyData
from oxcart.train.policy.measure import ActedSamples, measure, thumbs_of
from oxcart.train.policy.model import PolicyModel, build_model, parameter_groups
from oxcart.train.ranks import gathered
from oxcart.train.report import by_split, describe, last_validation, read_metrics
from oxcart.train.run import run_task
from oxcart.train.task import BatchSlice
from oxcart.train.trained_on import TrainedOn


class PolicyTask:
    """See `oxcart.train.task.Task`.

    Args:
        config: configuration of the run.
        device: device for training.

    Raises:
        ConfigError: a dataset lacks something that the configuration requires.
    """

    label = "policy"

    def __init__(self, config: PolicyConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self.data = PolicyData(config)
        self.score = f"{config.val.splits[0]}/l1"
        # Opened now, so that what is missing is said before a GPU is busy.
        self._held_out: dict[str, dict[str, Loader]] = {}
        if config.val.every:
            self._held_out = open_splits(
                self.data.datasets, config.val.splits, config.val.splits[0], self.data.held_out
            )
        self._train: dict[str, ActedSamples] = {}

    @property
    def fingerprints(self) -> dict[str, str]:
        """URL of each dataset -> its fingerprint."""
        return {one.store.url: one.manifest.fingerprint for one in self.data.datasets.values()}

    def build(self) -> PolicyModel:
        return build_model(self._config, self.data.spec, len(self.data.words))

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        return parameter_groups(model, self._config.train.weight_decay)

    def loader(self, rank: int, world_size: int) -> Loader:
        pieces = self._config.train.accumulate if self._device.type == "cpu" else None
        return self.data.train_loader(rank, world_size, pieces)

    def begin(self, model: nn.Module, pieces: Sequence[dict[str, Tensor]], accelerator: Accelerator) -> None:
        """Do nothing: all weights begin at random."""

    def together(self, batch: Batch, piece: BatchSlice) -> Tensor | None:
        return None

    def inputs(self, batch: Batch, piece: BatchSlice) -> dict[str, Tensor]:
        found = self.data.inputs(batch, self.data.known(batch))
        seed, shape = self._config.train.seed, found["action"].shape[1:]
        generator = torch.Generator().manual_seed(derive(seed, 51, piece.step) >> 1)
        noise = torch.randn(piece.batch_size, *shape, generator=generator)
        time = torch.rand(piece.batch_size, generator=generator)
        return {**found, **self._changed(found, piece), "noise": noise[piece.rows], "time": time[piece.rows]}

    def _changed(self, inputs: dict[str, Tensor], piece: BatchSlice) -> dict[str, Tensor]:
        """Augmented frames, uint8 [B, k, H, W, 3]: each camera is moved by itself, all are in one light."""
        config = self._config.augment
        if not config.shift and not config.light:
            return {}
        seed, found = self._config.train.seed, {}
        light = 2 * draw_numbers(seed, piece.step, piece.batch_size)[piece.rows, 2:7] - 1
        for i, (name, _) in enumerate(self.data.spec.cameras):
            own = draw_numbers(derive(seed, 53, i), piece.step, piece.batch_size)[piece.rows, :2]
            frames = shifted(to_float(inputs[f"frames.{name}"]), (2 * own - 1) * config.shift)
            found[f"frames.{name}"] = to_uint8(lit(frames, light * config.light))
        return found

    def loss(
        self, model: nn.Module, inputs: dict[str, Tensor], piece: BatchSlice
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sums over the rows that count, by the number that is expected of them: a constant, so that pieces
        and ranks add up to the gradient of the whole batch whatever they hold."""
        weights, data = self._config.policy, self.data
        error, logits = model(inputs)
        acted = (error.float().mean(2) * inputs["mask"]).mean() / data.acted_share
        loss = weights.action_weight * acted
        metrics = {"action": acted}
        if logits is not None:
            told = (inputs["codes"][:, 0] >= 0).float()
            codes = inputs["codes"].clamp_min(0)
            nll = functional.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
            code = (nll.view_as(codes).mean(1) * told).mean()
            loss = loss + weights.code_weight * code
            metrics["code"] = code
        return loss, metrics

    def after_step(self, model: nn.Module, step: int, accelerator: Accelerator) -> dict[str, float]:
        return {}

    def validate(
        self, model: nn.Module, step: int, accelerator: Accelerator, record: TrainedOn | None
    ) -> dict[str, Any]:
        assert isinstance(model, PolicyModel)
        values: dict[str, Any] = {}
        val = self._config.val
        for split, loaders in self._held_out.items():
            by_dataset: dict[str, dict[str, Any]] = {}
            for name, loader in loaders.items():
                if val.baselines and name not in self._train:
                    known = self.data.known_held_out(self.data.datasets[name])
                    self._train[name], _, _ = self._look(None, known, val.baselines, accelerator)
                seen, predicted, about = self._look(model, loader, val.samples, accelerator)
                by_dataset[name] = measure(seen, predicted, self._train.get(name), about)
                if record is not None:
                    by_dataset[name]["held_out (%)"] = 100 * record.share_held_out(loader)
            values |= by_split(split, by_dataset)
        return values

    @torch.no_grad()
    def _look(
        self, model: PolicyModel | None, loader: Loader, count: int, accelerator: Accelerator
    ) -> tuple[ActedSamples, Any, dict[str, float]]:
        """Samples of a loader, what a model predicts for them, and how well it tells codes; the same on every
        rank.

        Raises:
            NotFiniteError: actions are not finite; raised on every rank.
        """
        share = accelerator.process_index, accelerator.num_processes

        def ask() -> list[tuple[int, Any]]:
            parts: list[tuple[int, Any]] = []
            for i, batch in chunks(loader, count, self._config.val.seed, share):
                inputs = self.data.inputs(batch, torch.ones(len(batch), dtype=torch.bool))
                generator = torch.Generator().manual_seed(derive(self._config.val.seed, 52, i) >> 1)
                inputs["noise"] = torch.randn(inputs["action"].shape, generator=generator)
                predicted, codes = inputs["action"], torch.zeros(len(batch), 3)
                if model is not None:
                    with accelerator.autocast():
                        predicted, logits = model.act(to_device(inputs, accelerator.device))
                    predicted = predicted.float().cpu()
                    refuse(~predicted.isfinite().flatten(1).all(1), batch, "actions")
                    if logits is not None:
                        codes = _told(logits.cpu(), inputs["codes"])
                found = thumbs_of(batch), inputs["action"].numpy(), inputs["mask"].numpy() > 0
                parts.append((i, (*found, predicted.numpy(), codes.numpy(), list(batch.instruction))))
            return parts

        found = [part for _, part in gathered(ask, accelerator)]
        thumbs, actions, mask, predicted, codes = (
            np.concatenate([one[i] for one in found]) for i in range(5)
        )
        texts = [text for one in found for text in one[5]]
        seen = ActedSamples(thumbs=thumbs, instructions=texts, actions=actions, mask=mask)
        has, nll, right = codes.sum(0).tolist()
        about = {"code_nll": nll / max(1, has), "code_accuracy": right / max(1, has)}
        return seen, predicted, about if self.data.labels is not None else {}

    def warnings(self, values: Mapping[str, Any]) -> list[str]:
        return []

    def finish(self, model: nn.Module, run: Path, weights: Mapping[str, Tensor] | None) -> None:
        draw_curves(run / "loss.png", read_metrics(run), list(self._held_out))
        last = last_validation(run)
        if last is None:
            return
        names = {split: list(loaders) for split, loaders in self._held_out.items()}
        write_file(run / "report.md", describe(last, names, "docs/policy.md", ("loss.png",)).encode())

    def identity(self) -> dict[str, Any]:
        config = self._config
        return {
            "policy": {"loss": config.policy.loss, "backbone": config.policy.backbone},
            "small": asdict(config.small),
            "about": self.data.plain(),
            "codes": None if self.data.labels is None else self.data.labels.producer,
        }

    def scored(self) -> dict[str, Any]:
        return {
            **scored(self._config.data, self._config.val, self.fingerprints),
            "horizon": self._config.policy.horizon,
        }

    def state(self) -> dict[str, Any]:
        return {
            "config": asdict(self._config),
            "datasets": self.fingerprints,
            "policy": self.data.plain(),
        }


def _told(logits: Tensor, codes: Tensor) -> Tensor:
    """How well each row's codes are told, [B, 3]: whether it has any, their mean nats, the share right."""
    has, codes = (codes[:, 0] >= 0).float(), codes.clamp_min(0)
    nll = functional.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view_as(codes)
    right = (logits.argmax(-1) == codes).float().mean(1)
    return torch.stack([has, has * nll.mean(1), has * right], 1)


def train_policy(config: PolicyConfig, *, resume: bool = False, allow_changes: bool = False) -> Result:
    """Train a policy; see `oxcart.train.run.run_task`."""
    return run_task(config, PolicyTask, resume=resume, allow_changes=allow_changes)


def draw_curves(path: Path, metrics: list[dict[str, Any]], splits: list[str]) -> None:
    """Draw loss.png: the losses of training, and held-out errors beside those of the baselines."""
    first = splits[0] if splits else "val"
    named = (("l1", "policy"), ("nearest_l1", "nearest frame"), ("mean_l1", "mean action"))
    errors = [(f"{first}/{name}", f"{first}, {label}") for name, label in named]
    errors += [(f"{split}/l1", f"{split}, policy") for split in splits[1:]]
    panels = [
        plots.Curves(
            title="training error of actions",
            quantity="absolute error, or squared error of flow, scaled actions",
            kind="train",
            lines=[("action", "actions")],
        ),
        plots.Curves(
            title="held-out error of actions",
            quantity="absolute error, scaled actions",
            kind="val",
            lines=errors,
            ends=(0, None),
        ),
        plots.Curves(
            title="codes told right", quantity="share", kind="val", lines=[(f"{first}/code_accuracy", first)]
        ),
    ]
    plots.curves(path, metrics, panels)
