"""Imports go one way between the rooms and in no hidden circle, torch stays in train, TensorFlow stays out, a
class name means one thing.
"""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

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
    assert {folder.parent.name for folder in ROOT.glob("*/__init__.py")} == {"package", *MAY_IMPORT}
    linked = {link.name for link in (ROOT / ".typing" / "oxcart").iterdir()}
    assert linked == {*(file.name for file in (ROOT / "package").glob("*.py")), *MAY_IMPORT}


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


class Import(NamedTuple):
    """An import of a module of ours, or of a package."""

    line: int
    name: str
    lazy: bool
    """Whether it waits for a call of the function that it stands in."""
    explained: bool
    """Whether a comment on its line or the line above says why, or an `except` says what to install."""


Graph = Mapping[str, list[Import]]


@functools.cache
def modules() -> dict[str, str]:
    """Name of every module of the rooms -> its source."""
    return {
        ".".join(("oxcart", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): (
            file.read_text(encoding="utf-8")
        )
        for room in MAY_IMPORT
        for file in sorted((ROOT / room).rglob("*.py"))
    }


def imported(source: str, known: Mapping[str, str]) -> list[Import]:
    """What a module imports when it runs; what only type checkers see is left out."""
    lines = ["", *source.splitlines()]
    found: list[Import] = []

    def visit(node: ast.AST, lazy: bool, hinted: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        lazy = lazy or isinstance(node, ast.FunctionDef)
        if isinstance(node, ast.Try):
            hinted = any(
                handler.type is not None
                and ast.unparse(handler.type) in ("ImportError", "ModuleNotFoundError")
                and "install" in ast.unparse(handler)
                for handler in node.handlers
            )
        if isinstance(node, ast.Import | ast.ImportFrom):
            above, here = lines[node.lineno - 1], lines[node.lineno : (node.end_lineno or 0) + 1]
            # One comment is enough for imports that follow each other.
            follows = bool(found) and found[-1].explained and found[-1].line == node.lineno - 1
            explained = hinted or follows or above.strip().startswith("#") or "#" in "".join(here)
            for alias in node.names:
                name = alias.name
                if isinstance(node, ast.ImportFrom):
                    inner = f"{node.module}.{name}"
                    name = inner if inner in known else str(node.module)
                found.append(Import(node.lineno, name, lazy, explained))
        for child in ast.iter_child_nodes(node):
            visit(child, lazy, hinted)

    visit(ast.parse(source), False, False)
    return found


def graph_of(sources: Mapping[str, str]) -> Graph:
    """Name of every module -> what it imports."""
    return {module: imported(source, sources) for module, source in sources.items()}


def hidden_circles(graph: Graph) -> list[str]:
    """Lazy imports without a reason that close a circle of modules."""

    def reaches(start: str, end: str) -> bool:
        seen, left = set(), [start]
        while left:
            module = left.pop()
            if module == end:
                return True
            if module not in seen:
                seen.add(module)
                left += [one.name for one in graph.get(module, ())]
        return False

    return [
        f"{module}, line {one.line}: a circle through {one.name}"
        for module, imports_ in graph.items()
        for one in imports_
        if one.lazy and not one.explained and one.name in graph and reaches(one.name, module)
    ]


def unexplained(graph: Graph) -> list[str]:
    """Lazy imports without a reason; that of `cli` stands in `cli/main.py`."""
    return [
        f"{module}, line {one.line}: {one.name} is imported in a function"
        for module, imports_ in graph.items()
        for one in imports_
        if one.lazy and not one.explained and not module.startswith("oxcart.cli.")
    ]


def test_imports_in_functions_hide_no_circle_and_say_why_they_are_there() -> None:
    graph = graph_of(modules())
    assert hidden_circles(graph) == []
    assert unexplained(graph) == []
    assert "imported when that command is called" in modules()["oxcart.cli.main"]


def test_a_planted_circle_is_found() -> None:
    a = "from oxcart.train import b"
    b = "def f():\n    if True:\n        from oxcart.train.c import g"
    c = "def g():\n    import oxcart.train.a"
    planted = {"oxcart.train.a": a, "oxcart.train.b": b, "oxcart.train.c": c}
    assert hidden_circles(graph_of(planted)) == [
        "oxcart.train.b, line 3: a circle through oxcart.train.c",
        "oxcart.train.c, line 2: a circle through oxcart.train.a",
    ]
    assert hidden_circles(graph_of({**planted, "oxcart.train.a": f"if TYPE_CHECKING:\n    {a}"})) == []
    assert hidden_circles(graph_of({**planted, "oxcart.train.c": "def g():\n    import os"})) == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("def f():\n    import ray", 1),
        ("def f():\n    import ray  # an extra", 0),
        ("def f():\n    # an extra\n    import ray\n    from ray import data", 0),
        ("def f():\n    text = '# none'\n    import ray", 1),
        (
            "def f():\n    try:\n        import a\n    except ImportError:\n        raise E('install a')",
            0,
        ),
        ("def f():\n    try:\n        import ray\n    except ImportError:\n        return None", 1),
        ("import ray", 0),
    ],
)
def test_a_lazy_import_is_explained_by_a_comment_or_an_install_hint(source: str, count: int) -> None:
    assert len(unexplained(graph_of({"oxcart.train.a": source}))) == count
    assert unexplained(graph_of({"oxcart.cli.a": source})) == []


def test_a_class_name_means_one_thing() -> None:
    where = defaultdict(list)
    for module, source in modules().items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(module)
    assert {name: found for name, found in where.items() if len(found) > 1} == {}
