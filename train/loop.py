"""The training loop: steps of any task on any number of ranks, exact to resume.

    result = fit(task, config, accelerator, make_log, resume=True, allow_changes=False)

A task defines what is trained: its model, its loss for some rows of a step's batch, its validation. The loop
does the rest: ranks and bf16 through accelerate, accumulation, clipping, learning rate, metrics, checkpoints,
signals.

What happens in a step depends only on the step: the batch follows from the loader's position, the learning
rate and every random number from the step. So a resumed run is bit for bit the run that never stopped. More
ranks or more accumulation give the same gradient except for the order of additions. The loader divides
batches among ranks itself and is not given to accelerate; the learning rate is set, not stepped, so nothing
of it has to be saved.

A step reads nothing back from a GPU but the loss and the norm of the gradient of the step before, which the
GPU copies by itself; `oxcart.train.pieces` says how batches get there. Exceptions are steps that write a line
of metrics, steps in which unused codes are looked for, and a flow teacher that runs on the CPU.

Numbers that are not finite stop the run, on all ranks. Loss and gradient are checked one step late. Weights
and moments are checked before they are validated or saved, where the host waits anyway. So no checkpoint
holds NaN. Weights that are finite may still be too large to be of use; if validation refuses them, the step
is not saved.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.flop_counter import FlopCounterMode

from oxcart.shards.errors import ConfigError, NotFiniteError
from oxcart.train import checkpoint as checkpoints
from oxcart.train.checkpoint import CheckpointWriter, find, state_tensors
from oxcart.train.config import TrainConfig, TrainerConfig
from oxcart.train.data.loader import Loader
from oxcart.train.device import fused, peak_flops
from oxcart.train.explain import explained
from oxcart.train.finite import not_finite, samples, some
from oxcart.train.optimizer import keep_row_rates, learning_rate
from oxcart.train.pieces import Piece, StepBatch, cut_batch, sent, to_device
from oxcart.train.ranks import on_main, together
from oxcart.train.report import Clock, Rates, RunLog, last_validation
from oxcart.train.resume import Restored, restore
from oxcart.train.sharding import gather, shard
from oxcart.train.task import BatchSlice, Task
from oxcart.train.trained_on import TrainedOn


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of a run."""

    step: int
    """Optimizer steps done."""
    stopped: bool
    """Whether a signal ended the run early."""
    metrics: Mapping[str, Any]
    """Metrics of the last validation."""
    throughput: float
    """Samples per second, over all ranks."""
    waiting: float
    """Percentage of the time that was spent waiting for data."""


