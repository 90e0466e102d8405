"""Edits: pictures and a model in, the states of a sampling run out."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import Field, model_validator
from torch import Tensor

from lodestar.conditions import Ask
from lodestar.config import COUNT, Config, Count, Problem, checked
from lodestar.core.estimate import Denoise
from lodestar.core.noise import SeededNoise, seeds_from
from lodestar.core.transition import Transition
from lodestar.generators.guide import Handed
from lodestar.generators.guided import Guided
from lodestar.generators.request import Request
from lodestar.models.diffusion import DiffusionConfig
from lodestar.samplers import Sampler, State


class Sourced(Request):
    """A request made of pictures, whatever the edit."""

    pictures: tuple[str, ...] = Field(default=(), max_length=COUNT)
    """The pictures that results are made of, each by the SHA-256 of its values."""
    mask: str | None = None
    """SHA-256 of the mask's values; None without a mask."""
    origins: tuple[Ask, ...] = Field(default=(), max_length=COUNT)
    """Asks of the pictures, for inversion; of an interpolation, the asks of its two ends."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for number, ask in enumerate(self.asks):
            if ask.source is not None and ask.source >= len(self.pictures):
                raise Problem(f"picture {number} is made of picture {ask.source}: {_there(len(self.pictures))}")
        return self

    @property
    def sources(self) -> list[int]:
        """The number of the picture that each result is made of, where each is made of one."""
        return [ask.source for ask in self.asks if ask.source is not None]

    @property
    def weights(self) -> list[float]:
        """Position of each result between two ends, in [0, 1], if there are ends."""
        return [ask.weight for ask in self.asks if ask.weight is not None]


@dataclass(frozen=True)
class EditJob:
    """Some results of a request, and what there is to make them of."""

    guided: Guided
    """The model, with the guidance of the request."""
    request: Sourced
    """For these results alone."""
    pictures: Tensor
    """All the pictures that the request is made of, float32 [P, C, H, W] in [−1, 1]."""
    handed: Handed
    """Pictures handed over to the model's conditions, one for each result."""
    mask: Tensor | None
    """bool [H, W], True where something is to be made."""
    noise: SeededNoise
    """The noise, of which nothing has been drawn."""
    steps: Sequence[Transition]
    sampler: Sampler
    at_once: int = 32
    """The most tiles that are estimated at once, of one picture."""

    @property
    def sources(self) -> Tensor:
        """The picture that each result is made of [B, C, H, W]."""
        return self.pictures[self.request.sources]

    def start(self, size: Sequence[int] | None = None) -> Tensor:
        """Initial noise of sampling: each result's first draw [B, C, H, W]. size: height and width; default the model's."""
        model = self.guided.model
        shape = model.space if size is None else (model.space[0], *size)
        return self.noise.start(shape, model.device) * model.config.schedule.start_sigma

    def denoise(self, asks: Sequence[Ask], guidance: bool = True) -> Denoise:
        """A `Denoise` of what is asked, with the guidance of the request or without."""
        if not guidance:
            model = self.guided.model
            return Guided(model, self.request.settings.replace(guidance=()).complete(model.limit)).denoise(asks, self.handed)
        return self.guided.denoise(asks, self.handed)


class Edit(Config, abc.ABC):
    """A way of making pictures of pictures. It is its own configuration."""

    kind: str

    def settled(self, model: DiffusionConfig) -> Self:
        """The edit with settings that depend on the model's training."""
        return self

    @property
    def inverts(self) -> bool:
        """True if pictures are inverted to noise, under their own class."""
        return False

    @property
    def enlarges(self) -> bool:
        """True if the pictures are small, of the input size of an upsampler."""
        return False

    @property
    def keeps_size(self) -> bool:
        """True if the pictures may have any size."""
        return False

    def draws(self, pictures: int) -> bool:
        """True if noise is drawn, for so many pictures."""
        return True

    @property
    def reuses(self) -> bool:
        """True if each result is sampled once, from noise to clean data, so that deep features can be reused."""
        return False

    @property
    def usual(self) -> Sampler | None:
        """The sampler where none is asked for; None is the model's own."""
        return None

    def asks(self, pictures: int, wanted: Sequence[Ask], count: int | None, seed: int) -> tuple[Ask, ...]:
        """Every picture as everything wanted, once, or over again until there are `count` results, each with a seed of its own.

        Raises Problem where that makes none.
        """
        if not pictures:
            raise Problem(f"{self.kind} needs a picture to start from, and none is given")
        each = len(wanted)
        seeds = seeds_from(seed, checked("count", pictures * each if count is None else count, Count))
        return tuple(asking(wanted[k % each], own, source=k // each % pictures) for k, own in enumerate(seeds))

    @abc.abstractmethod
    def length(self, steps: Sequence[Transition]) -> int:
        """Number of steps of `states`: a state for each, unless the sampler is adaptive, and the last one's is the last."""

    @abc.abstractmethod
    def states(self, job: EditJob) -> Iterator[State]:
        """Make the results: the last state's x, float32 [B, C, H, W]."""

    def check_asks(self, request: Sourced) -> None:
        """Raise Problem where a request does not say of each result what it is made of."""
        for number, ask in enumerate(request.asks):
            if ask.source is None:
                raise Problem(f"picture {number} has no source, and {self.kind} makes it of one: {_there(len(request.pictures))}")

    def check(self, request: Sourced, sampler: Sampler, steps: Sequence[Transition], mask: Tensor | None) -> None:
        """Raise Problem where this cannot be done with this sampler, or without a mask or with one."""
        if mask is not None:
            raise Problem(f"a mask has no effect on {self.kind}: leave it out, or inpaint")


def asking(wanted: Ask, seed: int, **place: int | float) -> Ask:
    """The ask of one result: what is wanted, with its seed, and its place among the pictures (source, or weight)."""
    return wanted.model_copy(update={"seed": seed, **place})


def _there(pictures: int) -> str:
    """Which sources there are."""
    return f"its source is one of 0 to {pictures - 1}" if pictures else "the request has no pictures to make it of"
