"""Dataset cards: what the Hub reads of them, and what they claim of the split, the licence and the audit."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import yaml

from oxcart.manifests.audit.audit import AuditOptions, audit
from oxcart.manifests.audit.report import report_json
from oxcart.manifests.card import card
from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError
from sample_compile import Compiled


@pytest.fixture(scope="module")
def dataset(six_episodes: Compiled) -> Dataset:
    return Dataset.open(str(six_episodes.out))


def changed(opened: Dataset, /, **fields: Any) -> Dataset:
    return Dataset(store=opened.store, manifest=dataclasses.replace(opened.manifest, **fields))


def front_matter(text: str) -> dict[str, Any]:
    _, block, _ = text.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(block)
    return found


def licensed(dataset: Dataset, licence: str | None) -> dict[str, Any]:
    about = {**dataset.manifest.dataset, "licence": licence}
    return front_matter(card(changed(dataset, dataset=about)))


def test_the_hub_finds_the_files_of_each_split(dataset: Dataset) -> None:
    for form, pattern in (("oxcart", "shards/{}-*.tar"), ("lerobot", "{}/data/*/*.parquet")):
        about = front_matter(card(dataset, form=form))
        (config,) = about["configs"]
        files = {one["split"]: one["path"] for one in config["data_files"]}
        assert files == {split: pattern.format(split) for split in ("train", "val")}
        assert about["task_categories"] == ["robotics"]
        assert ("LeRobot" in about["tags"]) == (form == "lerobot")


def test_the_size_is_that_of_what_the_hub_shows(dataset: Dataset) -> None:
    many = {"train": {"episodes": 999, "steps": 10_000, "frames": 1, "bytes": 1}}
    large = changed(dataset, splits=many)
    assert front_matter(card(large))["size_categories"] == ["n<1K"]
    assert front_matter(card(large, form="lerobot"))["size_categories"] == ["10K<n<100K"]
    huge = changed(dataset, splits={"train": {**many["train"], "episodes": 10**12}})
    assert front_matter(card(huge))["size_categories"] == ["n>1T"]


def test_licences_have_the_names_of_the_hub(dataset: Dataset) -> None:
    assert licensed(dataset, "CC-BY-4.0")["license"] == "cc-by-4.0"
    assert licensed(dataset, "ODbL-1.0")["license"] == "odbl"
    assert licensed(dataset, None)["license"] == "unknown"
    own = licensed(dataset, "https://example.org/My Terms")
    assert own["license"] == "other"
    assert own["license_name"] == "https-example.org-my-terms"
    assert own["license_link"] == "https://example.org/My Terms"


def test_a_split_that_shares_environments_is_not_said_to_hold_them_out(dataset: Dataset) -> None:
    assert "No environment is in two of train, val and test." in card(dataset)
    both = [{**one, "splits": dataset.manifest.splits} for one in dataset.manifest.environments]
    text = card(changed(dataset, environments=both))
    assert "3 of 3 environments are in more than one of train, val and test." in text
    assert "No environment is in two" not in text
    train = {"train": dataset.manifest.splits["train"]}
    assert "Nothing is held out" in card(changed(dataset, splits=train))


def test_counts_and_fingerprint_are_those_of_the_manifest(dataset: Dataset) -> None:
    text = card(dataset)
    for split, counts in dataset.manifest.splits.items():
        assert f"| {split} | {counts['episodes']} | {counts['steps']} | {counts['frames']} |" in text
    for one in dataset.manifest.environments:
        for split, counts in one["splits"].items():
            assert f"| {one['name']} | {one['known']} | {split} | {counts['episodes']} |" in text
    assert dataset.manifest.fingerprint in text


def test_names_cannot_break_the_page(dataset: Dataset) -> None:
    (first, *rest) = dataset.manifest.environments
    text = card(changed(dataset, environments=[{**first, "name": "a|b\n<img src=x>`"}, *rest]))
    assert "| a\\|b \\<img src=x\\>\\` |" in text
    name = {**dataset.manifest.dataset, "name": "x\n---\nlicense: mit"}
    assert "license: mit" not in card(changed(dataset, dataset=name)).split("\n")


def test_the_verdict_is_that_of_the_audit_of_this_dataset(dataset: Dataset) -> None:
    report = json.loads(report_json(audit([dataset.store.url], AuditOptions(frames=2, workers=1))))
    text = card(dataset, audit=report)
    assert f"**{report['verdict']['word']}**" in text
    assert "Not audited" not in text
    assert "Not audited" in card(dataset)
    with pytest.raises(ConfigError, match="expected one of the dataset with fingerprint"):
        card(changed(dataset, fingerprint="0" * 64), audit=report)
    with pytest.raises(ConfigError, match="without 'datasets'"):
        card(dataset, audit={"format": report["format"]})
    with pytest.raises(ConfigError, match="expected the JSON of an audit"):
        card(dataset, audit={})
    for field in ("datasets", "verdict", "versions", "checks"):
        for value in (None, 3, [3]):
            with pytest.raises(ConfigError, match="audit: expected the JSON of an audit"):
                card(dataset, audit={**report, field: value})
