"""A policy that does not fit its environment is refused before anything is played."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from oxcart.manifests.columns import Column
from oxcart.shards.errors import ConfigError
from oxcart.train.rollout.fit import check_fit
from oxcart.train.rollout.play import Stage, Start
from oxcart.train.trained_on import UNKNOWN
from planted_policies import LINE, Planted, Spec

START = Start(environment=None, place=UNKNOWN, number=0, seed=0)
ACTION = 'ACTION = (("dx", "delta"),)\n'


def fit(spec: Spec, adapter: Path | None = None, options: Mapping[str, Any] | None = None) -> None:
    stage = Stage(policy=partial(Planted, spec=spec), env=LINE, adapter=adapter, options=options or {})
    check_fit(stage, START)


def test_a_policy_that_fits_is_let_through(tmp_path: Path) -> None:
    fit(Spec())
    (tmp_path / "adapter.py").write_text(ACTION)
    fit(Spec(), tmp_path / "adapter.py")
    fit(Spec(action=(Column(name="dx"),)), tmp_path / "adapter.py")  # of an unknown kind
    fit(Spec(state=()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cameras": (("wrist", (8, 12)),)}, "cameras: the policy sees 'wrist', and planted.* has 'image_0'"),
        (
            {"cameras": (("image_0", (12, 8)),)},
            "cameras: the policy sees 'image_0' in 12x8 .* 8x12",
        ),
        ({"state": ("x", "y")}, r"state: the policy reads 2 values \(x, y\), and .* has 1 values"),
        ({"action": ()}, r"action: the policy gives 0 values \(\), and .* takes 1 \(dx\); translate"),
        (
            {"action": (Column(name="x", kind="absolute"),)},
            "action: the policy's 'x' is absolute, and 'dx' of .* is delta; translate it in action",
        ),
        (
            {"control_rate": 5.0},
            "takes 10 actions a second, .* trained on 5: .* last 0.5 times",
        ),
    ],
    ids=["camera", "size", "state", "width", "kind", "rate"],
)
def test_what_differs_is_said(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    (tmp_path / "adapter.py").write_text(ACTION)
    with pytest.raises(ConfigError, match=said):
        fit(replace(Spec(), **change), tmp_path / "adapter.py")


def test_an_environment_without_pixels_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no pixels in its observations \(keys state\); expected uint8"):
        fit(Spec(), options={"pixels": False})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_here", r"adapter\.py: ModuleNotFoundError: No module named 'nothing_here'"),
        ("def make(", r"adapter\.py: SyntaxError"),
        ("ACTION = 3", "ACTION is pairs of name and kind, CONTROL_RATE a number"),
        ('ACTION = (("dx", "sideways"),)', "ACTION is pairs of name and kind.*sideways"),
        ('CONTROL_RATE = "fast"', "ACTION is pairs of name and kind, CONTROL_RATE a number"),
    ],
)
def test_an_adapter_that_is_wrong_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "adapter.py").write_text(text)
    with pytest.raises(ConfigError, match=f"--adapter: .*{said}"):
        fit(Spec(), tmp_path / "adapter.py")


def test_an_adapter_says_what_is_seen_and_done(tmp_path: Path) -> None:
    (tmp_path / "adapter.py").write_text(
        "from oxcart.train.rollout import adapter\n"
        "CONTROL_RATE = 5\n"
        "def observe(observation, info):\n"
        "    images, state, text = adapter.observe(observation, info)\n"
        "    return {'front': images['image_0']}, state, text + ', please'\n"
    )
    fit(Spec(cameras=(("front", (8, 12)),), control_rate=5.0), tmp_path / "adapter.py")
