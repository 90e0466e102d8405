"""Degradations: the small picture that an upsampler is trained with, made of the large one."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar.config import Config

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class Drawn:
    """Random numbers of a batch of pictures, a row for each."""

    uniform: Tensor
    """Numbers in [0, 1), float32 [B, N]."""
    seed: Tensor
    """Seeds of further numbers, int64 [B]; as many as a picture needs, which is few where it is small by then."""

    def __getitem__(self, rows: slice) -> Self:
        return type(self)(self.uniform[rows], self.seed[rows])


def normal(seeds: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers float32 [B, *shape], of each row's seed alone."""
    made = torch.empty(len(seeds), *shape, device=seeds.device)
    generator = torch.Generator(seeds.device)
    for row, seed in zip(made, seeds.tolist(), strict=True):
        torch.randn(row.shape, generator=generator.manual_seed(seed), out=row)
    return made


class Degradation(Config, abc.ABC):
    """A way of making pictures small: a function of a picture and of random numbers, which are drawn before."""

    kind: str

    @property
    def uniforms(self) -> int:
        """Number of uniform numbers for a picture."""
        return 0

    def check(self, channels: int, large: Size, small: Size) -> None:
        """Raise Problem unless large pictures of so many channels can be made small."""
        return

    def draw(self, count: int, rng: torch.Generator) -> Drawn:
        """The numbers for `count` pictures."""
        uniform = torch.rand(count, self.uniforms, generator=rng, device=rng.device)
        return Drawn(uniform, torch.randint(2**32, (count,), generator=rng, device=rng.device))

    @abc.abstractmethod
    def __call__(self, x: Tensor, drawn: Drawn, size: Size) -> Tensor:
        """The small pictures float32 [B, C, *size] in [−1, 1] of large ones [B, C, H, W], with the numbers drawn for them."""


def area(x: Tensor, size: Size) -> Tensor:
    """Means over areas [B, C, *size] of pictures [B, C, H, W], as in the training of published upsamplers."""
    return F.interpolate(x, size=size, mode="area")
