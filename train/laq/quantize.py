"""Quantizers: continuous latent actions [B, n, d] to codes [B, n], and codes back to vectors.

NSVQ (Vali and Backstrom, IEEE Access 2022) is our own: in training the nearest code e stands in as
z + |z - e| * v / |v| with v from a normal distribution, so that encoder and codebook both get gradients and
no commitment loss is needed; at inference it is e. Three defects of the published code are fixed:

- unused codes return as copies of used ones with *noticeable* noise (1e-12 makes duplicates, which gradients
  alone pull apart);
- every repetition of an index counts as a use;
- ranks sum their counts, and all have the same codebook.

One weakness is fixed too: with noise in a random direction the decoder reads z through the noise, and sees
something else at inference. `harden` turns the noise towards e during training, until the decoder sees e.

The noise of a sample is an argument, a function of seed, step and the sample's place in the step. That makes
accumulation, ranks and resumed runs exact. VQ, DiVeQ and FSQ come from vector-quantize-pytorch and use that
package's randomness: their runs resume exactly, but depend on the number of ranks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from oxcart.shards.errors import ConfigError
from oxcart.train.data.order import derive
from oxcart.train.finite import filled, lost
from oxcart.train.laq.config import QuantizerConfig

KMEANS_ROUNDS = 10
SETTLING = 0.1
"""Final share of the steps, in which no codes are replaced."""
ENOUGH = 5
"""Mean uses per code before any code is called unused; by then a good code is unused with probability
0.7%."""


class Quantized(NamedTuple):
    """Quantized latent actions."""

    vectors: Tensor
    """float [B, n, d]: vectors for the decoder."""
    codes: Tensor
    """int64 [B, n]: codes of each latent action."""
    loss: Tensor
    """float []: term of the loss; 0 where the quantizer has none."""


class Quantizer(nn.Module, ABC):
    """Interface of quantizers; `dim` is the width of code vectors, `shared` whether all tokens have one
    codebook."""

    dim: int
    shared: bool
    codes: int
    tokens: int

    @abstractmethod
    def forward(self, z: Tensor, noise: Tensor | None = None, hardness: float = 1.0) -> Quantized:
        """Quantize z [B, n, d]; without noise, to the vectors of the codes."""

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """Vectors [B, n, d] of codes [B, n]."""

    def bounded(self, z: Tensor) -> Tensor:
        """Latents [B, n, d] as they are compared with code vectors."""
        return z

    def start(self, z: Tensor, seed: int) -> None:
        """Set the codebook from the first latents [B, n, d] of all ranks in order, alike on each rank."""

    def count(self, counts: Tensor) -> None:
        """Add to the counts of uses: int64 [n, K], over all ranks."""

    def replace(self, seed: int, step: int, steps: int, batch_size: int) -> int:
        """Replace unused codes if it is time.

        Args:
            seed: seed of the noise.
            step: optimizer steps done.
            steps: optimizer steps of the run.
            batch_size: pairs of a step, over all ranks.

        Returns:
            How many codes were replaced.
        """
        return 0


class NSVQ(Quantizer):
    """Noise-substitution vector quantization; see the module."""

    codebook: nn.Parameter
    used: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.tokens, self.codes, self.dim = config.tokens, config.codes, config.dim
        self.shared = config.shared
        books = 1 if config.shared else config.tokens
        self.codebook = nn.Parameter(torch.randn(books, config.codes, config.dim))
        self.register_buffer("used", torch.zeros(books, config.codes, dtype=torch.int64))
        self._config, self._bound = config, config.bound

    def forward(self, z: Tensor, noise: Tensor | None = None, hardness: float = 1.0) -> Quantized:
        with torch.autocast(z.device.type, enabled=False):  # distances in bf16 would pick wrong neighbours
            z = self.bounded(z.float())
            codes = self.nearest(z)
            vectors = self.lookup(codes)
            if noise is not None:
                gap = vectors - z
                length = gap.norm(dim=-1, keepdim=True)
                with torch.no_grad():
                    free = noise / noise.norm(dim=-1, keepdim=True).clamp_min(1e-8)
                    aimed = gap / length.clamp_min(1e-8)
                    direction = (1 - hardness) * free + hardness * aimed
                    direction = direction / direction.norm(dim=-1, keepdim=True).clamp_min(1e-8)
                # The codes follow the latents; no gradient reaches the latents.
                follow = self._config.follow * (vectors - z.detach()).square().mean()
                return Quantized(z + length * direction, codes, follow)
            return Quantized(vectors, codes, z.new_zeros(()))

    def bounded(self, z: Tensor) -> Tensor:
        return self._bound * torch.tanh(z / self._bound) if self._bound else z

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """Codes [B, n] of the entries nearest to z [B, n, d]."""
        # [B, n, 1, d] - [1, n or 1, K, d]: tokens keep their axis, so none can end up in another's place.
        books = self.codebook
        squares = z.square().sum(-1)[..., None] + books.square().sum(-1)[None]
        inner = torch.einsum("bnd,nkd->bnk", z, books.expand(self.tokens, -1, -1))
        return (squares - 2 * inner).argmin(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        books = self.codebook.expand(self.tokens, -1, -1)
        place = torch.arange(self.tokens, device=codes.device)
        return books[place[None], codes]

    @torch.no_grad()
    def start(self, z: Tensor, seed: int) -> None:
        """Run k-means on the first batch, so that every code begins with samples of its own."""
        if self._config.start == "normal":
            return
        z = self.bounded(z)
        for book in range(len(self.codebook)):
            points = z.reshape(-1, self.dim) if len(self.codebook) == 1 else z[:, book]
            centres = kmeans(points.detach().float().cpu(), self.codes, derive(seed, 11, book))
            self.codebook[book].copy_(centres)

    @torch.no_grad()
    def count(self, counts: Tensor) -> None:
        self.used += counts.sum(0, keepdim=True) if len(self.used) == 1 else counts

    @torch.no_grad()
    def replace(self, seed: int, step: int, steps: int, batch_size: int) -> int:
        config = self._config
        if config.replace == "lapa":
            if not due_lapa(step):
                return 0
            least = torch.full((len(self.used),), config.replace_below * batch_size)
        else:
            # A copied code needs steps to find a use of its own, so none is made at the end.
            if step > (1 - SETTLING) * steps or not due(step, config.replace_every):
                return 0
            uses = self.used.cpu().sum(1)
            # Among few uses a good code gets none by chance: 640 uses of 2,048 codes leave 1,500 unused.
            if int(uses[0]) < ENOUGH * self.codes:
                return 0
            least = config.replace_below * uses / self.codes
        replaced = 0
        generator = torch.Generator().manual_seed(derive(seed, 12, step) >> 1)
        for book, (entries, counts) in enumerate(zip(self.codebook, self.used.cpu(), strict=True)):
            dead = counts < least[book]
            if not dead.any() or dead.all():
                continue
            values = entries.detach().float().cpu()
            # Live codes are copied in proportion to their use: the busiest cells are split first.
            live = torch.where(dead, torch.zeros_like(counts), counts).double()
            source = torch.multinomial(live / live.sum(), int(dead.sum()), True, generator=generator)
            spread = values[~dead].std(dim=0, unbiased=False).mean().clamp_min(values.abs().mean() * 0.1)
            noise = torch.randn(len(source), self.dim, generator=generator) * config.replace_noise
            values[dead] = values[source] + noise * spread.clamp_min(1e-3)
            self.codebook[book].copy_(values)
            replaced += int(dead.sum())
        self.used.zero_()
        return replaced


class PackageQuantizer(Quantizer):
    """VQ, DiVeQ or FSQ of vector-quantize-pytorch."""

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        try:
            import vector_quantize_pytorch as package
        except ImportError as error:
            raise ConfigError(
                f"quantizer.kind: {config.kind} needs vector-quantize-pytorch: "
                "pip install 'oxcart[quantizers]'"
            ) from error
        self.tokens, self.codes, self.shared = config.tokens, config.codes, True
        self._fsq = config.kind == "fsq"
        self.inner: Any
        if self._fsq:
            levels = fsq_levels(config.codes)
            self.dim = len(levels)
            self.inner = package.FSQ(levels)
        else:
            self.dim = config.dim
            own: dict[str, Any] = (
                {"directional_reparam": True} if config.kind == "diveq" else {"rotation_trick": False}
            )
            learned = config.kind == "diveq"
            self.inner = package.VectorQuantize(
                dim=config.dim,
                codebook_size=config.codes,
                commitment_weight=0.0 if learned else config.beta,
                kmeans_init=not learned,
                threshold_ema_dead_code=1,
                learnable_codebook=learned,
                ema_update=not learned,
                **own,
            )

    def forward(self, z: Tensor, noise: Tensor | None = None, hardness: float = 1.0) -> Quantized:
        with torch.autocast(z.device.type, enabled=False):
            nowhere = lost(z)  # the package would round NaN to an index
            z = filled(z.float(), nowhere, 0.0)
            if self._fsq:
                vectors, codes = self.inner(z)
                return Quantized(filled(vectors, nowhere, torch.nan), codes.long(), z.new_zeros(()))
            training = self.inner.training
            self.inner.train(noise is not None and training)
            vectors, codes, loss = self.inner(z)
            self.inner.train(training)
            return Quantized(filled(vectors, nowhere, torch.nan), codes.long(), loss.sum())

    def bounded(self, z: Tensor) -> Tensor:
        if not self._fsq:
            return z
        # What the package computes before it rounds.
        levels = self.inner._levels
        half, offset = (levels - 1) * (1 + 1e-3) / 2, (levels % 2 == 0) * 0.5
        found: Tensor = (torch.tanh(z + torch.atanh(offset / half)) * half - offset) / (levels // 2)
        return found

    @torch.no_grad()
    def start(self, z: Tensor, seed: int) -> None:
        """Show the package the whole batch at its first call, in which it runs k-means."""
        training = self.inner.training
        self.inner.train()
        self.inner(filled(z.float(), lost(z), 0.0).to(next(self.inner.buffers()).device))
        self.inner.train(training)

    def lookup(self, codes: Tensor) -> Tensor:
        vectors: Tensor = (
            self.inner.indices_to_codes(codes) if self._fsq else self.inner.get_codes_from_indices(codes)
        )
        return vectors


def width_of(config: QuantizerConfig) -> int:
    """Width of a code vector."""
    return len(fsq_levels(config.codes)) if config.kind == "fsq" else config.dim


def build_quantizer(config: QuantizerConfig) -> Quantizer:
    """The quantizer of a configuration."""
    return NSVQ(config) if config.kind == "nsvq" else PackageQuantizer(config)


def due(step: int, every: int) -> bool:
    """Whether codes are replaced after a step: for 10, every 10 steps up to 1000, then every 100, and so on.

    Replacements lie halfway between round steps, so that what is saved or measured there has trained since.
    """
    if every < 1 or step < 1:
        return False
    gap = every * int(10 ** max(0, len(str(step // every)) - 2))
    return step % gap == gap // 2


def due_lapa(step: int) -> bool:
    """Whether LAPA replaces codes in the last of `step` steps; it counts from 0."""
    last = step - 1
    return 0 < last < 5000 and last % (10 if last < 100 else 100 if last < 1000 else 500) == 0


def count_codes(codes: Tensor, size: int) -> Tensor:
    """Uses int64 [n, K] of each code in each place, of codes [B, n]; repetitions count.

    The host would wait for bincount, which reads the largest code first."""
    places = codes.detach().T
    counts = places.new_zeros(len(places), size)
    return counts.scatter_add_(1, places, torch.ones_like(places))


def kmeans(points: Tensor, count: int, seed: int) -> Tensor:
    """Centres [K, d] of points [N, d] by k-means++, so that few cells stay empty.

    Ours, since every loss depends on its digits and scikit-learn is optional."""
    generator = np.random.Generator(np.random.PCG64(seed))
    values = points.double().numpy()
    centres = [values[generator.integers(len(values))]]
    nearest = ((values - centres[0]) ** 2).sum(1)
    for _ in range(count - 1):
        total = nearest.sum()
        if total > 0:
            pick = int(np.searchsorted(np.cumsum(nearest), generator.random() * total, side="right"))
            pick = min(pick, len(values) - 1)
        else:
            pick = int(generator.integers(len(values)))
        centres.append(values[pick])
        nearest = np.minimum(nearest, ((values - values[pick]) ** 2).sum(1))
    found = np.stack(centres)
    for _ in range(KMEANS_ROUNDS):
        cells = ((values[:, None] - found[None]) ** 2).sum(-1).argmin(1)
        for cell in range(count):
            if (cells == cell).any():
                found[cell] = values[cells == cell].mean(0)
    scale = max(float(values.std()), 1e-3)
    found = found + 0.02 * scale * generator.standard_normal(found.shape)  # no two centres are the same
    return torch.from_numpy(found).float()


def fsq_levels(codes: int) -> list[int]:
    """Fewest levels up to 8 whose product is the number of codes.

    Raises:
        ConfigError: the number has a prime factor above 7.
    """
    levels, left = [], codes
    while left > 1:
        level = next((one for one in range(8, 1, -1) if left % one == 0), None)
        if level is None:
            raise ConfigError(
                f"quantizer.codes: fsq needs a product of numbers up to 8, got {codes}; "
                f"try {1 << codes.bit_length()}"
            )
        levels.append(level)
        left //= level
    return levels
