"""Ranges of a network's activations by noise level, for sampling in 8 bits: those at which rounding and cutting off err least.

For activations on a grid of 256 values, a wider range makes the steps coarser, and a narrower one cuts off more. The range of
least squared error is taken (Sung et al. 2015, arXiv:1511.06488, section 3), from activations of noised pictures at every level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lodestar.config import Problem
from lodestar.core.estimate import Estimate
from lodestar.core.level import Level
from lodestar.core.noise import SeededNoise, generator
from lodestar.core.plan import parse_plan
from lodestar.data import Batch, Shuffled, Source
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.unclip import UnClip, is_unclip
from lodestar.nets.int8 import LOW
from lodestar.nets.unet import UNet

_OCTAVE = 16
"""Candidates for a range in every doubling."""
_EXPONENTS = (-4, 10)
"""The candidates go from 2⁻⁴ to 2¹⁰."""


class Spread:
    """Counts of activations by size, for the squared error of every candidate of a range."""

    def __init__(self) -> None:
        low, high = _EXPONENTS
        self.counts = torch.zeros((high - low) * _OCTAVE, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Count values of any shape; those below the least candidate count as that."""
        low, high = _EXPONENTS
        sizes = values.float().clamp(2.0**low, 2.0**high).log2()
        self.counts += torch.histc(sizes, len(self.counts), low, high).double()

    def best(self) -> float:
        """The candidate of least error."""
        low, _ = _EXPONENTS
        edges = 2.0 ** (low + torch.arange(1, len(self.counts) + 1, dtype=torch.float64) / _OCTAVE)
        middles = edges * 2.0 ** (-0.5 / _OCTAVE)
        beyond = torch.relu(middles - edges[:, None]).square()
        rounded = ((edges - LOW) / 255).square() / 12
        errors = beyond @ self.counts + rounded * self.counts.sum()
        return float(edges[errors.argmin()])


def find_ranges(
    model: Diffusion, source: Source, steps: str, *, count: int, seed: int = 0, batch_size: int = 32,
    tick: Callable[[int], None] = lambda done: None,
) -> tuple[tuple[float, ...], Tensor]:  # fmt: skip
    """Network times, ascending, and the largest activation to be told apart at each: float32 [blocks, 2, times].

    model: in float32. source: pictures of the model's size and channels, of which `count` are taken, noised to the levels of the
    plan `steps`; every second one loses its class, if the model can do without. Raises Problem.
    """
    network = network_of(model)
    levels = sorted(parse_plan(steps).noisy(model.config.schedule), key=lambda level: float(level.time))
    if len(levels) < 2:
        raise Problem(f"steps {steps!r} have one level: ranges are taken at two or more")
    spreads = [[(Spread(), Spread()) for _ in network.blocks] for _ in levels]
    done = 0
    for batch in batches(model, source, count, seed, batch_size):
        for level, into in zip(levels, spreads, strict=True):
            with watched(network, into):
                _estimates(model, batch, level, seed, done)
        tick(done := done + len(batch))
    ranges = torch.tensor([[[each.best() for each in pair] for pair in blocks] for blocks in spreads])
    return tuple(float(level.time) for level in levels), ranges.permute(1, 2, 0).contiguous()


def find_errors(
    exact: Diffusion, others: Sequence[Diffusion], batch: Batch, steps: str, seed: int = 0
) -> Iterator[tuple[Level, list[float]]]:
    """Relative errors ‖Δv‖/‖v‖ of the estimates of other forms of a model, at the levels of a plan."""
    for level in parse_plan(steps).noisy(exact.config.schedule):
        wanted, *found = (_estimates(model, batch, level, seed) for model in (exact, *others))
        yield level, [float((each - wanted).norm() / wanted.norm()) for each in found]


def network_of(model: Diffusion) -> UNet:
    """The network of a model. Raises Problem: no residual blocks in 8 bits, ranges that are known, a decoder without CLIP."""
    network, name = model.denoiser.network, model.name or "this model"
    if not isinstance(network, UNet):
        raise Problem(f"{name} has a network of kind {model.config.denoiser.network.kind!r}: ranges are of a 'unet'")
    if network.config.ranges:
        raise Problem(
            f"{name} has its ranges already, at {len(network.config.ranges)} times: quantize the model that it was made of"
        )
    if model.config.denoiser.embedding is not None and not is_unclip(model):
        raise Problem(f"{name} decodes embeddings of a CLIP: quantize the bundle that it is in with its CLIP")
    return network


def batches(model: Diffusion, source: Source, count: int, seed: int, batch_size: int) -> Iterator[Batch]:
    """Batches of `count` pictures; their classes are the data's where it has the model's, else drawn.

    To a model that inpaints all of them are masked; a decoder is told their embeddings.
    """
    seen = None if model.config.denoiser.embedding is None else UnClip(model).seen
    stream = Shuffled(source, batch_size, workers=0).batches(seed)
    classes = model.config.denoiser.classes
    drawn = torch.randint(classes or 1, (count,), generator=generator(seed))
    for first in range(0, count, batch_size):
        batch = next(stream)[: count - first]
        if classes is not None and source.names != model.config.names:
            batch = Batch({**batch.fields, "label": drawn[first : first + len(batch)]})
        told = {} if seen is None else {"embedding": seen(batch.image)}
        yield Batch({"mask": torch.ones(len(batch), 1, 1, 1, dtype=torch.bool), **batch.fields, **told})


@torch.inference_mode()
def _estimates(model: Diffusion, batch: Batch, level: Level, seed: int, first: int = 0) -> Tensor:
    """The estimates of v for a batch, whose first picture has this number, noised to a level: float32 [B, C, H, W]."""
    x0, numbers = model.codec.encode(batch.image.to(model.device)), range(first, first + len(batch))
    eps = SeededNoise([seed + number for number in numbers]).start(x0.shape[1:], model.device)
    cond = {each.kind: each.seen(batch.fields, x0) for each in model.config.denoiser.conditions}
    even = torch.tensor([number % 2 == 0 for number in numbers], device=model.device)
    optional = [each.kind for each in model.config.denoiser.conditions if each.optional]
    kept = dict.fromkeys(optional, even) if model.config.droppable else {}
    signals = model.denoiser.encode(cond, kept)
    estimate: Estimate = model.denoiser(model.config.schedule.forward(x0, level, eps), level, signals)
    return estimate.v


@contextmanager
def watched(network: UNet, into: Sequence[tuple[Spread, Spread]]) -> Iterator[None]:
    """Count the inputs of the convolutions of the residual blocks, while the context lasts."""

    def watch(spread: Spread) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, given: spread.add(given[0][..., ::2, ::2] if given[0].shape[-1] > 8 else given[0])

    hooks = [
        conv.register_forward_pre_hook(watch(spread))
        for block, pair in zip(network.blocks, into, strict=True)
        for conv, spread in zip((block.conv1, block.conv2), pair, strict=True)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
