"""Interpolation between two pictures, two noises or two labels.

Noises are interpolated on the sphere (DDIM, Song et al. 2021, section 5.3 and appendix D.5): two pictures by the noises that
inversion finds for them, two seeds by what they draw. Labels are interpolated by their embeddings, in a straight line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.conditions import Composed
from lodestar.config import SEEDS, Problem
from lodestar.core.noise import SeededNoise
from lodestar.core.slerp import slerp
from lodestar.core.transition import Transition
from lodestar.models.edits.base import Batch, Edit, Layout
from lodestar.models.guided import between
from lodestar.samplers import AnySampler, State, last
from lodestar.samplers.inversion import check_invertible, invert

if TYPE_CHECKING:
    from lodestar.models.editing import EditRequest


class Interpolate(Edit):
    """Goes from one end to the other in equal parts: from picture to picture, or seed to seed; from label to label; or both."""

    kind: Literal["interpolate"] = "interpolate"
    points: int = Field(default=8, ge=2, le=100_000)
    """How many results, the two ends included."""
    to_seed: int | None = Field(default=None, ge=0, lt=SEEDS)
    """The seed at the other end; None is the same one."""
    guided: bool = False
    """Guide the inversion of pictures too."""

    def layout(self, pictures: int, labels: int, count: int | None) -> Layout:
        if count is not None:
            raise Problem(f"count is {count}: an interpolation makes as many pictures as it has points, {self.points}")
        weights = tuple(k / (self.points - 1) for k in range(self.points))
        return Layout(sources=(), labels=tuple(map(round, weights)), seeds=(0,) * self.points, weights=weights)

    def draws(self, pictures: int) -> bool:
        return not pictures

    def length(self, steps: Sequence[Transition]) -> int:
        return len(steps)

    def states(self, batch: Batch) -> Iterator[State]:
        request, x = batch.request, batch.start()
        weights = torch.tensor(request.weights, dtype=torch.float64, device=x.device)
        if len(batch.pictures):
            # Each by itself: neither depends on the other, whatever the sampler looks at.
            first, second = (
                last(invert(batch.sampler, batch.denoise([origin], self.guided), picture, batch.steps, batch.noise))
                for origin, picture in zip(request.origins, batch.pictures.split(1), strict=True)
            )
            x = slerp(first.expand_as(x), second.expand_as(x), weights)
        elif self.to_seed is not None:
            other = replace(batch, noise=SeededNoise([self.to_seed] * len(x), request.temperature)).start()
            x = slerp(x, other, weights)
        model, (origin, goal) = batch.model, request.origins
        denoise = between(model, request.complete_guidance(), (origin, goal), request.weights, batch.classifier, batch.weak)
        yield from batch.sampler(denoise, x, batch.steps, batch.noise)

    def check(self, request: EditRequest, sampler: AnySampler, steps: Sequence[Transition], mask: Tensor | None) -> None:
        super().check(request, sampler, steps, mask)
        if any(isinstance(origin, Composed) for origin in request.origins):
            raise Problem("interpolate goes from one class to one class, and a composed label is several")
        if len(request.pictures) not in (0, 2):
            raise Problem(f"interpolate goes between two pictures, and the number given is {len(request.pictures)}")
        if request.pictures:
            if self.to_seed is not None:
                raise Problem("interpolate goes between two pictures or between two seeds: give the ones or the others")
            check_invertible(sampler, steps)
        elif self.to_seed is not None:
            if sampler.stochastic:
                raise Problem(f"sampler {sampler.kind}: a path between two noises needs a sampler that draws none on the way")
        elif request.origins[0] == request.origins[1]:
            raise Problem("interpolate has the same at both ends: give two pictures, two seeds or two labels")
