"""The motion annotation: exact values, the same for any number of threads, and the command that writes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oxcart.manifests.annotation import MOTION, beside, read_annotation
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.motion import measure
from oxcart.shards.errors import ConfigError
from sample_compile import Compiled, cli, complaint, tree


def test_a_value_is_the_mean_difference_to_the_next_frame(whole: Compiled) -> None:
    dataset = Dataset.open(str(whole.out))
    found = measure(dataset, cameras=["primary"], workers=2)
    assert found.dataset == dataset.manifest.fingerprint
    assert len(found.values) == dataset.manifest.counts["compiled"]
    frames = dataset[0].frames()
    grey = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in frames]).astype(np.int16)
    expected = np.abs(np.diff(grey, axis=0)).mean(axis=(1, 2)).astype(np.float32)
    assert np.array_equal(found.values[dataset[0].key], [*expected, expected[-1]])
    assert (expected > 0).any()


def test_flow_measures_too_and_another_method_is_refused(whole: Compiled) -> None:
    dataset = Dataset.open(str(whole.out))
    found = measure(dataset, method="flow")
    assert max(values.max() for values in found.values.values()) > 0
    assert found.producer != measure(dataset).producer
    with pytest.raises(ConfigError, match="method: expected one of difference, flow; got 'sound'"):
        measure(dataset, method="sound")


def test_the_command_writes_beside_the_dataset_and_not_into_it(whole: Compiled, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    out.symlink_to(whole.out)
    run = cli("annotate", "motion", out, "--workers", 1)
    assert run.exit_code == 0, run.output
    assert beside(str(out), MOTION) in run.stdout
    assert tree(whole.out) == whole.tree
    first = Path(beside(str(out), MOTION)).read_bytes()
    assert cli("annotate", "motion", out, "--workers", 2, "--quiet").exit_code == 0
    assert Path(beside(str(out), MOTION)).read_bytes() == first
    assert read_annotation(beside(str(out), MOTION)).parameters["method"] == "difference"


def test_one_file_for_two_datasets_is_refused(whole: Compiled, tmp_path: Path) -> None:
    run = cli("annotate", "motion", whole.out, whole.out, "--out", tmp_path / "x.parquet")
    assert complaint(run) == "--out: expected a single DATASET, got 2; leave it out"
