"""A controller carries out what its network predicts: in order, in units of the dataset, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import oxcart
from once import Once
from oxcart.manifests.annotation import read_annotation
from oxcart.manifests.columns import Column
from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.train.data.normalizer import Normalizer, Scale
from oxcart.train.policy.controller import Controller, PolicySpec, load_policy
from oxcart.train.policy.pseudo import relabel
from oxcart.train.policy.words import Vocabulary
from tiny_laq import alone, rewritten, saved
from tiny_laq import trained as trained_laq
from tiny_policy import small, trained

K = 4


class Planted(nn.Module):
    """Predicts, for each row, 10 times the number in its first pixel, and the place in the chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def act(self, inputs: dict[str, Tensor]) -> tuple[Tensor, None]:
        self.calls += 1
        seen = inputs["frames.eye"][:, -1, 0, 0, 0].float()
        return (10 * seen[:, None] + torch.arange(K))[..., None], None


def planted(
    execute: int = 2, ensemble: float | None = None, frames: tuple[int, ...] = (0,), **scale: Any
) -> tuple[Controller, Planted]:
    model = Planted()
    own = Scale(**{"columns": ("dx",), "shift": (0.0,), "scale": (1.0,), "left_alone": (False,), **scale})
    controller = Controller(
        spec=PolicySpec(
            cameras=(("eye", (2, 2)),),
            frames=frames,
            state=(),
            action=(Column(name="dx", kind="delta"),),
            control_rate=10.0,
            horizon=K,
            execute=execute,
            datasets=("toy",),
        ),
        model=model,  # type: ignore[arg-type]
        words=Vocabulary(()),
        action=Normalizer(method="gaussian", width=1, scales={"toy": own}),
        state=None,
        dataset="toy",
        device=torch.device("cpu"),
        ensemble=ensemble,
    )
    return controller, model


def eye(*numbers: int) -> dict[str, Any]:
    return {"eye": np.stack([np.full((2, 2, 3), number, np.uint8) for number in numbers])}


def test_actions_of_a_chunk_come_in_order_and_a_new_one_after_as_many_as_are_to_be_executed() -> None:
    controller, model = planted(execute=2)
    told = [float(controller.act({"eye": eye(step)["eye"][0]}, None, "go")[0]) for step in range(5)]
    assert told == [0, 1, 20, 21, 40]
    assert model.calls == 3
    controller.reset()
    assert controller.act({"eye": eye(7)["eye"][0]}, None, "go")[0] == 70


def test_a_row_that_begins_anew_forgets_its_chunk_and_others_keep_theirs() -> None:
    controller, _ = planted(execute=3)
    controller.reset(2)
    first = controller.act_batch(eye(1, 2), None, ["a", "b"])
    second = controller.act_batch(eye(3, 4), None, ["a", "b"], np.array([False, True]))
    third = controller.act_batch(eye(5, 6), None, ["a", "b"], [False, False])
    assert first[:, 0].tolist() == [10, 20]
    assert second[:, 0].tolist() == [11, 40]
    assert third[:, 0].tolist() == [12, 41]


def test_an_ensemble_is_the_weighted_mean_of_all_predictions_of_a_step() -> None:
    controller, model = planted(ensemble=0.5)
    told = [float(controller.act({"eye": eye(step)["eye"][0]}, None, "go")[0]) for step in range(6)]
    assert model.calls == 6
    for step, value in enumerate(told):
        ages = np.arange(min(step, K - 1) + 1)
        weights = np.exp(0.5 * ages)
        assert value == pytest.approx((weights * (10 * (step - ages) + ages)).sum() / weights.sum())