def fit(
    task: Task,
    config: TrainerConfig,
    accelerator: Accelerator,
    report: Callable[[int], RunLog],
    *,
    resume: bool,
    allow_changes: bool,
) -> Result:
    """Train a task.

    Args:
        task: what is trained.
        config: configuration of the run.
        accelerator: the accelerator from `make_accelerator`.
        report: makes the log of a run, given the step at which it begins.
        resume: continue from the run's last checkpoint, if there is one.
        allow_changes: resume although datasets, batch size or world size have changed.

    Raises:
        ConfigError: the ranks cannot divide the batch, or the checkpoint has another configuration.
        CorruptError: the checkpoint cannot be read.
        NotFiniteError: the loss, its gradient, weights, or results of validation are not finite.
        StoreError: a checkpoint cannot be written.
    """
    run, train = Path(config.run.dir), config.train
    world = accelerator.num_processes
    share = world * train.accumulate
    if config.data.batch_size % share:
        raise ConfigError(
            f"data.batch_size: expected a multiple of {share} "
            f"({world} ranks x train.accumulate {train.accumulate}), got {config.data.batch_size}"
        )
    torch.manual_seed(train.seed)
    module = task.build()
    sharded = train.shard == "full" and world > 1
    if sharded:
        shard(module, accelerator)
    loader = task.loader(accelerator.process_index, world)
    optimizer = torch.optim.AdamW(
        task.groups(module), lr=train.lr, betas=(train.betas[0], train.betas[1]), fused=fused(accelerator)
    )
    keep_row_rates(optimizer)
    if train.compile:
        module.compile()
    prepared = accelerator.prepare(optimizer)
    model = module if sharded else accelerator.prepare(module)
    path = find(run)
    found = Restored(0, float("inf"), 0, afresh=False, record=None)
    record: TrainedOn | None = TrainedOn.of(loader)
    if resume and path is not None:
        found = together(
            lambda: restore(path, task, module, optimizer, loader, accelerator, allow_changes), accelerator
        )
    if found.step > train.steps:
        raise ConfigError(
            f"train.steps: the run has done {found.step} already, got {train.steps}; ask for more"
        )
    if found.step:
        record = None if found.record is None else TrainedOn.of(loader).joined(found.record)
    log = report(found.step)
    if found.afresh:
        log.say(f"{task.label}: other data than before; their epochs begin anew at step {found.step:,}")
    return _Run(
        task=task,
        run=run,
        config=train,
        batch_size=config.data.batch_size,
        validate_every=config.val.every,
        accelerator=accelerator,
        module=module,
        model=model,
        optimizer=prepared,
        plain=optimizer,
        loader=loader,
        sharded=sharded,
        writer=CheckpointWriter(run, accelerator),
        record=record,
        log=log,
        best=found.best,
        validated=found.validated,
    ).go(found.step)


