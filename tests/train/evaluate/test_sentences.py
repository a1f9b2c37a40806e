"""Sentences as vectors: by a tiny model of the real classes, from a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from oxcart.shards.errors import ConfigError
from oxcart.train.evaluate import sentences, strategies
from oxcart.train.evaluate.laq import EvaluateOptions
from oxcart.train.evaluate.sentences import SentenceModel, describe
from oxcart.train.evaluate.strategy import Table
from planted import context, measured, planted, skipped

CPU = torch.device("cpu")
WORDS = (
    "the push shove red crimson block brick open pull drawer wipe clean table desk lift raise green cup mug"
)
ALIKE = (
    *(("push", "shove"), ("red", "crimson"), ("block", "brick"), ("wipe", "clean"), ("table", "desk")),
    *(("open", "pull"), ("lift", "raise"), ("cup", "mug")),
)
ASKED = {
    "push red block": ("push the red block", "shove the crimson brick"),
    "open drawer": ("open the drawer", "pull the drawer"),
    "wipe table": ("wipe the table", "clean the desk"),
    "lift green cup": ("lift the green cup", "raise the green mug"),
}
"""Instructions of `planted` -> two ways to say each."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without layers, for which a sentence is its words, and words of one meaning are one word."""
    made = tmp_path_factory.mktemp("bert")
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS.split()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        made
    )
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=0,
            num_attention_heads=1,
            intermediate_size=16,
            max_position_embeddings=32,
        )
    )
    embedding = model.embeddings
    with torch.no_grad():
        embedding.position_embeddings.weight.zero_()
        table = embedding.word_embeddings.weight
        for one, other in ALIKE:
            table[vocabulary[other]] = table[vocabulary[one]]
    model.save_pretrained(made)
    return made


def test_a_vector_is_the_mean_over_the_words_of_its_own_sentence(folder: Path) -> None:
    model = SentenceModel.load(str(folder), CPU)
    said = ["lift", "push the red block", "wipe table"]
    with torch.no_grad():
        for sentence, vector in zip(said, model.embed(said), strict=True):
            (states,) = model.encoder(**model.tokenizer(sentence, return_tensors="pt")).last_hidden_state
            mean = states.double().mean(0).numpy()
            assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6), "padding does not count"
    many = ["push the red block", "lift"] * 50
    assert np.allclose(model.embed(many), np.tile(model.embed(many[:2]), (50, 1))), "in several batches"


def test_instructions_of_one_meaning_are_one_cluster_for_a_model_and_not_by_words(folder: Path) -> None:
    pairs = planted("instruction")
    generator = np.random.default_rng(0)
    way = generator.integers(0, 2, int(pairs.episodes.max()) + 1)[pairs.episodes]
    said = np.array([ASKED[one][i] for one, i in zip(pairs.instruction, way, strict=True)])
    pairs = replace(pairs, instruction=said)
    model = SentenceModel.load(str(folder), CPU)
    found = measured("text", pairs, replace(context(), sentences=model))
    assert found["sequences"].low > 0.8
    words = measured("text", replace(pairs, _kept={}))
    assert words["sequences"].value < found["sequences"].value
    (table,) = strategies.load(["text"])["text"].draw(pairs, replace(context(), sentences=model))
    assert isinstance(table, Table)
    assert sorted(row[2] for row in table.rows) == [
        "clean the desk / wipe the table",
        "lift the green cup / raise the green mug",
        "open the drawer / pull the drawer",
        "push the red block / shove the crimson brick",
    ]


def test_a_cluster_is_shown_by_the_instructions_nearest_to_its_centre(folder: Path) -> None:
    texts = np.unique(
        [f"{a} {b} {c}" for a in ("push", "open") for b in WORDS.split() for c in ("cup", "red")]
    )
    pairs = planted("instruction")
    pairs = replace(pairs, instruction=texts[pairs.episodes % len(texts)])
    texts = np.unique(pairs.instruction)
    model = SentenceModel.load(str(folder), CPU)
    (table,) = strategies.load(["text"])["text"].draw(pairs, replace(context(), sentences=model))
    assert isinstance(table, Table)
    away = KMeans(8, n_init=4, random_state=0).fit_transform(model.embed(texts.tolist()))
    for i, (_, _, shown) in enumerate(table.rows):
        (nearest, *others) = shown.split(" / ")
        own = away[away.argmin(1) == i, i]
        assert away[texts == nearest, i] == pytest.approx(own.min())
        assert len(others) == min(2, len(own) - 1)


def test_noise_is_not_about_instructions_by_a_model_either(folder: Path) -> None:
    given = replace(context(), sentences=SentenceModel.load(str(folder), CPU))
    for number in measured("text", planted("noise"), given).values():
        assert number.low is not None
        assert number.high is not None
        assert number.low - 0.003 < 0 < number.high + 0.003, number


def test_what_compares_instructions_is_said(folder: Path) -> None:
    model = SentenceModel.load(str(folder), CPU)
    for one, said in ((None, "words, not meaning (TF-IDF)"), (model, f"the sentence vectors of {folder}")):
        assert describe(one) == said
        given = replace(context(), sentences=one)
        assert all(said in number.read for number in measured("text", planted("instruction"), given).values())


def test_instructions_that_a_model_cannot_tell_apart_are_skipped(folder: Path) -> None:
    pairs = planted("instruction")
    pairs = replace(
        pairs, instruction=np.where(pairs.instruction == "open drawer", "push block", "shove brick")
    )
    given = replace(context(), sentences=SentenceModel.load(str(folder), CPU))
    assert skipped("text", pairs, given) == {
        "codes and instructions": "instructions hold the same for the language model"
    }


def test_a_model_that_cannot_be_used_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "config.json").write_text("{}")
    for name in (str(tmp_path), str(tmp_path / "none"), ""):
        with pytest.raises(ConfigError, match="text_model: expected a directory") as caught:
            SentenceModel.load(name, CPU)
        assert len(str(caught.value).splitlines()) == 1
    monkeypatch.setattr(sentences, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="text_model: needs transformers, which is not installed"):
        SentenceModel.load("any", CPU)


def test_a_model_for_no_strategy_is_refused() -> None:
    assert EvaluateOptions(text_model="any", strategies=("text",)).text_model == "any"
    assert EvaluateOptions(text_model="any").text_model == "any"
    with pytest.raises(ConfigError, match="text_model: only the strategy text embeds instructions"):
        EvaluateOptions(text_model="any", strategies=("compass",))
