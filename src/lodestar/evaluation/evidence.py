"""Bits per dimension of pictures under a VAE: the evidence bound (ELBO), and the tighter importance-weighted one."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.config import Problem
from lodestar.core.noise import SeededNoise, seeds_from
from lodestar.data import Source, part, sequential
from lodestar.evaluation.report import Bits, evenly, mean_with_error, measured_by, resized
from lodestar.generators.autoencoder import Autoencoder
from lodestar.progress import progress

DRAWS = 64
"""Default number of draws of a picture's latents."""


@dataclass(frozen=True, kw_only=True)
class Evidence(Bits):
    """The measured bounds, with all their settings.

    Their numbers are in bits per dimension: bpd, the ELBO's, which is distortion + rate, and importance, the importance-weighted
    bound's; names with _error are standard errors.
    """

    likelihood: str
    """Distribution of pictures given latents."""
    draws: int
    """Draws of each picture's latents."""
    seed: int
    """Seed of the first picture's draws; picture k has seed + k."""


def measure(
    model: Autoencoder, reference: Source, *, count: int, seed: int = 0, batch_size: int = 64, draws: int = DRAWS
) -> Evidence:
    """Bounds on the bits of `count` pictures of the reference, resized and cropped to the model's size. Raises Problem."""
    config = model.config
    if config.posterior == "point":
        raise Problem("bits per dimension need a prior, and this autoencoder has none: measure a VAE")
    began, places, seeds = time.perf_counter(), evenly(reference, count), seeds_from(seed, count)
    pictures = part(reference, places, config.size)
    found: list[Tensor] = []
    model.eval()
    with progress("likelihood", count) as tick:
        for number, batch in enumerate(sequential(pictures, batch_size)):
            first = number * batch_size
            x = pixels.encode(batch.image.to(model.device))
            found.append(bounds(model, x, SeededNoise(seeds[first : first + len(x)]), draws).cpu())
            tick(first + len(x))
    distortion, rate, importance = torch.cat(found, dim=1)
    total = distortion + rate
    numbers = {"distortion": distortion.mean().item(), "rate": rate.mean().item()}
    for name, values in (("bpd", total), ("importance", importance)):
        numbers |= mean_with_error(name, values)
    return Evidence(
        numbers=numbers,
        count=count,
        **measured_by(model, reference),
        likelihood=config.likelihood.kind,
        draws=draws,
        seed=seed,
        seconds=time.perf_counter() - began,
        warnings=resized(reference, config.size),
    )


def bounds(model: Autoencoder, x: Tensor, noise: SeededNoise, draws: int) -> Tensor:
    """Distortion, rate and importance-weighted bound of pictures [B, C, H, W] in bits per dimension, float64 [3, B]."""
    seen = model.config.likelihood.seen(x, torch.special.ndtr(noise(x)))
    pairs = [model.evidence(x, noise.start(model.space, model.device), seen) for _ in range(draws)]
    likely, ratio = (torch.stack(each).double() for each in zip(*pairs, strict=True))
    weighted = (likely + ratio).logsumexp(dim=0) - math.log(draws)
    return -torch.stack([likely.mean(dim=0), ratio.mean(dim=0), weighted]) / (x[0].numel() * math.log(2.0))
