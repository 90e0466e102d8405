"""Enlarging, by a model that was trained to: its network sees the small picture beside x (ADM-U, Dhariwal and Nichol 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field

from lodestar.conditions import Ask
from lodestar.config import Count, Problem, checked
from lodestar.core.estimate import Denoise
from lodestar.core.noise import seeds_from
from lodestar.core.transition import Transition
from lodestar.generators.edits.base import Edit, EditJob, asking
from lodestar.generators.edits.tiles import Size, Tiling, tiled
from lodestar.generators.guide import EPS
from lodestar.generators.guided import small_noise
from lodestar.models.diffusion import DiffusionConfig
from lodestar.samplers import State


class Upsample(Edit):
    """Makes a large picture of each small one."""

    kind: Literal["upsample"] = "upsample"
    fit: bool = False
    """Bring pictures to the size of the model's input first. Otherwise they keep theirs, and larger ones are made in tiles."""
    overlap: float = Field(default=0.25, ge=0, le=0.9)
    """The least part of a tile's side shared with its neighbour."""

    @property
    def reuses(self) -> bool:
        return True

    @property
    def enlarges(self) -> bool:
        return True

    @property
    def keeps_size(self) -> bool:
        return not self.fit

    def tiling(self, model: DiffusionConfig, size: Size) -> Tiling | None:
        """The tiles of a picture of this height and width; None for one of the size of the model's input."""
        small = model.denoiser.low_res
        assert small is not None, "a model that enlarges"
        return None if small == size else Tiling(size, small, model.size[0] // small[0], self.overlap)

    def asks(self, pictures: int, wanted: Sequence[Ask], count: int | None, seed: int) -> tuple[Ask, ...]:
        """Every picture once, or over again until there are `count` results, each with the next of what is wanted."""
        if not pictures:
            raise Problem("upsample needs a picture to enlarge, and none is given")
        seeds = seeds_from(seed, checked("count", pictures if count is None else count, Count))
        return tuple(asking(wanted[k % len(wanted)], own, source=k % pictures) for k, own in enumerate(seeds))

    def length(self, steps: Sequence[Transition]) -> int:
        return len(steps)

    def states(self, job: EditJob) -> Iterator[State]:
        height, width = job.pictures.shape[-2:]
        tiling = self.tiling(job.guided.model.config, (height, width))
        if tiling is None:
            yield from job.sampler(job.denoise(job.request.asks), job.start(), job.steps, job.noise)
            return

        small = job.handed["low_res"]
        eps = small_noise(job.request.asks, tuple(small.shape[1:]))

        def bind(corners: Sequence[tuple[int, int]]) -> Denoise:
            tiles, noise = (torch.cat([tiling.small(whole, corner) for corner in corners]) for whole in (small, eps))
            return job.guided.denoise(job.request.asks * len(corners), {"low_res": tiles, EPS: noise})

        yield from job.sampler(tiled(tiling, bind, job.at_once), job.start(tiling.result), job.steps, job.noise)
