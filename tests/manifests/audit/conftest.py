"""One source, its clean and its leaky compile, and their audits, made once for all tests of the audit."""

from __future__ import annotations

from pathlib import Path

import pytest

from audited import SAMPLE, audited
from oxcart.compile.sample.rlds import write_rlds
from oxcart.manifests.audit.run import Audit
from oxcart.manifests.split import SplitRule
from sample_compile import compiled


@pytest.fixture(scope="session")
def kitchens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source: four episodes in each of six kitchens."""
    return write_rlds(tmp_path_factory.mktemp("kitchens"), SAMPLE)


@pytest.fixture(scope="session")
def clean(kitchens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One kitchen is held out."""
    out = tmp_path_factory.mktemp("clean") / "out"
    compiled(kitchens, out, rule=SplitRule(val=0.2))
    return out


@pytest.fixture(scope="session")
def leaky(kitchens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes are held out at random."""
    out = tmp_path_factory.mktemp("leaky") / "out"
    compiled(kitchens, out, rule=SplitRule(by="episode", val=0.2))
    return out


@pytest.fixture(scope="session")
def other(kitchens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another kitchen is held out than in `clean`."""
    out = tmp_path_factory.mktemp("other") / "out"
    compiled(kitchens, out, rule=SplitRule(val=0.2, salt="another"))
    return out


@pytest.fixture(scope="session")
def clean_audit(clean: Path) -> Audit:
    return audited(clean)


@pytest.fixture(scope="session")
def leaky_audit(leaky: Path) -> Audit:
    return audited(leaky)


@pytest.fixture(scope="session")
def mixed_audit(clean: Path, other: Path) -> Audit:
    """Two compiles of one source that hold out different kitchens: each trains on what the other holds
    out."""
    return audited(clean, other)
