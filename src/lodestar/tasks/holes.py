"""Masks for training to inpaint: random rectangles, since GLIDE erases random parts of pictures (Nichol et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

BOXES = 3
"""Maximum number of rectangles in a mask."""
WHOLE = 0.1
"""Share of pictures that are masked as a whole, so that the network goes on making pictures of nothing else."""


def holes(count: int, rng: torch.Generator, size: tuple[int, int]) -> Tensor:
    """Masks bool [B, 1, H, W], True where pictures of this height and width are to be filled in."""
    draws = torch.rand(count, BOXES, 5, generator=rng, device=rng.device)
    inside = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=rng.device)
    for axis, side in enumerate(size):
        places = (torch.arange(side, device=rng.device) + 0.5) / side
        centre, half = draws[..., axis, None], draws[..., 2 + axis, None] / 2
        within = (places - centre).abs() < half
        inside = inside & (within[..., None] if axis == 0 else within[..., None, :])
    # The first rectangle is always there, each of the others in half of the masks.
    inside = inside & ((draws[..., 4] < 0.5) | (torch.arange(BOXES, device=rng.device) == 0))[..., None, None]
    whole = torch.rand(count, 1, 1, generator=rng, device=rng.device) < WHOLE
    return (inside.any(dim=1) | whole)[:, None]
