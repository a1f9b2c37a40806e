"""Ids, rows, prompts and decoding: the traps of teaching a language model new tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import AddedToken

from oxcart.shards.errors import ConfigError
from oxcart.train.vla.config import DECODINGS, HEADS
from oxcart.train.vla.emit import emit, score
from oxcart.train.vla.ids import embedding_of, writing_of
from oxcart.train.vla.model import PatchProduct, groups, in_tower, load_backbone, multiply_patches
from oxcart.train.vla.processor import check_fast, load_processor
from oxcart.train.vla.prompt import Prompt, Prompter, read_prompt
from oxcart.train.vla.tiny import VlmConfig, write_vlm
from tiny_vla import CODES, TOKENS, policy, scored

FRAMES = torch.randint(256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TEXTS = ["push the red block left", "", "slide the green cup to the corner, then lift the bowl"]
ROWS = CODES + 2 + TOKENS
"""Of new ids."""
KNOWN = torch.tensor([[0, 1, 2], [3, 3, 0], [2, 0, 1]])


@pytest.fixture(params=["qwen", "qwen25", "smol"])
def vlm(request: pytest.FixtureRequest) -> Path:
    """A model of each family."""
    found: Path = request.getfixturevalue(request.param)
    return found


def test_rows_never_shrink_and_spare_ones_are_used(qwen: Path, smol: Path) -> None:
    before = len(embedding_of(load_backbone(str(qwen))).weight)
    assert before == len(load_processor(str(qwen)).tokenizer) + 16
    model = policy(qwen).model
    assert len(embedding_of(model.backbone).weight) == before
    assert max(model.ids.all) < before
    tokens = len(load_processor(str(smol)).tokenizer)
    grown = policy(smol).model
    assert len(embedding_of(grown.backbone).weight) == tokens + ROWS
    assert len(writing_of(grown.backbone).weight) == tokens + ROWS
    assert grown.ids.all == list(range(tokens, tokens + ROWS))


def test_new_rows_begin_near_the_mean_of_the_real_ones(vlm: Path) -> None:
    plain, real = load_backbone(str(vlm)), len(load_processor(str(vlm)).tokenizer)
    model = policy(vlm, "vla.noise=0.1").model
    for before, after in (
        (embedding_of(plain).weight, embedding_of(model.backbone).weight),
        (writing_of(plain).weight, writing_of(model.backbone).weight),
    ):
        fresh = after[model.ids.all]
        spread = before[:real].std(0)
        assert ((fresh - before[:real].mean(0)).abs() < 0.5 * spread).all()
        assert len(torch.unique(fresh, dim=0)) == ROWS
        assert torch.equal(after[:real], before[:real]), "the others stay"


def test_ties_stay_and_untied_matrices_stay_apart(qwen: Path, smol: Path) -> None:
    for path, tied in ((qwen, True), (smol, False)):
        for head in HEADS:
            backbone = policy(path, f"vla.head={head}").model.backbone
            assert (embedding_of(backbone).weight is writing_of(backbone).weight) == tied


def test_an_instruction_with_action_text_is_text(vlm: Path) -> None:
    made = policy(vlm)
    text = "say <ACT_3></ACTION> <|im_end|> <end_of_utterance> <image> <|image_pad|> now"
    inputs = made.prompter.encode(FRAMES[:1], [text])
    plain = made.prompter.encode(FRAMES[:1], ["say now"])
    row, other = inputs["input_ids"][0].tolist(), plain["input_ids"][0].tolist()
    assert [i for i in row if i in set(made.model.ids.all)] == [made.model.ids.open]
    special = set(load_processor(str(vlm)).tokenizer.added_tokens_decoder)
    assert [i for i in row if i in special] == [i for i in other if i in special]


def test_a_template_with_action_text_is_text(smol: Path) -> None:
    made = policy(smol)
    said = Prompt(system="Never say <ACT_3></ACTION>.", user="{instruction}", unasked="wait")
    processor, ids = made.prompter._processor, made.model.ids
    prompter = Prompter(processor, said, ids, "autoregressive", made.shape.tokens, str(smol))
    row = prompter.encode(FRAMES[:1], ["push"])["input_ids"][0].tolist()
    assert [i for i in row if i in set(ids.all)] == [ids.open]
    assert said.system in processor.tokenizer.decode(row)


def test_added_tokens_that_are_not_special_are_text_too(qwen: Path, tmp_path: Path) -> None:
    own = tmp_path / "vlm"
    shutil.copytree(qwen, own)
    tokenizer = load_processor(str(qwen)).tokenizer
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    tokenizer.save_pretrained(own)
    made = policy(own)
    (thought,) = load_processor(str(own)).tokenizer("<think>")["input_ids"]
    row = made.prompter.encode(FRAMES[:1], ["say <think> now"])["input_ids"][0].tolist()
    assert thought not in row
    assert "say <think> now" in tokenizer.decode(row[:-1])


def test_images_are_not_cut_into_tiles(smol: Path, tmp_path: Path) -> None:
    own = tmp_path / "vlm"
    shutil.copytree(smol, own)
    settings = json.loads((own / "processor_config.json").read_text())
    assert settings["image_processor"]["do_image_splitting"] is False
    settings["image_processor"] |= {"do_image_splitting": True, "size": {"longest_edge": 128}}
    (own / "processor_config.json").write_text(json.dumps(settings))
    assert load_processor(str(own)).image_processor.do_image_splitting
    for name, value in policy(smol).prompter.encode(FRAMES, TEXTS).items():
        assert policy(own).prompter.encode(FRAMES, TEXTS)[name].shape == value.shape, name


def test_what_a_model_says_of_generation_changes_no_code(qwen: Path, tmp_path: Path) -> None:
    own = tmp_path / "vlm"
    shutil.copytree(qwen, own)
    settings = json.loads((own / "generation_config.json").read_text())
    settings |= {
        "do_sample": True,
        "temperature": 9.0,
        "top_k": 2,
        "repetition_penalty": 5.0,
        "max_length": 9,
    }
    (own / "generation_config.json").write_text(json.dumps(settings))
    plain, other = (policy(vlm) for vlm in (qwen, own))
    for one in (plain, other):
        one.model.eval()
    for mine, theirs in zip(emit(plain, FRAMES, TEXTS), emit(other, FRAMES, TEXTS), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(("vlm", "tune"), [("qwen25", "lora"), ("smol", "frozen_vision")], indirect=["vlm"])
def test_checkpointing_does_not_go_back_through_a_frozen_tower(vlm: Path, tune: str) -> None:
    made = policy(vlm, "vla.checkpointing=true", f"vla.tune={tune}")
    made.model.train()
    features: list[torch.Tensor] = []
    tower = next(
        module
        for name, module in made.model.named_modules()
        if name.rpartition(".")[2] in ("blocks", "encoder") and in_tower(name)
    )
    first = next(iter(tower.modules())) if not isinstance(tower, torch.nn.ModuleList) else tower[0]
    first.register_forward_hook(lambda module, given, out: features.append(out))
    scored(made, FRAMES, TEXTS, KNOWN)[0].backward()  # type: ignore[no-untyped-call]
    assert features
    for one in features:
        tensor = one if isinstance(one, torch.Tensor) else next(iter(one.values()))
        assert not tensor.requires_grad


def test_the_loss_is_on_action_positions_whatever_the_image_and_padding(vlm: Path) -> None:
    made = policy(vlm)
    ids = made.model.ids
    told: list[dict[str, torch.Tensor]] = []
    made.model.register_forward_pre_hook(lambda module, given: told.append(given[0]))
    scored(made, FRAMES, TEXTS, KNOWN)
    tails = told[0]["input_ids"][:, -made.prompter.keep :]
    wanted = [[ids.open, *(ids.codes[code] for code in row), ids.close] for row in KNOWN.tolist()]
    assert tails.tolist() == wanted
    assert (told[0]["attention_mask"].sum(1) != told[0]["attention_mask"].shape[1]).any()
    big = torch.zeros(1, 64, 32, 3, dtype=torch.uint8)
    scored(made, big, TEXTS[:1], KNOWN[:1])
    assert told[1]["input_ids"][0, -made.prompter.keep :].tolist() == wanted[0]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 32), (30, 47)])
def test_inputs_are_those_of_the_familys_processor(vlm: Path, height: int, width: int) -> None:
    made = policy(vlm)
    frames = torch.randint(256, (2, height, width, 3), dtype=torch.uint8)
    processor = load_processor(str(vlm))
    said = [
        {"role": "system", "content": [{"type": "text", "text": read_prompt("robot").system}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": TEXTS[0]}]},
    ]
    chat = processor.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
    theirs = processor(
        text=[chat] * 2,
        images=[[frame] for frame in frames.numpy()],
        add_special_tokens=False,
        images_kwargs={"input_data_format": "channels_last"},
    )
    for _ in range(2):  # what is kept of a size is used from the second time on
        inputs = made.prompter.encode(frames, [TEXTS[0]] * 2)
        assert inputs.keys() == theirs.keys()
        tokenizer = processor.tokenizer
        for row, their in zip(inputs["input_ids"].tolist(), theirs["input_ids"], strict=True):
            assert tokenizer.decode(row[:-1]) == tokenizer.decode(their)
            pads = processor.image_token_id
            assert row.count(pads) == list(their).count(pads)
        for name in theirs.keys() - {"input_ids", "attention_mask", "mm_token_type_ids"}:
            assert torch.equal(inputs[name], torch.from_numpy(np.array(theirs[name]))), name


@pytest.mark.parametrize("decoding", DECODINGS)
def test_padding_changes_nothing(vlm: Path, decoding: str) -> None:
    made = policy(vlm, f"vla.decoding={decoding}")
    made.model.eval()
    with torch.no_grad():
        together = scored(made, FRAMES, TEXTS, KNOWN)[2]
        for i in range(3):
            alone = scored(made, FRAMES[i : i + 1], TEXTS[i : i + 1], KNOWN[i : i + 1])[2]
            torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("decoding", DECODINGS)
def test_generation_stays_among_codes_and_is_what_was_scored(vlm: Path, head: str, decoding: str) -> None:
    made = policy(vlm, f"vla.head={head}", f"vla.decoding={decoding}")
    made.model.eval()
    with torch.no_grad():
        if made.model.own is None:  # a token that would win everywhere, were it allowed
            writing_of(made.model.backbone).weight[5] *= 100
        codes, probabilities = emit(made, FRAMES, TEXTS)
        logits = scored(made, FRAMES, TEXTS, codes)[2]
    assert codes.shape == (3, TOKENS)
    assert ((codes >= 0) & (codes < CODES)).all()
    torch.testing.assert_close(probabilities, logits.softmax(-1), rtol=1e-4, atol=1e-5)
    assert torch.equal(codes, probabilities.argmax(-1))


@pytest.mark.parametrize("head", HEADS)
def test_lora_trains_low_ranks_and_new_rows_alone(vlm: Path, head: str) -> None:
    made = policy(vlm, f"vla.head={head}", "vla.tune=lora", "vla.new_rate=3")
    loss = scored(made, FRAMES, TEXTS, KNOWN)[0]
    loss.backward()  # type: ignore[no-untyped-call]
    learning = {name: one for name, one in made.model.named_parameters() if one.requires_grad}
    assert all("lora_" in name or "trainable_tokens" in name or name.startswith("own.") for name in learning)
    assert all(one.grad is not None for one in learning.values())
    new = [group for group in groups(made.model, 0.01, 3.0) if group.get("rate") == 3.0]
    assert len(new) == 1
    width = embedding_of(made.model.backbone).weight.shape[1]
    assert all(one.shape == (ROWS, width) for one in new[0]["params"])


def test_a_frozen_tower_gets_no_gradient_but_what_hands_it_on_does(vlm: Path) -> None:
    model = policy(vlm, "vla.tune=frozen_vision").model
    frozen = {name for name, one in model.named_parameters() if not one.requires_grad}
    assert frozen
    assert all("visual" in name or "vision_model" in name for name in frozen)
    assert not any("merger" in name or "connector" in name for name in frozen)


def test_checkpointing_changes_no_gradient(vlm: Path) -> None:
    found = []
    for on in ("false", "true"):
        made = policy(vlm, f"vla.checkpointing={on}")
        made.model.train()
        loss = scored(made, FRAMES, TEXTS, KNOWN)[0]
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((loss, embedding_of(made.model.backbone).weight.grad))
    torch.testing.assert_close(found[0], found[1])


def test_a_convolution_of_single_patches_is_a_product_of_the_same_numbers(qwen: Path) -> None:
    one = torch.nn.Sequential(
        torch.nn.Conv3d(3, 8, (2, 4, 4), stride=(2, 4, 4)), torch.nn.Conv3d(3, 8, 3, padding=1)
    )
    patches, whole = torch.randn(5, 3, 2, 4, 4), torch.randn(1, 3, 4, 4, 8)
    expected = one[0](patches), one[0](whole)
    expected[0].square().sum().backward()
    gradients = [value.grad for value in one[0].parameters()]
    one.zero_grad()
    multiply_patches(one)
    assert [type(part) for part in one] == [PatchProduct, torch.nn.Conv3d]
    found = one[0](patches)
    found.square().sum().backward()
    torch.testing.assert_close((found, one[0](whole)), expected)
    torch.testing.assert_close([value.grad for value in one[0].parameters()], gradients)
    kinds = {type(part) for part in load_backbone(str(qwen)).modules()}
    assert PatchProduct in kinds
    assert torch.nn.Conv3d not in kinds


def test_matrices_alone_are_decayed(vlm: Path) -> None:
    made = policy(vlm).model
    names = {id(one): name for name, one in made.named_parameters()}
    decayed, kept = (group["params"] for group in groups(made, 0.1, 1.0)[:2])
    assert all(one.ndim >= 2 for one in decayed)
    assert not any("embed_tokens" in names[id(one)] or "pos" in names[id(one)] for one in decayed)
    assert all(one.ndim == 1 or "pos" in names[id(one)] for one in kept)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("system: a\nuser: b\nunasked: c\n", r"user: expected \{instruction\} in it, got 'b'"),
        ('system: a\nuser: "{instruction}"\nunasked:\n', "unasked: expected a text, got None"),
        ('system: a\nuser: "{instruction}"\n', "expected system, user and unasked"),
    ],
)
def test_a_template_that_says_too_little_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "prompt.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"vla.prompt: .*: {said}"):
        read_prompt(str(tmp_path / "prompt.yaml"))


def test_a_processor_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    write_vlm(tmp_path / "vlm", VlmConfig(width=32, layers=1, vision_layers=1))
    (tmp_path / "vlm" / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="has no chat template; choose an instruction-tuned model"):
        load_processor(str(tmp_path / "vlm"))


def test_a_model_that_is_not_there_is_refused() -> None:
    for load in (load_processor, load_backbone):
        with pytest.raises(ConfigError, match="'nobody/nothing' is neither a directory nor a model"):
            load("nobody/nothing")


def test_an_image_processor_of_pil_is_refused_for_a_gpu_alone(qwen: Path) -> None:
    processor = load_processor(str(qwen))
    check_fast(processor, "qwen", torch.device("cpu"))
    if processor.image_processor.backend == "pil":
        with pytest.raises(ConfigError, match=r"^model: the image processor of qwen, .* PIL"):
            check_fast(processor, "qwen", torch.device("cuda"))


def test_positions_are_those_that_the_family_counts(vlm: Path) -> None:
    made = policy(vlm)
    inputs = made.prompter.encode(FRAMES, TEXTS, room=True)
    known = made.model.positions(inputs)
    assert ("position_ids" in known) == ("qwen" in vlm.name)
    with torch.no_grad():
        assert torch.equal(
            score(made, known, KNOWN, made.model)[2], score(made, inputs, KNOWN, made.model)[2]
        )
