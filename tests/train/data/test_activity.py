"""Thresholds of motion and action: exactly the active samples, once an epoch, resumable, and counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth import depth
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.annotation import Annotation, beside, read_annotation, write_annotation
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.motion import measure
from oxcart.manifests.split import SplitRule
from oxcart.shards.errors import ConfigError
from oxcart.train.data import Frames, Loader, Mixture, Pairs, Window
from oxcart.train.data.activity import Idle
from sample_compile import CAMERAS, Compiled, compiled, rows_of

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
    chosen: dict[str, object] = {"sample": SAMPLE, "batch_size": 8, "lanes": 2, "block": 8, "repeat": False}
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
        block=8,
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
    with pytest.raises(ConfigError, match=r"none of the 99 steps of .* is among those that move by 999"):
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


def active_by_hand(
    scores: list[list[float]], least: list[float], idle: Idle, anchors: tuple[int, int]
) -> list[int]:
    """The anchors of one episode that stay, step by step."""
    begin, end = anchors
    found = set()
    for score, threshold in zip(scores, least, strict=True):
        on = False
        for t in range(begin, end):
            on = score[t] >= threshold or (on and score[t] >= threshold * idle.hold)
            if on:
                found.add(t)
    if idle.ends and found:
        found |= set(range(min(found), max(found)))
    runs: list[list[int]] = []
    for t in range(begin, end):
        if t in found:
            continue
        if runs and runs[-1][-1] == t - 1:
            runs[-1].append(t)
        else:
            runs.append([t])
    return sorted(found.union(*(run for run in runs if len(run) < idle.run)))


@depth(300)
@given(data=st.data())
def test_idle_anchors_are_those_of_a_loop_over_steps(data: st.DataObject) -> None:
    idle = Idle(
        hold=data.draw(st.sampled_from([1.0, 0.5, 0.0])),
        run=data.draw(st.integers(1, 4)),
        ends=data.draw(st.booleans()),
    )
    kinds, length, episodes = (data.draw(st.integers(1, most)) for most in (2, 12, 4))
    values = st.lists(st.integers(0, 8), min_size=length, max_size=length)
    scores = [[data.draw(values) for _ in range(episodes)] for _ in range(kinds)]
    least = [data.draw(st.sampled_from([0.0, 3.0, 6.0])) for _ in range(kinds)]
    runs = [sorted(data.draw(st.tuples(*[st.integers(0, length)] * 2))) for _ in range(episodes)]
    steps = np.arange(length)
    anchors = np.array([(steps >= begin) & (steps < end) for begin, end in runs])
    found = idle.active([np.array(one, float) for one in scores], least, anchors)
    for i, run in enumerate(runs):
        expected = active_by_hand([one[i] for one in scores], least, idle, (run[0], run[1]))
        assert np.flatnonzero(found[i]).tolist() == expected


def test_samples_are_idle_by_all_cameras_and_by_actions(whole: Compiled, tmp_path: Path) -> None:
    """Planted scores: one camera sees the first steps move, the other the last, the action one in between."""
    source = SourceConfig(url=str(whole.source), cameras=CAMERAS)
    compiled(whole.source, tmp_path / "both", source=source, rule=SplitRule(val=None))
    url = str(tmp_path / "both")
    rows = rows_of(tmp_path / "both")
    steps = {row["key"]: row["steps"] for row in rows}
    print_of = Dataset.open(url).manifest.fingerprint

    def write(name: str, parameters: dict[str, object], values: Callable[[int], object]) -> None:
        found = {key: np.array([values(t) for t in range(count)], np.float32) for key, count in steps.items()}
        write_annotation(
            beside(url, name),
            Annotation(name=name, producer="0" * 64, dataset=print_of, parameters=parameters, values=found),
        )

    write("motion", {"cameras": [*CAMERAS]}, lambda t: (9 if t < 2 else 0, 9 if t == 4 else 0))
    write("action", {"columns": ["dx"]}, lambda t: 1 if t == 3 else 0)

    def steps_of(**options: object) -> set[int]:
        sample = Frames(per_episode="all")
        chosen: dict[str, object] = {"sample": sample, "batch_size": 8, "repeat": False, **options}
        found = Loader(url, **chosen)  # type: ignore[arg-type]
        return {t for batch in found for t in batch.t.tolist()}

    assert steps_of(min_motion=5.0, camera=CAMERAS[0]) == {0, 1}
    assert steps_of(min_motion=5.0, camera=CAMERAS[1]) == {4}
    both = Window(frames=dict.fromkeys(CAMERAS, 0), per_episode="all")
    assert steps_of(min_motion=5.0, sample=both) == {0, 1, 4}
    assert steps_of(min_action=0.5) == {3}
    assert steps_of(min_action=0.5, min_motion=5.0, camera=CAMERAS[0]) == {0, 1, 3}
    assert steps_of(min_action=0.5, min_motion=5.0, sample=both, idle=Idle(run=2)) == {0, 1, 2, 3, 4}
    table = str(Loader(url, sample=both, batch_size=8, min_motion=5.0, min_action=0.5))
    assert f"those that move by 5 as {', '.join(CAMERAS)} see it or those whose action moves by 0.5" in table
    state = Loader(url, sample=both, batch_size=8, min_action=0.5).state_dict()
    again = Loader(url, sample=both, batch_size=8, min_action=0.5, idle=Idle(run=2))
    with pytest.raises(ConfigError, match=r"min_action\[0\].run was None, is 2"):
        again.load_state_dict(state)


@pytest.fixture(scope="module")
def planted(whole: Compiled, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset of two cameras, as `plant` makes it."""
    return plant(whole, str(tmp_path_factory.mktemp("planted") / "both"))


