"""What comes, in which order, and that nothing but the position decides it."""

from __future__ import annotations

import gc
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from depth import few
from oxcart.compile.sources.base import SourceConfig
from oxcart.manifests.annotation import Annotation, write_annotation
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.split import SplitRule
from oxcart.shards.codec import Encoding
from oxcart.shards.errors import ConfigError, CorruptError, OxcartError
from oxcart.train.data import Batch, Frames, Loader, Mixture, Pairs
from rlds_builder import Text, jpeg, write_dataset
from sample_compile import CAMERAS, Compiled, compiled, rows_of
from toy_rlds import FEATURES, episode

Datasets = Mapping[str, Path]
Sample = tuple[str, str, int, int]

ALL = Pairs(frames=2, per_episode="all")
SHARD_SIZE = 60_000


def samples(batch: Batch) -> list[Sample]:
    return list(zip(batch.dataset, batch.key, batch.t.tolist(), batch.offset.tolist(), strict=True))


def content(batch: Batch) -> tuple[list[Sample], bytes]:
    return samples(batch), batch.frames.numpy().tobytes()


def take(loader: Loader, count: int) -> list[tuple[list[Sample], bytes]]:
    return [content(batch) for batch in itertools.islice(loader, count)]


def loader_of(datasets: Datasets, what: str, **options: Any) -> Loader:
    given: Any = {
        "raw": str(datasets["raw"]),
        "zstd": str(datasets["zstd"]),
        "jpeg": str(datasets["jpeg"]),
        "mixture": Mixture(datasets=[str(datasets["raw"]), str(datasets["small"])], weights=[3, 1]),
    }[what]
    defaults: dict[str, Any] = {"sample": ALL, "batch_size": 8, "lanes": 4, "block": 8, "threads": 2}
    return Loader(given, **(defaults | options))


@pytest.mark.parametrize("codec", ["raw", "zstd", "jpeg"])
@pytest.mark.parametrize("sample", [ALL, Pairs(frames=1), Pairs(frames=3, per_episode=4), Frames()])
def test_frames_are_those_of_the_episode(
    datasets: Datasets, by_hand: Mapping[str, Any], codec: str, sample: Any
) -> None:
    loader = loader_of(datasets, codec, sample=sample, repeat=False)
    seen = 0
    for batch in loader:
        for i, (_, key, t, offset) in enumerate(samples(batch)):
            frames = by_hand[codec][key]
            expected = frames[[t, t + offset]] if isinstance(sample, Pairs) else frames[t]
            assert np.array_equal(batch.frames[i].numpy(), expected)
            seen += 1
    assert seen == loader.epoch_length


def test_the_cameras_of_a_dataset_may_have_different_codecs(whole: Compiled, tmp_path: Path) -> None:
    source = SourceConfig(url=str(whole.source), cameras=CAMERAS)
    codecs = {"image_0": Encoding(codec="zstd"), "wrist": Encoding(codec="raw")}
    compiled(whole.source, tmp_path / "raw", source=source)
    compiled(whole.source, tmp_path / "both", source=source, encodings=codecs)
    for camera in CAMERAS:
        raw, both = (
            Loader(str(tmp_path / out), sample=ALL, batch_size=8, camera=camera, threads=1)
            for out in ("raw", "both")
        )
        assert take(both, 4) == take(raw, 4)


def test_an_epoch_is_every_sample_once(datasets: Datasets) -> None:
    rows = [row for row in rows_of(datasets["raw"]) if row["split"] == "train"]
    expected = Counter((row["key"], t) for row in rows for t in range(row["steps"] - 2))
    for world in (1, 2, 4):
        found: Counter[tuple[str, int]] = Counter()
        steps = set()
        for rank in range(world):
            loader = loader_of(datasets, "raw", rank=rank, world_size=world, repeat=False)
            batches = [samples(batch) for batch in loader]
            found.update((key, t) for batch in batches for _, key, t, _ in batch)
            steps.add(len(batches))
        assert found == expected
        assert steps == {len(loader)}


