"""Two datasets for tests of windows: episodes of 2 to 20 steps, some of whose ends hold no action.

arm      action [T, 4] and state [T, 3]; cameras `image` (primary) 12x16 and `hand` (wrist) 8x10
legged   action [T, 2] and state [T, 5]; the camera `image` alone
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.compile.sources.base import EnvironmentRule, SourceConfig
from oxcart.manifests.annotation import Annotation, write_annotation
from oxcart.manifests.split import SplitRule
from oxcart.shards.codec import Encoding
from rlds_builder import Image, Text, jpeg, noisy_frame, png, write_dataset
from sample_compile import compiled, rows_of
from toy_rlds import vector

LENGTHS = (2, 5, 9, 3, 20, 4, 7, 2)
"""Steps of each episode. Every second begins, and two of four end, without an action; the last has none."""
AHEAD = 3
"""Steps that the annotation `codes` looks ahead."""
HZ = {"arm": 5.0, "legged": 10.0}
CODES = "codes.parquet"
SHARD_SIZE = 8_000
"""Bytes of frames: one episode or a few."""


def compile_windowed(folder: Path) -> Mapping[str, Path]:
    """`raw`, `zstd`, `jpeg`: the dataset `arm` in each codec; `legged`. Each holds annotations."""
    roles = {"image": "primary", "hand": "wrist"}
    found = {}
    for codec in ("raw", "zstd", "jpeg"):
        source = _source(folder / f"of {codec}", "arm", 4, 3, ("image", "hand"), jpegs=codec == "jpeg")
        config = SourceConfig(
            url=str(source),
            cameras=("image", "hand"),
            roles=roles,
            environment=EnvironmentRule(field="episode_metadata/place", optional=True),
            action_names=("dx", "dy", "dz", "grip"),
            action_kinds=("0:3=delta", "grip=gripper_absolute"),
            state_kinds=("absolute",),
        )
        found[codec] = _compiled(config, folder / codec, codec)
    source = _source(folder / "of legged", "legged", 2, 5, ("image",), jpegs=False)
    config = SourceConfig(
        url=str(source),
        cameras=("image",),
        roles={"image": "primary"},
        action_kinds=("velocity",),
        state_kinds=("absolute",),
    )
    found["legged"] = _compiled(config, folder / "legged", "raw")
    return found


def _compiled(config: SourceConfig, out: Path, codec: str) -> Path:
    """Compile one of them, and write `codes.parquet` into it."""
    options: dict[str, Any] = {"encoding": Encoding(codec=codec), "rule": SplitRule(val=None)}
    manifest = compiled(Path(config.url), out, source=config, shard_size=SHARD_SIZE, **options)
    values = {row["key"]: codes(row["key"], row["steps"]) for row in rows_of(out)}
    annotation = Annotation(
        name="codes",
        producer="0" * 64,
        dataset=manifest.fingerprint,
        parameters={"offset": AHEAD},
        values=values,
    )
    write_annotation(str(out / CODES), annotation)
    return out


def codes(key: str, steps: int) -> npt.NDArray[np.int32]:
    """What the annotation says of an episode [T, 2]: the end of its key, and the step."""
    return np.stack([np.full(steps, int(key[-6:])), np.arange(steps)], axis=1).astype(np.int32)


def _source(
    folder: Path, name: str, actions: int, states: int, cameras: tuple[str, ...], *, jpegs: bool
) -> Path:
    sizes = {"image": (12, 16), "hand": (8, 10)}
    features: dict[str, Any] = {
        "steps": {
            "observation": {
                "state": vector(states),
                **{camera: Image(shape=(*sizes[camera], 3)) for camera in cameras},
            },
            "action": vector(actions),
            "language_instruction": Text(),
        },
        "episode_metadata": {"place": Text()},
    }
    image, salt = jpeg if jpegs else png, len(name)
    rng = np.random.default_rng(salt)
    episodes = []
    for i, steps in enumerate(LENGTHS):
        action = rng.uniform(0.1, 1, (steps, actions))
        action[: (0, 1, 0, 1)[i % 4]] = 0
        action[steps - (0, 0, 1, 1)[i % 4] :] = 0
        made = []
        for t in range(steps):
            images = {
                camera: image(noisy_frame(salt * 10_000 + 1_000 * i + 10 * t + j, *sizes[camera]))
                for j, camera in enumerate(cameras)
            }
            made.append(
                {
                    "observation": {
                        "state": rng.uniform(-1, 1, states),
                        **images,
                    },
                    "action": action[t],
                    "language_instruction": "" if i == 2 else f"do {i}" if t < 3 else f"then {i}",
                }
            )
        episodes.append({"steps": made, "episode_metadata": {"place": f"room {i // 2}" if i else ""}})
    return write_dataset(folder, features, episodes, name=name, files=2)
