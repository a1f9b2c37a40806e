"""`import oxcart` costs nothing, and its names are those of the rooms."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import oxcart
from oxcart.manifests.dataset import Dataset
from oxcart.shards import errors
from oxcart.train import data
from sample_compile import Compiled

PLAIN = """
import sys
before = set(sys.modules)
import oxcart
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
assert not loaded - set(sys.stdlib_module_names) - {"oxcart"}, loaded
oxcart.ConfigError
oxcart.Episode
oxcart.create, oxcart.Column
assert not {"torch", "tensorflow_datasets", "h5py"} & set(sys.modules)
"""


def test_an_import_loads_nothing_but_itself(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", PLAIN], check=True, cwd=tmp_path)


def test_every_name_is_there_and_is_that_of_its_room() -> None:
    for name in oxcart.__all__:
        assert getattr(oxcart, name) is not None, name
    assert oxcart.Loader is data.Loader
    assert oxcart.StoreError is errors.StoreError
    assert {*oxcart.__all__} < {*dir(oxcart)}
    assert oxcart.__version__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'oxcart' has no attribute 'opne'"):
        _ = oxcart.opne


def test_a_dataset_is_opened(whole: Compiled) -> None:
    found = oxcart.open(str(whole.out))
    assert isinstance(found, Dataset)
    assert found.manifest == whole.manifest
    with pytest.raises(oxcart.ConfigError, match="not a compiled dataset"):
        oxcart.open(str(whole.source))