@pytest.mark.parametrize("what", ["raw", "mixture"])
def test_a_step_has_the_same_samples_for_any_number_of_ranks(datasets: Datasets, what: str) -> None:
    whole = [sorted(one[0]) for one in take(loader_of(datasets, what), 30)]
    for world in (2, 4):
        ranks = [take(loader_of(datasets, what, rank=r, world_size=world), 30) for r in range(world)]
        for step in range(30):
            assert {len(rank[step][0]) for rank in ranks} == {8 // world}
            assert sorted(s for rank in ranks for s in rank[step][0]) == whole[step]


@pytest.mark.parametrize(
    ("what", "world"),
    few(
        [(what, world) for what in ("raw", "zstd", "mixture") for world in (1, 2, 4)],
        ("mixture", 2),
    ),
)
def test_restored_at_any_step_it_goes_on_as_if_nothing_had_happened(
    datasets: Datasets, what: str, world: int
) -> None:
    """Over three epochs; each restored one is restored again later."""
    place = {"rank": world - 1, "world_size": world}
    first = loader_of(datasets, what, **place)
    count = 3 * len(first) + 2
    states, expected = [first.state_dict()], []
    for batch in itertools.islice(first, count):
        expected.append(content(batch))
        states.append(json.loads(json.dumps(first.state_dict())))
    for step in range(0, count, 1 if world == 1 else 5):
        again = loader_of(datasets, what, **place)
        again.load_state_dict(states[step])
        few = min(3, count - step)
        assert take(again, few) == expected[step : step + few]
        third = loader_of(datasets, what, **place)
        third.load_state_dict(again.state_dict())
        assert take(third, count - step - few) == expected[step + few :]


def test_a_state_of_an_older_version_goes_on(datasets: Datasets) -> None:
    first = loader_of(datasets, "raw")
    take(first, 3)
    state = first.state_dict()
    state["order"]["window"] = state["order"].pop("block")
    again = loader_of(datasets, "raw")
    again.load_state_dict(state)
    assert take(again, 2) == take(first, 2)


def test_a_state_may_be_continued_by_another_number_of_ranks(datasets: Datasets) -> None:
    expected = [sorted(one[0]) for one in take(loader_of(datasets, "mixture"), 20)]
    first = loader_of(datasets, "mixture", rank=0, world_size=2)
    take(first, 7)
    ranks = []
    for rank in range(4):
        again = loader_of(datasets, "mixture", rank=rank, world_size=4)
        again.load_state_dict(first.state_dict())
        ranks.append(take(again, 13))
    for step in range(13):
        assert sorted(s for rank in ranks for s in rank[step][0]) == expected[7 + step]


def test_a_split_smaller_than_a_batch_repeats_in_training_and_ends_in_validation(datasets: Datasets) -> None:
    options = {"sample": Pairs(frames=1), "batch_size": 64}
    training = loader_of(datasets, "raw", **options)
    assert training.epoch_length < 64
    counts = Counter(key for _, key, _, _ in take(training, 1)[0][0])
    assert max(counts.values()) - min(counts.values()) <= 1
    validation = loader_of(datasets, "raw", **options, repeat=False)
    for _ in range(2):
        assert [len(batch) for batch in validation] == [validation.epoch_length]
    ranks = [loader_of(datasets, "raw", **options, repeat=False, rank=r, world_size=4) for r in range(4)]
    assert sum(len(batch) for rank in ranks for batch in rank) == validation.epoch_length


@pytest.mark.parametrize(
    "options",
    [
        {"memory": 1},
        {"memory": 40_000},
        {"threads": 7},
        {"prefetch": 1},
        {"read_mode": "sparse"},
        {"read_mode": "sequential"},
        {"check": False},
    ],
)
@pytest.mark.parametrize("what", ["raw", "zstd", "jpeg", "mixture"])
def test_memory_threads_and_ways_of_reading_change_no_byte(
    datasets: Datasets, what: str, options: dict[str, Any]
) -> None:
    expected = take(loader_of(datasets, what), 25)
    assert take(loader_of(datasets, what, **options), 25) == expected


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("what", ["zstd", "jpeg", "mixture"])
def test_nothing_stays_expected_or_kept_when_an_epoch_is_over(
    datasets: Datasets, what: str, world: int
) -> None:
    for rank in range(world):
        state = None
        for skipped in (3, 0):
            loader = loader_of(datasets, what, repeat=False, rank=rank, world_size=world)
            batches = iter(loader)
            for _ in range(len(loader) - skipped):
                next(batches)
            if skipped:
                state = loader.state_dict()
            else:
                check_nothing_is_kept(loader)
        resumed = loader_of(datasets, what, repeat=False, rank=rank, world_size=world)
        assert state is not None
        resumed.load_state_dict(state)
        batches = iter(resumed)
        for _ in range(3):
            next(batches)
        check_nothing_is_kept(resumed)


def check_nothing_is_kept(loader: Loader) -> None:
    """After the last batch, before the iteration is closed."""
    assert loader._budget.used == 0
    for stream in loader.streams:
        assert not any(view.reader.reuse.expects for view in stream.views)


def test_a_batch_that_is_held_is_not_written_again(datasets: Datasets) -> None:
    batches, expected = [], []
    for batch in itertools.islice(loader_of(datasets, "raw"), 20):
        batches.append(batch)
        expected.append(batch.frames.clone())
    assert all(torch.equal(b.frames, e) for b, e in zip(batches, expected, strict=True))


def test_actions_and_state_are_those_of_the_steps(datasets: Datasets) -> None:
    import io
    import tarfile

    arrays: dict[str, Any] = {}
    for shard in datasets["raw"].glob("shards/*.tar"):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith((".action.npy", ".state.npy")):
                    arrays[member.name] = np.load(io.BytesIO(tar.extractfile(member).read()))  # type: ignore
    acts = {row["key"]: (row["action.start"], row["action.stop"]) for row in rows_of(datasets["raw"])}
    ends = {row["steps"] - row["action.stop"] for row in rows_of(datasets["raw"])}
    assert ends == {1}, "the sample's last action moves nothing"
    for kind in ("steps", "sum"):
        options = {"sample": Pairs(frames=3, per_episode="all"), "action": kind, "state": True}
        for batch in loader_of(datasets, "raw", repeat=False, **options):
            assert [one.name for one in batch.columns["oxcart_kitchens"]["action"]] == ["dx", "dy", "gripper"]
            for i, (_, key, t, _) in enumerate(samples(batch)):
                action, (start, stop) = arrays[f"{key}.action.npy"], acts[key]
                assert torch.equal(batch.state[i], torch.from_numpy(arrays[f"{key}.state.npy"][t]))
                if kind == "steps":
                    known = (np.arange(t, t + 3) >= start) & (np.arange(t, t + 3) < stop)
                    assert batch.action_is_pad[i].tolist() == (~known).tolist()
                    expected = np.where(known[:, None], action[t : t + 3], 0)
                    assert torch.equal(batch.action[i], torch.from_numpy(expected))
                else:  # the gripper's change needs the action before
                    whole = start <= t and t + 3 <= stop
                    assert batch.action_mask[i].tolist() == [whole, whole, whole and t > start]
                    moved = action[t : t + 3, :2].sum(axis=0).tolist() if whole else [0, 0]
                    closed = float(action[t + 2, 2] - action[t - 1, 2]) if whole and t > start else 0
                    assert batch.action[i].tolist() == pytest.approx([*moved, closed])
    for batch in loader_of(datasets, "raw", sample=Frames(per_episode="all"), action="steps", repeat=False):
        for i, (_, key, t, _) in enumerate(samples(batch)):
            known = acts[key][0] <= t < acts[key][1]
            assert batch.action_is_pad[i].tolist() == [not known]
            expected = arrays[f"{key}.action.npy"][t : t + 1] * known
            assert torch.equal(batch.action[i], torch.from_numpy(expected))


def test_texts_are_those_of_the_episode(datasets: Datasets) -> None:
    rows = {row["key"]: row for row in rows_of(datasets["raw"])}
    for batch in loader_of(datasets, "raw", repeat=False):
        for key, environment, instruction in zip(
            batch.key, batch.environment, batch.instruction, strict=True
        ):
            assert rows[key]["split"] == "train"
            assert (environment, instruction) == (rows[key]["environment"], rows[key]["instruction"])


def test_instructions_are_all_that_hold_at_t(tmp_path: Path) -> None:
    features = {**FEATURES, "steps": {**FEATURES["steps"], "language_instruction_2": Text()}}
    names = ("language_instruction", "language_instruction_2")
    pixels = jpeg(np.zeros((16, 16, 3), np.uint8))

    def told(seed: int, first: Any, second: Any) -> dict[str, Any]:
        made = episode(seed, 4, image=pixels, language_instruction=first)
        for t, step in enumerate(made["steps"]):
            step[names[1]] = second(t)
        return made

    episodes = [
        told(0, "push", lambda t: "shove"),
        told(1, lambda t: "reach" if t < 2 else "grasp", lambda t: ""),
        told(2, "", lambda t: ""),
        told(3, "lift", lambda t: "lift"),
    ]
    root = write_dataset(tmp_path, features, episodes)
    fields = tuple(f"steps/{name}" for name in names)
    source = SourceConfig(url=str(root), cameras=("image",), instruction=fields, action=(), state=())
    compiled(root, tmp_path / "out", source=source, rule=SplitRule(val=None))
    loader = Loader(
        tmp_path / "out", sample=Frames(per_episode="all"), batch_size=5, instructions=True, repeat=False
    )
    wanted = {0: ["push", "shove"], 2: [], 3: ["lift"]}
    seen = 0
    for batch in loader:
        assert batch.instructions is not None
        for key, t, texts in zip(batch.key, batch.t.tolist(), batch.instructions, strict=True):
            which = int(key.rpartition("-")[2])
            assert texts == wanted.get(which, ["reach"] if t < 2 else ["grasp"])
            seen += 1
    assert seen == 16
    assert next(iter(Loader(tmp_path / "out", sample=Frames(), batch_size=2))).instructions is None


def test_the_preferred_instruction_comes_first(tmp_path: Path) -> None:
    features = {**FEATURES, "steps": {**FEATURES["steps"], "a_paraphrase": Text()}}
    made = episode(0, 4, language_instruction="push")
    for step in made["steps"]:
        step["a_paraphrase"] = "shove"
    root = write_dataset(tmp_path, features, [made])
    for first, second in (("language_instruction", "a_paraphrase"), ("a_paraphrase", "language_instruction")):
        fields = (f"steps/{first}", f"steps/{second}")
        source = SourceConfig(url=str(root), instruction=fields)
        compiled(root, tmp_path / first, source=source, rule=SplitRule(val=None))
        loader = Loader(tmp_path / first, sample=Frames(), batch_size=1, instructions=True)
        batch = next(iter(loader))
        assert batch.instructions is not None
        (texts,) = batch.instructions
        assert sorted(texts) == ["push", "shove"]
        assert texts[0] == batch.instruction[0] == batch.lerobot()["task"][0]


def test_metadata_that_was_changed_is_found(datasets: Datasets, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(datasets["raw"], out)
    row = next(row for row in rows_of(out) if row["split"] == "train")
    path = out / "shards" / f"{row['shard']}.tar"
    data = bytearray(path.read_bytes())
    at = data.index(b'"instructions"', row["offset"])
    data[at + 1] ^= 1
    path.write_bytes(data)
    loader = Loader(out, sample=Frames(per_episode="all"), batch_size=64, instructions=True, repeat=False)
    with pytest.raises(CorruptError, match=f"{row['key']}: json does not match its digest"):
        list(loader)


def test_annotations_come_at_t(datasets: Datasets, tmp_path: Path) -> None:
    rows = rows_of(datasets["raw"])
    codes = {row["key"]: np.arange(row["steps"] * 3).reshape(-1, 3) + i * 1000 for i, row in enumerate(rows)}
    score = {row["key"]: np.arange(row["steps"], dtype=np.float32) for row in rows}
    fingerprint = Dataset.open(str(datasets["raw"])).manifest.fingerprint
    urls = []
    for name, values in (("codes", codes), ("score", score)):
        urls.append(str(tmp_path / f"{name}.parquet"))
        about: dict[str, Any] = {"producer": "p", "dataset": fingerprint, "parameters": {"k": 2}}
        write_annotation(urls[-1], Annotation(name=name, values=values, **about))
    for batch in loader_of(datasets, "raw", annotations=urls, repeat=False):
        for i, (_, key, t, _) in enumerate(samples(batch)):
            assert batch.annotations["codes"][i].tolist() == codes[key][t].tolist()
            assert batch.annotations["score"][i].item() == t
    with pytest.raises(ConfigError, match="belongs to the dataset"):
        Loader(str(datasets["small"]), sample=ALL, batch_size=4, annotations=[urls[0]])


def test_frames_are_resized_as_pillow_does(datasets: Datasets, by_hand: Mapping[str, Any]) -> None:
    from PIL import Image

    for codec in ("raw", "zstd", "jpeg"):
        loader = loader_of(datasets, codec, size=(20, 24), repeat=False)
        batch = next(iter(loader))
        assert batch.frames.shape == (8, 2, 20, 24, 3)
        for i, (_, key, t, offset) in enumerate(samples(batch)):
            for j, step in enumerate((t, t + offset)):
                image = Image.fromarray(by_hand[codec][key][step]).resize((24, 20), Image.Resampling.BILINEAR)
                assert np.array_equal(batch.frames[i, j].numpy(), np.asarray(image))


def test_a_draw_is_from_everywhere_seeded_and_moves_nothing(datasets: Datasets) -> None:
    loader = loader_of(datasets, "mixture")
    first, again, other = loader.draw(12, seed=1), loader.draw(12, seed=1), loader.draw(12, seed=2)
    assert content(first) == content(again)
    assert content(first) != content(other)
    assert loader.position == 0
    assert len(set(first.key)) > 4
    assert take(loader, 3) == take(loader_of(datasets, "mixture"), 3)


@pytest.mark.parametrize("codec", ["zstd", "jpeg"])
def test_draws_and_abandoned_iterations_disturb_nothing(datasets: Datasets, codec: str) -> None:
    loader = loader_of(datasets, codec, threads=4)
    expected = take(loader_of(datasets, codec), 30)
    found = []
    for _ in range(10):
        batches = iter(loader)  # what the last one has read ahead is thrown away
        for batch in itertools.islice(batches, 3):
            loader.draw(16, seed=len(found))
            found.append(content(batch))
    assert found == expected


@pytest.mark.parametrize("what", ["raw", "zstd"])
def test_ranks_may_go_on_from_a_position_that_their_number_does_not_divide(
    datasets: Datasets, what: str
) -> None:
    first = loader_of(datasets, what, batch_size=3)
    take(first, 3)
    whole = loader_of(datasets, what)
    whole.load_state_dict(first.state_dict())
    expected = [sorted(one[0]) for one in take(whole, 12)]
    ranks = []
    for rank in range(4):
        again = loader_of(datasets, what, rank=rank, world_size=4)
        again.load_state_dict(first.state_dict())
        ranks.append(take(again, 12))
    for step in range(12):
        assert sorted(s for rank in ranks for s in rank[step][0]) == expected[step]


def test_a_limit_is_a_part_of_every_larger_one_and_leaves_val_alone(datasets: Datasets) -> None:
    found = []
    for limit in (1, 2, 5, None):
        loader = loader_of(datasets, "raw", limit=limit, repeat=False)
        found.append({key for batch in loader for key in batch.key})
    assert [len(keys) for keys in found[:3]] == [1, 2, 5]
    assert found[0] < found[1] < found[2] < found[3]


def test_a_weight_of_0_is_off_and_its_dataset_is_not_opened(datasets: Datasets, tmp_path: Path) -> None:
    mixture = Mixture(datasets=[str(datasets["raw"]), str(tmp_path / "absent")], weights=[1, 0])
    loader = Loader(mixture, sample=ALL, batch_size=8, lanes=4, block=8)
    assert take(loader, 9) == take(loader_of(datasets, "raw"), 9)


def test_the_table_says_what_an_epoch_is(datasets: Datasets) -> None:
    loader = loader_of(datasets, "mixture")
    raw, small = loader.table()
    assert raw["weight"] == pytest.approx(0.75)
    assert raw["passes"] == pytest.approx(1, abs=0.02)
    assert small["passes"] == pytest.approx(small["weight"] * loader.epoch_length / small["samples"])
    text = str(loader)
    assert f"an epoch is {loader.epoch_length:,} samples" in text
    assert len({len(line) for line in text.splitlines()[:3]}) == 1


def test_it_works_in_a_dataloader_without_workers(datasets: Datasets) -> None:
    expected = take(loader_of(datasets, "raw"), 5)
    wrapped = DataLoader(loader_of(datasets, "raw"), batch_size=None)
    assert [content(batch) for batch in itertools.islice(wrapped, 5)] == expected
    with pytest.raises(ConfigError, match="num_workers=0"):
        next(iter(DataLoader(loader_of(datasets, "raw"), batch_size=None, num_workers=1)))


@pytest.mark.system
def test_threads_end_with_the_loader(datasets: Datasets) -> None:
    import threading

    before = set(threading.enumerate())
    loader = loader_of(datasets, "raw", threads=3)
    batches = iter(loader)
    next(batches)
    mine = set(threading.enumerate()) - before
    assert len(mine) == 3
    del loader, batches
    gc.collect()
    for thread in mine:
        thread.join(10)
        assert not thread.is_alive()


BAD: list[tuple[Callable[[Datasets], Any], str]] = [
    (lambda d: loader_of(d, "raw", sample=Pairs(frames=99)), "needs 100 steps in a row"),
    (lambda d: loader_of(d, "raw", split="test"), "split 'test': .* has no episodes in it, but train"),
    (lambda d: loader_of(d, "raw", camera="top"), "camera 'top': the dataset has image_0"),
    (
        lambda d: loader_of(d, "raw", rank=0, world_size=3),
        "batch_size: expected a multiple of the world size",
    ),
    (
        lambda d: loader_of(d, "raw", rank=0, world_size=8, lanes=4),
        "lanes: expected a multiple of the world size 8, got 4",
    ),
    (lambda d: loader_of(d, "raw", rank=4, world_size=4), "rank: expected 0 to 3, got 4"),
    (lambda d: loader_of(d, "raw", rank=0), "expected both or none"),
    (lambda d: loader_of(d, "raw", batch_size=0), "batch_size: expected at least 1, got 0"),
    (lambda d: loader_of(d, "raw", action="mean"), "action: expected one of"),
    (
        lambda d: loader_of(d, "raw", action="sum", action_columns="dx"),
        "action_columns: expected a list, got 'dx'",
    ),
    (
        lambda d: loader_of(d, "raw", action="sum", action_columns=["dx", "dx"]),
        r"names that differ.* got \['dx', 'dx'\]",
    ),
    (
        lambda d: loader_of(d, "raw", action="sum", action_columns=["dz"]),
        "action_columns: .* has no column 'dz', but dx, dy, gripper",
    ),
    (
        lambda d: loader_of(d, "raw", action_columns=["dx"]),
        "names that differ, and action=; got no action",
    ),
    (lambda d: loader_of(d, "raw", action="sum", action_columns=[]), r"names that differ, .* got \[\]"),
    (
        lambda d: loader_of(d, "raw", control_rate={"oxcart_kitchen": 5}),
        "control_rate: expected one of oxcart_kitchens; got 'oxcart_kitchen'; did you mean",
    ),
    (lambda d: loader_of(d, "raw", size=0), "size: expected pixels, .* got 0"),
    (lambda d: Mixture(datasets=["a", "b"], weights=[0, 0]), "all are 0"),
    (lambda d: Mixture(datasets=["a", "b"], weights=[1]), "expected one for each of 2 datasets, got 1"),
    (lambda d: Mixture(datasets=["a"], weights=[-1]), "expected numbers from 0 to"),
    (lambda d: Mixture(datasets=[]), "expected at least one dataset"),
    (
        lambda d: Mixture(datasets=["a"], weights="some"),
        "expected frames, episodes, equal or numbers",
    ),
    (lambda d: Mixture(datasets=["a"], epoch="some"), "expected one of largest, smallest, all"),
    (
        lambda d: Loader([str(d["raw"]), f"{d['raw']}/."], sample=ALL, batch_size=4),
        "datasets: '.*' and '.*' are one dataset, of order",
    ),
    (
        lambda d: Loader([str(d["raw"]), str(d["jpeg"])], sample=ALL, batch_size=4),
        "datasets: '.*raw' and '.*jpeg' are the same episodes compiled or stored in two ways, of order",
    ),
    (lambda d: Loader(str(d["raw"].parent), sample=ALL, batch_size=4), "no manifest.json"),
]


@pytest.mark.parametrize(("make", "said"), BAD, ids=[said[:30] for _, said in BAD])
def test_what_is_impossible_is_said_in_one_line(
    datasets: Datasets, make: Callable[[Datasets], Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        make(datasets)
    assert "\n" not in str(caught.value)


def test_a_dataset_that_has_no_weight_may_be_there_again(datasets: Datasets) -> None:
    again = Mixture(datasets=[str(datasets["raw"])] * 2, weights=[0, 1])
    assert len(Loader(again, sample=ALL, batch_size=4).streams) == 1


def test_sizes_that_differ_need_one(datasets: Datasets, kitchens: Path, tmp_path: Path) -> None:
    source = SourceConfig(url=str(kitchens), cameras=("wrist",))
    compiled(kitchens, tmp_path / "wrist", source=source, shard_size=SHARD_SIZE, rule=SplitRule(val=None))
    both = [str(datasets["raw"]), str(tmp_path / "wrist")]
    with pytest.raises(ConfigError, match=r"size: frames of camera primary differ in size .*32x32.*size="):
        Loader(both, sample=ALL, batch_size=4)
    assert next(iter(Loader(both, sample=ALL, batch_size=4, size=16))).frames.shape == (4, 2, 16, 16, 3)


def test_actions_of_a_dataset_that_has_none_are_refused(kitchens: Path, tmp_path: Path) -> None:
    source = SourceConfig(url=str(kitchens), cameras=("image_0",), action=())
    compiled(kitchens, tmp_path / "out", source=source)
    with pytest.raises(ConfigError, match=r"action: .*has none"):
        Loader(str(tmp_path / "out"), sample=ALL, batch_size=4, action="sum")


def test_a_state_of_another_order_is_refused_and_says_what_differs(datasets: Datasets) -> None:
    state = loader_of(datasets, "raw").state_dict()
    for options, said in (
        ({"seed": 5}, "seed was 0, is 5"),
        ({"sample": Pairs(frames=3, per_episode="all")}, r"sample.frames was 2, is 3"),
        ({"block": 16}, "block was 8, is 16"),
        ({"limit": 3}, r"episodes was \[\d+\], is \[3\]"),
    ):
        with pytest.raises(ConfigError, match=said):
            loader_of(datasets, "raw", **options).load_state_dict(state)
    with pytest.raises(ConfigError, match=r"datasets\[0\].fingerprint was \w+, is \w+"):
        loader_of(datasets, "zstd").load_state_dict(state)
    for nonsense in ({}, {"version": 9, "position": 1}, {"version": 1, "position": -1}):
        with pytest.raises(ConfigError, match="expected one of version 1"):
            loader_of(datasets, "raw").load_state_dict(nonsense)


def test_an_error_in_a_thread_ends_the_iteration(datasets: Datasets, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(datasets["raw"], tmp_path / "cut")
    shard = sorted((tmp_path / "cut" / "shards").glob("train-*.tar"))[0]
    shard.unlink()
    with pytest.raises(OxcartError, match=rf"{shard.name}: read: No such file"):
        list(Loader(str(tmp_path / "cut"), sample=ALL, batch_size=4, repeat=False))