def plant(whole: Compiled, url: str, **options: Any) -> str:
    """Compile a dataset of two cameras: the first sees steps 0 and 3 move, the second step 1."""
    source = SourceConfig(url=str(whole.source), cameras=CAMERAS, **options)
    manifest = compiled(whole.source, Path(url), source=source, rule=SplitRule(val=None))
    values = {
        row["key"]: np.array([(9 * (t in (0, 3)), 9 * (t == 1)) for t in range(row["steps"])], np.float32)
        for row in rows_of(Path(url))
    }
    annotation = Annotation(
        name="motion",
        producer="0" * 64,
        dataset=manifest.fingerprint,
        parameters={"cameras": [*CAMERAS]},
        values=values,
    )
    write_annotation(beside(url, "motion"), annotation)
    return url


def test_a_camera_that_is_read_for_want_of_a_primary_one_is_scored_alone(
    whole: Compiled, tmp_path: Path
) -> None:
    url = plant(whole, str(tmp_path / "both"), roles=dict(zip(CAMERAS, ("secondary", "wrist"), strict=True)))
    found = Loader(url, sample=Frames(per_episode="all"), batch_size=8, repeat=False, min_motion=4.0)
    assert {t for _, t in keys_and_steps(found)} == {0, 3}


REPEATED = Window(frames=(0, 2), pad="repeat", per_episode="all")
WHOLE = Window(frames=(-2, 0), state=0, per_episode="all")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"sample": SAMPLE, "camera": CAMERAS[0]}, {"sample": SAMPLE, "camera": CAMERAS[1]}),
        ({"sample": REPEATED}, {"sample": replace(REPEATED, frames=(0, 3))}),
        ({"sample": WHOLE}, {"sample": replace(WHOLE, frames=0, state=(-2, 0))}),
    ],
    ids=["another camera", "other frames of a window that repeats", "frames where states were"],
)
def test_a_state_of_samples_that_were_scored_otherwise_is_refused(
    planted: str, one: dict[str, object], other: dict[str, object]
) -> None:
    def opened(options: dict[str, object]) -> Loader:
        return Loader(planted, batch_size=8, repeat=False, min_motion=4.0, **options)  # type: ignore[arg-type]

    assert keys_and_steps(opened(one)) != keys_and_steps(opened(other)), "another order"
    with pytest.raises(ConfigError, match="state: has another order of samples"):
        opened(other).load_state_dict(opened(one).state_dict())


def test_steps_left_out_at_the_end_are_the_last_ones_and_not_the_last_active_ones(planted: str) -> None:
    sample = Frames(per_episode="all", leave=2)
    left = Loader(planted, sample=sample, batch_size=8, repeat=False, min_motion=4.0, camera=CAMERAS[0])
    steps = {row["key"]: row["steps"] for row in rows_of(Path(planted))}
    expected = {(key, t) for key, count in steps.items() for t in (0, 3) if t < count - 2}
    assert expected
    assert set(keys_and_steps(left)) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hold": 1.5}, "idle.hold: expected a share from 0 to 1, got 1.5"),
        ({"hold": "1"}, "idle.hold: expected a share from 0 to 1, got '1'"),
        ({"run": 0}, "idle.run: expected a whole number, at least 1, got 0"),
        ({"run": 2.5}, "idle.run: expected a whole number, at least 1, got 2.5"),
        ({"ends": "no"}, "idle.ends: expected True or False, got 'no'"),
    ],
)
def test_impossible_rules_for_idle_samples_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Idle(**options)  # type: ignore[arg-type]