def test_actions_are_in_the_units_of_the_dataset() -> None:
    controller, _ = planted(shift=(0.5,), scale=(2.0,))
    assert controller.act({"eye": eye(3)["eye"][0]}, None, "go")[0] == 30 * 2 + 0.5
    assert controller.latency > 0


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ({}, "images: the policy sees camera 'eye', got none"),
        ({"hand": np.zeros((2, 2, 3), np.uint8)}, "images: the policy sees camera 'eye', got hand"),
        ({"eye": np.zeros((3, 2, 3), np.uint8)}, r"expected uint8 \[1, 2, 2, 3\], got uint8 \[1, 3, 2, 3\]"),
        ({"eye": np.zeros((2, 2, 3))}, "got float64"),
    ],
)
def test_other_observations_are_refused(images: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        planted()[0].act(images, None, "go")


def test_a_number_of_rows_that_reset_did_not_hear_of_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected 1 rows, as many as reset\(count\) said, got 2"):
        planted()[0].act_batch(eye(1, 2), None, ["a", "b"])


@pytest.fixture(scope="module", params=["l1", "flow"])
def run(request: pytest.FixtureRequest, kitchen: Path, once: Once) -> Path:
    def make(folder: Path) -> Path:
        with alone():
            trained(small(kitchen, folder / "run", f"policy.loss={request.param}"))
        return folder / "run"

    return Path(once(f"policy_{request.param}", make))


def observed(kitchen: Path, count: int = 3) -> tuple[dict[str, Any], Any, list[str]]:
    opened = Dataset.open(str(kitchen))
    rows = opened.table("episodes.parquet").to_pylist()[:count]
    episodes = [opened[row["key"]] for row in rows]
    images = {"image_0": np.stack([one.frames("image_0")[1] for one in episodes])}
    return images, np.stack([one.state[1] for one in episodes]), [row["instruction"] for row in rows]


def test_a_run_acts_the_same_alone_and_beside_others(run: Path, kitchen: Path) -> None:
    images, state, texts = observed(kitchen)
    controller = oxcart.load_policy(run, device="cpu")
    assert [name for name, _ in controller.spec.cameras] == ["image_0"]
    assert controller.spec.state == ("x", "y", "gripper")
    assert controller.spec.control_rate == 10
    controller.reset(3)
    together = [controller.act_batch(images, state, texts) for _ in range(5)]
    again = load_policy(run, device="cpu")
    again.reset(3)
    assert all(np.array_equal(again.act_batch(images, state, texts), one) for one in together), "bit for bit"
    for row in range(3):
        own = load_policy(run, device="cpu")
        for one in together:
            image = {name: value[row] for name, value in images.items()}
            assert own.act(image, state[row], texts[row]) == pytest.approx(one[row], abs=1e-5)


def test_arguments_and_states_that_do_not_fit_are_refused(run: Path, kitchen: Path) -> None:
    images, state, texts = observed(kitchen, 1)
    with pytest.raises(ConfigError, match="execute: expected 1 to 4, the horizon of the policy, got 5"):
        load_policy(run, device="cpu", execute=5)
    with pytest.raises(ConfigError, match="dataset"):
        load_policy(run, device="cpu", dataset="other")
    controller = load_policy(run, device="cpu", execute=1)
    assert controller.spec.execute == 1
    every = [
        controller,
        *(load_policy(run, device="cpu", ensemble=ensemble) for ensemble in (None, 0.0, 1.0)),
    ]
    assert len({one.fingerprint for one in (controller, *every)}) == 4, (
        "what acts otherwise is another policy"
    )
    assert load_policy(run, device="cpu", ensemble=1.0).fingerprint == every[-1].fingerprint
    for wrong in (None, state[:, :2], np.full_like(state, np.nan)):
        with pytest.raises(ConfigError, match=r"state: expected finite numbers \[1, 3\] \(x, y, gripper\)"):
            controller.act_batch(images, wrong, texts)


def test_a_policy_that_sees_the_past_sees_the_first_frame_again_until_there_is_one() -> None:
    controller, model = planted(execute=1, frames=(-2, 0))
    seen: list[list[float]] = []
    original = model.act

    def act(inputs: dict[str, Tensor]) -> tuple[Tensor, None]:
        seen.append(inputs["frames.eye"][0, :, 0, 0, 0].tolist())
        return original(inputs)

    model.act = act  # type: ignore[method-assign]
    for step in range(4):
        controller.act({"eye": eye(step)["eye"][0]}, None, "go")
    assert seen == [[0, 0], [0, 1], [0, 2], [1, 3]]
    controller.reset()
    controller.act({"eye": eye(9)["eye"][0]}, None, "go")
    assert seen[-1] == [9, 9]
    later, _ = planted(frames=(0, 1))
    with pytest.raises(ConfigError, match="this one sees frames that follow, so it labels recordings"):
        later.act({"eye": eye(9)["eye"][0]}, None, "go")


def test_an_inverse_dynamics_model_labels_a_dataset_for_a_policy(kitchen: Path, tmp_path: Path) -> None:
    inverse = ("data.frames=[0,1]", "policy.horizon=1", "policy.execute=1", "policy.state=false")
    trained(small(kitchen, tmp_path / "inverse", *inverse, "data.actions=2"))
    controller = load_policy(tmp_path / "inverse", device="cpu")
    path = tmp_path / "actions.parquet"
    found = relabel(str(kitchen), controller, str(path), batch_size=8)
    opened = Dataset.open(str(kitchen))
    rows = opened.table("episodes.parquet").to_pylist()
    assert found == {
        "episodes": len(rows),
        "steps": sum(row["steps"] for row in rows),
        "told": sum(row["steps"] - 1 for row in rows),
    }
    values = read_annotation(str(path)).values
    for row in rows[:3]:
        frames = torch.from_numpy(np.array(opened[row["key"]].frames("image_0")))
        pair = {"image_0": torch.stack([frames[2], frames[3]])[None]}
        told = controller.tell(pair, [row["instruction"]])[0, 0]
        assert values[row["key"]][2] == pytest.approx(told, abs=1e-5)
        assert np.isnan(values[row["key"]][-1]).all()
    with alone():
        trained(small(kitchen, tmp_path / "run", f"data.pseudo=[{path}]", "data.actions=2"))
    acting = load_policy(tmp_path / "run", device="cpu")
    with pytest.raises(ConfigError, match="--policy: expected an inverse-dynamics model"):
        relabel(str(kitchen), acting, str(path))


@pytest.mark.parametrize("layers", [0, 1])
def test_a_policy_that_emits_codes_acts_through_a_decoder(
    kitchen: Path, codes: Path, tmp_path: Path, layers: int
) -> None:
    more = (f"data.codes=[{codes}]", "data.actions=2")
    trained(small(kitchen, tmp_path / "run", *more, "policy.action_weight=0"))
    with alone():
        own = ("policy.backbone=codes", f"small.layers={layers}", "policy.horizon=2", "val.every=4")
        trained(small(kitchen, tmp_path / "decoder", *more, *own))
    decoder = load_policy(tmp_path / "decoder", device="cpu")
    images, state, texts = observed(kitchen, 1)
    with pytest.raises(ConfigError, match="decodes the codes of another"):
        decoder.act_batch(images, state, texts)
    with pytest.raises(ConfigError, match="does not decode the 3 codes of 4"):
        load_policy(tmp_path / "run", device="cpu", decoder=tmp_path / "run")
    controller = load_policy(tmp_path / "run", device="cpu", decoder=tmp_path / "decoder")
    assert (controller.spec.horizon, controller.spec.execute) == (2, 2)
    action = controller.act_batch(images, state, texts)[0]
    plain = load_policy(tmp_path / "run", device="cpu")
    inputs = plain._inputs(images, state, texts)
    emitted = plain._model.act({**inputs, "noise": torch.zeros(1, 4, 3)})[1]
    assert emitted is not None
    emitted_codes = emitted.argmax(-1)
    wanted = decoder._forward({**inputs, "codes": emitted_codes, "noise": torch.zeros(1, 2, 3)})[0, 0]
    assert action == pytest.approx(wanted, abs=1e-6)
    other = decoder._forward({**inputs, "codes": (emitted_codes + 1) % 4, "noise": torch.zeros(1, 2, 3)})
    assert not np.allclose(action, other[0, 0]), "codes matter"


def test_runs_without_a_policy_are_refused(run: Path, kitchen: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no checkpoint; train first: oxcart train policy"):
        load_policy(tmp_path)
    trained_laq(tmp_path / "laq", kitchen, "train.steps=1")
    with pytest.raises(ConfigError, match="holds no policy; train one: oxcart train policy"):
        load_policy(tmp_path / "laq")
    path = saved(run)
    for i, spoil in enumerate(
        (
            lambda about: about["state"]["policy"].pop("spec"),
            lambda about: about["state"]["policy"]["spec"].update(cameras=5),
            lambda about: about["state"]["policy"].update(action="{}"),
            lambda about: about["state"].update(config={"small": {"width": "wide"}}),
            lambda about: about["state"]["policy"]["words"].append("another"),
        )
    ):
        other = rewritten(path, tmp_path / str(i), spoil)
        with pytest.raises(CorruptError) as error:
            load_policy(other)
        assert "\n" not in str(error.value)
