"""Exact feature layouts of RLDS datasets, from which tests build tiny ones: what `features.json` says.

    LAYOUTS["bridge"]["steps"]["observation"]["image"] == ("image", 480, 640, None)
    features = tfds_features(LAYOUTS["bridge"])     # for `rlds_builder.write_dataset`
    episode = values(LAYOUTS["bridge"], 0, {"steps/observation/natural_language_instruction": "fold"})

`steps` holds the features of every step, everything else belongs to the episode. Names may contain "/"
(`future/xyz_residual` is one name of one dictionary). A leaf is one of

    ("image", height, width, encoding)   Image, uint8, 3 channels; encoding "jpeg", "png", or None: not stated
    ("text",)                            Text
    ("scalar", dtype)                    Scalar; dtype "string" is a Tensor of text
    ("tensor", shape, dtype)             Tensor
    ("tensor", shape, dtype, "zlib")     Tensor whose values a record stores as zlib-compressed bytes
    ("sequence", leaf)                   Sequence of leaves, of any length each step

Names, shapes and dtypes are those of docs/catalog/NAME.md in tensorflow/datasets, or of what a comment names;
encodings those of a mirror's features.json, listed in felixmin/high-level-robot-planner,
docs/openx_local_dataset_inventory.md.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow_datasets.core import features as tfds

from rlds_builder import Image, Tensor, Text, jpeg, noisy_frame, png

BOOL = ("scalar", "bool")
FLOAT = ("scalar", "float32")
INT = ("scalar", "int64")
STRING = ("scalar", "string")
TEXT = ("text",)
PIXELS = ("tensor", (128, 256, 3), "uint8")


def _floats(*shape: int) -> tuple[str, tuple[int, ...], str]:
    return ("tensor", shape, "float32")


def _doubles(*shape: int) -> tuple[str, tuple[int, ...], str]:
    return ("tensor", shape, "float64")


EDGES = {"is_first": BOOL, "is_last": BOOL, "is_terminal": BOOL}
DEMO = {**EDGES, "discount": FLOAT, "reward": FLOAT}
LANGUAGE = {"natural_language_instruction": STRING, "natural_language_embedding": _floats(512)}
GOOGLE_ACTION = {
    "base_displacement_vector": _floats(2),
    "base_displacement_vertical_rotation": _floats(1),
    "gripper_closedness_action": _floats(1),
    "rotation_delta": _floats(3),
    "terminate_episode": ("tensor", (3,), "int32"),
    "world_vector": _floats(3),
}

LAYOUTS: dict[str, dict[str, Any]] = {
    # features.json of octo-models/octo tests/debug_dataset, but 256x256: AndreHe02/bridge_rlds_builder.
    "bridge_dataset": {
        "steps": {
            **DEMO,
            "action": _floats(7),
            "language_instruction": TEXT,
            "language_embedding": _floats(512),
            "observation": {
                "image_0": ("image", 256, 256, "jpeg"),
                "image_1": ("image", 256, 256, "jpeg"),
                "image_2": ("image", 256, 256, "jpeg"),
                "image_3": ("image", 256, 256, "jpeg"),
                "state": _floats(7),
            },
        },
        "episode_metadata": {
            "file_path": TEXT,
            "episode_id": ("scalar", "int32"),
            "has_image_0": BOOL,
            "has_image_1": BOOL,
            "has_image_2": BOOL,
            "has_image_3": BOOL,
            "has_language": BOOL,
        },
    },
    "bridge": {
        "steps": {
            **EDGES,
            "reward": FLOAT,
            "action": {
                "open_gripper": BOOL,
                "rotation_delta": _floats(3),
                "terminate_episode": FLOAT,
                "world_vector": _floats(3),
            },
            "observation": {**LANGUAGE, "image": ("image", 480, 640, None), "state": _floats(7)},
        },
    },
    # Copies made by others may lack `aspects` and `attributes`.
    "fractal20220817_data": {
        "steps": {
            **EDGES,
            "reward": FLOAT,
            "action": GOOGLE_ACTION,
            "observation": {
                **LANGUAGE,
                "base_pose_tool_reached": _floats(7),
                "gripper_closed": _floats(1),
                "gripper_closedness_commanded": _floats(1),
                "height_to_bottom": _floats(1),
                "image": ("image", 256, 320, "jpeg"),
                "orientation_box": _floats(2, 3),
                "orientation_start": _floats(4),
                "robot_orientation_positions_box": _floats(3, 3),
                "rotation_delta_to_go": _floats(3),
                "src_rotation": _floats(4),
                "vector_to_go": _floats(3),
                "workspace_bounds": _floats(3, 3),
            },
        },
        "aspects": {
            "already_success": BOOL,
            "feasible": BOOL,
            "has_aspects": BOOL,
            "success": BOOL,
            "undesirable": BOOL,
        },
        "attributes": {
            "collection_mode": INT,
            "collection_mode_name": STRING,
            "data_type": INT,
            "data_type_name": STRING,
            "env": INT,
            "env_name": STRING,
            "location": INT,
            "location_name": STRING,
            "objects_family": INT,
            "objects_family_name": STRING,
            "task_family": INT,
            "task_family_name": STRING,
        },
    },
    # droid-dataset/droid, docs/the-droid-dataset.md; that the texts of metadata are Tensors is a guess.
    "droid": {
        "steps": {
            **DEMO,
            "action": _doubles(7),
            "action_dict": {
                "cartesian_position": _doubles(6),
                "cartesian_velocity": _doubles(6),
                "gripper_position": _doubles(1),
                "gripper_velocity": _doubles(1),
                "joint_position": _doubles(7),
                "joint_velocity": _doubles(7),
            },
            "language_instruction": STRING,
            "language_instruction_2": STRING,
            "language_instruction_3": STRING,
            "observation": {
                "cartesian_position": _doubles(6),
                "exterior_image_1_left": ("image", 180, 320, "jpeg"),
                "exterior_image_2_left": ("image", 180, 320, "jpeg"),
                "gripper_position": _doubles(1),
                "joint_position": _doubles(7),
                "wrist_image_left": ("image", 180, 320, "jpeg"),
            },
        },
        "episode_metadata": {"file_path": STRING, "recording_folderpath": STRING},
    },
    # tensorflow/datasets, language_table.py (0.0.1); that 0.1.0 has episode_id is a guess.
    "language_table": {
        "steps": {
            **EDGES,
            "reward": FLOAT,
            "action": _floats(2),
            "observation": {
                "effector_target_translation": _floats(2),
                "effector_translation": _floats(2),
                "instruction": ("tensor", (512,), "int32"),
                "rgb": ("image", 360, 640, "jpeg"),
            },
        },
        "episode_id": STRING,
    },
    "bc_z": {
        "steps": {
            **EDGES,
            "reward": FLOAT,
            "action": {
                "future/axis_angle_residual": _floats(30),
                "future/target_close": ("tensor", (10,), "int64"),
                "future/xyz_residual": _floats(30),
            },
            "observation": {
                **LANGUAGE,
                "episode_success": FLOAT,
                "image": ("image", 171, 213, "jpeg"),
                "present/autonomous": INT,
                "present/axis_angle": _floats(3),
                "present/intervention": INT,
                "present/sensed_close": _floats(1),
                "present/xyz": _floats(3),
                "sequence_length": INT,
            },
        },
    },
    # zlib: certain of clip_function_input/base_pose_tool_reached and gripper_closed, a guess of the others.
    "kuka": {
        "steps": {
            **EDGES,
            "reward": FLOAT,
            "action": GOOGLE_ACTION,
            "observation": {
                **LANGUAGE,
                "clip_function_input/base_pose_tool_reached": ("tensor", (7,), "float32", "zlib"),
                "clip_function_input/workspace_bounds": ("tensor", (3, 3), "float32", "zlib"),
                "gripper_closed": ("tensor", (1,), "float32", "zlib"),
                "height_to_bottom": ("tensor", (1,), "float32", "zlib"),
                "image": ("image", 512, 640, "jpeg"),
                "task_id": ("tensor", (1,), "float32", "zlib"),
            },
        },
        "success": BOOL,
    },
    # That the images are JPEG is a guess from other datasets of the same version.
    "mimic_play": {
        "steps": {
            **DEMO,
            "action": _floats(7),
            "language_instruction": STRING,
            "language_embedding": _floats(512),
            "observation": {
                "image": {
                    "front_image_1": ("image", 120, 120, "jpeg"),
                    "front_image_2": ("image", 120, 120, "jpeg"),
                },
                "state": {
                    "ee_pose": _floats(7),
                    "gripper_position": FLOAT,
                    "joint_positions": _floats(7),
                    "joint_velocities": _floats(7),
                },
                "wrist_image": {"wrist_image": ("image", 120, 120, "jpeg")},
            },
        },
        "episode_metadata": {"file_path": STRING},
    },
    "taco_play": {
        "steps": {
            **EDGES,
            "reward": FLOAT,
            "action": {
                "actions": _floats(7),
                "rel_actions_gripper": _floats(7),
                "rel_actions_world": _floats(7),
                "terminate_episode": FLOAT,
            },
            "observation": {
                **LANGUAGE,
                "depth_gripper": _floats(84, 84),
                "depth_static": _floats(150, 200),
                "rgb_gripper": ("image", 84, 84, None),
                "rgb_static": ("image", 150, 200, None),
                "robot_obs": _floats(15),
                "structured_language_instruction": STRING,
            },
        },
    },
    # SudeepDasari/robonet_dataset_builder; the hosted episode_metadata is a guess.
    "robo_net": {
        "steps": {
            **DEMO,
            "action": _floats(5),
            "language_instruction": TEXT,
            "language_embedding": _floats(512),
            "observation": {
                "image": ("image", 240, 320, "jpeg"),
                "image1": ("image", 240, 320, "jpeg"),
                "image2": ("image", 240, 320, "jpeg"),
                "state": _floats(5),
            },
        },
        "episode_metadata": {"file_path": TEXT, "robot": TEXT},
    },
    "aloha_mobile": {
        "steps": {
            **DEMO,
            "action": _floats(16),
            "language_instruction": STRING,
            "observation": {
                "cam_high": ("image", 480, 640, "jpeg"),
                "cam_left_wrist": ("image", 480, 640, "jpeg"),
                "cam_right_wrist": ("image", 480, 640, "jpeg"),
                "state": _floats(14),
            },
        },
        "episode_metadata": {"file_path": STRING},
    },
    # The nested assets/segmentation_obj_info is left out: sequences of sequences, which nobody reads.
    "vima_converted_externally_to_rlds": {
        "steps": {
            **EDGES,
            "discount": FLOAT,
            "reward": FLOAT,
            "action": {
                "pose0_position": _floats(3),
                "pose0_rotation": _floats(4),
                "pose1_position": _floats(3),
                "pose1_rotation": _floats(4),
            },
            "multimodal_instruction": STRING,
            "multimodal_instruction_assets": {
                "asset_type": ("sequence", STRING),
                "frontal_image": ("sequence", PIXELS),
                "frontal_segmentation": ("sequence", ("tensor", (128, 256), "uint8")),
                "image": ("sequence", PIXELS),
                "key_name": ("sequence", STRING),
                "segmentation": ("sequence", ("tensor", (128, 256), "uint8")),
            },
            "observation": {
                "ee": INT,
                "frontal_image": PIXELS,
                "frontal_segmentation": ("tensor", (128, 256), "uint8"),
                "image": PIXELS,
                "segmentation": ("tensor", (128, 256), "uint8"),
                "segmentation_obj_info": {
                    "obj_name": ("sequence", STRING),
                    "segm_id": ("sequence", INT),
                    "texture_name": ("sequence", STRING),
                },
            },
        },
        "episode_metadata": {
            "action_bounds": {"high": _floats(3), "low": _floats(3)},
            "end-effector type": STRING,
            "failure": BOOL,
            "file_path": STRING,
            "n_objects": INT,
            "num_steps": INT,
            "seed": INT,
            "success": BOOL,
            "task": STRING,
        },
    },
}


def tfds_features(layout: Mapping[str, Any]) -> dict[str, Any]:
    """The layout with TFDS features for leaves, as `rlds_builder` takes it."""
    return {
        name: tfds_features(node) if isinstance(node, dict) else _feature(node)
        for name, node in layout.items()
    }


def _feature(leaf: tuple[Any, ...]) -> Any:
    kind, *rest = leaf
    if kind == "image":
        return Image(shape=(*rest[:2], 3), dtype=np.uint8, encoding_format=rest[2])
    if kind == "text":
        return Text()
    if kind == "sequence":
        return tfds.Sequence(_feature(rest[0]))
    if kind == "scalar":
        string = rest[0] == "string"
        return Tensor(shape=(), dtype=np.object_) if string else tfds.Scalar(np.dtype(rest[0]))
    return Tensor(shape=rest[0], dtype=np.dtype(rest[1]), encoding=(*rest, "none")[2])


def values(
    layout: Mapping[str, Any], seed: int, given: Mapping[str, Any] | None = None, steps: int = 3
) -> dict[str, Any]:
    """An episode: numbers that differ by leaf, step and seed; `given` replaces leaves by path."""
    given = given or {}
    return {
        **_values({k: v for k, v in layout.items() if k != "steps"}, "", seed, 0, given),
        "steps": [_values(layout["steps"], "steps/", seed, t, given) for t in range(steps)],
    }


def _values(
    node: Mapping[str, Any], above: str, seed: int, step: int, given: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        name: _values(inner, f"{above}{name}/", seed, step, given)
        if isinstance(inner, dict)
        else given.get(above + name, value(inner, above + name, seed, step))
        for name, inner in node.items()
    }


def value(leaf: tuple[Any, ...], path: str, seed: int, step: int) -> Any:
    """What `values` puts in a leaf, as a record stores it."""
    kind, *rest = leaf
    if kind == "image":
        pixels = noisy_frame(100 * seed + step, *rest[:2])
        return jpeg(pixels) if rest[2] == "jpeg" else png(pixels, compress_level=1)
    if kind == "sequence":
        return [value(rest[0], f"{path}/{i}", seed, step) for i in range(step + 1)]
    if kind == "text" or rest[0] == "string":
        return f"{path} {seed}"
    numbers = expected(leaf, path, seed, step)
    return zlib.compress(numbers.tobytes()) if rest[2:] == ["zlib"] else numbers


def expected(leaf: tuple[Any, ...], path: str, seed: int, step: int) -> np.ndarray[Any, Any]:
    """The numbers that `values` puts in a leaf: small and whole, so every dtype holds them."""
    kind, *rest = leaf
    shape, dtype = ((), rest[0]) if kind == "scalar" else rest[:2]
    if dtype == "bool":
        return np.asarray((step + seed) % 2 == 1)
    first = zlib.crc32(path.encode()) % 50 + 10 * seed + step
    return (np.arange(int(np.prod(shape))) % 100 + first).reshape(shape).astype(dtype)
