"""Save and load a trained model: `RUN/model` is a model of transformers, its processor, and the ids of codes.

    policy, about = load_policy(Path("runs/vla"))

    RUN/model/
        config.json  model.safetensors  tokenizer.json ...     files of from_pretrained
        action.json                                             ids, template, size of frames
        action_head.safetensors                                 vectors of vla.head=head

Low-rank adapters are merged into the weights. Each validation writes the folder under another name and then
renames it.
"""

from __future__ import annotations

import contextlib
import copy
import json
import stat
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from oxcart.shards.errors import ConfigError, CorruptError, StoreError
from oxcart.shards.files import remove
from oxcart.train.device import in_bf16, pick_device, use_tf32
from oxcart.train.finite import not_finite
from oxcart.train.vla.config import HEADS
from oxcart.train.vla.emit import Policy
from oxcart.train.vla.ids import ActionIds
from oxcart.train.vla.model import ActionModel, Shape, load_backbone, own_rows
from oxcart.train.vla.processor import load_processor, quieten, save_processor
from oxcart.train.vla.prompt import Prompt, Prompter

LARGEST = 1 << 13
"""Maximum side of a frame, in pixels."""
FOLDER, ABOUT, HEAD = "model", "action.json", "action_head.safetensors"


def save_policy(
    policy: Policy,
    processor: Any,
    run: Path,
    source: str,
    about: Mapping[str, Any],
    weights: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write `RUN/model`.

    Args:
        policy: the trained policy.
        processor: processor with the added tokens.
        run: directory of the run.
        source: the model that training started from.
        about: other facts that prediction needs; `lora` says whether there are adapters to merge.
        weights: all weights of the policy's model by name; None takes them from the model.

    Raises:
        StoreError: the model cannot be written; the previous one is unchanged.
    """
    quieten()
    final, temporary = run / FOLDER, run / f".{FOLDER}"
    try:
        remove(temporary)
        temporary.mkdir(parents=True)
        _write(policy, processor, temporary, source, about, weights)
        mode = stat.S_IMODE((temporary / ABOUT).stat().st_mode)
        for path in temporary.iterdir():
            path.chmod(mode)  # safetensors makes its files readable by their owner alone
        remove(final)
        temporary.rename(final)
    except Exception as error:
        with contextlib.suppress(OSError):
            remove(temporary)
        # tokenizers raises a plain Exception where the disk is full.
        if not isinstance(error, OSError | SafetensorError) and "No space" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise StoreError(f"{final}: the model cannot be written ({reason}); make room") from error
    return final


def _write(
    policy: Policy,
    processor: Any,
    folder: Path,
    source: str,
    about: Mapping[str, Any],
    weights: Mapping[str, Tensor] | None,
) -> None:
    """Write the files of `save_policy`."""
    model = policy.model
    backbone: Any = model.backbone
    if about["lora"]:
        # The copy is on the CPU: a GPU that trains has no room for another model.
        elsewhere = [one for one in (*backbone.parameters(), *backbone.buffers()) if one.device.type != "cpu"]
        copied: dict[int, Any] = {
            id(one): nn.Parameter(one.detach().cpu(), one.requires_grad)
            if isinstance(one, nn.Parameter)
            else one.cpu()
            for one in elsewhere
        }
        copy.deepcopy(backbone, copied).merge_and_unload().save_pretrained(folder)
    else:
        found = model.state_dict() if weights is None else weights
        below = "backbone."
        backbone.save_pretrained(
            folder,
            state_dict={
                name.removeprefix(below): one for name, one in found.items() if name.startswith(below)
            },
        )
    save_processor(processor, folder, source)
    if model.own is not None:
        rows = {name: value.detach().cpu() for name, value in model.own.state_dict().items()}
        save_file(rows, str(folder / HEAD))
    known = {"shape": asdict(policy.shape), "ids": model.ids.all, "prompt": policy.prompter.describe()}
    (folder / ABOUT).write_text(json.dumps({**known, **about}, indent=2) + "\n", encoding="utf-8")


def load_policy(run: Path, device: str = "auto") -> tuple[Policy, dict[str, Any]]:
    """Load the policy that `save_policy` wrote.

    Args:
        run: directory of the run.
        device: `cpu`, `cuda`, or `auto`.

    Raises:
        ConfigError: the run has no model yet, or there is no GPU.
        CorruptError: a part of the model is missing, cannot be read, or is not finite.
    """
    folder = run / FOLDER
    if not (folder / ABOUT).exists():
        raise ConfigError(
            f"{run}: no {FOLDER}/{ABOUT} in it; the first validation writes the model: oxcart train vla "
            f"run.dir={run}"
        )
    where = pick_device(device)
    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
        shape, prompt = Shape(**about["shape"]), Prompt(**about["prompt"])
        ids = ActionIds.of(about["ids"], shape.codes)
        height, width = about["frames"]
        if shape.head not in HEADS:
            raise ValueError(f"its head is {shape.head!r}, expected {' or '.join(HEADS)}")
        if not all(isinstance(side, int) and 1 <= side <= LARGEST for side in (height, width)):
            raise ValueError(f"frames of {about['frames']} pixels")
        if not isinstance(about["producer"], str) or not isinstance(about["laq"], str | None):
            raise ValueError("it does not say which latent-action model made the codes")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"{folder / ABOUT}: cannot be read: {error}") from error
    processor, backbone = load_processor(str(folder)), load_backbone(str(folder), whole=True)
    own = None
    if shape.head == "head":
        _, own = own_rows(backbone, shape.codes, shape.tokens)
        try:
            own.load_state_dict(load_file(str(folder / HEAD)))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise CorruptError(f"{folder / HEAD}: is not the head of this model: {reason}") from error
    model = ActionModel(backbone, ids, own)
    if name := not_finite(model.state_dict()):
        raise CorruptError(
            f"{folder}: {name} holds numbers that are not finite; train again from an earlier checkpoint"
        )
    model = model.to(where).eval()
    prompter = Prompter(processor, prompt, ids, shape.decoding, shape.tokens, str(folder))
    if where.type == "cuda":
        use_tf32(bool(about.get("tf32", True)))
    bf16 = in_bf16(str(about.get("precision")), where)
    return Policy(model=model, prompter=prompter, shape=shape, device=where, bf16=bf16), about
