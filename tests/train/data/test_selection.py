"""A selection reads exactly the chosen episodes, says what each step leaves, and is part of the state."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from depth import few
from oxcart.shards.errors import ConfigError
from oxcart.train.data import Frames, Loader, Mixture, Pairs
from sample_compile import rows_of

Datasets = Mapping[str, Path]

ALL = Pairs(frames=2, per_episode="all")


def loader(dataset: Path | Mixture, **options: Any) -> Loader:
    given = dataset if isinstance(dataset, Mixture) else str(dataset)
    chosen: dict[str, Any] = {"sample": ALL, "batch_size": 8, "lanes": 4, "block": 8, "repeat": False}
    return Loader(given, **{**chosen, **options})


def rows_of_train(dataset: Path) -> list[dict[str, Any]]:
    return [row for row in rows_of(dataset) if row["split"] == "train"]


def chosen_by(dataset: Path, where: str) -> set[str]:
    """Keys of train that an expression chooses, by plain Python."""
    long = sorted(row["steps"] for row in rows_of_train(dataset))[len(rows_of_train(dataset)) // 2]
    tests = {
        "steps": lambda row: row["steps"] >= long,
        "text": lambda row: "left" in row["instruction"] or "right" in row["instruction"],
    }
    return {row["key"] for row in rows_of_train(dataset) if tests[where](row)}


def expression(dataset: Path, where: str) -> str:
    long = sorted(row["steps"] for row in rows_of_train(dataset))[len(rows_of_train(dataset)) // 2]
    return {"steps": f"steps >= {long}", "text": "instruction ~ 'left|right'"}[where]


@pytest.mark.parametrize("codec", few(["raw", "zstd", "jpeg"], "raw"))
@pytest.mark.parametrize("where", ["steps", "text"])
def test_only_chosen_episodes_are_read_and_each_of_their_samples_once(
    datasets: Datasets, by_hand: Mapping[str, Any], codec: str, where: str
) -> None:
    chosen = chosen_by(datasets[codec], where)
    assert 0 < len(chosen) < len(rows_of_train(datasets[codec]))
    found = Counter[tuple[str, int]]()
    for batch in loader(datasets[codec], where=expression(datasets[codec], where)):
        found.update(zip(batch.key, batch.t.tolist(), strict=True))
        for i, (key, t) in enumerate(zip(batch.key, batch.t.tolist(), strict=True)):
            assert np.array_equal(batch.frames[i].numpy(), by_hand[codec][key][[t, t + 2]])
    steps = {row["key"]: row["steps"] for row in rows_of_train(datasets[codec])}
    assert found == Counter((key, t) for key in chosen for t in range(steps[key] - 2))


def test_keys_expression_and_limit_go_one_after_another(datasets: Datasets, tmp_path: Path) -> None:
    rows = rows_of_train(datasets["raw"])
    chosen = chosen_by(datasets["raw"], "steps")
    listed = [row["key"] for row in rows[1::2]]
    file = tmp_path / "keys.txt"
    file.write_text("\n".join(["", *listed, listed[0], ""]))
    where = expression(datasets["raw"], "steps")
    both = [row["key"] for row in rows if row["key"] in chosen and row["key"] in listed]
    assert len(both) >= 2
    found = loader(datasets["raw"], where=where, keys=file, limit=len(both) - 1)
    assert {key for batch in found for key in batch.key} == {*both[:-1]}
    line = (
        f"oxcart_kitchens: where={where!r} leaves {len(chosen)}; keys={str(file)!r} leaves {len(both)}; "
        f"limit={len(both) - 1} leaves {len(both) - 1} episodes"
    )
    assert line in str(found).splitlines()


def test_keys_of_another_split_are_known_and_others_are_refused(datasets: Datasets, tmp_path: Path) -> None:
    every = [row["key"] for row in rows_of(datasets["raw"])]
    file = tmp_path / "keys.txt"
    file.write_text("\n".join(every))
    assert len(loader(datasets["raw"], keys=file).streams[0].index) == len(rows_of_train(datasets["raw"]))
    file.write_text("\n".join([*every, every[0] + "x", "other"]))
    with pytest.raises(
        ConfigError, match=rf"no dataset has '{every[0]}x', nor 1 others; did you mean"
    ) as one:
        loader(datasets["raw"], keys=file)
    assert len(str(one.value).splitlines()) == 1


def test_a_key_needs_to_be_in_one_dataset_of_a_mixture(datasets: Datasets, tmp_path: Path) -> None:
    both = Mixture(datasets=[str(datasets["raw"]), str(datasets["small"])])
    firsts = [rows_of_train(datasets[name])[0]["key"] for name in ("raw", "small")]
    file = tmp_path / "keys.txt"
    file.write_text("\n".join(firsts))
    assert {key for batch in loader(both, keys=file) for key in batch.key} == {*firsts}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"where": "steps > 1000"}, "where='steps > 1000': leaves none of 15 episodes of .*raw, train"),
        ({"where": "instructoin ~ 'a'"}, "there is no column 'instructoin' .* did you mean instruction"),
        ({"where": "steps >"}, "expected a number, 'text', true or false, at character 8"),
        ({"where": "success"}, "where='success': leaves none of 15 episodes"),
        ({"balance": "colour"}, "balance: expected one of None, instruction, environment, dataset"),
    ],
)
def test_what_cannot_be_chosen_is_said_in_one_line(
    datasets: Datasets, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        loader(datasets["raw"], **options)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("text", "said"), [(b"\n \n", "got none"), (b"\xff\xfe", "got no UTF-8 text")])
def test_a_file_without_keys_is_refused(datasets: Datasets, tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "keys.txt").write_bytes(text)
    with pytest.raises(ConfigError, match=f"expected a key per line, {said}"):
        loader(datasets["raw"], keys=tmp_path / "keys.txt")


SELECTIONS: dict[str, dict[str, Any]] = {
    "where": {"where": "steps >= 8"},
    "balance": {"balance": "instruction"},
    "balanced places": {"balance": "environment", "where": "steps >= 8"},
}


@pytest.mark.parametrize("options", SELECTIONS.values(), ids=SELECTIONS)
def test_a_state_goes_on_with_the_same_selection_and_no_other(
    datasets: Datasets, options: dict[str, Any]
) -> None:
    first = loader(datasets["raw"], repeat=True, **options)
    batches = [(batch.key, batch.t.tolist()) for batch in itertools.islice(first, 12)]
    for step in (0, 5, 11):
        again = loader(datasets["raw"], repeat=True, **options)
        ahead = loader(datasets["raw"], repeat=True, **options)
        for _ in itertools.islice(ahead, step):
            pass
        again.load_state_dict(json.loads(json.dumps(ahead.state_dict())))
        rest = [(batch.key, batch.t.tolist()) for batch in itertools.islice(again, 12 - step)]
        assert rest == batches[step:]
    for name in options:
        other = {**options, name: {"where": "steps >= 9", "balance": None}[name]}
        with pytest.raises(ConfigError, match=rf"another order of samples.*{name} was .*, is "):
            loader(datasets["raw"], repeat=True, **other).load_state_dict(first.state_dict())


def test_other_keys_are_another_order(datasets: Datasets, tmp_path: Path) -> None:
    keys = [row["key"] for row in rows_of_train(datasets["raw"])]
    for name, some in (("one", keys[:4]), ("same", keys[3::-1]), ("two", keys[1:5])):
        (tmp_path / name).write_text("\n".join(some))
    state = loader(datasets["raw"], keys=tmp_path / "one").state_dict()
    loader(datasets["raw"], keys=tmp_path / "same").load_state_dict(state)
    with pytest.raises(ConfigError, match=r"keys was .*, is"):
        loader(datasets["raw"], keys=tmp_path / "two").load_state_dict(state)


@pytest.mark.parametrize("what", ["instruction", "environment"])
def test_turns_are_taken_in_every_prefix(datasets: Datasets, what: str) -> None:
    groups = {row[what] for row in rows_of_train(datasets["raw"])}
    counts = Counter[str | None]()
    for batch in itertools.islice(loader(datasets["raw"], balance=what, repeat=True), 20):
        for group in getattr(batch, what):
            counts[group] += 1
            assert max(counts.values()) - min(counts[one] for one in groups) <= 1
    assert {*counts} == groups


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_a_balanced_order(datasets: Datasets, world: int) -> None:
    options: dict[str, Any] = {"balance": "instruction", "sample": Frames(per_episode=3)}
    alone = [sorted(batch.key) for batch in loader(datasets["raw"], **options)]
    ranks = [loader(datasets["raw"], rank=r, world_size=world, **options) for r in range(world)]
    together = [sorted(key for batch in batches for key in batch.key) for batches in zip(*ranks, strict=True)]
    assert together == alone


def test_datasets_take_turns_whatever_their_size(datasets: Datasets) -> None:
    urls = [str(datasets["raw"]), str(datasets["small"])]
    found = loader(Mixture(datasets=urls), balance="dataset")
    assert [row["weight"] for row in found.table()] == [0.5, 0.5]
    with pytest.raises(ConfigError, match=r"balance: the mixture has weights, \[3, 1\]; leave one"):
        loader(Mixture(datasets=urls, weights=[3, 1]), balance="dataset")
