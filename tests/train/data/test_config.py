"""A loader's settings are given as keywords, as one value, or as a value of which keywords replace some."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxcart.shards.errors import ConfigError
from oxcart.train.data import Loader, Pairs, config
from oxcart.train.data.activity import Idle
from oxcart.train.data.config import LoaderConfig

SAMPLE = Pairs(frames=2)


def test_keywords_and_a_value_are_the_same_settings(datasets: Mapping[str, Path]) -> None:
    given = LoaderConfig(sample=SAMPLE, batch_size=8, seed=3)
    assert Loader(datasets["raw"], sample=SAMPLE, batch_size=8, seed=3).config == given
    assert Loader(datasets["raw"], "train", given).config == given
    assert Loader(datasets["raw"], "train", given, seed=4).config.seed == 4


def test_a_setting_that_there_is_not_is_refused_by_name(datasets: Mapping[str, Path]) -> None:
    with pytest.raises(TypeError, match="ahead"):
        Loader(datasets["raw"], sample=SAMPLE, batch_size=8, ahead=4)


@pytest.mark.parametrize("name", ["lanes", "block", "prefetch", "memory", "limit", "threads", "cache_bytes"])
def test_a_number_that_is_too_small_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: expected at least 1, got 0$"):
        LoaderConfig(**{"sample": SAMPLE, "batch_size": 1, name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sample": Pairs}, r"sample: expected Window\(...\), Pairs\(...\) or Frames\(...\), got <class"),
        ({"sample": None}, "sample: expected"),
        ({"batch_size": "64"}, "batch_size: expected a whole number, got '64'"),
        ({"batch_size": None}, "batch_size: expected a whole number, got None"),
        ({"seed": 1.5}, "seed: expected a whole number"),
        ({"limit": 5.5}, "limit: expected a whole number"),
        ({"lanes": True}, "lanes: expected a whole number, got True"),
        ({"size": 224.0}, "size: expected pixels"),
        ({"size": "32"}, "size: expected pixels"),
        ({"size": (32,)}, "size: expected pixels"),
        ({"size": (32, 32, 3)}, "size: expected pixels"),
        ({"size": {"primary": "32"}}, "size: expected pixels"),
        ({"size": {"primary": 0}}, "size: expected pixels"),
        ({"pad_to": "14"}, "pad_to: expected a number of columns"),
        ({"pad_to": {"action": 14.0}}, "pad_to of action: expected columns, got 14.0"),
        ({"control_rate": "5"}, "control_rate: expected steps per second"),
        ({"control_rate": {"bridge": "5"}}, "control_rate of bridge: expected a number, got '5'"),
        ({"where": True}, "where: expected an expression"),
        ({"keys": ["a"]}, "keys: expected a file or URL"),
        ({"min_motion": "1"}, "min_motion: expected a number"),
        ({"idle": {"run": 5}}, r"idle: expected Idle\(...\), got {'run': 5}"),
        ({"idle": Idle(run=5)}, "idle: says which samples below a threshold stay; pass min_motion"),
        ({"idle": None}, r"idle: expected Idle\(...\)"),
        ({"motion": "bridge.motion.parquet"}, "motion: expected a list, got 'bridge.motion.parquet'"),
        ({"annotations": "codes.parquet"}, "annotations: expected a list"),
        ({"action": "steps", "action_columns": {"dx", "dy"}}, "action_columns: expected a list"),
        ({"action": "steps", "action_columns": [0, 1]}, "action_columns: expected names"),
    ],
)
def test_a_value_that_means_nothing_is_refused_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}") as caught:
        LoaderConfig(**{"sample": SAMPLE, "batch_size": 1, **options})
    assert len(str(caught.value).splitlines()) == 1


def test_numbers_of_numpy_are_those_of_python(datasets: Mapping[str, Path]) -> None:
    given = {"batch_size": np.int64(4), "seed": np.int64(3), "block": np.int32(8), "size": np.int64(16)}
    loader = Loader(datasets["raw"], sample=SAMPLE, **given)  # type: ignore[arg-type]
    plain = Loader(datasets["raw"], sample=SAMPLE, batch_size=4, seed=3, block=8, size=16)
    assert json.loads(json.dumps(loader.state_dict())) == plain.state_dict()


def test_every_field_has_a_docstring() -> None:
    (body,) = [one.body for one in ast.parse(inspect.getsource(config)).body if isinstance(one, ast.ClassDef)]
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(after, ast.Expr), ast.unparse(field)
