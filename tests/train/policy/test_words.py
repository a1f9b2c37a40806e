"""Instructions become numbers, whatever their case, full stops and unknown words."""

from __future__ import annotations

from oxcart.train.policy.words import LONGEST, NOTHING, UNKNOWN, Vocabulary


def test_case_and_punctuation_change_nothing_and_unknown_words_share_a_number() -> None:
    words = Vocabulary.of(["push the red block", "Push the blue cube."])
    one, other, strange = words.encode(["push the red block", "Push THE red block!", "push the mauve block"])
    assert one.tolist() == other.tolist()
    assert strange.tolist().count(UNKNOWN) == 1
    assert [a for a, b in zip(one.tolist(), strange.tolist(), strict=True) if a == b][:2] == one.tolist()[:2]
    assert set(one.tolist()) <= set(range(len(words)))


def test_no_instruction_and_a_long_one_have_the_same_shape() -> None:
    found = Vocabulary(("a",)).encode(["", "a " * 1000])
    assert found.tolist() == [[NOTHING] * LONGEST, [UNKNOWN + 1] * LONGEST]


def test_the_rarest_words_are_left_out_of_a_full_vocabulary(monkeypatch: object) -> None:
    from oxcart.train.policy import words

    texts = [f"w{i}" for i in range(words.MOST + 5)] + ["often often"]
    found = Vocabulary.of(texts)
    assert len(found.words) == words.MOST
    assert "often" in found.words
