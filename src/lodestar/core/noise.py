"""Noise of which every sample has its own source, so that a picture does not depend on the batch it was made in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class SeededNoise:
    """Standard normal draws; row i of every draw comes from a generator seeded with seeds[i] alone.

    The generators live on the CPU, so that a seed gives the same picture on every device.
    """

    def __init__(self, seeds: Sequence[int], temperature: float = 1.0) -> None:
        """temperature: the standard deviation of the draws, if it is not to be 1."""
        self.temperature = temperature
        self.generators = [torch.Generator().manual_seed(seed % 2**64) for seed in seeds]

    def __call__(self, x: Tensor) -> Tensor:
        """Noise shaped like x [B, ...], B = number of seeds, in x's dtype and on its device."""
        assert len(x) == len(self.generators), f"{len(x)} samples, {len(self.generators)} seeds"
        rows = [torch.randn(x.shape[1:], generator=generator) for generator in self.generators]
        return torch.stack(rows).to(x) * self.temperature

    def start(self, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """The first draw, [B, *shape] in float32: where sampling begins."""
        return self(torch.empty((len(self.generators), *shape), device=device))
