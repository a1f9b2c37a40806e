"""Act with a trained policy: observations in, actions out, in the units of the dataset.

    controller = load_policy("runs/policy")
    controller.reset()
    while not done:
        action = controller.act({"image_0": image, "wrist": wrist}, state, "push the red block left")

A prediction is a chunk of actions. `execute` of them are carried out before the next prediction (receding
horizon). With `ensemble` the policy predicts at every step, and carries out the mean of all predictions for
that step, older ones weighted by exp(ensemble * age) (temporal ensembling of ACT: 0 weighs all alike).

Several episodes can run side by side. All rows go through the network together whenever one needs a
prediction, so the same rows in the same order give the same bits. The noise of a flow depends on the number
of the prediction in its episode alone.

With `decoder=`, a run of policy.backbone=codes, the policy emits its likeliest codes, and the decoder turns
them into actions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.train import checkpoint as checkpoints
from oxcart.train.data.normalizer import Normalizer
from oxcart.train.data.order import derive
from oxcart.train.device import autocast, in_bf16, pick_device, use_tf32
from oxcart.train.policy.config import PolicyConfig, policy_config
from oxcart.train.policy.model import PolicyModel, build_model
from oxcart.train.policy.spec import PolicySpec as PolicySpec
from oxcart.train.policy.words import Vocabulary

Floats = npt.NDArray[np.float32]


class Controller:
    """A policy that acts.

    Args:
        spec: what it sees and does; `execute` decides how often it predicts.
        model: its network, in eval mode, on its device.
        words: vocabulary of instructions.
        action: how actions were scaled.
        state: how states were scaled; None if they are not read.
        dataset: the dataset whose scales are used.
        device: device of the network.
        bf16: compute in bf16.
        ensemble: average predictions of several steps; None carries out each as it is.
        decoder: makes actions of the policy's codes; None takes the policy's own actions.
    """

    def __init__(
        self,
        *,
        spec: PolicySpec,
        model: PolicyModel,
        words: Vocabulary,
        action: Normalizer,
        state: Normalizer | None,
        dataset: str,
        device: torch.device,
        bf16: bool = False,
        ensemble: float | None = None,
        decoder: Controller | None = None,
    ) -> None:
        self.spec, self.latency = spec, 0.0
        """The interface of the policy, and the seconds that the last prediction took."""
        self._model, self._words, self._action, self._state = model, words, action, state
        self._dataset, self._device, self._bf16, self._ensemble = dataset, device, bf16, ensemble
        self._decoder = decoder
        about = {
            "spec": spec.plain(),
            "words": list(words.words),
            "scales": [action.to_json(), None if state is None else state.to_json(), dataset],
            "ensemble": ensemble,
            "bf16": bf16,
            "decoder": None if decoder is None else decoder.fingerprint,
        }
        self.fingerprint: str = checkpoints.fingerprint(about, self.weights())
        """Identifies everything that actions depend on."""
        self.reset()

    def reset(self, count: int = 1) -> None:
        """Forget all episodes; `count` run side by side from here on."""
        self._made: list[list[tuple[int, Floats]]] = [[] for _ in range(count)]
        """Of each row, its predictions that are still of use: step of the first action, and the chunk."""
        self._steps = [0] * count
        self._predictions = [0] * count
        past = 1 - min(0, self.spec.frames[0])
        self._seen = {name: np.zeros((count, past, *size, 3), np.uint8) for name, size in self.spec.cameras}
        """The last frames of each camera, [B, p, H, W, 3]."""

    def act(self, images: Mapping[str, npt.NDArray[np.uint8]], state: Any, instruction: str) -> Floats:
        """The next action [A] of a single episode.

        Args:
            images: uint8 [H, W, 3] of each camera.
            state: float32 [S]; None if the policy does not read it.
            instruction: what the robot is told to do.

        Raises:
            ConfigError: an observation is not as the policy needs it.
        """
        many = {name: np.asarray(image)[None] for name, image in images.items()}
        row = None if state is None else np.asarray(state)[None]
        return self.act_batch(many, row, [instruction], None)[0]  # type: ignore[no-any-return]

    def act_batch(
        self,
        images: Mapping[str, npt.NDArray[np.uint8]],
        state: Any,
        instructions: Sequence[str],
        fresh: Sequence[bool] | npt.NDArray[np.bool_] | None = None,
    ) -> Floats:
        """The next actions [B, A] of B episodes that run side by side.

        Args:
            images: uint8 [B, H, W, 3] of each camera.
            state: float32 [B, S]; None if the policy does not read it.
            instructions: what each robot is told to do.
            fresh: rows that begin a new episode.

        Raises:
            ConfigError: an observation is not as the policy needs it.
        """
        if not self.spec.cameras:
            raise ConfigError("policy: this one decodes the codes of another: load_policy(RUN, decoder=...)")
        if self.spec.frames[-1] > 0:
            raise ConfigError(
                "policy: this one sees frames that follow, so it labels recordings (oxcart label --policy) "
                "and cannot act"
            )
        count = len(instructions)
        if count != len(self._made):
            raise ConfigError(
                f"instructions: expected {len(self._made)} rows, as many as reset(count) said, got {count}"
            )
        for row in np.flatnonzero(fresh if fresh is not None else []).tolist():
            self._made[row], self._steps[row], self._predictions[row] = [], 0, 0
        inputs = self._inputs(images, state, instructions)
        needs = [self._needs(row) for row in range(count)]
        if any(needs):
            chunks = self._predict(inputs)
            for row in np.flatnonzero(needs).tolist():
                kept = self._made[row] if self._ensemble is not None else []
                self._made[row] = [*kept, (self._steps[row], chunks[row])][-self.spec.horizon :]
                self._predictions[row] += 1
        found = np.stack([self._next(row) for row in range(count)])
        self._steps = [step + 1 for step in self._steps]
        return found

    def _needs(self, row: int) -> bool:
        """Whether a row needs a prediction at this step."""
        made = self._made[row]
        return not made or self._ensemble is not None or self._steps[row] - made[-1][0] >= self.spec.execute

    def _next(self, row: int) -> Floats:
        """The action of a row at its step, from its predictions."""
        step = self._steps[row]
        told = [(step - first, chunk) for first, chunk in self._made[row] if step - first < len(chunk)]
        if self._ensemble is None:
            age, chunk = told[-1]
            return chunk[age]  # type: ignore[no-any-return]
        weights = np.exp([self._ensemble * age for age, _ in told])
        values = np.stack([chunk[age] for age, chunk in told]).astype(np.float64)
        return (weights / weights.sum() @ values).astype(np.float32)  # type: ignore[no-any-return]

    def _predict(self, inputs: dict[str, Tensor]) -> Floats:
        """Chunks of actions [B, K, A], in the units of the dataset."""
        began = time.perf_counter()
        shape = self.spec.horizon, len(self.spec.action)
        inputs["noise"] = torch.stack(
            [
                torch.randn(shape, generator=torch.Generator().manual_seed(derive(0, 54, number) >> 1))
                for number in self._predictions
            ]
        )
        found = self._forward(inputs)
        self.latency = time.perf_counter() - began
        return found

    def _forward(self, inputs: Mapping[str, Tensor]) -> Floats:
        """Chunks of actions [B, K, A] in the units of the dataset, from inputs of the network."""
        moved = {name: value.to(self._device) for name, value in inputs.items()}
        with autocast(self._bf16, self._device):
            scaled, logits = self._model.act(moved)
        if self._decoder is not None:
            assert logits is not None
            return self._decoder._forward({**inputs, "codes": logits.argmax(-1)})
        found: Floats = self._action.inverse(scaled.float().cpu(), self._dataset).numpy()
        return found

    def tell(self, frames: Mapping[str, Tensor], instructions: Sequence[str]) -> Floats:
        """The actions [B, K, A] of recorded frames uint8 [B, k, H, W, 3] of each camera, in the units of the
        dataset; for policies that do not read the state."""
        count = len(instructions)
        inputs = {f"frames.{name}": one for name, one in frames.items()}
        inputs |= {"words": self._words.encode(instructions), "known": torch.ones(count, dtype=torch.bool)}
        inputs["noise"] = torch.zeros(count, self.spec.horizon, len(self.spec.action))
        return self._forward(inputs)

    def weights(self) -> dict[str, Tensor]:
        """The weights of the network, by name."""
        return {name: one.cpu() for name, one in self._model.state_dict().items()}

    def _inputs(
        self, images: Mapping[str, npt.NDArray[np.uint8]], state: Any, instructions: Sequence[str]
    ) -> dict[str, Tensor]:
        """Inputs of the network from observations, after their check."""
        count, spec = len(instructions), self.spec
        found = {"words": self._words.encode(instructions), "known": torch.ones(count, dtype=torch.bool)}
        for name, size in spec.cameras:
            if name not in images:
                there = ", ".join(images) or "none"
                raise ConfigError(f"images: the policy sees camera {name!r}, got {there}")
            image, shape = np.asarray(images[name]), (count, *size, 3)
            if image.dtype != np.uint8 or image.shape != shape:
                raise ConfigError(
                    f"images: camera {name!r}: expected uint8 {list(shape)}, got {image.dtype} "
                    f"{list(image.shape)}; the policy was trained on frames of {size[0]}x{size[1]} pixels"
                )
            seen = self._seen[name]
            seen[:, :-1] = seen[:, 1:].copy()
            seen[:, -1] = image
            for row in range(count):
                if self._steps[row] == 0:
                    seen[row] = image[row]
            steps = [seen.shape[1] - 1 + step for step in spec.frames]
            found[f"frames.{name}"] = torch.from_numpy(seen[:, steps])
        if self._state is not None:
            values = np.zeros((0,)) if state is None else np.asarray(state, np.float32)
            if values.shape != (count, len(spec.state)) or not np.isfinite(values).all():
                told = ", ".join(spec.state)
                got = "none" if state is None else f"{list(values.shape)}"
                raise ConfigError(
                    f"state: expected finite numbers {[count, len(spec.state)]} ({told}), got {got}"
                )
            found["state"] = self._state(torch.from_numpy(values), self._dataset)
        return found


def load_policy(
    run: str | Path,
    *,
    device: str = "auto",
    execute: int | None = None,
    ensemble: float | None = None,
    dataset: str | None = None,
    decoder: str | Path | None = None,
) -> Controller:
    """Load the policy of a run of `oxcart train policy`.

    Args:
        run: directory of the run, whose last checkpoint is read, since the error of actions does not tell
            which acts best; or the folder of a checkpoint.
        device: `cpu`, `cuda`, or `auto`.
        execute: actions to carry out before the next prediction; None takes what the run says.
        ensemble: predict at every step and average the predictions; see the module.
        dataset: name of the dataset whose robot acts, for a policy that was trained on several.
        decoder: run of a decoder of codes, which makes actions of the codes that the policy emits.

    Raises:
        ConfigError: the run has no checkpoint of a policy, an argument is invalid, or there is no GPU.
        CorruptError: the checkpoint is damaged.
    """
    path: Path | None = Path(run)
    if not (Path(run) / checkpoints.ABOUT).is_file():
        path = checkpoints.find(Path(run))
    if path is None:
        raise ConfigError(f"{run}: there is no checkpoint; train first: oxcart train policy run.dir={run}")
    where = pick_device(device)
    header = checkpoints.read_header(path)
    if "policy" not in header.state:
        raise ConfigError(f"{path}: holds no policy; train one: oxcart train policy")
    config, spec, words, action, state = _about(path, header.state)
    model = build_model(config, spec, len(words))
    shapes = {name: one.shape for name, one in model.state_dict().items()}
    checkpoints.check_shapes(path, header.model, shapes)
    model.load_state_dict(checkpoints.read(path, header, "model/"))
    if execute is not None and not 1 <= execute <= spec.horizon:
        raise ConfigError(f"execute: expected 1 to {spec.horizon}, the horizon of the policy, got {execute}")
    if dataset is None and len(spec.datasets) > 1:
        raise ConfigError(f"dataset: the policy has several scales; choose one of {', '.join(spec.datasets)}")
    name = dataset or spec.datasets[0]
    one_of("dataset", name, spec.datasets)
    if where.type == "cuda":
        use_tf32(config.train.tf32)
    decodes = None if decoder is None else load_policy(decoder, device=device, dataset=dataset)
    if decodes is not None:
        if decodes.spec.codes != spec.codes or decodes.spec.cameras or decodes.spec.state != spec.state:
            raise ConfigError(
                f"decoder: {decoder} does not decode the {spec.codes[0]} codes of {spec.codes[1]} that {run} "
                f"emits, from the same state; train it: oxcart train policy policy.backbone=codes"
            )
        horizon = decodes.spec.horizon
        spec = replace(spec, horizon=horizon, action=decodes.spec.action, execute=min(spec.execute, horizon))
    return Controller(
        spec=spec if execute is None else replace(spec, execute=execute),
        model=model.to(where).eval(),
        words=words,
        action=action,
        state=state,
        dataset=name,
        device=where,
        bf16=in_bf16(config.train.precision, where),
        ensemble=ensemble,
        decoder=decodes,
    )


def _about(
    path: Path, state: Mapping[str, Any]
) -> tuple[PolicyConfig, PolicySpec, Vocabulary, Normalizer, Normalizer | None]:
    """What a checkpoint says of its policy.

    Raises:
        CorruptError: it is not what a run wrote.
    """
    about = checkpoints.entry(path, state, "policy", dict)
    try:
        config = policy_config([], checkpoints.entry(path, state, "config", dict))
        return (
            config,
            PolicySpec.read(checkpoints.entry(path, about, "spec", dict)),
            Vocabulary(tuple(map(str, checkpoints.entry(path, about, "words", list)))),
            Normalizer.from_json(checkpoints.entry(path, about, "action", str)),
            Normalizer.from_json(about["state"]) if about["state"] is not None else None,
        )
    except (ConfigError, KeyError, AttributeError) as error:
        raise CorruptError(f"{path}: policy: {error}") from error
