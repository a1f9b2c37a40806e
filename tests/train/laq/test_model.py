"""The model: shapes, gradients, and what may not reach what."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from oxcart.train.laq.blocks import move
from oxcart.train.laq.build import build_model
from oxcart.train.laq.config import KINDS, FlowConfig, ModelConfig, QuantizerConfig
from oxcart.train.laq.model import NONE, LatentActionModel, mse, to_float

SMALL = {"image_size": 16, "patch": 8, "width": 16, "heads": 2, "mlp": 2.0}
DEPTHS = {"spatial_depth": 1, "temporal_depth": 1, "decoder_depth": 2}
QUANTIZER = QuantizerConfig(tokens=3, codes=5, dim=4)
OWN = KINDS[:3]
FORMS = [
    {"stem": stem, "head": head, "difference": rich}
    for stem, head, rich in (("linear", "linear", False), ("conv", "linear", True), ("conv", "conv", True))
]


def built(flow: bool = False, **changes: object) -> LatentActionModel:
    torch.manual_seed(0)
    teacher = FlowConfig(teacher="dis" if flow else "none")
    return build_model(ModelConfig(**{**SMALL, **DEPTHS, **changes}), QUANTIZER, teacher)  # type: ignore[arg-type]


def pairs(count: int = 4) -> Tensor:
    return torch.rand(count, 2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(("kind", "form"), list(itertools.product(OWN, FORMS)))
def test_shapes_are_right_values_finite_and_gradients_reach_every_parameter(
    kind: str, form: dict[str, object]
) -> None:
    flow = kind != "layered"
    model = built(flow=flow, kind=kind, **form)
    frames = pairs()
    noise = torch.randn(4, 3, 4)
    out = model(frames, noise, 0.0)
    assert out.prediction.shape == (4, 3, 16, 16)
    assert out.codes.shape == (4, 3)
    assert flow == (out.flow is not None)
    assert out.prediction.dtype == torch.float32
    assert out.prediction.isfinite().all()
    loss = (out.prediction - frames[:, 1]).square().mean() + out.loss
    if out.flow is not None:
        assert out.flow.shape == (4, 2, 4, 4)
        loss = loss + out.flow.square().mean()
    loss.backward()
    unreached = [
        name
        for name, one in model.named_parameters()
        if one.grad is None or not one.grad.isfinite().all() or one.grad.abs().sum() == 0
    ]
    assert not unreached


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_activations_change_no_bit_of_a_gradient(kind: str) -> None:
    size, quantizer = (64, QuantizerConfig()) if kind == "lapa" else (16, QUANTIZER)
    frames = torch.rand(2, 2, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    noise = torch.randn(2, quantizer.tokens, quantizer.dim)
    found, kept = {}, {}
    for recompute in (False, True, None):
        torch.manual_seed(0)
        config = ModelConfig(kind=kind, checkpointing=recompute, **{**SMALL, **DEPTHS, "image_size": size})  # type: ignore[arg-type]
        model = build_model(config, quantizer, FlowConfig()).train()
        sizes: list[int] = []

        def keep(value: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(value.numel())
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            out = model(frames, noise, 0.0)
        ((out.prediction - frames[:, 1]).square().mean() + out.loss).backward()
        kept[recompute] = sum(sizes)
        found[recompute] = {name: one.grad for name, one in model.named_parameters()}
    for recompute in (True, None):  # None: this is a CPU
        assert kept[recompute] < 0.7 * kept[False]
        for name, gradient in found[False].items():
            assert torch.equal(found[recompute][name], gradient), name


@pytest.mark.parametrize("kind", OWN)
def test_one_step_lowers_the_loss(kind: str) -> None:
    model, frames = built(kind=kind), pairs()
    noise = torch.randn(4, 3, 4)

    def loss() -> Tensor:
        return (model(frames, noise, 0.0).prediction - frames[:, 1]).square().mean()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    before = loss()
    before.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert loss() < before


@pytest.mark.parametrize("form", FORMS)
def test_a_code_changes_its_own_contribution_alone(form: dict[str, object]) -> None:
    model = built(**form)
    codes = torch.tensor([[0, 1, 2]])
    other = torch.tensor([[0, 4, 2]])
    a, b = (model.decoder.context(model.quantizer.lookup(one)) for one in (codes, other))
    assert torch.equal(a[:, [0, 2]], b[:, [0, 2]])
    assert not torch.equal(a[:, 1], b[:, 1])


def test_what_a_code_moves_depends_on_no_other_code_and_on_no_frame() -> None:
    model = built(kind="layered", layers=3)

    def motions(*codes: int) -> Tensor:
        return model.decoder.motions(model.quantizer.lookup(torch.tensor([codes])))

    assert motions(0, 1, 2).shape == (1, 3, 2, 3)
    torch.testing.assert_close(
        motions(0, 4, 2) - motions(0, 1, 2), motions(3, 4, 1) - motions(3, 1, 1), atol=1e-6, rtol=1e-5
    )
    masks: list[Tensor] = []
    model.decoder.head.register_forward_hook(lambda module, given, made: masks.append(made))
    frame = pairs(1)[:, 0]
    model.decode(frame, torch.tensor([[0, 1, 2]]))
    model.decode(frame, torch.tensor([[3, 4, 1]]))
    assert torch.equal(masks[0], masks[1])


def test_the_decoder_sees_frame_t_and_the_codes_and_nothing_else() -> None:
    model = built().eval()
    frames, other = pairs(), pairs()
    other[:, 1] = -other[:, 1]
    same = torch.zeros(4, 3, dtype=torch.int64)
    assert torch.equal(model.decode(frames[:, 0], same), model.decode(other[:, 0], same))
    assert not torch.equal(model.latents(frames), model.latents(other))


def test_features_of_the_first_frame_know_nothing_of_the_second() -> None:
    model = built(difference=True, stem="conv").eval()
    seen: list[Tensor] = []
    model.encoder.norm.register_forward_hook(lambda module, given, made: seen.append(made))
    frames, other = pairs(), pairs()
    other[:, 1] = torch.rand_like(other[:, 1])
    model.latents(frames)
    model.latents(other)
    torch.testing.assert_close(seen[0][:, 0], seen[1][:, 0])
    assert not torch.allclose(seen[0][:, 1], seen[1][:, 1])


def test_the_order_of_samples_does_not_matter() -> None:
    model, frames = built().eval(), pairs()
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model.latents(frames)[order], model.latents(frames[order]))


def test_without_noise_the_decoder_gets_what_decode_gives() -> None:
    model, frames = built().eval(), pairs()
    out = model(frames)
    torch.testing.assert_close(out.prediction, model.decode(frames[:, 0], out.codes))
    assert torch.equal(out.codes, model.encode(frames))


def test_pixels_become_float_in_the_right_place() -> None:
    frames = torch.zeros(1, 2, 4, 4, 3, dtype=torch.uint8)
    frames[0, 1, 2, 3, 0] = 255
    made = to_float(frames)
    assert made.shape == (1, 2, 3, 4, 4)
    assert made[0, 1, 0, 2, 3] == 1
    assert made.sum() == 1 - (made.numel() - 1)
    assert mse(made[:, 0], made[:, 1]).item() == pytest.approx(1 / 48)


def test_a_layer_moves_as_exactly_in_bf16() -> None:
    frames, motion = pairs(1)[:, 0], torch.full((1, 2, 3), 0.0123)
    with torch.autocast("cpu", torch.bfloat16):
        half = move(frames, motion)
    assert torch.equal(half, move(frames, motion))


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), 3e38, 1e18, 1e9, -1e9])
@pytest.mark.parametrize("size", [5, 16, 64])
def test_no_motion_reads_beside_the_frame(amount: float, size: int) -> None:
    """Native code takes places for addresses: NaN would end the process."""
    frames = torch.rand(3, 4, size, size, requires_grad=True)
    motion = torch.zeros(3, 2, 3)
    motion[1] = amount
    motion.requires_grad_()
    moved = move(frames, motion)
    assert torch.equal(moved[::2], move(frames[::2], motion[::2])), "the others are as they would be alone"
    if abs(amount) < 1e18:
        assert moved[1].isfinite().all()
    elif abs(amount) != 1e18:
        assert moved[1].isnan().all(), "what is lost stays lost"
    moved.sum().backward()  # type: ignore[no-untyped-call]


def test_a_code_of_latents_that_are_not_finite_stands_for_nothing() -> None:
    model = built().eval()
    frames = pairs(3)
    good = model.encode(frames)
    frames[1, 1, 0, 0, 0] = float("nan")
    found = model.encode(frames)
    assert (found[1] == NONE).all()
    assert torch.equal(found[::2], good[::2])
    assert model.decode(frames[:, 1], good)[1].isnan().all()


def test_a_layer_moves_by_half_sides_of_the_frame() -> None:
    frames = torch.arange(16.0).view(1, 1, 4, 4)
    motion = torch.zeros(1, 2, 3)
    torch.testing.assert_close(move(frames, motion), frames)
    motion[0, 0, 2] = 0.5  # a quarter of the side: the pixel to the right comes here
    torch.testing.assert_close(move(frames, motion)[..., :3], frames[..., 1:])
    torch.testing.assert_close(move(frames, motion)[..., 3], frames[..., 3])
    motion = torch.tensor([[[-2.0, 0, 0], [0, 0, 0]]])
    torch.testing.assert_close(move(frames, motion), frames.flip(-1))


@pytest.mark.parametrize("kind", OWN)
def test_bf16_gives_about_the_same_and_the_same_codes_for_the_same_latents(kind: str) -> None:
    model, frames = built(stem="conv", head="conv", kind=kind).eval(), pairs()
    plain = model.decode(frames[:, 0], torch.zeros(4, 3, dtype=torch.int64))
    with torch.autocast("cpu", torch.bfloat16):
        half = model.decode(frames[:, 0], torch.zeros(4, 3, dtype=torch.int64))
        z = model.latents(frames)
        codes = model.quantizer(z).codes
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, plain, atol=0.1, rtol=0.1)
    assert torch.equal(codes, model.quantizer(z.float()).codes), "distances are not taken in bf16"
