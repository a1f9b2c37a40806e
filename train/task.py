"""The interface between the training loop and a task, and the slices of a batch that the loop passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator
from torch import Tensor, nn

from oxcart.train.data.batch import Batch
from oxcart.train.data.loader import Loader
from oxcart.train.trained_on import TrainedOn


@dataclass(frozen=True)
class BatchSlice:
    """The rows of a step's batch that a model is given."""

    step: int
    """Index of the step, from 0."""
    rows: Tensor
    """int64 [b]: index of each row in the batch of all ranks."""
    batch_size: int
    """Rows in the batch of all ranks."""


class Task(Protocol):
    """A trainable task: a model, its loss, its data, its validation."""

    label: str
    """Name of the task on the live line."""
    score: str
    """The validation metric that decides which checkpoint is best; smaller is better."""

    @property
    def fingerprints(self) -> dict[str, str]:
        """URL of each dataset -> its fingerprint."""

    def build(self) -> nn.Module:
        """Build the model, with initial weights that depend only on the seed."""

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Parameter groups of the optimizer."""

    def loader(self, rank: int, world_size: int) -> Loader:
        """Batches of the train split for one rank."""

    def together(self, batch: Batch, piece: BatchSlice) -> Tensor | None:
        """int64 [B]: the order in which a step's rows are cut into pieces for gradient accumulation; None
        keeps the loader's order. Called in a reading thread."""

    def inputs(self, batch: Batch, piece: BatchSlice) -> dict[str, Tensor]:
        """Everything that the loss reads of some rows, on the CPU. Called in a reading thread, some steps
        ahead: it depends on its arguments alone, and not on weights."""

    def begin(self, model: nn.Module, pieces: Sequence[dict[str, Tensor]], accelerator: Accelerator) -> None:
        """Initialise from data: called once, with the inputs of a rank's first batch, on the device, before
        the first step of a run."""

    def loss(
        self, model: nn.Module, inputs: dict[str, Tensor], piece: BatchSlice
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss over some rows, and further metrics that are means over the same rows. It reads no number
        back from the device, which would make a GPU wait for the host."""

    def after_step(self, model: nn.Module, step: int, accelerator: Accelerator) -> dict[str, float]:
        """Called after every optimizer step with the number of steps done. The counts it returns are summed
        until the next line of metrics."""

    def validate(
        self, model: nn.Module, step: int, accelerator: Accelerator, record: TrainedOn | None
    ) -> dict[str, Any]:
        """Metrics on the splits of validation; only those of the main process are used.

        Args:
            model: the model, in eval mode.
            step: steps done.
            accelerator: its ranks share the work.
            record: what the run was trained on; None if an earlier stretch of it kept no record.
        """

    def warnings(self, values: Mapping[str, Any]) -> list[str]:
        """What a user has to know of a validation or a line of training, by its metrics: a line each."""

    def finish(self, model: nn.Module, run: Path, weights: Mapping[str, Tensor] | None) -> None:
        """Draw figures: called in the main process after each validation, or at the end if there is none.

        Args:
            model: the model.
            run: directory of the run.
            weights: all weights of the model by name; None while it is sharded, before the end of the run.
        """

    def identity(self) -> dict[str, Any]:
        """Plain JSON that must stay the same when a run resumes, so that the weights fit the model."""

    def scored(self) -> dict[str, Any]:
        """Plain JSON that identifies the validation samples; scores are comparable only if it is equal."""

    def state(self) -> dict[str, Any]:
        """Plain JSON to keep in the checkpoint: the configuration."""
