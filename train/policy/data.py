"""The data of a policy: whose actions may be used, how they are scaled, and what the network takes.

Episodes whose actions may not be used stand for videos: they give frames, instructions and codes. Their
states are not used either, since the difference of two states is an action. They do not count in the
statistics, and their values are replaced before anything is computed with them, not multiplied by 0, which
would keep a NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError
from oxcart.train.config import LimitConfig
from oxcart.train.data import Batch, Loader, Mixture, Normalizer, Window
from oxcart.train.data.config import rate_of
from oxcart.train.data.normalizer import statistics_of
from oxcart.train.loaders import held_out_loader, open_datasets, training_loader
from oxcart.train.policy.config import PolicyConfig
from oxcart.train.policy.pseudo import Pseudo
from oxcart.train.policy.spec import PolicySpec
from oxcart.train.policy.words import Vocabulary
from oxcart.train.vla.labels import NAME, Labels, read_labels


class PolicyData:
    """The datasets of a run, opened and checked.

    Args:
        config: configuration of the run.

    Raises:
        ConfigError: a dataset lacks something that the configuration requires.
    """

    def __init__(self, config: PolicyConfig) -> None:
        self._config = config
        self.datasets = open_datasets(config.data)
        opened = list(self.datasets.values())
        _check(config, opened)
        names = [one["name"] for one in opened[0].manifest.cameras]
        self._decodes = config.policy.backbone == "codes"
        self.cameras = () if self._decodes else tuple(config.data.cameras or names)
        self.labels: Labels | None = None
        if config.data.codes:
            self.labels = read_labels(config.data.codes, config.data.offset, opened)
        self._pseudo = Pseudo.read(config.data.pseudo, opened) if config.data.pseudo else None
        self.window = Window(
            frames=dict.fromkeys(self.cameras, tuple(config.data.frames)) or None,
            state=0 if config.policy.state else None,
            action=range(config.policy.horizon),
            pad="repeat",
            per_episode=config.data.per_episode,
        )
        whole = self.training(opened, (0, 1), None, quiet=True)
        self._whole = whole
        self._counts = [_labelled(config.data.actions, len(one.index)) for one in whole.streams]
        """Episodes of each dataset whose actions may be used."""
        self._all = all(n == len(one.index) for n, one in zip(self._counts, whole.streams, strict=True))
        others = self._pseudo is not None or (self.labels is not None and not self._decodes)
        self._share = config.data.labelled_share if others and not self._all else 1.0
        """Share of the rows that come from episodes whose actions may be used."""
        self.acted_share = 1.0 if self._pseudo is not None else self._share
        """Share of the rows that have actions to learn."""
        if self.labels is not None:
            self.labels.check(whole)
        self.labelled = self.training(self._mixture(labelled=True), (0, 1), None, quiet=True)
        """Train samples whose actions may be used."""
        self._keys = {
            (stream.name, key) for stream in self.labelled.streams for key in stream.index.keys.to_pylist()
        }
        self.action = self._normalizer("action")
        self.state = self._normalizer("state") if config.policy.state else None
        texts = [text for one in whole.streams for text in one.index.texts["instruction"].values]
        self.words = Vocabulary.of(text or "" for text in texts)
        self.spec = self._spec()

    def _spec(self) -> PolicySpec:
        """What the policy sees and does; all datasets must agree about it."""
        config, whole = self._config, self._whole
        first = whole.streams[0]
        rates: dict[str, float] = {}
        for one in self.datasets.values():
            rate = rate_of(one.manifest, config.data.control_rate)
            if rate is None:
                raise ConfigError(
                    f"data.control_rate: {one.store.url} does not say how many steps per second it has, "
                    "which acting needs; pass data.control_rate="
                )
            rates[one.store.url] = float(rate["hz"])
        if len(set(rates.values())) > 1:
            said = ", ".join(f"{url} {rate:g} Hz" for url, rate in rates.items())
            raise ConfigError(
                f"data.control_rate: a policy acts at one rate, but the datasets have {said}; train one "
                "policy for each"
            )
        manifest = first.index.dataset.manifest
        return PolicySpec(
            cameras=tuple((manifest.camera(name)["name"], whole.sizes[name]) for name in self.cameras),
            frames=tuple(config.data.frames),
            state=tuple(one.name for one in first.columns.get("state", ())),
            action=first.columns["action"],
            control_rate=next(iter(rates.values())),
            horizon=config.policy.horizon,
            execute=config.policy.execute,
            codes=(self.labels.tokens, self.labels.codes) if self.labels is not None else (0, 0),
            datasets=tuple(dict.fromkeys(one.name for one in whole.streams)),
        )

    def _mixture(self, *, labelled: bool) -> Mixture | Sequence[Dataset]:
        """The datasets in two parts each, the episodes whose actions may be used and the others; or the
        former alone."""
        if self._all:
            return list(self.datasets.values())
        parts: list[tuple[Dataset, tuple[int, int | None], float]] = []
        for stream, count, row in zip(self._whole.streams, self._counts, self._whole.table(), strict=True):
            share = 1.0 if labelled else self._share
            parts.append((stream.index.dataset, (0, count), row["weight"] * share))
            if not labelled and count < len(stream.index):
                parts.append((stream.index.dataset, (count, None), row["weight"] * (1 - share)))
        datasets, which, weights = zip(*parts, strict=True)
        return Mixture(datasets=datasets, parts=which, weights=weights, epoch=self._config.data.epoch)

    def train_loader(self, rank: int, world_size: int, pieces: int | None) -> Loader:
        """Batches of train, in which episodes with actions and others are mixed by their shares."""
        found = self._mixture(labelled=self._share == 1)
        return self.training(found, (rank, world_size), pieces, quiet=self._config.run.quiet)

    def training(
        self,
        datasets: Sequence[Dataset] | Mixture,
        place: tuple[int, int],
        pieces: int | None,
        *,
        quiet: bool,
    ) -> Loader:
        """A loader of samples of train."""
        config = self._config
        return training_loader(
            config.data,
            datasets,
            self.window,
            size=config.data.image_size,
            seed=config.train.seed,
            place=place,
            pieces=pieces,
            annotations=self._files(list(self.datasets.values())),
            quiet=quiet,
        )

    def held_out(self, dataset: Dataset, split: str) -> Loader:
        """All samples of one split of a dataset."""
        return held_out_loader(
            self._config.data,
            dataset,
            split,
            sample=replace(self.window, per_episode="all"),
            size=self._config.data.image_size,
            seed=self._config.val.seed,
            batch_size=self._config.val.batch_size,
            annotations=self._files([dataset]),
        )

    def _files(self, datasets: Sequence[Dataset]) -> list[str]:
        return [] if self.labels is None else self.labels.files_of(datasets)

    def _normalizer(self, array: str) -> Normalizer:
        """How an array is scaled: by the statistics of train where all of its actions may be used, else by
        those of the episodes whose actions may be used."""
        method = self._config.policy.normalisation
        if self._all:
            return Normalizer.of(self.labelled, array, method)
        found: dict[str, list[Any]] = {}
        for stream in self.labelled.streams:
            acts = stream.index.acts
            assert acts is not None
            for episode in range(len(stream.index)):
                own = slice(*acts[episode].tolist()) if array == "action" else slice(None)
                found.setdefault(stream.name, []).append(stream.episodes.array(array, episode)[own])
        values = {name: np.concatenate(some) for name, some in found.items()}
        for name, some in values.items():
            if not len(some):
                raise ConfigError(
                    f"data.actions: no step of these episodes of {name} has an action; take more"
                )
        statistics = {name: statistics_of(some) for name, some in values.items()}
        return Normalizer.of(self.labelled, array, method, statistics)

    def known(self, batch: Batch) -> Tensor:
        """bool [B]: whether the actions of each row may be used."""
        if self._all:
            return torch.ones(len(batch), dtype=torch.bool)
        return torch.tensor([one in self._keys for one in zip(batch.dataset, batch.key, strict=True)])

    def inputs(self, batch: Batch, known: Tensor) -> dict[str, Tensor]:
        """What the network takes and what it is to predict, on the CPU.

        Args:
            batch: samples of `window`.
            known: bool [B], whether actions and states may be used.
        """
        assert batch.action is not None
        assert batch.action_is_pad is not None
        masked = batch.action_is_pad | ~known[:, None]
        values = batch.action.masked_fill(masked[..., None], 0)
        if self._pseudo is not None:
            told = self._pseudo.chunks(batch, self._config.policy.horizon)
            stands_in = ~known[:, None] & told.isfinite().all(2)
            values, masked = torch.where(stands_in[..., None], told, values), masked & ~stands_in
        action = self.action(values, batch.dataset)
        found = {
            **{f"frames.{name}": frames for name, frames in (batch.frames or {}).items()},
            "words": self.words.encode(batch.instruction),
            "known": known,
            "action": action.masked_fill(masked[..., None], 0),
            "mask": (~masked).float(),
        }
        if self.state is not None:
            assert batch.state is not None
            state = batch.state.masked_fill(~known[:, None], 0)
            found["state"] = self.state(state, batch.dataset).masked_fill(~known[:, None], 0)
        if self.labels is not None:
            found["codes"] = batch.annotations[NAME].long()
            if self._decodes:
                found["mask"] = found["mask"] * (found["codes"][:, :1] >= 0)
        return found

    def known_held_out(self, dataset: Dataset) -> Loader:
        """The samples of train of a dataset whose actions may be used, each once."""
        data = self._config.data
        count = self._counts[[one.index.dataset for one in self._whole.streams].index(dataset)]
        return held_out_loader(
            replace(data, limit=LimitConfig(train=count)),
            dataset,
            "train",
            sample=replace(self.window, per_episode="all"),
            size=data.image_size,
            seed=self._config.val.seed,
            batch_size=self._config.val.batch_size,
            annotations=self._files([dataset]),
            where=data.where,
            keys=data.keys,
        )

    def plain(self) -> dict[str, Any]:
        """Everything that acting needs beside the weights, as plain JSON."""
        return {
            "spec": self.spec.plain(),
            "action": self.action.to_json(),
            "state": None if self.state is None else self.state.to_json(),
            "words": list(self.words.words),
        }


def _check(config: PolicyConfig, opened: Sequence[Dataset]) -> None:
    """Refuse datasets without actions, or without the state that the policy reads."""
    for one in opened:
        if one.manifest.action is None:
            raise ConfigError(
                f"data.datasets: {one.store.url} has no actions, which a policy learns; compile it with "
                "--action"
            )
        if config.policy.state and one.manifest.state is None:
            raise ConfigError(
                f"policy.state: {one.store.url} has no state; compile it with --state, or pass "
                "policy.state=false"
            )


def _labelled(actions: Any, episodes: int) -> int:
    """Episodes, of so many, whose actions may be used."""
    if actions is None:
        return episodes
    return min(episodes, math.ceil(actions * episodes) if isinstance(actions, float) else actions)
