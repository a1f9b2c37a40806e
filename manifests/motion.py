"""Measure motion at each step of a compiled dataset: the annotation by which idle samples are left out.

    annotate("bridge")        # writes bridge.motion.parquet

The value of step t compares it with step t + 1; the last step of an episode repeats the value before it. With
several cameras, each has a value of its own.
Frames are compared at a small size, so that sensor noise counts little and datasets of different sizes are
comparable. `difference` is the mean absolute difference of grey levels (0 to 255). It is exact and the same
on every machine, but a flickering lamp counts as motion. `flow` is the mean length of optical flow (DIS,
Kroeger et al. 2016, as implemented in OpenCV) in percent of the image's longer side. It measures how far
things move, at about ten times the cost, and is only as reproducible as OpenCV.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from oxcart.manifests.annotation import Annotation
from oxcart.manifests.canonical import sha256_json
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.frames import CameraFrames
from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError
from oxcart.shards.prefetch import in_threads

METHODS = ("difference", "flow")
LONGER = {"difference": 96, "flow": 160}
"""Method -> longer side of the compared frames, in pixels."""

Grey = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def measure(
    dataset: Dataset,
    *,
    method: str = "difference",
    cameras: Sequence[str] = (),
    workers: int = 1,
    report: Callable[[int], None] = lambda frames: None,
) -> Annotation:
    """Measure the motion of every step of a dataset.

    Args:
        dataset: the dataset to measure.
        method: one of METHODS.
        cameras: names or roles of cameras; by default all of them.
        workers: episodes at a time; any number gives the same values.
        report: called with the number of frames measured so far.

    Raises:
        ConfigError: there is no such method or camera, or OpenCV is not installed.
        CorruptError: a chunk does not match its digest.
    """
    one_of("method", method, METHODS)
    found = [dataset.manifest.camera(one)["name"] for one in cameras] or dataset.manifest.camera_names
    names = list(dict.fromkeys(found))
    which = {"camera": names[0]} if len(names) == 1 else {"cameras": names}
    parameters: dict[str, Any] = {"method": method, **which, "longer_side": LONGER[method]}
    if method == "flow":
        parameters["opencv"] = _flow()[1]
    done = 0
    by_camera: list[dict[str, Floats]] = []
    for name in names:
        values: dict[str, Floats] = {}
        there = (episode.frames(name) for episode in dataset)
        calls = (lambda one=one: (one.key, _episode(one, method)) for one in there)
        for key, one in in_threads(workers, calls, workers):
            values[key] = one
            done += len(one)
            report(done)
        by_camera.append(values)
    if len(names) == 1:
        (together,) = by_camera
    else:
        together = {key: np.stack([one[key] for one in by_camera], axis=1) for key in by_camera[0]}
    return Annotation(
        name="motion",
        producer=sha256_json({"motion": parameters}),
        dataset=dataset.manifest.fingerprint,
        parameters=parameters,
        values=together,
    )


def _episode(frames: CameraFrames, method: str) -> Floats:
    """The motion of each step of an episode."""
    compare = _difference if method == "difference" else _flow()[0]
    values = np.zeros(len(frames), np.float32)
    before: Grey | None = None
    for step, frame in enumerate(frames):
        now = _grey(frame, LONGER[method])
        if before is not None:
            values[step - 1] = compare(before, now)
        before = now
    if len(values) > 1:
        values[-1] = values[-2]
    return values


def _grey(frame: npt.NDArray[np.uint8], longer: int) -> Grey:
    """Grey levels of a frame, scaled down if it is larger than the method needs."""
    image = Image.fromarray(frame).convert("L")
    most = max(image.size)
    if most > longer:
        size = max(1, image.width * longer // most), max(1, image.height * longer // most)
        image = image.resize(size, Image.Resampling.BOX)
    return np.asarray(image)


def _difference(one: Grey, other: Grey) -> float:
    total: int = np.abs(one.astype(np.int16) - other).sum().item()
    return total / one.size


def _flow() -> tuple[Callable[[Grey, Grey], float], str]:
    """A function that compares two frames by optical flow, and the version of OpenCV."""
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise ConfigError(
            "method: flow needs OpenCV, which is not installed; pip install 'oxcart[video]'"
        ) from error
    cv2.setNumThreads(1)
    engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def compare(one: Grey, other: Grey) -> float:
        nothing: Any = None
        field = engine.calc(one, other, nothing)
        lengths = np.hypot(field[..., 0], field[..., 1], dtype=np.float64)
        return 100 * float(lengths.mean()) / int(max(one.shape))

    return compare, str(cv2.__version__)
