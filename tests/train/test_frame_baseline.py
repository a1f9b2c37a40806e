"""What a frame alone tells: features that say where things are, and a penalty that suits new environments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import PredefinedSplit
from torch import Tensor
from torch.nn import functional

from oxcart.train import statistics
from oxcart.train.frame_baseline import COLOUR_CELLS, FOLDS, PENALTIES, WIDTH, features, predict


def scenes(count: int, seed: int = 0) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Frames [N, 3, 32, 32] with a bright or a dark square somewhere, its place [N, 2], and environments of
    other backgrounds [N]."""
    generator = np.random.default_rng(seed)
    environments = np.arange(count) % 10
    grounds = torch.from_numpy(generator.uniform(-0.4, 0.4, (10, 3, 4, 4))).float()
    grounds = functional.interpolate(grounds, size=(32, 32), mode="bilinear")
    frames = grounds[environments].clone()
    places = generator.integers(0, 27, (count, 2))
    for frame, (x, y), level in zip(frames, places, generator.choice([-1, 1], count), strict=True):
        frame[:, y : y + 6, x : x + 6] = level
    return frames, places / 13 - 1, environments


def thumbs(frames: Tensor) -> np.ndarray:
    return functional.adaptive_avg_pool2d(frames, 8).flatten(1).double().numpy()


def held_out_r2(x: np.ndarray, y: np.ndarray, environments: np.ndarray) -> float:
    new = environments >= 7
    predicted = predict(x[~new], y[~new], environments[~new], x[new])
    return float(statistics.r2(y[new], y[new] - predicted).mean())


def test_where_a_thing_is_shows_whatever_its_colour() -> None:
    frames, places, environments = scenes(600)
    found = features(frames)
    assert found.shape == (600, WIDTH)
    assert held_out_r2(found.double().numpy(), places, environments) > 0.8
    assert held_out_r2(thumbs(frames), places, environments) < 0.3, "a small frame does not say it"


def test_frames_that_tell_nothing_get_the_mean() -> None:
    """With the penalty that it had, a small frame was worse than the mean."""
    frames, _, environments = scenes(300)
    noise = np.random.default_rng(1).normal(size=(300, 2))
    new = environments >= 7
    for x in (features(frames).double().numpy(), thumbs(frames)):
        assert -0.05 < held_out_r2(x, noise, environments) < 0.02
    fixed = statistics.ridge(thumbs(frames)[~new], noise[~new], thumbs(frames)[new])
    assert statistics.r2(noise[new], noise[new] - fixed).mean() < -0.3


def test_features_do_not_depend_on_the_batch_and_mirror_with_the_frame() -> None:
    frames, *_ = scenes(4)
    whole = features(frames)
    assert torch.allclose(features(frames[2:3])[0], whole[2], atol=1e-6)
    colours = 3 * COLOUR_CELLS**2
    mirrored = features(frames.flip(-1))[:, -colours:].view(-1, 3, COLOUR_CELLS, COLOUR_CELLS)
    assert torch.allclose(mirrored.flip(-1), whole[:, -colours:].view_as(mirrored), atol=1e-6)
    assert torch.equal(features(torch.full((1, 3, 8, 8), 0.25))[0, :-colours], torch.zeros(WIDTH - colours))


def test_the_edge_of_one_direction_is_counted_there_alone() -> None:
    frame = torch.zeros(1, 3, 8, 8)
    frame[..., 4:] = 1  # an upright edge between the fourth and the fifth column
    strength = features(frame)[0, : 4 * 64].view(4, 8, 8)
    upright, rising, level, falling = (one[2].tolist() for one in strength)
    diagonal = 0.5**0.25  # the root of the cosine of 45 degrees
    for found, at_the_edge in ((upright, 1), (level, 0), (rising, diagonal), (falling, diagonal)):
        assert found == pytest.approx([0, 0, 0, at_the_edge, at_the_edge, 0, 0, 0], abs=1e-6)


def test_penalties_are_those_that_scikit_learn_finds() -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(7), 9)
    x, x_new = generator.normal(size=(63, 12)) * 3 + 1, generator.normal(size=(5, 12))
    y = x @ generator.normal(size=(12, 3)) * (1, 0.1, 0) + generator.normal(size=(63, 3)) * 4
    found = predict(x, y, groups, x_new)
    scale = x.std(0)
    alphas = []
    for column in range(3):
        # scikit-learn's penalty is for a sum over rows, so the folds, of unequal size, are searched by hand.
        errors = []
        for penalty in PENALTIES:
            total = 0.0
            for train, test in PredefinedSplit(groups % FOLDS).split():
                ridge = Ridge(penalty * len(train)).fit(x[train] / scale, y[train, column])
                total += float(((ridge.predict(x[test] / scale) - y[test, column]) ** 2).sum())
            errors.append(total)
        best = PENALTIES[int(np.argmin(errors))]
        alphas.append(best)
        ridge = Ridge(best * len(x)).fit(x / scale, y[:, column])
        assert np.allclose(found[:, column], ridge.predict(x_new / scale))
    assert len(set(alphas)) > 1, "each column has its own"


def test_one_environment_cannot_show_what_holds_in_others() -> None:
    x = np.arange(20.0)[:, None]
    made = predict(x, 2 * x, np.zeros(20, np.int64), np.array([[40.0]]))
    assert abs(made[0, 0] - 19) < 0.01, "the mean"
    assert abs(predict(x, 2 * x, np.arange(20) % 4, np.array([[40.0]]))[0, 0] - 80) < 1.5
