"""One source, its clean and its leaky compile, and their audits, made once for all tests of the audit."""

from __future__ import annotations

from pathlib import Path

import pytest

from audited import SAMPLE, audited
from once import Once
from oxcart.compile.sample.rlds import write_rlds
from oxcart.manifests.audit.audit import Audit
from oxcart.manifests.split import SplitRule
from sample_compile import compiled


@pytest.fixture(scope="session")
def kitchens(once: Once) -> Path:
    """The source: four episodes in each of six kitchens."""
    return Path(once("audited", lambda folder: write_rlds(folder, SAMPLE)))


def split(once: Once, name: str, kitchens: Path, rule: SplitRule) -> Path:
    def compile_(folder: Path) -> Path:
        compiled(kitchens, folder / "out", rule=rule)
        return folder / "out"

    return Path(once(name, compile_))


@pytest.fixture(scope="session")
def clean(kitchens: Path, once: Once) -> Path:
    """One kitchen is held out."""
    return split(once, "clean", kitchens, SplitRule(val=0.2))


@pytest.fixture(scope="session")
def leaky(kitchens: Path, once: Once) -> Path:
    """Episodes are held out at random."""
    return split(once, "leaky", kitchens, SplitRule(by="episode", val=0.2))


@pytest.fixture(scope="session")
def other(kitchens: Path, once: Once) -> Path:
    """Another kitchen is held out than in `clean`."""
    return split(once, "other", kitchens, SplitRule(val=0.2, salt="another"))


@pytest.fixture(scope="session")
def whole(kitchens: Path, once: Once) -> Path:
    """Nothing is held out."""
    return split(once, "nothing_held", kitchens, SplitRule(val=None))


@pytest.fixture(scope="session")
def clean_audit(clean: Path, once: Once) -> Audit:
    return once("clean_audit", lambda folder: audited(clean))


@pytest.fixture(scope="session")
def leaky_audit(leaky: Path, once: Once) -> Audit:
    return once("leaky_audit", lambda folder: audited(leaky))


@pytest.fixture(scope="session")
def whole_audit(whole: Path, once: Once) -> Audit:
    return once("nothing_held_audit", lambda folder: audited(whole))


@pytest.fixture(scope="session")
def sampled_audit(clean: Path, once: Once) -> Audit:
    """Of three episodes of each split."""
    return once("sampled_audit", lambda folder: audited(clean, sample=3))


@pytest.fixture(scope="session")
def mixed_audit(clean: Path, other: Path, once: Once) -> Audit:
    """Two compiles of one source that hold out different kitchens: each trains on what the other holds
    out."""
    return once("mixed_audit", lambda folder: audited(clean, other))
