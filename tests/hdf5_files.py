"""Tiny HDF5 files in the layouts of robomimic and ALOHA, and what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from oxcart.shards.jpeg import encode_jpeg

Frames = npt.NDArray[np.uint8]
WIDTHS = {"robot0_eef_pos": 3, "robot0_gripper_qpos": 2}
"""Observations of robomimic -> values per step."""


def moving(number: int, steps: int, height: int = 16, width: int = 24) -> Frames:
    """Frames [T, H, W, 3] that differ for each number, smooth enough for JPEG."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(30, 220, (steps, height // 8, width // 8, 3))
    return np.kron(coarse, np.ones((1, 8, 8, 1))).astype(np.uint8)


def robomimic(path: Path, demos: int = 6, *, compression: str | None = None) -> list[dict[str, Any]]:
    """Write one file of several demos, numbered as robomimic does, and return what each holds."""
    told = []
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        for number in range(demos):
            steps, rng = 5 + number, np.random.default_rng(number)
            one: dict[str, Any] = {
                "agentview_image": moving(number, steps),
                "robot0_eye_in_hand_image": moving(100 + number, steps, 8, 8),
                "actions": rng.normal(size=(steps, 7)),
                "rewards": np.arange(steps, dtype=np.float64),
                **{name: rng.normal(size=(steps, width)) for name, width in WIDTHS.items()},
            }
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = steps
            demo.attrs["scene"] = f"table {number // 2}"
            obs = demo.create_group("obs")
            for name in ("agentview_image", "robot0_eye_in_hand_image", *WIDTHS):
                obs.create_dataset(name, data=one[name], compression=compression)
            demo.create_group("next_obs").create_dataset("agentview_image", data=one["agentview_image"])
            demo.create_dataset("actions", data=one["actions"])
            demo.create_dataset("rewards", data=one["rewards"])
            demo.create_dataset("dones", data=np.arange(steps) == steps - 1)
            told.append(one)
        mask = file.create_group("mask")
        mask["train"] = np.array([f"demo_{number}" for number in range(1, demos)], "S")
        mask["valid"] = np.array(["demo_0"], "S")
        mask["20_percent"] = np.array(["demo_0", "demo_1"], "S")
    return told


def aloha(path: Path, number: int = 0, *, images: str = "raw") -> dict[str, Any]:
    """Write the file of an episode; `images` is `raw`, or how it has JPEGs: `padded`, `vlen`, `bytes`."""
    steps, rng = 5 + number, np.random.default_rng(number)
    told: dict[str, Any] = {
        "cam_high": moving(number, steps),
        "cam_left_wrist": moving(50 + number, steps, 8, 16),
        "action": rng.normal(size=(steps, 14)).astype(np.float32),
        "qpos": rng.normal(size=(steps, 14)),
        "qvel": rng.normal(size=(steps, 14)),
    }
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = False
        file.attrs["compress"] = images != "raw"
        cameras = file.create_group("observations/images")
        lengths = []
        for name in ("cam_high", "cam_left_wrist"):
            if images == "raw":
                cameras.create_dataset(name, data=told[name], chunks=(1, *told[name].shape[1:]))
                continue
            jpegs = [encode_jpeg(frame, 90) for frame in told[name]]
            told[f"{name} jpegs"] = jpegs
            lengths.append([len(jpeg) for jpeg in jpegs])
            if images == "vlen":
                rows = cameras.create_dataset(name, (steps,), h5py.vlen_dtype(np.uint8))
                for step, jpeg in enumerate(jpegs):
                    rows[step] = np.frombuffer(jpeg, np.uint8)
            elif images == "bytes":
                cameras.create_dataset(name, data=np.array(jpegs, "S"))
            else:
                longest = max(map(len, jpegs)) + 7
                rows = [np.frombuffer(jpeg.ljust(longest, b"\0"), np.uint8) for jpeg in jpegs]
                cameras.create_dataset(name, data=np.stack(rows))
        if images == "padded":
            file["compress_len"] = np.array(lengths)
        file["observations/qpos"], file["observations/qvel"] = told["qpos"], told["qvel"]
        file["action"] = told["action"]
    return told
