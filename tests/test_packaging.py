"""What the wheel holds. A package that nobody listed imports from a checkout and is missing only there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("cli", "compile", "manifests", "shards", "train")
PACKAGE = "package"
"""Folder of `oxcart` itself; the rooms are its subpackages."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of all files of a wheel, built from a copy so that no build folder is left in the checkout."""
    copy = tmp_path_factory.mktemp("copy")
    for room in (*ROOMS, PACKAGE):
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    run = subprocess.run(build, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        return set(file.namelist())


def test_every_package_is_listed(project: dict[str, Any]) -> None:
    folders = {
        ".".join(("oxcart", *init.parent.relative_to(ROOT).parts))
        for room in ROOMS
        for init in (ROOT / room).rglob("__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == {"oxcart", *folders}
    assert project["tool"]["setuptools"]["package-dir"] == {
        "oxcart": PACKAGE,
        **{f"oxcart.{room}": room for room in ROOMS},
    }


def test_every_folder_with_code_is_a_package() -> None:
    bare = {
        str(file.parent.relative_to(ROOT))
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
        if not (file.parent / "__init__.py").exists()
    }
    assert not bare


@pytest.mark.system
def test_the_wheel_holds_every_file_that_the_code_needs(wheel: set[str]) -> None:
    needed = {
        f"oxcart/{file.relative_to(ROOT).as_posix()}"
        for room in ROOMS
        for pattern in ("*.py", "*.yaml", "*.html", "py.typed")
        for file in (ROOT / room).rglob(pattern)
    }
    assert {f"oxcart/{room}/py.typed" for room in ROOMS} <= needed
    needed |= {f"oxcart/{name}" for name in ("__init__.py", "py.typed")}
    assert needed <= wheel, f"missing: {sorted(needed - wheel)}"


@pytest.mark.system
def test_the_wheel_holds_nothing_beside_oxcart_and_its_licence(wheel: set[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel}
    assert all(top == "oxcart" or top.endswith(".dist-info") for top in tops), tops
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)


def test_every_requirement_has_its_exact_version(project: dict[str, Any]) -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            pin = Requirement(line)
            assert str(pin.specifier).startswith("=="), line
            pins[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    extras = project["project"]["optional-dependencies"]
    for text in [*project["project"]["dependencies"], *extras["test"], *extras["dev"]]:
        wanted = Requirement(text)
        if wanted.name != "setuptools":  # part of the machine's Python, like pip
            assert canonicalize_name(wanted.name) in pins, f"constraints.txt: no version of {wanted.name}"
            assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text
