"""The perceptual hash: the same through another encoding and a crop, another for another image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from oxcart.compile.sample.videos import draw_scene
from oxcart.compile.sources.videos.phash import NEAR, VIEWS, alike, look_at, near_duplicates

Grey = npt.NDArray[np.uint8]


def greys(name: str, count: int = 6) -> list[Grey]:
    frames = list(draw_scene(name, 6 * count, (72, 96)))[::6]
    return [np.asarray(Image.fromarray(frame).convert("L")) for frame in frames]


def looks(images: list[Grey]) -> npt.NDArray[np.uint64]:
    found = [look_at(image) for image in images]
    return np.stack([one for one in found if one is not None])


def noisy(image: Grey) -> Grey:
    noise = np.random.Generator(np.random.PCG64(7)).integers(-6, 7, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def scaled(image: Grey) -> Grey:
    return np.asarray(Image.fromarray(image).resize((60, 44)))


def cut(image: Grey) -> Grey:
    return image[6:-6, 8:-8]


@pytest.mark.parametrize("change", [noisy, scaled, cut])
def test_a_copy_is_near_and_found(change: object) -> None:
    assert callable(change)
    one, other = looks(greys("one")), looks([change(image) for image in greys("one")])
    assert alike(one, other)
    strangers = {f"s{i}": list(looks(greys(f"stranger {i}"))) for i in range(8)}
    found = near_duplicates({"b": list(one), "a": list(other), **strangers})
    assert found == {"a": "a", "b": "a"}


def test_other_images_are_far() -> None:
    whole = np.concatenate([looks(greys(f"other {i}", 2))[:, 0] for i in range(8)])
    distance = np.bitwise_count(whole[:, None] ^ whole[None])
    same = np.arange(len(whole)) // 2
    assert np.median(distance[same[:, None] != same[None]]) > 2 * NEAR


def test_a_flat_image_tells_nothing() -> None:
    assert look_at(np.full((40, 60), 9, np.uint8)) is None
    hashes = look_at(greys("one", 1)[0])
    assert hashes is not None
    assert hashes.shape == (len(VIEWS),)


def test_too_few_images_are_no_copy() -> None:
    two = list(looks(greys("one", 2)))
    assert near_duplicates({"a": two, "b": two}) == {}
    assert near_duplicates({}) == {}


def test_a_chain_of_copies_is_one_group() -> None:
    first, second, third = (list(looks(greys(name, 8))) for name in ("x", "y", "z"))
    chained = {"c": [*first, *second], "b": [*second, *third], "a": third}
    assert near_duplicates(chained) == {"a": "a", "b": "a", "c": "a"}
