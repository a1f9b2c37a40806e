"""Every field of a batch of windows is what tarfile and NumPy find, for any steps, cameras and mixtures."""

from __future__ import annotations

import functools
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from by_hand import members_by_hand
from depth import depth, few
from oxcart.shards.errors import ConfigError
from oxcart.train.data import Batch, Loader, Mixture, Seconds, Window
from oxcart.train.data.sampling import TooShortError
from oxcart.train.data.stacking import columns_of
from sample_compile import rows_of, uploaded
from window_datasets import AHEAD, CODES, HZ, codes

MEMBERS = {"primary": "image", "wrist": "hand"}
"""Role -> the camera that has it."""
COLUMNS = ["dx", "dy", "dz", "grip"]
"""Columns of the action of `arm`."""
WIDTHS = {"arm": {"action": 4, "state": 3}, "legged": {"action": 2, "state": 5}}
Array = npt.NDArray[Any]
Datasets = Mapping[str, Path]


@dataclass(frozen=True)
class Told:
    """An episode, read by hand."""

    row: dict[str, Any]
    members: dict[str, Any]

    def span(self, stream: str) -> tuple[int, int]:
        """First step of a stream, and the step after its last."""
        if stream == "action":
            return self.row["action.start"], self.row["action.stop"]
        return 0, self.row["steps"]


Episodes = Mapping[str, Mapping[str, Told]]


@functools.cache
def told_of(dataset: Path) -> Mapping[str, Told]:
    """Key -> episode. It is no fixture, for hypothesis prints the arguments of a test that fails."""
    members = members_by_hand(dataset)
    return {row["key"]: Told(row, members[row["key"]]) for row in rows_of(dataset)}


def steps_in(steps: Any, dataset: str) -> list[int]:
    """Steps relative to t, in steps of a dataset."""
    if not isinstance(steps, Seconds):
        return [steps] if isinstance(steps, int) else list(steps)
    hz = HZ[dataset]
    return [0 if one == 0 else max(1, round(abs(one) * hz)) * (1 if one > 0 else -1) for one in steps.offsets]


def cameras_of(window: Window) -> dict[str, Any]:
    """Camera -> its steps; that of frames without a name is the primary one."""
    if isinstance(window.frames, Mapping):
        return dict(window.frames)
    return {} if window.frames is None else {"primary": window.frames}


def anchors_of(window: Window, episode: Told, dataset: str) -> list[int]:
    """Every t that a window may be taken at."""
    streams = [("frames", steps) for steps in cameras_of(window).values()]
    streams += [(name, getattr(window, name)) for name in ("state", "action")]

    def whole(t: int) -> bool:
        for name, steps in streams:
            start, stop = episode.span(name)
            if steps is not None and any(not start <= t + one < stop for one in steps_in(steps, dataset)):
                return False
        return True

    found = [t for t in range(episode.row["steps"]) if window.pad == "repeat" or whole(t)]
    return found[: max(0, len(found) - window.leave)]


def picked(values: Array, span: tuple[int, int], t: int, steps: Any, dataset: str) -> tuple[Array, Array]:
    """Values [k, ...] of an episode at steps relative to t, and which of these are padding."""
    start, stop = span
    wanted = [t + one for one in steps_in(steps, dataset)]
    is_pad = np.array([not start <= one < stop for one in wanted])
    if start >= stop:
        found = np.zeros((len(wanted), *values.shape[1:]), values.dtype)
    else:
        found = np.stack([values[min(max(one, start), stop - 1)] for one in wanted])
    return (found[0], is_pad[0]) if isinstance(steps, int) else (found, is_pad)


def in_force(episode: Told, t: int) -> list[str]:
    """The instruction at step t, if there is one; the source has one field of them."""
    texts = [one["text"] for one in episode.members["json"]["instructions"] if one["step"] <= t]
    return [text for text in texts[-1:] if text]


