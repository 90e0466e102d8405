"""The base of metrics."""

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
"""Names of the parts in messages."""


class BaseMetric(Config):
    """A metric: called with the statistics of the generated pictures and of the reference, it returns numbers by name."""

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
