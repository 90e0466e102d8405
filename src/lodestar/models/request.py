"""What is asked of a diffusion model, and the frames that come back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

from pydantic import Field, field_validator
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.conditions import Label
from lodestar.config import Config
from lodestar.core.plan import parse_plan
from lodestar.guidance import AnyGuidance, Classifier, Clip, Threshold
from lodestar.samplers import AnySampler


class Request(Config):
    """What to sample. The command line, Python and a manifest all make one of these."""

    labels: tuple[Label, ...] = Field(min_length=1)
    """The class of each picture, or several composed; None is none (unconditional)."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """The seed of each picture; it depends on nothing else that is sampled with it."""
    plan: str | None = None
    """Sampling plan in text (`lodestar.core.plan`); None is the model's own."""
    sampler: AnySampler | None = None
    guidance: tuple[AnyGuidance, ...] = ()
    """In the order of application."""
    clip: bool = True
    """Limit x̂₀ as the model's own `limit` says, before a classifier's gradient and after, unless the guidance clips or
    thresholds."""
    temperature: float = Field(default=1.0, gt=0)
    """Standard deviation of all noise that is drawn, at the start and on the way; below 1 is likelier and less diverse."""

    @field_validator("plan")
    @classmethod
    def _readable(cls, plan: str | None) -> str | None:
        if plan is not None:
            parse_plan(plan)
        return plan

    each: ClassVar[tuple[str, ...]] = ("labels", "seeds")
    """The fields that have an entry for each picture."""

    def only(self, *indices: int) -> Self:
        """The request for some of its pictures alone."""
        values = {name: getattr(self, name) for name in self.each}
        return self.replace(**{name: [value[k] for k in indices] if value else value for name, value in values.items()})

    def complete_guidance(self, limit: Clip | Threshold | None) -> list[AnyGuidance]:
        """The guidance, with the model's own limit of x̂₀ put in its place."""
        guidance = list(self.guidance)
        if self.clip and limit is not None and not any(isinstance(each, Clip | Threshold) for each in guidance):
            place = next((k for k, each in enumerate(guidance) if isinstance(each, Classifier)), len(guidance))
            guidance.insert(place, limit)
        return guidance


@dataclass(frozen=True)
class Frame:
    """Some of the requested pictures, as believed after one step; after the last step, the pictures themselves."""

    first: int
    """Number of the first of these pictures in the request."""
    step: int
    """Steps taken."""
    steps: int
    """Steps in all."""
    x: Tensor = field(repr=False)
    """What they are, in the range [−1, 1]: float32 [B, C, H, W]."""

    @property
    def images(self) -> Tensor:
        """uint8 [B, C, H, W]."""
        return pixels.decode(self.x).cpu()

    @property
    def final(self) -> bool:
        """Whether these are the answer."""
        return self.step == self.steps

    @property
    def done(self) -> float:
        """How much of the request is done, in pictures: those before these, and of these the part of their steps."""
        return self.first + len(self.x) * self.step / self.steps
