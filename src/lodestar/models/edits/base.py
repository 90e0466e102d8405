"""What an edit is: pictures and a model in, the states of a sampling run out."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from lodestar.conditions import Label
from lodestar.config import Config, Problem
from lodestar.core.estimate import Denoise
from lodestar.core.noise import SeededNoise
from lodestar.core.transition import Transition
from lodestar.models.classifier import PictureClassifier
from lodestar.models.diffusion import Diffusion
from lodestar.models.guided import guided
from lodestar.samplers import AnySampler, State

if TYPE_CHECKING:
    from lodestar.models.editing import EditRequest


@dataclass(frozen=True)
class Layout:
    """Which of the pictures and labels given, and which seed, each result is made of; one entry a result."""

    sources: tuple[int, ...]
    """Numbers of pictures; empty where no result is made of one of them alone."""
    labels: tuple[int, ...]
    """Places among the labels asked for."""
    seeds: tuple[int, ...]
    """What is added to the first seed."""
    weights: tuple[float, ...] = ()
    """How far from one end to the other, in [0, 1]."""


@dataclass(frozen=True)
class Batch:
    """Some results of a request, and what there is to make them of."""

    model: Diffusion
    request: EditRequest
    """For these results alone."""
    pictures: Tensor
    """All the pictures that the request is made of, float32 [P, C, H, W] in [−1, 1]."""
    low_res: Tensor | None
    """The one that each result is enlarged from, uint8 [B, C, h, w]; None where none is."""
    mask: Tensor | None
    """bool [H, W], True where something is to be made."""
    classifier: PictureClassifier | None
    weak: Diffusion | None
    noise: SeededNoise
    """Of which nothing has been drawn."""
    steps: Sequence[Transition]
    sampler: AnySampler

    @property
    def sources(self) -> Tensor:
        """The picture that each result is made of [B, C, H, W]."""
        return self.pictures[list(self.request.sources)]

    def start(self) -> Tensor:
        """Where sampling begins: each result's first draw [B, C, H, W]."""
        return self.noise.start(self.model.shape, self.model.device) * self.model.config.schedule.start_sigma

    def denoise(self, labels: Sequence[Label], guidance: bool = True) -> Denoise:
        """A `Denoise` under these labels, with the guidance of the request or without."""
        if not guidance:
            return guided(
                self.model,
                self.request.replace(guidance=()).complete_guidance(self.model.config.limit),
                labels,
                None,
                self.low_res,
            )
        return guided(
            self.model, self.request.complete_guidance(self.model.config.limit), labels, self.classifier, self.low_res, self.weak
        )


class Edit(Config, abc.ABC):
    """A way of making pictures of pictures. It is its own configuration."""

    kind: str

    @property
    def inverts(self) -> bool:
        """Whether it goes up from a picture to noise, under the picture's own class."""
        return False

    @property
    def enlarges(self) -> bool:
        """Whether its pictures are small ones, of the size that a model was trained to enlarge."""
        return False

    def draws(self, pictures: int) -> bool:
        """Whether it draws noise, made of so many pictures."""
        return True

    @property
    def usual(self) -> AnySampler | None:
        """The sampler where none is asked for; None is the model's own."""
        return None

    def layout(self, pictures: int, labels: int, count: int | None) -> Layout:
        """Every picture under every label, once, or over again until there are `count` results, each with a seed of its own.

        Raises Problem where that makes none.
        """
        if not pictures:
            raise Problem(f"{self.kind} needs a picture to start from, and none is given")
        numbers = range(pictures * labels if count is None else count)
        return Layout(
            sources=tuple(k // labels % pictures for k in numbers),
            labels=tuple(k % labels for k in numbers),
            seeds=tuple(numbers),
        )

    @abc.abstractmethod
    def length(self, steps: Sequence[Transition]) -> int:
        """How many steps `states` takes: a state for each, unless the sampler chooses its own, and the last one's is the last."""

    @abc.abstractmethod
    def states(self, batch: Batch) -> Iterator[State]:
        """Make the results: the last state's x, float32 [B, C, H, W]."""

    def check(self, request: EditRequest, sampler: AnySampler, steps: Sequence[Transition], mask: Tensor | None) -> None:
        """Raise Problem where this cannot be done with this sampler, or without a mask or with one."""
        if mask is not None:
            raise Problem(f"a mask has no effect on {self.kind}: leave it out, or inpaint")
