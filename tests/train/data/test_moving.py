"""`min_motion`: exactly the samples that move enough, once an epoch, resumable, and counted in the table."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from oxcart.manifests.annotation import Annotation, read_annotation, write_annotation
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.motion import measure
from oxcart.shards.errors import ConfigError
from oxcart.train.data import Frames, Loader, Mixture, Pairs

Datasets = Mapping[str, Path]

SAMPLE = Pairs(frames=2, per_episode="all")


@pytest.fixture(scope="module")
def motion(datasets: Datasets, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Dataset -> its annotation."""
    folder = tmp_path_factory.mktemp("motion")
    for name in ("raw", "small"):
        write_annotation(f"{folder}/{name}.parquet", measure(Dataset.open(str(datasets[name]))))
    return {name: f"{folder}/{name}.parquet" for name in ("raw", "small")}


def level(url: str, share: float) -> float:
    """What so much of the steps is below."""
    return float(np.quantile(np.concatenate(list(read_annotation(url).values.values())), share))


def loader(datasets: Datasets, urls: dict[str, str], **options: object) -> Loader:
    chosen: dict[str, object] = {"sample": SAMPLE, "batch_size": 8, "lanes": 2, "window": 8, "repeat": False}
    chosen |= {"motion": list(urls.values()), **options}
    return Loader(str(datasets["raw"]), **chosen)  # type: ignore[arg-type]


def keys_and_steps(found: Loader) -> list[tuple[str, int]]:
    return [pair for batch in found for pair in zip(batch.key, batch.t.tolist(), strict=True)]


def test_an_epoch_is_every_pair_that_moves_enough_once(datasets: Datasets, motion: dict[str, str]) -> None:
    least = level(motion["raw"], 0.5)
    values = read_annotation(motion["raw"]).values
    every = keys_and_steps(loader(datasets, motion))
    expected = {(key, t) for key, t in every if np.mean(values[key][t : t + 2], dtype=np.float64) >= least}
    found = keys_and_steps(loader(datasets, motion, min_motion=least))
    assert 0 < len(expected) < len(every)
    assert sorted(found) == sorted(expected)


def test_single_frames_and_draws_are_filtered_too(datasets: Datasets, motion: dict[str, str]) -> None:
    least = level(motion["raw"], 0.7)
    values = read_annotation(motion["raw"]).values
    for sample in (Frames(per_episode="all"), Frames(per_episode=3)):
        found = keys_and_steps(loader(datasets, motion, sample=sample, min_motion=least))
        assert found
        assert all(values[key][t] >= least for key, t in found)


def test_the_table_says_how_many_are_left(datasets: Datasets, motion: dict[str, str]) -> None:
    least = level(motion["raw"], 0.5)
    left, before = loader(datasets, motion, min_motion=least), loader(datasets, motion)
    line = (
        f"oxcart_kitchens: samples are taken at {left.epoch_length} of {before.epoch_length} steps, "
        f"those that move by {least:g} as camera image_0 sees it"
    )
    assert line in str(left).splitlines()
    assert "are taken" not in str(before)


def test_it_resumes_and_names_the_threshold(datasets: Datasets, motion: dict[str, str]) -> None:
    least = level(motion["raw"], 0.4)
    options = {"min_motion": least, "repeat": True}
    whole = [batch.t.tolist() for batch in itertools.islice(loader(datasets, motion, **options), 12)]
    for count in (1, 5):
        first = loader(datasets, motion, **options)
        for _ in itertools.islice(first, count):
            pass
        second = loader(datasets, motion, **options)
        second.load_state_dict(first.state_dict())
        assert [b.t.tolist() for b in itertools.islice(second, 12 - count)] == whole[count:]
    with pytest.raises(ConfigError, match=r"min_motion was None, is \["):
        loader(datasets, motion, min_motion=least).load_state_dict(loader(datasets, motion).state_dict())
    assert "min_motion" not in loader(datasets, motion).state_dict()["order"]


def test_each_dataset_of_a_mixture_has_its_own(datasets: Datasets, motion: dict[str, str]) -> None:
    both = Mixture(datasets=[str(datasets["raw"]), str(datasets["small"])], weights="equal")
    found = Loader(
        both,
        sample=SAMPLE,
        batch_size=8,
        lanes=2,
        window=8,
        min_motion=level(motion["raw"], 0.5),
        motion=list(motion.values()),
        repeat=False,
    )
    assert sum("are taken at" in line for line in str(found).splitlines()) == 2
    assert len(keys_and_steps(found)) == found.epoch_length


def test_what_is_impossible_is_one_line(datasets: Datasets, motion: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"min_motion: .* cannot be read; run oxcart annotate motion"):
        loader(datasets, motion, min_motion=1.0, motion=[])
    with pytest.raises(ConfigError, match="min_motion: no annotation belongs to"):
        loader(datasets, motion, min_motion=1.0, motion=[motion["small"]])
    with pytest.raises(ConfigError, match="min_motion: 999 is more than the motion of each"):
        loader(datasets, motion, min_motion=999.0)
    with pytest.raises(ConfigError, match="min_motion: expected at least 0, got -1"):
        loader(datasets, motion, min_motion=-1.0)
    whole = read_annotation(motion["raw"])
    values = dict(whole.values)
    values.popitem()
    write_annotation(
        f"{tmp_path}/part.parquet",
        Annotation(
            name="motion", producer=whole.producer, dataset=whole.dataset, parameters={}, values=values
        ),
    )
    with pytest.raises(ConfigError, match=r"min_motion: .*: has no values for episode"):
        loader(datasets, motion, min_motion=0.0, motion=[f"{tmp_path}/part.parquet"])
