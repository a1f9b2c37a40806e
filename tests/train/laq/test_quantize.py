"""Quantizers: every published defect of NSVQ is a test."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from oxcart.shards.errors import ConfigError
from oxcart.train.laq.config import QuantizerConfig, laq_config
from oxcart.train.laq.quantize import (
    NSVQ,
    build_quantizer,
    count_codes,
    due,
    fsq_levels,
    kmeans,
)
from oxcart.train.laq.validate import COLLAPSED, IN_USE, judge_codebook, places_of, usage
from oxcart.train.statistics import Ints

STEPS = 10**6
"""Steps of a run that is far from its end."""
CONFIG = QuantizerConfig(tokens=3, codes=5, dim=4, bound=0.0)


def nsvq(**changes: object) -> NSVQ:
    torch.manual_seed(0)
    return NSVQ(replace(CONFIG, **changes))  # type: ignore[arg-type]


def latents(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shared", [True, False])
def test_codes_are_the_nearest_entries(shared: bool) -> None:
    quantizer, z = nsvq(shared=shared), latents()
    found = quantizer(z)
    for b in range(len(z)):
        for n in range(3):
            book = quantizer.codebook[0 if shared else n]
            distances = (book - z[b, n]).norm(dim=1)
            assert found.codes[b, n] == distances.argmin()
            assert torch.equal(found.vectors[b, n], book[found.codes[b, n]])
    assert torch.equal(quantizer.lookup(found.codes), found.vectors)


def test_training_noise_is_as_long_as_the_error_and_free_in_direction() -> None:
    quantizer, z = nsvq(), latents()
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(2))
    found = quantizer(z, noise, 0.0)
    error = (quantizer.lookup(found.codes) - z).norm(dim=-1)
    torch.testing.assert_close((found.vectors - z).norm(dim=-1), error)
    cosine = torch.nn.functional.cosine_similarity(found.vectors - z, noise, dim=-1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_hard_noise_gives_the_code_itself_and_still_a_gradient() -> None:
    quantizer, z = nsvq(), latents().requires_grad_()
    found = quantizer(z, torch.randn(z.shape), 1.0)
    torch.testing.assert_close(found.vectors, quantizer.lookup(found.codes))
    found.vectors.square().sum().backward()
    assert z.grad is not None
    assert z.grad.abs().sum() > 0
    assert quantizer.codebook.grad is not None
    assert quantizer.codebook.grad.abs().sum() > 0


def test_codes_follow_the_latents_that_they_stand_for() -> None:
    quantizer = nsvq(shared=False, follow=1.0)
    z = latents(200) + 5.0
    z.requires_grad_()
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=5.0)
    gaps = []
    for _ in range(60):
        found = quantizer(z, torch.zeros_like(z), 0.0)
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
        gaps.append(found.loss.item())
    assert gaps[-1] < 0.2 * gaps[0]
    assert z.grad is None or z.grad.abs().sum() == 0, "the latents do not feel it"
    assert nsvq(follow=0.0)(z, torch.ones_like(z), 0.0).loss == 0


def test_latents_are_held_within_bounds() -> None:
    quantizer = nsvq(bound=2.0)
    z = latents() * 100
    vectors = quantizer(z, torch.ones_like(z), 0.0).vectors
    longest = quantizer.codebook.norm(dim=-1).max()
    assert vectors.norm(dim=-1).max() <= 2 * 2.0 * z.shape[-1] ** 0.5 + longest, "z + |z - e| is of bounded z"
    quantizer.start(z, 0)
    assert quantizer.codebook.abs().max() < 2.5


def test_tokens_do_not_mix() -> None:
    quantizer, z = nsvq(), latents()
    noise = torch.randn(z.shape)
    before = quantizer(z, noise, 0.0)
    changed = z.clone()
    changed[:, 1] += 3.0
    after = quantizer(changed, noise, 0.0)
    for token in (0, 2):
        assert torch.equal(before.vectors[:, token], after.vectors[:, token])
        assert torch.equal(before.codes[:, token], after.codes[:, token])
    assert not torch.equal(before.vectors[:, 1], after.vectors[:, 1])


def test_repeated_codes_are_counted_every_time() -> None:
    codes = torch.tensor([[0, 2], [0, 2], [0, 1]])
    assert count_codes(codes, 3).tolist() == [[3, 0, 0], [0, 1, 2]]


def motions(count: int, seed: int) -> Tensor:
    """What an encoder sees of four tokens, [N, 4, 6]: one of eight motions each, and noise."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randn(8, 6, generator=torch.Generator().manual_seed(9))
    which = torch.randint(8, (count, 4), generator=generator)
    return kinds[which] + 0.1 * torch.randn(count, 4, 6, generator=generator)


