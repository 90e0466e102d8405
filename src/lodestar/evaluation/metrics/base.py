"""The bases of metrics: of features, and of pictures beside their prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, TypeVar

from torch import Tensor

from lodestar.config import Config, Problem
from lodestar.evaluation.repeats import Share
from lodestar.evaluation.statistics import Part, Statistics
from lodestar.generators.guide import Guide

T = TypeVar("T")

WORDS: dict[Part, str] = {
    "moments": "features",
    "spatial": "spatial features",
    "features": "features",
    "logits": "class logits",
}
"""Names of the parts in messages."""

Marker = Callable[[Tensor, Sequence[str]], Tensor]
"""A judge of pictures uint8 [B, 3, H, W] and their prompts: marks float64 [B, K]."""


class PromptedMetric(Config):
    """A metric of pictures beside their prompts, which marks each picture by itself; called with all marks."""

    kind: str
    roles: ClassVar[tuple[str, ...]] = ()
    """Roles of guides, the first of which that is there gives the marks; none needs no guide."""

    def marker(self, guide: Guide | None) -> Marker:
        """The judge of pictures. guide: in the first role there is. Raises Problem without a guide that suits."""
        raise NotImplementedError

    def check(self, prompt: str) -> None:
        """Raise Problem for a prompt with which no picture can be compared."""

    def __call__(self, marks: Tensor) -> Mapping[str, float | Share]:
        """The metric's numbers, of marks [N, K]."""
        raise NotImplementedError


class BaseMetric(Config):
    """A metric of features: called with the statistics of the generated pictures and of the reference, it returns numbers."""

    kind: str
    needs: ClassVar[Part]
    """Required part of the generated pictures' statistics."""
    compares: ClassVar[bool] = True
    """True if the reference's statistics need the same part."""

    @property
    def least(self) -> int:
        """Minimum number of pictures in each set."""
        return 2

    def __call__(self, generated: Statistics, reference: Statistics) -> dict[str, float]:
        """The metric's numbers. Raises Problem if the required part is missing, or of too few pictures."""
        raise NotImplementedError

    def note(self, count: int) -> str | None:
        """Remark on the numbers for `count` generated pictures; None if there is none."""
        return None

    def known(self, part: T | None) -> T:
        """The required part. Raises Problem if missing."""
        if part is None:
            raise Problem(f"metric {self.kind!r} needs {WORDS[self.needs]}, and there are none")
        return part

    def both(self, generated: Statistics, reference: Statistics) -> tuple[Tensor, Tensor]:
        """The features of both sets, [M, D] and [N, D]. Raises Problem if missing, or too few."""
        x, y = self.known(generated.features), self.known(reference.features)
        self.check(len(x), "measured")
        self.check(len(y), "in the reference")
        return x, y

    def check(self, count: int, which: str) -> None:
        """Raise Problem if `count` pictures, named by `which`, are too few."""
        if count < self.least:
            raise Problem(f"metric {self.kind!r} needs at least {self.least} pictures: {count} {which}")


def needed(metrics: Sequence[BaseMetric]) -> set[Part]:
    """Required parts of the generated pictures' statistics."""
    return {metric.needs for metric in metrics}


def compared(metrics: Sequence[BaseMetric]) -> set[Part]:
    """Required parts of the reference's statistics."""
    return {metric.needs for metric in metrics if metric.compares}


def roles(metrics: Sequence[BaseMetric | PromptedMetric]) -> tuple[str, ...]:
    """Roles of guides that these metrics can use."""
    return tuple(dict.fromkeys(role for metric in metrics if isinstance(metric, PromptedMetric) for role in metric.roles))
