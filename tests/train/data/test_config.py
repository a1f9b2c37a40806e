"""A loader's settings are given as keywords, as one value, or as a value of which keywords replace some."""

from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest

from oxcart.shards.errors import ConfigError
from oxcart.train.data import Loader, Pairs, config
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


def test_every_field_has_a_docstring() -> None:
    (body,) = [one.body for one in ast.parse(inspect.getsource(config)).body if isinstance(one, ast.ClassDef)]
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(after, ast.Expr), ast.unparse(field)
