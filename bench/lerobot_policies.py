"""LeRobot's own policies train from `Batch.lerobot()`: ACT, diffusion policy and SmolVLA, each made tiny.

    python3.12 -m venv PEER && PEER/bin/pip install 'lerobot[training,diffusion,smolvla]==0.6.1'
    python bench/lerobot_policies.py PEER/bin/python

LeRobot needs a newer Python and an older PyTorch than oxcart, so there are two processes. This one reads a
batch of the sample kitchens for each policy; PEER sends it through LeRobot's preprocessor and trains on it
alone. The loss must fall below half. Nothing is downloaded: backbones are random, and the language model of
SmolVLA is that of `oxcart sample vlm`. Without PEER only the batches are made. It takes about a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

STEPS = 20


def main() -> None:
    """Write the batches and have them trained on, or train on them."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("peer", nargs="?", help="Python of an environment with LeRobot")
    options.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.train:
        train(chosen.train)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        if chosen.peer:
            command = [chosen.peer, "-P", __file__, "--train", name]  # or lerobot.py here is LeRobot
            subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})


def write(folder: Path) -> None:
    """Write a batch for each policy, and a vision-language model."""
    from oxcart.compile.pipeline import CompileConfig, execute, prepare
    from oxcart.compile.plan import Settings
    from oxcart.compile.sample.rlds import RldsSampleConfig, write_rlds
    from oxcart.compile.sources.base import SourceConfig
    from oxcart.train.data import Loader, Window
    from oxcart.train.vla.tiny import VlmConfig, write_vlm

    source = write_rlds(folder / "source", RldsSampleConfig(kitchens=2, steps=24, size=96))
    cameras = SourceConfig(url=str(source), cameras=("image_0", "wrist"))
    kitchens = str(folder / "kitchens")
    execute(prepare(CompileConfig(out=kitchens, source=cameras, settings=Settings(), workers=1)))
    one, both = {"primary": 0, "wrist": 0}, {"primary": (0,), "wrist": (0,)}
    windows = {
        "act": Window(frames=one, state=0, action=range(16), pad="repeat"),
        "diffusion": Window(frames={"primary": (-1, 0)}, state=(-1, 0), action=range(-1, 15), pad="repeat"),
        "smolvla": Window(frames=both, state=(0,), action=range(16), pad="repeat"),
    }
    for policy, window in windows.items():
        batch = Loader(kitchens, sample=window, batch_size=8, size=96).draw(8).lerobot()
        torch.save(batch, folder / f"{policy}.pt")
        shapes = ", ".join(f"{key} {[*value.shape]}" for key, value in batch.items() if key != "task")
        print(f"{policy}: {shapes}", flush=True)
    write_vlm(folder / "vlm", VlmConfig(family="smolvlm"))
    names = {"image": "<image>", "fake_image": "<fake_token_around_image>", "global_image": "<global-img>"}
    file = folder / "vlm" / "tokenizer_config.json"
    special = {"extra_special_tokens": {f"{name}_token": token for name, token in names.items()}}
    file.write_text(json.dumps(json.loads(file.read_text()) | special))


def train(folder: Path) -> None:
    """Train each policy on its batch, in the environment of LeRobot."""
    from lerobot.policies.factory import make_pre_post_processors

    torch.set_num_threads(1)
    for name, make in POLICIES.items():
        torch.manual_seed(0)
        batch = torch.load(folder / f"{name}.pt")
        policy = make(batch, folder)
        batch = make_pre_post_processors(policy.config)[0](batch)
        optimizer = torch.optim.Adam(policy.get_optim_params(), lr=1e-3)
        policy.train()
        losses = []
        for _ in range(STEPS):
            torch.manual_seed(0)  # the same noise, so that the loss can fall on one batch
            loss, _ = policy.forward(dict(batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"{name}: the loss fell from {losses[0]:.3f} to {losses[-1]:.3f} in {STEPS} steps", flush=True)
        assert losses[-1] < losses[0] / 2


def act(batch: dict[str, Any], folder: Path) -> Any:
    """ACT: one observation, a chunk of 16 actions."""
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    small = {"dim_model": 32, "n_heads": 2, "dim_feedforward": 64, "n_encoder_layers": 1, "latent_dim": 8}
    chunk = {"chunk_size": 16, "n_action_steps": 16}
    return ACTPolicy(ACTConfig(**features(batch), **small, **chunk, pretrained_backbone_weights=None))


def diffusion(batch: dict[str, Any], folder: Path) -> Any:
    """Diffusion policy: two observations, a horizon of 16 actions from the first of them."""
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    small = {"down_dims": (16, 32), "diffusion_step_embed_dim": 16, "n_groups": 4}
    steps = {"n_obs_steps": 2, "horizon": 16, "n_action_steps": 8, "do_mask_loss_for_padding": True}
    return DiffusionPolicy(
        DiffusionConfig(**features(batch), **small, **steps, pretrained_backbone_weights=None)
    )


def smolvla(batch: dict[str, Any], folder: Path) -> Any:
    """SmolVLA: two cameras, an instruction, a chunk of 16 actions."""
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    small = {"vlm_model_name": str(folder / "vlm"), "num_vlm_layers": 2, "resize_imgs_with_padding": (64, 64)}
    return SmolVLAPolicy(SmolVLAConfig(**features(batch), **small, chunk_size=16, n_action_steps=16))


def features(batch: dict[str, Any]) -> dict[str, Any]:
    """What a policy's configuration says of the keys of a batch."""
    from lerobot.configs import FeatureType, PolicyFeature

    images = [key.removesuffix("_padding_mask") for key in batch if key.endswith("_padding_mask")]
    inputs = {key: PolicyFeature(FeatureType.VISUAL, batch[key].shape[-3:]) for key in images}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, batch["observation.state"].shape[-1:])
    outputs = {"action": PolicyFeature(FeatureType.ACTION, batch["action"].shape[-1:])}
    return {"input_features": inputs, "output_features": outputs, "device": "cpu", "push_to_hub": False}


POLICIES: dict[str, Callable[[dict[str, Any], Path], Any]] = {
    "act": act,
    "diffusion": diffusion,
    "smolvla": smolvla,
}

if __name__ == "__main__":
    main()
