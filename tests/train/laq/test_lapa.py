"""LAPA's network: its numbers, its slips, and what our forms of its parts must equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from oxcart.shards.errors import ConfigError
from oxcart.train.laq.build import build_model, parameter_groups, shapes_of
from oxcart.train.laq.config import FlowConfig, ModelConfig, QuantizerConfig, laq_config
from oxcart.train.laq.lapa import Lapa, Place, PositionBias, UnitAttention
from oxcart.train.laq.quantize import NSVQ

SMALL = ModelConfig(
    kind="lapa",
    image_size=64,
    patch=8,
    width=16,
    heads=2,
    spatial_depth=1,
    temporal_depth=1,
    decoder_depth=1,
)
PLAIN = QuantizerConfig(dim=6, start="normal", follow=0.0, bound=0.0, rate=1.0)
PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "lapa"


def built(teacher: str = "none") -> Lapa:
    torch.manual_seed(0)
    model = build_model(SMALL, PLAIN, FlowConfig(teacher=teacher))
    assert isinstance(model, Lapa)
    return model


def pairs(count: int = 3) -> Tensor:
    return torch.rand(count, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.skipif(not PUBLISHED.exists(), reason="there is no ../shared/data/lapa")
def test_published_weights_give_the_published_latents_codes_and_frames() -> None:
    weights = load_file(PUBLISHED / "small.safetensors")
    expected = np.load(PUBLISHED / "small_expected.npz")
    sizes = {"width": 64, "heads": 4, "spatial_depth": 2, "temporal_depth": 2, "decoder_depth": 2}
    config = ModelConfig(kind="lapa", image_size=64, patch=8, **sizes)
    model = build_model(config, QuantizerConfig(), FlowConfig()).eval()
    weights["quantizer.codebook"] = weights.pop("vq.codebooks")[None]
    model.load_state_dict(
        {name: weights.get(name, value) for name, value in model.state_dict().items()}, strict=True
    )
    assert set(model.state_dict()) - set(weights) == {"quantizer.used"}
    frames = torch.from_numpy(expected["video"]).transpose(1, 2) * 2 - 1
    with torch.no_grad():
        codes = model.encode(frames)
        made = (model.decode(frames[:, 0], codes) + 1) / 2
        latents = model.latents(frames)
    assert torch.equal(codes, torch.from_numpy(expected["indices"]))
    torch.testing.assert_close(latents, torch.from_numpy(expected["latents"]), atol=1e-4, rtol=0)
    torch.testing.assert_close(made, torch.from_numpy(expected["reconstruction"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("time", [1, 2])
def test_positions_are_a_causal_convolution_over_memory_as_it_lies(time: int) -> None:
    place = Place(4)
    x = torch.randn(2 * 3 * 3, time, 4)  # of order (b h w) t
    maps = x.reshape(2, time, 3, 3, 4).permute(0, 4, 1, 2, 3)
    expected = place.dsconv(functional.pad(maps, (1, 1, 1, 1, 2, 0))).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(place(x, (2, time, 3, 3)), expected.reshape(x.shape))


def test_the_position_bias_is_a_network_of_the_logarithms_of_each_displacement() -> None:
    bias = PositionBias(5, 2, 3)
    patches = torch.stack(torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij"), -1).view(9, 2)
    apart = (patches[:, None] - patches[None]).float()
    x = apart.sign() * (apart.abs() + 1).log()
    for part in bias.net:
        x = part(x)
    torch.testing.assert_close(bias(), x.permute(2, 0, 1))


@pytest.mark.parametrize("cross", [False, True])
def test_attention_takes_keys_before_the_norm_and_has_null_keys_for_a_context(cross: bool) -> None:
    torch.manual_seed(0)
    part = UnitAttention(6, 2, cross=cross)
    with torch.no_grad():
        for weight in part.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    x, context, bias = torch.randn(2, 4, 6) + 1, torch.randn(2, 3, 6), torch.randn(2, 4, 4)

    def norm(values: Tensor, gain: Tensor) -> Tensor:
        centred = values - values.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain

    given = norm(context, part.context_norm.gamma) if part.context_norm is not None else x
    q, (k, v) = part.to_q(norm(x, part.norm.gamma)), part.to_kv(given).chunk(2, -1)
    heads = []
    for head in range(2):
        own = slice(3 * head, 3 * head + 3)
        keys, values = k[..., own], v[..., own]
        if part.null_kv is not None:
            null = part.null_kv[head].expand(2, -1, -1)
            keys, values = torch.cat([null[:, 0::2], keys], 1), torch.cat([null[:, 1::2], values], 1)
        unit = [one / one.norm(dim=-1, keepdim=True) for one in (q[..., own], keys)]
        products = (unit[0] * part.q_scale) @ (unit[1] * part.k_scale).transpose(1, 2) * 8
        heads.append((products if cross else products + bias[head]).softmax(-1) @ values)
    expected = part.to_out(torch.cat(heads, -1))
    found = part(x, None if cross else bias, context if cross else None)
    torch.testing.assert_close(found, expected)


def test_the_quantized_are_reshaped_and_not_transposed() -> None:
    model, vectors = built(), torch.randn(2, 4, 6)
    flat = vectors.flatten(1)
    mixed = torch.stack([flat[:, n::4] for n in range(4)], 1)
    torch.testing.assert_close(model.vq.context(vectors), model.vq.project_out(mixed))


def test_frames_are_pooled_each_by_itself_before_their_difference() -> None:
    model, frames = built().eval(), pairs()
    apart = model.latents(frames)
    assert apart.shape == (3, 4, 6)
    pooled: list[Tensor] = []
    model.vq.register_forward_hook(lambda module, given, made: pooled.append(made))
    model.latents(frames)
    torch.testing.assert_close(pooled[0].view(3, 2, 4, 6).diff(dim=1)[:, 0], apart)


def test_gradients_reach_every_parameter_but_of_the_patches_through_the_decoder() -> None:
    model, frames = built("dis"), pairs()
    out = model(frames, torch.randn(3, 4, 6), 0.0)
    assert out.prediction.shape == (3, 3, 64, 64)
    assert out.flow is not None
    assert out.flow.shape == (3, 2, 16, 16)
    loss = (out.prediction - frames[:, 1]).square().mean() + out.flow.square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    unreached = [
        name
        for name, one in model.named_parameters()
        if one.grad is None or not one.grad.isfinite().all() or one.grad.abs().sum() == 0
    ]
    assert not unreached, "a rank would wait for their gradients"
    patches = model.to_patch_emb_first_frame[2]
    patches.weight.grad = None
    prediction, _ = model.draw(frames[:, 0], torch.randn(3, 4, 6))
    prediction.sum().backward()  # type: ignore[no-untyped-call]
    assert patches.weight.grad is None, "the decoder sees them detached"


def test_the_same_seed_gives_the_same_numbers_with_activations_kept_or_recomputed() -> None:
    frames, noise = pairs(), torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(2))
    found = []
    for kept in (True, True, False):
        model = built().train()
        model._recompute = not kept
        out = model(frames, noise, 0.0)
        out.prediction.square().mean().backward()
        found.append((out.prediction, {name: one.grad for name, one in model.named_parameters()}))
    for other, gradients in found[1:]:
        assert torch.equal(found[0][0], other)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, found[0][1][name], msg=name)


def test_bf16_gives_about_the_same_frames_and_pools_in_float32() -> None:
    model, frames = built().eval(), pairs()
    plain = model.decode(frames[:, 0], torch.zeros(3, 4, dtype=torch.int64))
    with torch.autocast("cpu", torch.bfloat16):
        half = model.decode(frames[:, 0], torch.zeros(3, 4, dtype=torch.int64))
        z = model.latents(frames)
    assert (half.dtype, z.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(half, plain, atol=0.1, rtol=0.1)


def test_names_are_those_of_the_published_code() -> None:
    names = set(built().state_dict())
    assert names >= {
        "spatial_rel_pos_bias.net.0.0.weight",
        "to_patch_emb_first_frame.3.bias",
        "enc_temporal_transformer.layers.0.0.dsconv.weight",
        "enc_spatial_transformer.layers.0.1.to_kv.weight",
        "dec_spatial_transformer.layers.0.2.null_kv",
        "dec_spatial_transformer.layers.0.3.4.weight",
        "dec_spatial_transformer.norm_out.gamma",
        "vq.project_in.weight",
        "vq.cnn_encoder.2.weight",
        "to_pixels_first_frame.0.bias",
    }
    shapes = shapes_of(SMALL, PLAIN, FlowConfig())
    assert set(shapes) == {name for name in names if not name.startswith("quantizer.")}
    assert shapes["enc_spatial_transformer.layers.0.3.1.weight"] == (2 * 42, 16)


def test_the_preset_trains_as_published() -> None:
    config = laq_config(["preset=lapa"])
    train, quantizer = config.train, config.quantizer
    assert (train.lr, train.betas, train.weight_decay, train.clip) == (1e-4, [0.9, 0.99], 0, 0.5)
    assert (train.schedule, train.warmup, train.steps) == ("constant", 0, 100_000)
    assert (config.data.batch_size, config.data.offset) == (64, 30)
    assert (quantizer.follow, quantizer.bound, quantizer.harden, quantizer.shared) == (0, 0, [1, 1], True)
    assert (quantizer.start, quantizer.replace, quantizer.replace_below) == ("normal", "lapa", 0.1)
    groups = parameter_groups(built(), train.weight_decay, quantizer.rate)
    assert all((group["weight_decay"], group.get("rate", 1)) == (0, 1) for group in groups)
    flow = laq_config(["preset=flow"])
    assert (flow.model, flow.quantizer, flow.train) == (config.model, quantizer, train)
    assert (flow.flow.teacher, flow.flow.weight, flow.flow.warmup) == ("raft", 5, 50_000)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.stem=conv", "model.stem: model.kind=lapa has no stem, got conv; leave it out"),
        ("model.difference=true", "model.difference: model.kind=lapa has no difference, got True"),
        ("model.decoder_depth=2", "model.decoder_depth: model.kind=lapa has as many blocks as"),
        ("quantizer.tokens=3", "quantizer.tokens: model.kind=lapa pools 8x8 patches to 1, 2 or 4 tokens"),
        ("model.image_size=64", "quantizer.tokens: model.kind=lapa pools 8x8 patches to 1, 2 or 4 tokens"),
    ],
)
def test_what_the_network_does_not_have_is_refused_in_one_line(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        laq_config(["preset=lapa", override])
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("tokens", "side"), [(1, 8), (2, 8), (4, 8), (16, 16), (64, 16), (256, 32)])
def test_patches_are_pooled_to_the_tokens_that_are_asked_for(tokens: int, side: int) -> None:
    sizes = (f"model.image_size={2 * side}", "model.patch=2", "model.width=8", "model.heads=1")
    depths = [f"model.{name}_depth=1" for name in ("spatial", "temporal", "decoder")]
    config = laq_config(["preset=lapa", *sizes, *depths, f"quantizer.tokens={tokens}", "quantizer.dim=2"])
    model = build_model(config.model, config.quantizer, config.flow)
    assert isinstance(model, Lapa)
    assert model.vq(torch.randn(1, side**2, 8), side).shape == (1, tokens, 2)


def test_codes_are_replaced_at_the_published_steps_by_the_published_share_of_a_batch() -> None:
    quantizer = NSVQ(QuantizerConfig(tokens=1, codes=3, dim=2, start="normal", replace="lapa"))
    replaced = []
    for step in range(1, 6000):
        quantizer.count(torch.tensor([[100, 7, 6]]))  # a tenth of the batch of 64 is 6.4
        if quantizer.replace(0, step, 100_000, 64):
            replaced.append(step - 1)
        quantizer.used.zero_()
    early, late = list(range(10, 100, 10)), list(range(100, 1000, 100))
    assert replaced == [*early, *late, *range(1000, 5000, 500)]
    before = quantizer.codebook.clone()
    quantizer.start(torch.randn(9, 1, 2), 0)
    assert torch.equal(quantizer.codebook, before), "the first codebook is drawn, and not k-means"
    assert isinstance(quantizer.codebook, nn.Parameter)
