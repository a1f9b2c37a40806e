"""A notebook shows what is there, briefly, and never as markup that a dataset brought."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oxcart.manifests.dataset import Dataset
from oxcart.manifests.show import spread

SCRIPT = "<script>alert('x')</script> & \"quoted\" <b onclick=x>"


class Tags(HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert {name for name, _ in attrs} <= {"alt", "src", "style"}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_an_episode_is_shown_with_a_strip_of_its_frames(intact: Path) -> None:
    episode = Dataset.open(str(intact))[0]
    page = episode._repr_html_()
    shown = Tags(page)
    for said in (episode.key, "train", str(episode.environment), f"{episode.steps} steps", "10 per second"):
        assert said in shown.text
    assert f"“{episode.instruction}”" in shown.text
    (uri,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    with Image.open(io.BytesIO(base64.b64decode(uri))) as image:
        drawn = np.asarray(image).astype(int)
    steps = spread(episode.steps, 8)
    assert drawn.shape == (96, 96 * len(steps), 3)
    for i, step in enumerate(steps):
        frame = Image.fromarray(episode.frames()[step]).resize((96, 96), Image.Resampling.BICUBIC)
        assert np.abs(drawn[:, 96 * i : 96 * (i + 1)] - np.asarray(frame)).mean() < 8


def test_a_dataset_is_shown_with_its_counts(intact: Path) -> None:
    dataset = Dataset.open(str(intact))
    shown = Tags(dataset._repr_html_())
    assert shown.tags.count("tr") == 1 + len(dataset.manifest.splits)
    for said in ("oxcart_kitchens 1.0.0", "6 episodes in 3 environments", "10 steps per second"):
        assert said in shown.text
    for said in ("image_0 (32 x 32, raw), wrist (16 x 16, raw)", "action [T, 3]", "reward [T, 1]", "val"):
        assert said in shown.text


@pytest.mark.parametrize("text", [SCRIPT, SCRIPT * 10_000, "\n\x00\u202e", "положи 🥄"])
def test_texts_of_others_stay_text_and_short(intact: Path, text: str) -> None:
    dataset = Dataset.open(str(intact))
    plain = dataset[0]
    row = {**plain.row, **dict.fromkeys(("instruction", "environment", "session"), text)}
    page = replace(plain, row=row)._repr_html_()
    assert set(Tags(page).tags) == {"div", "b", "img"}
    assert 'style="max-width:100%"' in page  # not cut off in a narrow cell
    assert len(page) < len(plain._repr_html_()) + 2_000
    named = {**dataset.manifest.dataset, "name": text}
    manifest = replace(dataset.manifest, dataset=named)
    page = replace(dataset, manifest=manifest)._repr_html_()
    assert set(Tags(page).tags) == {"div", "b", "table", "tr", "th", "td"}
    assert len(page) < 2_000
    assert len(repr(replace(dataset, manifest=manifest))) < 300


def test_damage_is_shown_in_place_of_the_strip(root: Path) -> None:
    episode = Dataset.open(str(root))[0]
    (root / f"shards/{episode.row['shard']}.tar").write_bytes(b"")
    shown = Tags(episode._repr_html_())
    assert "img" not in shown.tags
    assert "no frames: " in shown.text
    assert f"{episode.row['shard']}.tar" in shown.text
    assert episode.key in shown.text
