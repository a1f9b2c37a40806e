"""Imports go one way between the rooms, torch stays in train, and TensorFlow stays out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "shards": {"shards"},
    "manifests": {"shards", "manifests"},
    "compile": {"shards", "manifests", "compile"},
    "train": {"shards", "manifests", "train"},
    "cli": {"shards", "manifests", "compile", "train", "cli"},
}


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a file imports, at any depth and by any spelling."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            # `from oxcart import compile` names the room in the second half.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names = [
                a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)
            ]
            yield from ((node.lineno, name) for name in names)


def violations(room: str, source: str) -> list[str]:
    """What a file of `room` imports and must not."""
    found = []
    for line, name in imports(source):
        top, _, rest = name.partition(".")
        if top == "oxcart" and rest.partition(".")[0] not in MAY_IMPORT[room]:
            found.append(f"line {line}: {room} imports {name}")
        if top in MAY_IMPORT:
            found.append(f"line {line}: {name} is imported as oxcart.{name}")
        if top == "tensorflow" or (top in {"torch", "torchvision"} and room != "train"):
            found.append(f"line {line}: {room} imports {name}")
    return found


def test_the_rooms_are_all_here() -> None:
    assert {folder.parent.name for folder in ROOT.glob("*/__init__.py")} == set(MAY_IMPORT)
    assert {link.name for link in (ROOT / ".typing" / "oxcart").iterdir()} == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_go_one_way(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    found = {
        str(file.relative_to(ROOT)): wrong
        for file in files
        if (wrong := violations(room, file.read_text(encoding="utf-8")))
    }
    assert not found


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("shards", "from oxcart.manifests.tables import Table"),
        ("shards", "import oxcart.compile"),
        ("manifests", "from oxcart import compile"),
        ("manifests", "def f():\n    import oxcart.train.loop as loop"),
        ("compile", "from oxcart.train.loop import run"),
        ("train", "if TYPE_CHECKING:\n    from oxcart.compile.plan import Plan"),
        ("compile", "from oxcart.cli.progress import progress"),
        ("shards", "importlib.import_module('oxcart.compile.plan')"),
        ("shards", "import shards.store"),
        ("compile", "import torch.nn as nn"),
        ("cli", "from torch import Tensor"),
        ("compile", "import numpy, tensorflow as tf"),
        ("train", "from tensorflow.io import gfile"),
    ],
)
def test_the_check_finds_a_planted_violation(room: str, source: str) -> None:
    assert len(violations(room, source)) == 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("compile", "import tensorflow_datasets as tfds\nfrom oxcart.shards.store import Store"),
        ("train", "import torch\nfrom oxcart.manifests.tables import Table"),
        ("cli", "def f():\n    from oxcart.train.loop import run"),
    ],
)
def test_the_check_lets_the_rest_pass(room: str, source: str) -> None:
    assert violations(room, source) == []
