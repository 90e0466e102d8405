"""Interpolation between two pictures, two noises or two labels.

Noises are interpolated on the sphere (DDIM, Song et al. 2021, section 5.3 and appendix D.5): two pictures by the noises that
inversion finds for them, two seeds by what they draw. Labels are interpolated by their embeddings, in a straight line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.conditions import Ask, Composed
from lodestar.config import Problem, Seed
from lodestar.core.noise import SeededNoise, seeds_from
from lodestar.core.slerp import slerp
from lodestar.core.transition import Transition
from lodestar.generators.edits.base import Edit, EditJob, Sourced, asking
from lodestar.samplers import Sampler, State, last
from lodestar.samplers.inversion import check_invertible, invert


class Interpolate(Edit):
    """Goes from one end to the other in equal parts: from picture to picture, or seed to seed; from label to label; or both."""

    kind: Literal["interpolate"] = "interpolate"
    points: int = Field(default=8, ge=2, le=100_000)
    """Number of results, the two ends included."""
    to_seed: Seed | None = None
    """The seed at the other end; None is the same one."""
    guided: bool = False
    """Guide the inversion of pictures too."""

    def asks(self, pictures: int, wanted: Sequence[Ask], count: int | None, seed: int) -> tuple[Ask, ...]:
        if count is not None:
            raise Problem(f"count is {count}: an interpolation makes as many pictures as it has points, {self.points}")
        weights = tuple(k / (self.points - 1) for k in range(self.points))
        (first,) = seeds_from(seed, 1)
        return tuple(asking(wanted[round(weight)], first, weight=weight) for weight in weights)

    def draws(self, pictures: int) -> bool:
        return not pictures

    def length(self, steps: Sequence[Transition]) -> int:
        return len(steps)

    def states(self, job: EditJob) -> Iterator[State]:
        request, x = job.request, job.start()
        weights = torch.tensor(request.weights, dtype=torch.float64, device=x.device)
        if len(job.pictures):
            # Each by itself: neither depends on the other, whatever the sampler looks at.
            first, second = (
                last(invert(job.sampler, job.denoise([origin], self.guided), picture, job.steps, job.noise))
                for origin, picture in zip(request.origins, job.pictures.split(1), strict=True)
            )
            x = slerp(first.expand_as(x), second.expand_as(x), weights)
        elif self.to_seed is not None:
            other = replace(job, noise=SeededNoise([self.to_seed] * len(x), request.settings.temperature)).start()
            x = slerp(x, other, weights)
        begin, end = request.origins
        # Values of their own, an embedding between two others, are those of the results.
        told = any(ask.others for ask in request.asks)
        denoise = job.denoise(request.asks) if told else job.guided.between((begin, end), request.weights)
        yield from job.sampler(denoise, x, job.steps, job.noise)

    def check_asks(self, request: Sourced) -> None:
        if len(request.origins) != 2:
            raise Problem(f"{len(request.origins)} origins are given: interpolate goes between two, one at each end")
        for number, ask in enumerate(request.asks):
            if ask.weight is None:
                raise Problem(f"picture {number} has no weight: interpolate needs one from 0, the first end, to 1, the second")

    def check(self, request: Sourced, sampler: Sampler, steps: Sequence[Transition], mask: Tensor | None) -> None:
        super().check(request, sampler, steps, mask)
        if any(isinstance(origin.label, Composed) for origin in request.origins):
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
            raise Problem("interpolate has the same at both ends: give two pictures, two seeds, two labels or two prompts")