def check(
    batch: Batch,
    window: Window,
    told: Episodes,
    width: Mapping[str, int],
    chosen: Sequence[str] | None = None,
) -> None:
    """Compare all of a batch with what is found by hand.

    Args:
        batch: the batch.
        window: what it was asked for.
        told: name of each dataset -> key -> episode.
        width: columns of `action` and `state` in the batch.
        chosen: columns of the action that are read; None reads all.
    """
    cameras = cameras_of(window)
    assert batch.cameras == tuple(cameras)
    assert batch.action_mask is None
    assert (batch.frames is None) == (batch.frames_is_pad is None) == (window.frames is None)
    named = isinstance(window.frames, Mapping)
    frames = batch.frames if named else dict.fromkeys(cameras, batch.frames)
    pads = batch.frames_is_pad if named else dict.fromkeys(cameras, batch.frames_is_pad)
    assert [*frames] == [*pads] == [*cameras]
    for i, (dataset, key, t) in enumerate(zip(batch.dataset, batch.key, batch.t.tolist(), strict=True)):
        episode = told[dataset][key]
        assert t in anchors_of(window, episode, dataset)
        for camera, steps in cameras.items():
            values = episode.members.get(MEMBERS.get(camera, camera))
            lacks = values is None
            if lacks:  # the dataset has no camera of this role
                values = np.zeros((episode.row["steps"], *frames[camera].shape[-3:]), np.uint8)
            expected, is_pad = picked(values, episode.span("frames"), t, steps, dataset)
            same(frames[camera][i], expected)
            same(pads[camera][i], is_pad | lacks)
        for name in ("action", "state"):
            steps, found = getattr(window, name), getattr(batch, name)
            mask = getattr(batch, f"{name}_is_pad")
            assert (steps is None) == (found is None) == (mask is None)
            if steps is None:
                continue
            values, own = episode.members[name], WIDTHS[dataset][name]
            if name == "action" and chosen is not None:
                values, own = values[:, [COLUMNS.index(one) for one in chosen]], len(chosen)
            expected, is_pad = picked(values, episode.span(name), t, steps, dataset)
            same(found[i][..., :own], expected)
            assert found.shape[-1] == width[name]
            assert not found[i][..., own:].any()
            same(mask[i], is_pad)
            assert len(batch.columns[dataset][name]) == own
        seen = [one for steps in cameras.values() for one in steps_in(steps, dataset)]
        assert batch.offset[i] == (max(seen) - min(seen) if seen else 0)
        assert batch.environment[i] == episode.row["environment"]
        assert batch.instruction[i] == episode.row["instruction"]
        assert batch.instructions is not None
        assert batch.instructions[i] == in_force(episode, t)
        same(batch.annotations["codes"][i], codes(key, t + 1)[t])
        assert bool(batch.annotations_is_pad["codes"][i]) == (t + AHEAD >= episode.row["steps"])


def same(found: torch.Tensor, expected: Array) -> None:
    assert found.numpy().dtype == np.asarray(expected).dtype
    np.testing.assert_array_equal(found.numpy(), expected)


