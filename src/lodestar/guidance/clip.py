"""CLIP guidance (GLIDE, Nichol et al. 2021, section 2.3): the gradient of the similarity of picture and prompt.

A noise-aware CLIP looks at the noisy picture. A clean one looks at cut-outs of the estimate x̂₀, drawn anew at every level from
the picture's seed: patterns of one cut-out alone, as adversarial ones are, are averaged away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lodestar.core.level import Level
from lodestar.core.noise import generator
from lodestar.guidance.base import Context, Critic, LogP, Scaled

SMALLEST = 0.5
"""Least side of a cut-out, as a part of the picture's."""
TILT = math.radians(8)
"""Largest rotation of a cut-out."""


class Clip(Scaled):
    """Guidance by a CLIP: scale times its factor times the cosine of the embeddings of picture and prompt. Scale 0 is none."""

    role: ClassVar[str | None] = "clip"
    prompted: ClassVar[bool] = True

    kind: Literal["clip"] = "clip"
    scale: float = Field(default=3.0, ge=0, le=1e6)
    cuts: int = Field(default=0, ge=0, le=1_000)
    """Number of cut-outs of the picture that are looked at; 0 is the whole picture."""

    def critic(self, context: Context) -> Critic:
        logp = context.critics["clip", self.sees]
        return Critic(averaged(logp, context.seeds, self.cuts) if self.cuts else logp, self.scale, self.sees)


def averaged(logp: LogP, seeds: Sequence[int], cuts: int) -> LogP:
    """The mean log-probability of `cuts` cut-outs of every picture [B, C, H, W], drawn from the picture's seed and the level."""

    def mean(x: Tensor, level: Level) -> Tensor:
        frames = torch.stack([_frames(seed, level, cuts) for seed in seeds]).to(x)
        parts = [logp(cut(x, frames[:, number]), level) for number in range(cuts)]
        return torch.stack(parts).mean(dim=0)

    return mean


def cut(x: Tensor, frames: Tensor) -> Tensor:
    """A cut-out of each picture of x [B, C, H, W], enlarged to the picture's size. frames: affine maps [B, 2, 3]."""
    grid = F.affine_grid(frames, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _frames(seed: int, level: Level, cuts: int) -> Tensor:
    """Affine maps [cuts, 2, 3] from places in a cut-out to places in a picture, of random side, place and rotation."""
    assert isinstance(level.time, float), "one level for the whole batch"
    # Every level of a picture has cut-outs of its own, and a repeated level the same ones.
    rng = generator((seed + round(level.time * 1_000) * 0x9E3779B97F4A7C15) % 2**64)
    side, across, down, turn = torch.rand((4, cuts), generator=rng)
    side = SMALLEST + (1 - SMALLEST) * side
    turn = TILT * (2 * turn - 1)
    rows = [
        torch.stack([side * turn.cos(), -side * turn.sin(), (1 - side) * (2 * across - 1)], dim=1),
        torch.stack([side * turn.sin(), side * turn.cos(), (1 - side) * (2 * down - 1)], dim=1),
    ]
    return torch.stack(rows, dim=1)