@dataclass(kw_only=True)
class _Run:
    """The state of a run, shared by its steps."""

    task: Task
    run: Path
    config: TrainConfig
    batch_size: int
    validate_every: int
    accelerator: Accelerator
    module: nn.Module
    model: nn.Module
    optimizer: Any
    plain: torch.optim.Optimizer
    loader: Loader
    sharded: bool
    """Whether each rank holds but a part of the model."""
    writer: CheckpointWriter
    record: TrainedOn | None
    """What the run was trained on; None if an earlier stretch of it kept no record."""
    log: RunLog
    best: float
    validated: int
    """Step of the last validation."""
    position: int = 0
    """Position of the loader after the last step; the loader itself is ahead."""

    def go(self, step: int) -> Result:
        config, accelerator, clock = self.config, self.accelerator, Clock()
        validated: dict[str, Any] = {}
        counts: dict[str, float] = {}
        pending: _Numbers | None = None
        stopped = False
        peak = peak_flops(accelerator.device)
        flops = 0.0
        self.position = self.loader.position
        cut = partial(
            cut_batch,
            place=(accelerator.process_index, accelerator.num_processes),
            count=config.accumulate,
            batch_size=self.batch_size,
            pin=accelerator.device.type == "cuda",
        )
        with _signals() as told:
            first = step
            ahead = self.loader.ahead(lambda number, batch: cut(self.task, batch, first + number))
            batches = sent(ahead, accelerator.device)
            try:
                if step and self._validates(step):
                    # A run that stopped between a step and its validation, or its figures, catches up on
                    # them; but only a validation has examples to draw.
                    if self.validated != step:
                        validated, best = self._validate(step)
                        self._save(step, best)
                    self._finish(step)
                while step < config.steps:
                    began = time.perf_counter()
                    batch = next(batches)
                    waited = time.perf_counter() - began
                    if step == 0:
                        self.task.begin(self.module, [one.inputs for one in batch.pieces], accelerator)
                    if not flops:
                        flops = self._flops(batch, step)
                    losses = self._step(batch.pieces, step)
                    if pending is not None:
                        self._check(pending)
                    pending = _Numbers(step, self._numbers(losses), batch.batch.key, batch.batch.t)
                    self.position = batch.position
                    step += 1
                    for name, count in self.task.after_step(self.module, step, accelerator).items():
                        counts[name] = counts.get(name, 0.0) + count
                    logs = step % config.log_every == 0 or step == config.steps
                    if logs:
                        self._check(pending)  # waits for the device, which is part of the step's time
                    clock.add(self.batch_size, waited, time.perf_counter() - began)
                    if logs:
                        rates = clock.window()
                        values = self._metrics(losses, counts, rates, step, flops, peak)
                        counts = {}
                        self._record("train", step, values)
                        self.log.line(step, values["loss"], rates)
                        self._warn(step, values)
                    stopped = self._agree(told.is_set(), logs)
                    validates = self._validates(step)
                    if stopped or validates or step % config.save_every == 0 or step == config.steps:
                        self._check(pending)
                        self._check_weights(step, pending)
                        best = False
                        if validates and not stopped:
                            validated, best = self._validate_and_keep(step)
                        self._save(step, best)
                        if validates and not stopped:
                            self._finish(step)
                    if stopped:
                        break
                if not self.validate_every and not stopped:
                    self._finish(step)
                self.writer.wait()
            finally:
                batches.close()  # type: ignore[attr-defined]
                ahead.close()  # type: ignore[attr-defined]
                self.log.close()
        return Result(
            step=step,
            stopped=stopped,
            metrics=validated or last_validation(self.run) or {},
            throughput=clock.whole.throughput,
            waiting=clock.whole.waiting,
        )

    def _step(self, pieces: list[Piece], step: int) -> dict[str, Tensor]:
        """One optimizer step: the rank's batch in pieces, then the update."""
        accelerator, config = self.accelerator, self.config
        for group in self.plain.param_groups:
            group["lr"] = learning_rate(step, config) * group.get("rate", 1.0)
        self.module.train()
        sums: dict[str, Tensor] = {}
        norm = torch.zeros((), device=accelerator.device)
        for piece in pieces:
            with accelerator.accumulate(self.model):
                loss, metrics = self.task.loss(self.model, piece.inputs, piece.rows)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    limit = config.clip or float("inf")
                    found = accelerator.clip_grad_norm_(self.module.parameters(), limit)
                    assert found is not None
                    norm = found.full_tensor() if isinstance(found, DTensor) else found.detach()
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
            for name, value in {"loss": loss, **metrics}.items():
                value = value.detach().float() / len(pieces)
                sums[name] = sums[name] + value if name in sums else value
        return {**sums, "grad_norm": norm}

    def _flops(self, data: StepBatch, step: int) -> float:
        """FLOPs of a step on this rank, counted on one sample without changing any state."""
        module = self.module
        compiled, module._compiled_call_impl = module._compiled_call_impl, None
        counter = FlopCounterMode(display=False)
        with torch.random.fork_rng(devices=[]), counter:
            self.module.eval()
            piece = BatchSlice(step, torch.zeros(1, dtype=torch.int64), self.batch_size)
            inputs = to_device(self.task.inputs(data.batch.take(slice(0, 1)), piece), self.accelerator.device)
            loss, _ = self.task.loss(self.module, inputs, piece)
            learning = [one for one in module.parameters() if one.requires_grad]
            if self.sharded:
                torch.autograd.backward(loss)  # on all ranks alike
                module.zero_grad(set_to_none=True)
            else:
                # Not backward(): it would set off the exchange of gradients between ranks.
                torch.autograd.grad(loss, learning, allow_unused=True)
        module._compiled_call_impl = compiled
        return float(counter.get_total_flops()) * len(data.batch)

    def _metrics(
        self,
        losses: Mapping[str, Tensor],
        counts: Mapping[str, float],
        rates: Rates,
        step: int,
        flops: float,
        peak: float | None,
    ) -> dict[str, Any]:
        """Losses as means over the ranks, and throughput."""
        names = sorted(name for name in losses if name != "grad_norm")
        mine = torch.stack([losses[name] for name in names])
        means = self.accelerator.reduce(mine, "mean").tolist()
        values: dict[str, Any] = dict(zip(names, means, strict=True))
        if self.accelerator.num_processes > 1:
            values["loss_max"] = self.accelerator.gather(losses["loss"][None]).max().item()
        values["grad_norm"] = losses["grad_norm"].item()
        values["lr"] = learning_rate(step - 1, self.config)
        values |= counts
        if rates.known:
            # Those of the slowest rank: the others only wait for it.
            times = torch.tensor([[rates.waiting, rates.step_s]], device=self.accelerator.device)
            waiting, step_s = self.accelerator.gather(times).max(0).values.tolist()
            values["throughput"] = self.batch_size / step_s
            values["data_loading (%)"] = waiting
            if flops:
                values["tflops"] = flops / step_s / 1e12
                values["mfu (%)"] = 100 * flops / step_s / peak if peak else None
        if self.accelerator.device.type == "cuda":
            values["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        return values

    def _numbers(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Loss and norm of the gradient of every rank: [W, 2].

        A loss may overflow although its gradient does not, and the rank that sees it must not stop alone. So
        ranks exchange these eight bytes in every step; on a GPU that is queued.
        """
        mine = torch.stack([losses["loss"], losses["grad_norm"]])[None]
        return self.accelerator.gather(mine) if self.accelerator.num_processes > 1 else mine

    def _check(self, of: _Numbers) -> None:
        """Stop at a loss or gradient that is not finite.

        Every rank sees the numbers of all ranks, so they stop at the same step. The message names the samples
        of the ranks whose loss is not finite, or of all ranks if only the shared gradient is not.
        """
        rows = of.read()
        bad = [not math.isfinite(loss) for loss, _ in rows]
        if not any(bad):
            bad = [not math.isfinite(norm) for _, norm in rows]
        if any(bad):
            loss, norm = rows[bad.index(True)]
            every = self._everyones(samples(of.keys, of.times))
            names = [name for own, wrong in zip(every, bad, strict=True) if wrong for name in own]
            what = f"the loss is {loss:g} and the norm of its gradient {norm:g}"
            self._refuse(of.step + 1, what, names)

    def _check_weights(self, step: int, last: _Numbers) -> None:
        """Refuse weights and moments that are not finite, before they are validated or saved."""
        found = self._everyones(not_finite(state_tensors(self.module, self.plain)))
        if wrong := next(filter(None, found), None):
            every = self._everyones(samples(last.keys, last.times))
            names = [name for own in every for name in own]
            self._refuse(step, f"{wrong} is not finite after its update", names)

    def _refuse(self, step: int, what: str, names: list[str]) -> NoReturn:
        raise NotFiniteError(
            f"step {step:,}: {what}; batch of {some(names)}; {self._good()}; "
            "try a smaller train.lr, train.clip=1, or train.precision=fp32"
        )

    def _good(self) -> str:
        self.writer.wait()
        path = find(self.run)
        return "none was saved" if path is None else f"the last checkpoint is {path}"

    def _everyones(self, own: Any) -> list[Any]:
        """Gather the values of all ranks."""
        if self.accelerator.num_processes == 1:
            return [own]
        found: list[Any] = gather_object([own])
        return found

    def _validates(self, step: int) -> bool:
        every = self.validate_every
        return bool(every) and (step % every == 0 or step == self.config.steps)

    def _agree(self, told: bool, logs: bool) -> bool:
        """Whether to stop; ranks must stop at the same step, so they ask each other when metrics are due."""
        if self.accelerator.num_processes == 1:
            return told
        if not logs:
            return False
        flag = torch.tensor([float(told)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum").item() > 0)

    def _validate(self, step: int) -> tuple[dict[str, Any], bool]:
        began = time.perf_counter()
        self.module.eval()
        try:
            with explained("val.batch_size", "take a smaller batch"):
                values = self.task.validate(self.module, step, self.accelerator, self.record)
        except NotFiniteError as error:
            raise NotFiniteError(f"step {step:,}, validation: {error}; {self._good()}") from error
        self.module.train()
        (score,) = broadcast_object_list([values.get(self.task.score)])
        self._record("val", step, {**values, "seconds": time.perf_counter() - began})
        if score is not None:
            self.log.say(f"{self.task.label}: step {step:,}, {self.task.score} {score:.3f}")
        self._warn(step, values)
        self.validated = step
        if score is not None and score < self.best:
            self.best = score
            return values, True
        return values, False

    def _validate_and_keep(self, step: int) -> tuple[dict[str, Any], bool]:
        """Validate. If that fails at the end of a run, the last step is saved nevertheless, unless its
        weights are of no use. One rank may have failed alone, so the main process saves without asking the
        others."""
        if step != self.config.steps:
            return self._validate(step)
        if self.sharded:
            self._save(step, False)  # which takes all ranks
            return self._validate(step)
        random = self._random_states()
        try:
            return self._validate(step)
        except NotFiniteError:
            raise
        except BaseException:
            if self.accelerator.is_main_process:
                self.writer.save(step, self._tensors(random), self._state(), alone=True)
            raise

    def _record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write a line of metrics."""
        on_main(lambda: self.log.metrics(kind, step, values), self.accelerator)

    def _warn(self, step: int, values: Mapping[str, Any]) -> None:
        for warning in self.task.warnings(values):
            self.log.warn(f"step {step:,}: {warning}")

    def _finish(self, step: int) -> None:
        """Draw figures: after the checkpoint, which must not be lost to a disk that they fill. Weights that
        are sharded are gathered once, at the end of the run."""
        weights: Mapping[str, Tensor] | None = self.module.state_dict()
        if self.sharded:
            weights = gather(self.module) if step == self.config.steps else None

        def draw() -> None:
            self.task.finish(self.module, self.run, weights)
            self.log.images(step)

        on_main(draw, self.accelerator)

    def _save(self, step: int, best: bool) -> None:
        random = self._random_states()
        mine = self._tensors(random) if self.sharded or self.accelerator.is_main_process else {}
        self.writer.save(step, mine, self._state(), best=best)

    def _tensors(self, random: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a checkpoint."""
        return {**state_tensors(self.module, self.plain), **random}

    def _random_states(self) -> dict[str, Tensor]:
        """Random states of all ranks, by their names in a checkpoint."""
        every = self._everyones(checkpoints.random_states())
        return {
            f"random/{rank}/{name}": state for rank, own in enumerate(every) for name, state in own.items()
        }

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds beside tensors and the step."""
        return {
            "loader": self.loader.state_dict(self.position),
            "best": self.best if self.best < float("inf") else None,
            "validated": self.validated,
            "scored": self.task.scored(),
            "trained_on": None if self.record is None else self.record.plain(),
            "identity": self.task.identity(),
            "batch_size": self.batch_size,
            "world_size": self.accelerator.num_processes,
            **self.task.state(),
        }


class _Numbers:
    """Loss and norm of the gradient of every rank after a step, to be read later.

    Args:
        step: index of the step.
        numbers: float32 [W, 2], on the device.
        keys: key of the episode of each row of this rank.
        times: int64 [B]: step of each row in its episode.
    """

    def __init__(self, step: int, numbers: Tensor, keys: list[str], times: Tensor) -> None:
        self.step, self.keys, self.times = step, keys, times
        self._here = numbers.to("cpu", non_blocking=True)
        self._copied = torch.cuda.current_stream(numbers.device).record_event() if numbers.is_cuda else None

    def read(self) -> list[list[float]]:
        """Wait for this step, not for those that the device was given since."""
        if self._copied is not None:
            self._copied.synchronize()
        found: list[list[float]] = self._here.numpy().tolist()
        return found


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """Inside the block, SIGTERM and SIGUSR1 (SLURM's warning) set an event instead of ending the process."""
    event = threading.Event()
    before: dict[int, Any] = {}

    def tell(number: int, frame: FrameType | None) -> None:
        event.set()

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, tell) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
