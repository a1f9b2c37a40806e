"""The codebook's planes: neighbours stay neighbours, and where there is no plane the reason is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.manifold import trustworthiness
from torch import Tensor

from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategies import codebook
from oxcart.train.evaluate.strategies.codebook import to_plane
from oxcart.train.evaluate.strategy import Context, Figure, Skip
from planted import Mover, context, planted, with_frames


def groups(apart: float) -> tuple[np.ndarray, np.ndarray]:
    """Points of three groups in six dimensions, and their groups."""
    generator = np.random.default_rng(0)
    own = np.repeat(np.arange(3), 30)
    return apart * np.eye(6)[own] + generator.normal(size=(90, 6)), own


def alike(plane: np.ndarray, own: np.ndarray) -> float:
    """Share of points whose nearest neighbour is of their group."""
    away = np.linalg.norm(plane[:, None] - plane[None], axis=-1) + np.diag(np.full(len(plane), np.inf))
    return float((own[away.argmin(1)] == own).mean())


def test_a_plane_keeps_groups_apart_and_makes_none_of_noise() -> None:
    points, own = groups(20)
    plane = to_plane(points, 0)
    assert plane.shape == (90, 2)
    assert alike(plane, own) == 1
    assert trustworthiness(points, plane, n_neighbors=5) > 0.9
    noise, labels = groups(0)
    assert alike(to_plane(noise, 0), labels) < 0.55, "a third by chance"


def test_a_plane_is_a_function_of_the_seed() -> None:
    points, _ = groups(5)
    assert (to_plane(points, 1) == to_plane(points, 1)).all()
    assert (to_plane(points, 1) != to_plane(points, 2)).any()


def drawn(pairs: GatheredPairs, given: Context) -> Any:
    """The figure by t-SNE, or why there is none; what comes after it is not drawn."""
    named = ((one, getattr(one, "what", "") or one.title) for one in codebook.draw(pairs, given))  # type: ignore[union-attr]
    return next(one for one, name in named if "t-SNE" in name)


def test_latents_and_code_vectors_are_drawn_in_one_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, shown = planted("direction", places=2), []
    pairs = with_frames(pairs.take(pairs.codes[:, 0] != 0))
    plain = codebook.to_plane
    monkeypatch.setattr(
        codebook, "to_plane", lambda points, seed: shown.append(points) or plain(points, seed)
    )
    figure = drawn(pairs, context())
    assert isinstance(figure, Figure)
    assert figure.png.startswith(b"\x89PNG")
    assert len(shown) == 2
    codes = pairs.codes[pairs.framed, 0]
    vectors = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4), np.zeros(8)], 1)
    used = np.arange(1, 8)  # no vector of a code that nobody has
    assert shown[0][len(codes) :] == pytest.approx(vectors[used], abs=1e-6)
    assert shown[0][: len(codes)] == pytest.approx(vectors[codes], abs=0.3), "each beside its own code"


class Still(Mover):
    """A model whose latents are all the same."""

    def latents(self, frames: Tensor) -> Tensor:
        return 0 * super().latents(frames)


def test_where_there_is_no_plane_the_reason_is_said() -> None:
    pairs, still = with_frames(planted("direction")), Still()
    model: Any = still
    few = drawn(pairs, Context(model=model))
    assert few == Skip(
        what="latents and code vectors by t-SNE",
        because="token 0 has 9 distinct ones; at least 24 are needed",
    )
    none = drawn(replace(planted("direction"), missing={"frames": "no frames are kept"}), context())
    assert none.because == "no frames are kept"
    flat: Any = Mover()
    flat.quantizer.lookup = lambda codes: Mover().quantizer.lookup(codes)[..., :2]
    why = drawn(pairs, Context(model=flat))
    assert why.because == "they have 2 values, for which no plane has to be found"
