"""An audit that will take long says so before it starts, and its report does not depend on that."""

from __future__ import annotations

from pathlib import Path

import pytest

from oxcart.manifests.audit import cost
from oxcart.manifests.audit.audit import Audit, AuditOptions, audit
from oxcart.manifests.audit.report import report_json


def test_few_episodes_are_audited_without_a_word(clean: Path) -> None:
    said: list[str] = []
    audit([str(clean)], AuditOptions(frames=4), notice=said.append)
    assert said == []


def test_many_are_counted_and_a_sample_is_advised(
    clean: Path, clean_audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "FEW", 10)
    monkeypatch.setattr(cost, "LONG_S", 0.0)
    said: list[str] = []
    found = audit([str(clean)], AuditOptions(frames=4), notice=said.append)
    (line,) = said
    assert line.startswith(
        "24 episodes to decode 4 frames of, 24 to compare with 20 of train: 480 pairs, about "
    )
    assert line.endswith("besides reading every byte; --sample 5 looks at fewer of each split")
    assert report_json(found) == report_json(clean_audit)


def test_a_short_one_needs_no_sample(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "FEW", 10)
    said: list[str] = []
    audit([str(clean)], AuditOptions(frames=4), notice=said.append)
    assert "--sample" not in said[0]
