"""The environment is Gymnasium's, shows what the sample records, and begins where it is told to."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from oxcart import sim
from oxcart.compile.sample.expert import actions, demonstrate
from oxcart.compile.sample.kitchen import begin, build_kitchen, draw_main, draw_wrist, open_session
from oxcart.shards.errors import ConfigError

SMALL: dict[str, Any] = {"kitchens": ("toykitchen1", "toysink1"), "size": 32}


def small(**changes: Any) -> sim.KitchensEnv:
    return sim.KitchensEnv(**{**SMALL, **changes})


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_gymnasium_finds_nothing_wrong() -> None:
    env = gymnasium.make(sim.ID, **SMALL, render_mode="rgb_array")
    check_env(env.unwrapped)
    env.reset(seed=0)
    assert env.render().shape == (32, 32, 3)
    assert env.metadata["render_fps"] == 10


def test_the_id_imports_its_module_by_itself() -> None:
    code = f"import gymnasium; print(gymnasium.make('oxcart.sim:{sim.ID}').spec.max_episode_steps)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(sim.MAX_STEPS)


def test_the_same_seed_and_actions_give_the_same_bytes() -> None:
    def film(seed: int, **options: Any) -> list[dict[str, Any]]:
        env, rng = small(), np.random.default_rng(0)
        frames = [env.reset(seed=seed, options=options)[0]]
        for _ in range(6):
            frames.append(env.step(rng.uniform(-0.1, 0.1, 3))[0])
        return frames

    assert all(same(a, b) for a, b in zip(film(3), film(3), strict=True))
    assert not same(film(3)[0], film(4)[0])
    assert not same(film(3)[0], film(3, perturbed=True)[0])


def test_resets_without_a_seed_go_on_from_the_seed() -> None:
    a, b = small(), small()
    starts = []
    for env in (a, b):
        first = env.reset(seed=1)[1]
        starts.append(
            [(info["kitchen"], info["episode"]) for info in (first, env.reset()[1], env.reset()[1])]
        )
    assert starts[0] == starts[1]
    assert len(set(starts[0])) == 3
    assert min(episode for _, episode in starts[0]) >= sim.FIRST_EPISODE


@pytest.mark.parametrize("perturbed", [False, True])
def test_a_recorded_episode_is_found_by_its_numbers_and_replayed(perturbed: bool) -> None:
    session = open_session(build_kitchen("toykitchen13", size=32, seed=4), 1)
    worlds = demonstrate(begin(session, episode=2, perturbed=perturbed), 20)
    env = gymnasium.make(sim.ID, **SMALL, sample_seed=4)
    options = {"kitchen": "toykitchen13", "session": 1, "episode": 2, "perturbed": perturbed}
    observation, info = env.reset(seed=0, options=options)
    for world, action in zip(worlds, actions(worlds), strict=True):
        assert same(
            observation,
            {
                "image_0": np.asarray(draw_main(session, world)),
                "wrist": np.asarray(draw_wrist(session, world)),
                "state": world.state,
            },
        )
        assert info["instruction"] == world.instruction
        assert info["is_success"] == world.success
        observation, *_, info = env.step(action)


def test_an_option_changes_nothing_but_what_it_names() -> None:
    env = small()
    _, plain = env.reset(seed=5)
    for name, value in (("kitchen", "tool_chest"), ("session", 7), ("episode", 0)):
        _, info = env.reset(seed=5, options={name: value})
        kept = {key: info[key] for key in ("kitchen", "session", "episode") if key != name}
        assert kept == {key: plain[key] for key in kept}
        assert info[name] == value


def test_a_task_may_be_named_by_its_name_or_its_kind() -> None:
    env = small()
    found = Counter(env.reset(seed=seed, options={"task": "near"})[1]["task"] for seed in range(30))
    assert all("_near_" in name for name in found)
    assert len(found) > 3
    _, info = env.reset(seed=0, options={"task": next(iter(found)), "kitchen": "toykitchen1", "session": 0})
    assert info["task"] in found
    assert info["kind"] == "near"


def test_the_expert_is_rewarded_once_and_ends_the_episode() -> None:
    env = gymnasium.make(sim.ID, **SMALL)
    for seed in range(20):
        env.reset(seed=seed, options={"perturbed": seed % 2 == 1})
        rewards, terminated, truncated = [], False, False
        while not (terminated or truncated):
            action = sim.expert(env.unwrapped.world)  # type: ignore[attr-defined]
            assert env.action_space.contains(action)
            _, reward, terminated, truncated, info = env.step(action)
            rewards.append(reward)
        assert terminated
        assert info["is_success"]
        assert rewards == [0.0] * (len(rewards) - 1) + [1.0]


def test_a_policy_that_does_nothing_runs_out_of_time() -> None:
    env = gymnasium.make(sim.ID, **SMALL, max_episode_steps=5)
    env.reset(seed=0)
    ends = [env.step(np.zeros(3, np.float32))[1:4] for _ in range(5)]
    assert ends == [(0.0, False, False)] * 4 + [(0.0, False, True)]


def test_frames_may_be_written_to() -> None:
    observation, _ = small().reset(seed=0)
    assert all(array.flags.writeable for array in observation.values())


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_vectors_of_environments_keep_their_instructions(kind: str) -> None:
    make = [partial(gymnasium.make, f"oxcart.sim:{sim.ID}", **SMALL, max_episode_steps=20)] * 2
    envs = SyncVectorEnv(make) if kind == "sync" else AsyncVectorEnv(make)
    try:
        observation, info = envs.reset(seed=[3, 4])
        for _ in range(30):
            worlds = envs.get_attr("world")
            assert info["instruction"].tolist() == [world.instruction for world in worlds]
            np.testing.assert_array_equal(observation["state"], [world.state for world in worlds])
            observation, _, terminated, _, info = envs.step(np.stack([sim.expert(world) for world in worlds]))
            np.testing.assert_array_equal(info["is_success"], terminated)
        assert observation["image_0"].shape == (2, 32, 32, 3)
    finally:
        envs.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ({"kitchens": ()}, r"^kitchens: expected at least one name, got none; "),
        (
            {"kitchens": ("toykitchen4",)},
            r"^kitchens: expected a kitchen of the sample .*, got 'toykitchen4'$",
        ),
        ({"sessions": 0}, "^sessions: expected at least 1, got 0$"),
        ({"size": 8}, "^size: expected at least 32, got 8$"),
        ({"render_mode": "human"}, "^render_mode: expected rgb_array or None, got 'human'$"),
    ],
)
def test_an_impossible_environment_is_refused(make: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**make)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kichen": "toysink1"}, "^options: expected any of kitchen, session, .*, got 'kichen'$"),
        ({"kitchen": "moon"}, r"^options\['kitchen'\]: expected a kitchen of the sample .*, got 'moon'$"),
        ({"session": -1}, r"^options\['session'\]: expected an integer from 0 on, got -1$"),
        ({"episode": 1.5}, r"^options\['episode'\]: expected an integer from 0 on, got 1.5$"),
        ({"perturbed": 0.5}, r"^options\['perturbed'\]: expected True or False, got 0.5$"),
        ({"task": "up"}, r"^options\['task'\]: expected one of left, push_.*, got 'up'$"),
    ],
)
def test_an_impossible_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small().reset(seed=0, options=options)


def test_a_missing_gymnasium_is_named_with_its_extra() -> None:
    code = "import sys; sys.modules['gymnasium'] = None\nimport oxcart.sim"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.splitlines()[-1] == "ImportError: oxcart.sim needs Gymnasium; install oxcart[sim]"