def rising(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(values, min_size=1, max_size=4, unique=True).map(sorted)


near = st.integers(-4, 5)
seconds = rising(st.integers(-20, 20).map(lambda one: one / 20)).map(lambda some: Seconds(*some))
some_steps: st.SearchStrategy[Any] = st.one_of(
    near,
    rising(near).map(tuple),
    rising(st.integers(-24, 24)),
    st.builds(lambda first, count: range(first, first + count), near, st.integers(1, 16)),
    seconds,
)
maybe_steps = st.none() | some_steps


@st.composite
def windows(draw: st.DrawFn, cameras: Sequence[str]) -> Window:
    named = st.dictionaries(st.sampled_from(cameras), some_steps, min_size=1, max_size=3)
    streams = {
        "frames": draw(st.none() | some_steps | named),
        "state": draw(maybe_steps),
        "action": draw(maybe_steps),
    }
    if all(steps is None for steps in streams.values()):
        streams["action"] = draw(some_steps)
    return Window(
        **streams,
        pad=draw(st.sampled_from(["drop", "repeat"])),
        per_episode=draw(st.just("all") | st.integers(1, 3)),
        leave=draw(st.sampled_from([0, 0, 1, 3])),
    )


def short_too(window: Window, told: Episodes) -> bool:
    """Whether a dataset has no episode that is long enough."""
    return any(
        not any(anchors_of(window, episode, name) for episode in episodes.values())
        for name, episodes in told.items()
    )


@depth(200)
@given(data=st.data())
def test_a_batch_is_what_is_found_by_hand(windowed: Datasets, data: st.DataObject) -> None:
    codec = data.draw(st.sampled_from(["raw", "zstd", "jpeg"]))
    window = data.draw(windows(["primary", "wrist", "image", "hand"]))
    read = [name for name in ("action", "state") if getattr(window, name) is not None]
    width = {name: WIDTHS["arm"][name] + data.draw(st.integers(0, 2)) for name in read}
    settings = {
        "batch_size": data.draw(st.sampled_from([3, 16])),
        "read_mode": data.draw(st.sampled_from(["auto", "sparse", "sequential"])),
        "memory": data.draw(st.sampled_from([1, 1 << 20])),
        "pad_to": width if read else None,
    }
    chosen = None
    if window.action is not None:
        chosen = data.draw(st.none() | st.lists(st.sampled_from(COLUMNS), min_size=1, unique=True))
        settings["action_columns"] = chosen
    options = {**settings, "instructions": True, "annotations": [str(windowed[codec] / CODES)]}

    def load() -> Loader:
        return Loader(
            str(windowed[codec]),
            sample=window,
            control_rate=HZ["arm"],
            repeat=False,
            threads=2,
            lanes=4,
            block=8,
            **options,
        )

    episodes = {"arm": told_of(windowed[codec])}
    if short_too(window, episodes):
        with pytest.raises(TooShortError):
            load()
        return
    found: Counter[tuple[str, int]] = Counter()
    for batch in load():
        check(batch, window, episodes, width, chosen)
        found.update(zip(batch.key, batch.t.tolist(), strict=True))
    expected = {key: anchors_of(window, one, "arm") for key, one in episodes["arm"].items()}
    if window.per_episode == "all":
        assert found == Counter((key, t) for key, steps in expected.items() for t in steps)
    else:
        counts: Counter[str] = Counter()
        for (key, _), count in found.items():
            counts[key] += count
        assert counts == {key: window.per_episode for key, steps in expected.items() if steps}


REPEATING = Window(
    frames={"primary": (-2, 0, 1), "wrist": -1},
    state=(-1, 0),
    action=range(-1, 4),
    pad="repeat",
    per_episode="all",
)
EXAMPLES = {
    "repeating": REPEATING,
    "whole": replace(REPEATING, pad="drop"),
    "in seconds": replace(REPEATING, frames={"primary": Seconds(-0.05, 0), "wrist": Seconds(0.4)}, leave=1),
    "arrays alone": replace(REPEATING, frames=None, state=-2, action=1),
    "one camera": replace(REPEATING, frames=(0, 3), state=None, action=None),
}


@pytest.mark.parametrize("window", EXAMPLES.values(), ids=EXAMPLES)
def test_datasets_of_other_columns_and_cameras_are_mixed(windowed: Datasets, window: Window) -> None:
    check_mixture(windowed, window)


@depth(100)
@given(data=st.data())
@pytest.mark.system
def test_datasets_are_mixed_in_any_window(windowed: Datasets, data: st.DataObject) -> None:
    check_mixture(windowed, data.draw(windows(["primary", "wrist", "image"])))


def check_mixture(windowed: Datasets, window: Window) -> None:
    read = [name for name in ("action", "state") if getattr(window, name) is not None]
    width = dict.fromkeys(read, 6)
    episodes = {"arm": told_of(windowed["raw"]), "legged": told_of(windowed["legged"])}

    def load() -> Loader:
        return Loader(
            Mixture(datasets=[str(windowed["raw"]), str(windowed["legged"])], weights=[2, 1], epoch="all"),
            sample=window,
            batch_size=16,
            control_rate=HZ,
            repeat=False,
            threads=2,
            pad_to=6 if read else None,
            instructions=True,
            annotations=[str(windowed[name] / CODES) for name in ("raw", "legged")],
        )

    if short_too(window, episodes):
        with pytest.raises(TooShortError):
            load()
        return
    seen = set()
    for batch in load():
        check(batch, window, episodes, width)
        seen.update(zip(batch.dataset, batch.key, batch.t.tolist(), strict=True))
    if window.per_episode == "all":
        assert seen == {
            (name, key, t)
            for name, of in episodes.items()
            for key, one in of.items()
            for t in anchors_of(window, one, name)
        }


def two_cameras(windowed: Datasets, what: str, **options: Any) -> Loader:
    paths = [windowed["raw"], windowed["legged"]] if what == "mixture" else [windowed[what]]
    settings = {"batch_size": 8, "lanes": 4, "block": 8, "threads": 2, "pad_to": 6, **options}
    return Loader([str(path) for path in paths], sample=REPEATING, **settings)


def content(batch: Batch) -> list[tuple[Any, ...]]:
    """Every sample of a batch, with its data."""
    tensors = [*batch.frames.values(), *batch.frames_is_pad.values()]
    tensors += [batch.action, batch.action_is_pad, batch.state, batch.state_is_pad]
    data = [[row.numpy().tobytes() for row in tensor] for tensor in tensors]
    return list(zip(batch.dataset, batch.key, batch.t.tolist(), *data, strict=True))


@pytest.mark.parametrize("what", few(["raw", "zstd", "jpeg", "mixture"], "mixture"))
def test_restored_at_any_step_it_goes_on_as_if_nothing_had_happened(windowed: Datasets, what: str) -> None:
    first = two_cameras(windowed, what)
    count = len(first) + 4
    states, expected = [first.state_dict()], []
    for batch in itertools.islice(first, count):
        expected.append(content(batch))
        states.append(json.loads(json.dumps(first.state_dict())))
    for step in range(count):
        again = two_cameras(windowed, what)
        again.load_state_dict(states[step])
        rest = [content(batch) for batch in itertools.islice(again, min(3, count - step))]
        assert rest == expected[step : step + 3]


@pytest.mark.parametrize("what", few(["raw", "zstd", "jpeg", "mixture"], "zstd", "mixture"))
def test_a_step_has_the_same_windows_for_any_number_of_ranks(windowed: Datasets, what: str) -> None:
    count = len(two_cameras(windowed, what)) + 4
    whole = [sorted(content(batch)) for batch in itertools.islice(two_cameras(windowed, what), count)]
    for world in (2, 4):
        ranks = [
            [
                content(batch)
                for batch in itertools.islice(two_cameras(windowed, what, rank=rank, world_size=world), count)
            ]
            for rank in range(world)
        ]
        for step, expected in enumerate(whole):
            assert {len(rank[step]) for rank in ranks} == {8 // world}
            assert sorted(itertools.chain.from_iterable(rank[step] for rank in ranks)) == expected


def test_each_camera_has_its_own_size(windowed: Datasets) -> None:
    sizes = {"primary": (6, 8), "wrist": 20}
    window = Window(frames={"primary": (0, 1), "wrist": 0}, pad="repeat", per_episode="all")
    both = next(iter(Loader(str(windowed["raw"]), sample=window, batch_size=8, size=sizes)))
    assert both.frames["primary"].shape == (8, 2, 6, 8, 3)
    assert both.frames["wrist"].shape == (8, 20, 20, 3)
    for camera, size in sizes.items():
        alone = Window(frames=window.frames[camera], pad="repeat", per_episode="all")  # type: ignore[index]
        one = next(iter(Loader(str(windowed["raw"]), sample=alone, batch_size=8, size=size, camera=camera)))
        assert (one.key, one.t.tolist()) == (both.key, both.t.tolist())
        assert torch.equal(one.frames, both.frames[camera])


@pytest.mark.parametrize("mode", few(["auto", "sparse", "sequential"], "sequential"))
def test_windows_of_a_bucket_are_those_of_the_directory(
    windowed: Datasets, remote: str, mode: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"sample": REPEATING, "batch_size": 8, "lanes": 4, "block": 8, "repeat": False}
    url = uploaded(windowed["zstd"], remote)
    local = Loader(str(windowed["zstd"]), **options)
    expected = [content(batch) for batch in local]
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        loader = Loader(url, read_mode=mode, cache=cache, **options)
        assert [content(batch) for batch in loader] == expected
    assert loader.bytes_read == 0, "the cache holds both cameras"


@pytest.mark.parametrize("what", ["zstd", "jpeg", "mixture"])
@pytest.mark.parametrize("world", [1, 2])
def test_nothing_stays_expected_or_kept_when_an_epoch_is_over(
    windowed: Datasets, what: str, world: int
) -> None:
    loader = two_cameras(windowed, what, repeat=False, rank=world - 1, world_size=world)
    batches = iter(loader)
    for _ in range(len(loader)):
        next(batches)
    assert loader._budget.used == 0
    for stream in loader.streams:
        for view in stream.views:
            assert not view.reader.reuse.expects


def test_datasets_of_one_name_and_different_columns_are_refused(windowed: Mapping[str, Path]) -> None:
    window = Window(frames=None, action=0)
    (arm,), (legged,) = (
        Loader(windowed[one], sample=window, batch_size=1).streams for one in ("raw", "legged")
    )
    assert columns_of([arm, legged]) == {"arm": arm.columns, "legged": legged.columns}
    legged.name = "arm"
    with pytest.raises(ConfigError, match="datasets: two are called 'arm', with different columns"):
        columns_of([arm, legged])
