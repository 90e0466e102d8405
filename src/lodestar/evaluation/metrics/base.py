"""What every metric has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

from torch import Tensor

from lodestar.config import Config, Problem
from lodestar.evaluation.statistics import Part, Statistics

T = TypeVar("T")

WORDS: dict[Part, str] = {
    "moments": "features",
    "spatial": "spatial features",
    "features": "features",
    "logits": "class logits",
}
"""What the parts are called in a message."""


class BaseMetric(Config):
    """A metric: it is called with the statistics of the generated pictures and of the reference, and answers numbers by name."""

    kind: str
    needs: ClassVar[Part]
    """What it needs to know of the generated pictures."""
    compares: ClassVar[bool] = True
    """It needs to know the same of the reference."""

    @property
    def least(self) -> int:
        """Pictures that each set needs, of which what it needs is known."""
        return 2

    def __call__(self, generated: Statistics, reference: Statistics) -> dict[str, float]:
        """Its numbers. Raises Problem where what it needs is not known, or of too few pictures."""
        raise NotImplementedError

    def note(self, count: int) -> str | None:
        """What a reader has to know of its numbers of `count` generated pictures, in words; None where there is nothing."""
        return None

    def known(self, part: T | None) -> T:
        """What it needs. Raises Problem where it is not there."""
        if part is None:
            raise Problem(f"metric {self.kind!r} needs {WORDS[self.needs]}, and there are none")
        return part

    def both(self, generated: Statistics, reference: Statistics) -> tuple[Tensor, Tensor]:
        """The features of both sets, [M, D] and [N, D]. Raises Problem where they are not there, or too few."""
        x, y = self.known(generated.features), self.known(reference.features)
        self.check(len(x), "measured")
        self.check(len(y), "in the reference")
        return x, y

    def check(self, count: int, which: str) -> None:
        """Raise Problem where `count` pictures, named by `which`, are too few."""
        if count < self.least:
            raise Problem(f"metric {self.kind!r} needs at least {self.least} pictures: {count} {which}")


def needed(metrics: Sequence[BaseMetric]) -> set[Part]:
    """What is needed of the pictures that are measured."""
    return {metric.needs for metric in metrics}


def compared(metrics: Sequence[BaseMetric]) -> set[Part]:
    """What is needed of the reference."""
    return {metric.needs for metric in metrics if metric.compares}