def trained_codes(**changes: object) -> list[Ints]:
    """Codes of pairs by a codebook of the preset `large`, at its start and after 40 steps with noise, in
    which the encoder learns much too fast."""
    torch.manual_seed(0)
    quantizer = NSVQ(replace(laq_config(["preset=large"]).quantizer, **changes)).train()  # type: ignore[arg-type]
    assert (quantizer.tokens, quantizer.codes, quantizer.dim) == (4, 8, 32)
    encoder, decoder = nn.Linear(6, 32), nn.Linear(32, 6)
    weights = [*encoder.parameters(), *decoder.parameters(), *quantizer.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1.0)
    quantizer.start(encoder(motions(64, 0)), 0)
    found = []
    for step in range(41):
        if step in (0, 40):
            with torch.no_grad():
                codes = quantizer(encoder(motions(256, 1))).codes.numpy()
            found.append(codes)
        seen = motions(64, 100 + step)
        noise = torch.randn(64, 4, 32, generator=torch.Generator().manual_seed(step))
        quantized = quantizer(encoder(seen), noise, 0.0)
        loss = (decoder(quantized.vectors) - seen).square().mean() + quantized.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        quantizer.count(count_codes(quantized.codes, 8))
        quantizer.replace(0, step + 1, STEPS, 64)
    return found


def test_a_codebook_that_the_encoder_leaves_behind_collapses_unless_codes_follow_and_come_back() -> None:
    before, after = trained_codes(follow=0.0, replace_every=0)
    assert usage(before, 8, shared=False)["usage"] == 1
    assert usage(after, 8, shared=False)["usage"] < 0.4
    assert judge_codebook(places_of(after, 8))["codebook"] == COLLAPSED
    before, after = trained_codes()
    assert usage(before, 8, shared=False)["usage"] == 1
    assert usage(after, 8, shared=False)["usage"] > 0.6
    assert judge_codebook(places_of(before, 8))["codebook"] == IN_USE


@pytest.mark.parametrize("shared", [True, False])
def test_dead_codes_come_back_and_are_used(shared: bool) -> None:
    quantizer = nsvq(shared=shared, codes=8, replace_every=1)
    with torch.no_grad():
        quantizer.codebook[:, 1:] += 100.0
    z = latents(64)
    for step in range(1, 40):
        found = quantizer(z)
        if len(count_codes(found.codes, 8).sum(0).nonzero()) == 8 and step > 5:
            break
        quantizer.count(count_codes(found.codes, 8))
        quantizer.replace(0, step, STEPS, 64)
        with torch.no_grad():  # what training does: entries move towards what they stand for
            for book in range(len(quantizer.codebook)):
                mine = z if shared else z[:, book : book + 1]
                picked = found.codes if shared else found.codes[:, book : book + 1]
                for code in range(8):
                    if (picked == code).any():
                        quantizer.codebook[book, code].lerp_(mine[picked == code].mean(0), 0.5)
    assert len(count_codes(quantizer(z).codes, 8).sum(0).nonzero()) == 8


def test_copies_differ_from_what_they_copy_by_the_noise() -> None:
    quantizer = nsvq(shared=True, codes=8, replace_every=1, replace_noise=0.02)
    counts = torch.zeros(3, 8, dtype=torch.int64)
    counts[:, :4] = 100
    quantizer.count(counts)
    live = quantizer.codebook[0, :4].clone()
    assert quantizer.replace(0, 1, STEPS, 64) == 4
    gaps = torch.cdist(quantizer.codebook[0, 4:], live).min(1).values
    assert (gaps > 1e-3).all(), "copies that are exact would stay dead"
    assert (gaps < 0.2).all()
    assert torch.equal(quantizer.codebook[0, :4], live), "used codes stay as they are"
    assert int(quantizer.used.sum()) == 0, "counting begins anew"


def test_replacement_is_the_same_on_every_rank_and_another_at_every_step() -> None:
    books = []
    for step in (5, 5, 15):
        quantizer = nsvq(codes=8)
        counts = torch.zeros(3, 8, dtype=torch.int64)
        counts[:, 0] = 90
        quantizer.count(counts)
        torch.manual_seed(step + len(books))  # no library's random stream has a say
        quantizer.replace(5, step, STEPS, 64)
        books.append(quantizer.codebook.detach().clone())
    assert torch.equal(books[0], books[1])
    assert not torch.equal(books[0], books[2])


