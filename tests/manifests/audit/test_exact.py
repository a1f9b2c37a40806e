"""Exact duplicates: frames and trajectories that stand in two splits, and those that only look like it."""

from __future__ import annotations

import numpy as np

from audited import check, status
from oxcart.manifests.audit.exact import QUANTUM, trajectory
from oxcart.manifests.audit.run import Audit


def test_frames(clean_audit: Audit, leaky_audit: Audit, mixed_audit: Audit) -> None:
    assert status(clean_audit, "frames") == status(leaky_audit, "frames") == "passed"
    found = check(mixed_audit, "frames")
    assert (found.status, found.duplicate) == ("failed", True)
    assert len(found.evidence) == 8
    assert all(row["episode"] == row["also in"] for row in found.evidence)
    assert {row["of"] for row in found.evidence} == {"val"}


def test_trajectories(clean_audit: Audit, mixed_audit: Audit) -> None:
    assert status(clean_audit, "trajectories") == "passed"
    found = check(mixed_audit, "trajectories")
    assert (found.status, found.duplicate) == ("failed", True)
    assert len(found.evidence) == 8


def test_a_trajectory_is_what_moves() -> None:
    rng = np.random.default_rng(0)
    moves = np.round(rng.normal(size=(5, 3)), 2).astype(np.float32)
    assert trajectory([moves]) == trajectory([moves + np.float32(QUANTUM / 4)])
    assert trajectory([moves]) != trajectory([moves + np.float32(QUANTUM * 3)])
    assert trajectory([moves]) != trajectory([moves[:4]])
    assert trajectory([np.ones((5, 3), np.float32)]) is None
    assert trajectory([]) is None
    assert trajectory([np.array([[np.nan], [1.0]], np.float32)]) is not None
