"""Evaluate a latent-action model: from datasets and weights to an analysis.

options = EvaluateOptions(strategies=("compass", "transfer"))
analysis = analyse(model, config, {"bridge": dataset}, options, device)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch

from oxcart.manifests.dataset import Dataset
from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError
from oxcart.train.data import Loader
from oxcart.train.evaluate import strategies
from oxcart.train.evaluate.analysis import Analysis, Subject, evaluate
from oxcart.train.evaluate.gather import SPLITS, Draw, count_pairs, gather, open_splits
from oxcart.train.evaluate.sentences import SentenceModel, describe
from oxcart.train.evaluate.strategy import Context
from oxcart.train.evaluate.subsets import Subset, default_subsets
from oxcart.train.explain import explained
from oxcart.train.flow import flow_meter
from oxcart.train.laq.build import build_model
from oxcart.train.laq.config import TEACHERS, LaqConfig
from oxcart.train.laq.model import LatentActionModel, to_float
from oxcart.train.ranks import ALONE, Ranks
from oxcart.train.trained_on import PLACES, TrainedOn


class StageProgress(Protocol):
    """Shows the progress of one stage of the work."""

    def __call__(
        self, label: str, total: int, unit: str, /
    ) -> AbstractContextManager[Callable[[int], None]]: ...


@contextlib.contextmanager
def _silent(label: str, total: int, unit: str, /) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of an evaluation.

    Raises:
        ConfigError: an unknown strategy or flow.
    """

    strategies: tuple[str, ...] = ()
    """Names of strategies; empty for all."""
    draw: Draw = field(default_factory=Draw)
    """The draw of pairs."""
    flow: str = "dis"
    """Method of optical flow: `dis`, `raft` or `none`."""
    flow_weights: str | None = None
    """File with the weights of RAFT; None uses those that torchvision has on this machine."""
    subsets: tuple[Subset, ...] | None = None
    """Additional subsets to report; None uses `default_subsets`."""
    text_model: str | None = None
    """Directory or hub id of the language model that embeds instructions; None compares their words."""
    untrained: bool = True
    """Whether to compare with an untrained model."""
    figures: bool = True
    """Whether to draw figures."""

    def __post_init__(self) -> None:
        strategies.check(self.strategies, "strategies")
        one_of("flow", self.flow, TEACHERS)
        if self.text_model is not None and self.strategies and "text" not in self.strategies:
            raise ConfigError("text_model: only the strategy text embeds instructions; add it to strategies")


@explained("--batch-size", "take a smaller batch")
def analyse(
    model: LatentActionModel,
    config: LaqConfig,
    datasets: Mapping[str, Dataset],
    options: EvaluateOptions,
    device: torch.device,
    *,
    record: TrainedOn | None,
    stage: StageProgress = _silent,
    about: Mapping[str, Any] | None = None,
    ranks: Ranks = ALONE,
) -> Analysis:
    """Evaluate a model. Ranks share the pairs and then the strategies; each gets the whole analysis.

    Args:
        model: a model in eval mode, on the device.
        config: configuration of its run, which says which pairs it takes.
        datasets: datasets by name.
        options: options of the evaluation.
        device: device of the model.
        record: what the run was trained on; None makes all places unknown.
        stage: shows progress.
        about: further facts for the report.
        ranks: the processes that share the work.

    Raises:
        ConfigError: there are no pairs, or a required package is not installed.
    """
    chosen = strategies.load(options.strategies or strategies.names())
    sentences = None if options.text_model is None else SentenceModel.load(options.text_model, device)
    loaders = open_splits(datasets, config.data, config.model.image_size, options.draw.batch_size)
    meter = flow_meter(options.flow, options.flow_weights, device)
    models = [model]
    if options.untrained:
        models.append(untrained_model(config, model, next(iter(loaders.values())), device))
    with stage("reading", count_pairs(loaders, options.draw), "pairs") as report:
        gathered = gather(loaders, models, options.draw, device, meter, record, report, ranks)
    subjects = [
        Subject(
            pairs=pairs,
            context=Context(
                model=one,
                device=device,
                meter=None if isinstance(meter, str) else meter,
                sentences=sentences,
                seed=options.draw.seed,
            ),
        )
        for one, pairs in zip(models, gathered, strict=True)
    ]
    trained, untrained = subjects[0], subjects[1] if options.untrained else None
    subsets = default_subsets(trained.pairs) if options.subsets is None else options.subsets
    with stage("measuring", len(chosen), "strategies") as report:
        found = evaluate(
            trained,
            untrained,
            chosen,
            subsets=subsets,
            figures=options.figures,
            report=report,
            ranks=ranks,
        )
    pairs = trained.pairs
    described = [
        {
            "name": name,
            "url": dataset.store.url,
            "fingerprint": dataset.manifest.fingerprint,
            "pairs": {
                split: count
                for split in SPLITS
                if (count := int(((pairs.dataset == name) & (pairs.split == split)).sum()))
            },
            "places": {
                place: count
                for place in PLACES
                if (count := int(((pairs.dataset == name) & (pairs.place == place)).sum()))
            },
        }
        for name, dataset in datasets.items()
    ]
    said = {
        "datasets": described,
        "strategies": list(chosen),
        "seed": options.draw.seed,
        "samples": options.draw.samples,
        "frames": len(pairs.framed),
        "flow": options.flow if not isinstance(meter, str) else "none",
        "instructions": describe(sentences),
        **(about or {}),
    }
    return replace(found, about=said)


@torch.no_grad()
def untrained_model(
    config: LaqConfig, trained: LatentActionModel, loader: Loader, device: torch.device
) -> LatentActionModel:
    """The model as when training began: weights drawn from its seed, the codebook from a first batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        model = build_model(config.model, config.quantizer, config.flow)
    model = model.to(device).eval()
    model.bf16 = trained.bf16
    count = min(config.data.batch_size, loader.epoch_length)
    frames = to_float(loader.at(np.arange(count)).frames.to(device))
    model.quantizer.start(model.latents(frames), config.train.seed)
    return model.eval()