def test_nothing_is_replaced_where_all_or_nothing_is_used() -> None:
    for counts in (torch.ones(3, 5, dtype=torch.int64), torch.zeros(3, 5, dtype=torch.int64)):
        quantizer = nsvq(replace_every=1)
        before = quantizer.codebook.detach().clone()
        quantizer.count(counts)
        assert quantizer.replace(0, 1, STEPS, 64) == 0
        assert torch.equal(quantizer.codebook, before)


def test_few_uses_of_many_codes_condemn_none() -> None:
    quantizer = nsvq(codes=64, replace_every=1)
    z = latents(20)
    before = quantizer.codebook.detach().clone()
    for step in range(1, 6):
        quantizer.count(count_codes(quantizer(z).codes, 64))
        assert quantizer.replace(0, step, STEPS, 64) == 0
    assert torch.equal(quantizer.codebook, before)
    assert quantizer.used.sum() == 5 * 20 * 3, "they are counted on, until there are enough"


def test_replacements_become_rarer() -> None:
    steps = [step for step in range(1, 2001) if due(step, 10)]
    assert steps[:5] == [5, 15, 25, 35, 45]
    assert steps[98:102] == [985, 995, 1050, 1150]
    assert [step for step in range(1, 4) if due(step, 1)] == [1, 2, 3]
    assert not any(due(step, 0) for step in range(100))


def test_kmeans_finds_clusters_and_never_two_equal_centres() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = centres.repeat(20, 1) + 0.1 * torch.randn(60, 2, generator=generator)
    found = kmeans(points, 3, seed=1)
    assert torch.cdist(centres, found).min(1).values.max() < 0.6
    same = kmeans(torch.ones(4, 2), 6, seed=1)
    assert torch.pdist(same).min() > 0


def test_the_start_gives_codes_that_are_all_used() -> None:
    for shared in (True, False):
        quantizer, z = nsvq(shared=shared), latents(200)
        quantizer.start(z, 0)
        assert (count_codes(quantizer(z).codes, 5).sum(0) > 0).all()


@pytest.mark.parametrize(
    ("codes", "levels"), [(8, [8]), (16, [8, 2]), (2048, [8, 8, 8, 4]), (10, [5, 2]), (7, [7])]
)
def test_fsq_levels_multiply_to_the_codes(codes: int, levels: list[int]) -> None:
    assert fsq_levels(codes) == levels


def test_fsq_of_a_large_prime_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"quantizer\.codes: fsq needs a product of numbers up to 8, got 11"
    ):
        fsq_levels(11)


@pytest.mark.parametrize("kind", ["vq", "diveq", "fsq"])
def test_the_packages_quantizers_have_the_same_interface(kind: str) -> None:
    pytest.importorskip("vector_quantize_pytorch")
    torch.manual_seed(0)
    quantizer = build_quantizer(QuantizerConfig(kind=kind, tokens=3, codes=8, dim=4))
    z = torch.randn(32, 3, quantizer.dim).requires_grad_()
    quantizer.train()
    found = quantizer(z, torch.randn(z.shape))
    assert found.vectors.shape == z.shape
    assert found.codes.shape == (32, 3)
    assert 0 <= int(found.codes.min()) <= int(found.codes.max()) < 8
    (found.vectors.square().sum() + found.loss).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    quantizer.eval()
    still = quantizer(z.detach())
    torch.testing.assert_close(quantizer.lookup(still.codes), still.vectors)
    assert torch.equal(quantizer(z.detach()).codes, still.codes)


@pytest.mark.parametrize("kind", ["nsvq", "vq", "diveq", "fsq"])
def test_the_code_is_nearest_to_the_latent_as_it_is_compared(kind: str) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(QuantizerConfig(kind=kind, tokens=2, codes=120, dim=3)).eval()
    z = 2 * torch.randn(200, 2, quantizer.dim)
    quantizer.start(z, 0)
    every = torch.arange(120)[:, None].expand(-1, 2)
    away = (quantizer.bounded(z)[:, None] - quantizer.lookup(every)[None]).norm(dim=-1)
    own = (quantizer.bounded(z) - quantizer.lookup(quantizer(z).codes)).norm(dim=-1)
    torch.testing.assert_close(own, away.amin(1))
    assert away.amin(1).mean() < away.mean() / 2


def test_a_quantizer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    with pytest.raises(ConfigError, match="fsq needs vector-quantize-pytorch: pip install"):
        build_quantizer(QuantizerConfig(kind="fsq"))
