"""Write tiny RLDS datasets in the exact layout of a TensorFlow Datasets directory, without TensorFlow.

    FEATURES = {
        "steps": {
            "observation": {"image": Image(shape=(None, None, 3)), "state": Tensor(shape=(3,), dtype=f4)},
            "action": {"world_vector": Tensor(shape=(3,), dtype=f4), "open/gripper": np.bool_},
            "language_instruction": Text(),
        },
        "episode_metadata": {"file_path": Text()},
    }
    EPISODE = {
        "steps": [{"observation": {"image": jpeg(noisy_frame()), "state": [0, 1, 2]}, ...}, ...],
        "episode_metadata": {"file_path": "/data/kitchen/0.npy"},
    }
    write_dataset(tmp_path, FEATURES, [EPISODE, EPISODE], name="bridge_dataset", files=2)

Leaves are TFDS features or NumPy types; images are given as encoded bytes; names may contain "/".
What an honest writer would not write is made with `record` (leave features out, put others in) and by
giving `write_dataset` ready `bytes` in place of an episode.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format
from PIL import Image as PillowImage
from tensorflow_datasets.core import features as tfds_features
from tensorflow_datasets.core.utils import py_utils
from tensorflow_datasets.proto import tf_example_pb2

from oxcart.compile.sources.rlds.tfrecord import write_record

Image = tfds_features.Image
Tensor = tfds_features.Tensor
Text = tfds_features.Text


def noisy_frame(seed: int = 0, height: int = 12, width: int = 16) -> np.ndarray[Any, Any]:
    """A frame [height, width, 3] uint8: a gradient with some noise, different for every seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    ramp = np.stack([x * 255 // width, y * 255 // height, (x + y) * 127 // (height + width)], axis=-1)
    return ((ramp + rng.integers(0, 64, 3)) % 256 ^ rng.integers(0, 8, ramp.shape)).astype(np.uint8)


def encode(pixels: np.ndarray[Any, Any] | PillowImage.Image, kind: str, **options: Any) -> bytes:
    """An image file of Pillow's format `kind`."""
    image = PillowImage.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(pixels: np.ndarray[Any, Any] | PillowImage.Image, **options: Any) -> bytes:
    """A JPEG file."""
    return encode(pixels, "JPEG", **options)


def png(pixels: np.ndarray[Any, Any] | PillowImage.Image, **options: Any) -> bytes:
    """A PNG file."""
    return encode(pixels, "PNG", **options)


def features_of(features: Mapping[str, Any]) -> tfds_features.FeaturesDict:
    """The TFDS description; a dictionary under `steps` becomes a `Dataset` of it."""
    wrap = {"steps": tfds_features.Dataset(features["steps"])} if isinstance(features["steps"], dict) else {}
    return tfds_features.FeaturesDict({**features, **wrap})


def record(
    features: Mapping[str, Any],
    episode: Mapping[str, Any],
    *,
    without: Iterable[str] = (),
    instead: Mapping[str, Sequence[Any]] | None = None,
) -> bytes:
    """A serialised episode.

    Args:
        features: as for `write_dataset`.
        episode: its values.
        without: paths of features to leave out.
        instead: path -> flat values to put in whatever the description says; floats, integers or bytes.
    """
    specs = py_utils.flatten_nest_dict(features_of(features).get_serialized_info())
    steps = [py_utils.flatten_nest_dict(step) for step in episode["steps"]]
    others = py_utils.flatten_nest_dict({k: v for k, v in episode.items() if k != "steps"})
    example = tf_example_pb2.Example()

    def put(path: str, values: Sequence[Any], kind: str) -> None:
        getattr(example.features.feature[path], kind).SetInParent()
        getattr(example.features.feature[path], kind).value.extend(values)

    for path, spec in specs.items():
        if path in without or path in (instead or {}):
            continue
        inner = path.removeprefix("steps/")
        values = [step[inner] for step in steps] if path != inner else others[path]
        if spec.sequence_rank > 1:
            put(f"{path}/ragged_row_lengths_0", [len(value) for value in values], "int64_list")
            put(f"{path}/ragged_flat_values", *_flat([v for value in values for v in value], spec.np_dtype))
        else:
            put(path, *_flat(values, spec.np_dtype))
    for path, values in (instead or {}).items():
        kind = np.asarray(values).dtype if len(values) and not isinstance(values[0], bytes) else object
        put(path, *_flat(values, kind))
    return example.SerializeToString(deterministic=True)


def write_dataset(
    folder: Path,
    features: Mapping[str, Any],
    episodes: Sequence[Mapping[str, Any] | bytes] | Mapping[str, Sequence[Mapping[str, Any] | bytes]],
    *,
    name: str = "toy_dataset",
    version: str = "1.0.0",
    files: int = 1,
    template: str = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
) -> Path:
    """Write `folder/name/version` and return it.

    Args:
        folder: where.
        features: nested dictionary of TFDS features or NumPy types, `steps` among them.
        episodes: of split `train`, or split -> episodes; ready records may stand among them.
        name: of the dataset.
        version: of the dataset.
        files: TFRecord files of each split; the episodes are spread evenly, in order.
        template: how they are called.
    """
    root = folder / name / version
    root.mkdir(parents=True)
    splits = episodes if isinstance(episodes, Mapping) else {"train": episodes}
    stated = []
    for split, some in splits.items():
        records = [e if isinstance(e, bytes) else record(features, e) for e in some]
        cuts = [len(records) * i // files for i in range(files + 1)]
        for i in range(files):
            values = {"DATASET": name, "SPLIT": split, "FILEFORMAT": "tfrecord", "SHARD_INDEX": f"{i:05d}"}
            place = template.format(
                **values, SHARD_X_OF_Y=f"{i:05d}-of-{files:05d}", NUM_SHARDS=f"{files:05d}"
            )
            write_file(root / place, records[cuts[i] : cuts[i + 1]])
        stated.append(
            {
                "filepathTemplate": template,
                "name": split,
                "numBytes": str(sum(map(len, records))),
                "shardLengths": [str(cuts[i + 1] - cuts[i]) for i in range(files)],
            }
        )
    info = {
        "description": "A tiny dataset for tests.",
        "fileFormat": "tfrecord",
        "moduleName": f"{name}.{name}_dataset_builder",
        "name": name,
        "splits": stated,
        "version": version,
    }
    (root / "dataset_info.json").write_text(json.dumps(info, indent=2))
    description = json_format.MessageToDict(features_of(features).to_proto())
    (root / "features.json").write_text(json.dumps(description, indent=4, sort_keys=True))
    return root


def write_file(path: Path, records: Iterable[bytes]) -> None:
    """Write one TFRecord file."""
    with open(path, "wb") as file:
        for data in records:
            write_record(file, data)


def _flat(values: Any, kind: Any) -> tuple[list[Any], str]:
    """Values of one feature end to end, and the list of the record that takes them."""
    if np.dtype(kind) == object:
        flat = values if isinstance(values, list) else [values]
        return [value.encode() if isinstance(value, str) else value for value in flat], "bytes_list"
    array = np.asarray(values, kind).ravel()
    if np.issubdtype(kind, np.floating):
        return array.tolist(), "float_list"
    return array.astype(np.int64).tolist(), "int64_list"
