"""Seeded noise: every sample has its own generator, so a picture does not depend on its batch."""

from __future__ import annotations

import hashlib
import operator
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from lodestar.config import SEEDS, Problem

_WORDS = slice(24, 24 + 8 * 624)
"""Position of the Mersenne Twister's 624 words, 8 bytes each, in a CPU generator state of torch."""


class SeededNoise:
    """Standard normal noise; row i of every draw comes from a generator seeded with seeds[i] alone.

    The generators live on the CPU, so a seed gives the same picture on every device.
    """

    def __init__(self, seeds: Sequence[int], temperature: float = 1.0) -> None:
        """temperature: the standard deviation of the draws. Raises Problem for a seed beyond 64 bits."""
        self.temperature = temperature
        self.generators = [generator(seed) for seed in seeds]

    def __call__(self, x: Tensor) -> Tensor:
        """Noise shaped like x [B, ...], B = number of seeds, in x's dtype and on its device."""
        assert len(x) == len(self.generators), f"{len(x)} samples, {len(self.generators)} seeds"
        rows = [torch.randn(x.shape[1:], generator=generator) for generator in self.generators]
        return torch.stack(rows).to(x) * self.temperature

    def start(self, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """The first draw, [B, *shape] in float32: the initial noise of sampling."""
        return self(torch.empty((len(self.generators), *shape), device=device))


def generator(seed: int) -> torch.Generator:
    """A CPU generator with a distinct state for every seed of 64 bits. Raises Problem for a seed beyond them.

    torch uses the lower 32 bits of a seed; seeds below 2³² keep torch's own state. Longer seeds fill the Mersenne Twister by its
    authors' rule (``init_by_array``, in the code of Matsumoto and Nishimura), as Python does.
    """
    (seed,) = seeds_from(seed, 1)
    made = torch.Generator().manual_seed(seed % 2**32)
    if seed >= 2**32:
        words = random.Random(seed).getstate()[1][:624]
        state = made.get_state()
        state[_WORDS] = torch.tensor(words, dtype=torch.int64).view(torch.uint8)
        made.set_state(state)
    return made


def derived(seed: int, stage: int | str) -> int:
    """The seed of a further stage of a cascade, whose noise is independent of the stages before: 64 bits of a SHA-256.

    Stage 0 is the noise of the small picture that a stage enlarges. Other draws beside a picture's noise have a name.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{stage}".encode()).digest()[:8], "big") % SEEDS


def seeds_from(first: int, count: int) -> tuple[int, ...]:
    """Seeds of `count` pictures: first, first + 1, … Raises Problem unless all are whole numbers of 64 bits."""
    try:
        first = operator.index(None if isinstance(first, bool) else first)  # type: ignore[arg-type]
    except TypeError:
        raise Problem(f"seed is {first!r}: a whole number from 0 to {SEEDS - 1}") from None
    if not 0 <= first < SEEDS:
        raise Problem(f"seed is {first}: from 0 to {SEEDS - 1}")
    if first + count > SEEDS:
        last = first + count - 1
        raise Problem(f"seed is {first}: {count} pictures have the seeds up to {last}, and the last of all is {SEEDS - 1}")
    return tuple(range(first, first + count))
