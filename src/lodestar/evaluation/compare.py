"""Comparison of pictures with a reference: metrics of features, and the reference's statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from lodestar.config import Problem
from lodestar.data import Source
from lodestar.evaluation.copies import draw_neighbours
from lodestar.evaluation.extractors import Extractor, InceptionExtractor, gives
from lodestar.evaluation.kept import Kept
from lodestar.evaluation.metrics import FeatureMetric, Nearest, Score
from lodestar.evaluation.metrics.base import WORDS, compared, needed
from lodestar.evaluation.reference import known_of
from lodestar.evaluation.statistics import Collector, Moments, Statistics
from lodestar.world import World


@dataclass(frozen=True)
class Comparison:
    """A reference, an extractor, and metrics that compare features."""

    metrics: Sequence[FeatureMetric]
    reference: Source | Kept
    extractor: Extractor
    theirs: Statistics
    """Statistics of the reference."""
    left_out: tuple[str, ...]
    """Reasons for leaving out metrics."""

    @classmethod
    def of(
        cls,
        reference: Source | Kept,
        extractor: Extractor,
        metrics: Sequence[FeatureMetric],
        count: int | None,
        *,
        asked: bool,
        batch_size: int = 64,
        cache: Path | None = None,
    ) -> Self:
        """A comparison of `count` pictures, and the reference's statistics from the cache or made now; see `choose`."""
        chosen, left_out = choose(metrics, extractor, reference, count, asked=asked)
        theirs = known_of(reference, extractor, compared(chosen), batch_size=batch_size, cache=cache)
        return cls(chosen, reference, extractor, theirs, tuple(left_out))

    def collector(self, world: World = World()) -> Collector:  # noqa: B008 (it has no state)
        """A collector of what the metrics need, of pictures shared among processes."""
        return Collector(needed(self.metrics), world=world)

    def known(self, pictures: Source, batch_size: int, cache: Path | None) -> Statistics:
        """Statistics of the pictures of a source."""
        return known_of(pictures, self.extractor, needed(self.metrics), batch_size=batch_size, cache=cache)

    def numbers(self, ours: Statistics) -> dict[str, float]:
        """The numbers of all metrics."""
        return {name: value for metric in self.metrics for name, value in metric(ours, self.theirs).items()}

    def fields(self) -> dict[str, Any]:
        """Fields of a report."""
        return {
            "reference": self.reference.spec,
            "reference_count": len(self.theirs),
            "reference_fingerprint": self.reference.fingerprint,
            "extractor": self.extractor.name,
            "extractor_digest": self.extractor.digest,
            "extractor_dtype": self.extractor.dtype,
        }

    def draw(self, out: Path | None, picture: Callable[[int], Tensor | None], ours: Statistics) -> list[str]:
        """Draw and list nearest neighbours, where the metric "nearest" is asked for. Returns why that cannot be, if so."""
        if out is None or not any(isinstance(metric, Nearest) for metric in self.metrics):
            return []
        if isinstance(self.reference, Kept) or self.theirs.count("features") < len(self.reference):
            return [
                "neighbours.png is not drawn: that needs the pictures of the reference, all of them, with --reference PICTURES"
            ]
        draw_neighbours(out, picture, ours, self.theirs, self.reference)
        return []

    def warnings(self, ours: Statistics) -> Iterator[str]:
        """Reasons why the numbers may mislead."""
        if isinstance(self.reference, Kept) and (remark := self.reference.note(self.extractor)):
            yield remark
        for metric in self.metrics:
            if remark := metric.note(len(ours)):
                yield remark
            for each, which in ((ours, "measured pictures"), (self.theirs, "pictures of the reference")):
                known = getattr(each, metric.needs)
                # N pictures span at most N - 1 directions around their mean.
                if isinstance(known, Moments) and known.count <= len(known.mean):
                    yield (
                        f"{known.count} {which} are too few for the covariance of {len(known.mean)} {WORDS[metric.needs]}: "
                        f"{metric.kind} is biased upwards, take many more than {len(known.mean)}"
                    )
            there, whole = self.theirs.count(metric.needs), len(self.theirs)
            if metric.compares and 0 < there < whole:
                yield f"{metric.kind}: of the reference, features of {there} pictures in {whole} are kept"
        yield from left_out(self.reference, self.theirs)


def left_out(source: Source | Kept, known: Statistics) -> Iterator[str]:
    """A remark on pictures that cannot be decoded, if any."""
    if len(known) < len(source):
        yield f"{len(source) - len(known)} pictures of {source.spec} cannot be decoded and were left out"


def choose(
    metrics: Sequence[FeatureMetric], extractor: Extractor, reference: Source | Kept, count: int | None, *, asked: bool
) -> tuple[list[FeatureMetric], list[str]]:
    """The metrics measurable on `count` pictures (None: unknown), and reasons for leaving out the others.

    A score by Inception is the published one unless it names its splits. Raises Problem, before the work and not after it, for
    requested metrics that cannot be measured, and for too few pictures.
    """
    given = gives(extractor)
    held = reference.of(extractor) if isinstance(reference, Kept) else None
    chosen, left_out = [], []
    for metric in metrics:
        if isinstance(metric, Score) and metric.splits is None:
            metric = metric.replace(splits="consecutive" if isinstance(extractor, InceptionExtractor) else "shuffled")
        part, reason = metric.needs, None
        if part not in given:
            reason = f"the extractor {extractor.name} gives none"
        elif held is not None and metric.compares and part not in held.parts:
            reason = f"{reference.spec} was kept without: give its pictures, or make it again with lodestar stats"
        if reason is None:
            if count is not None:
                metric.check(count, "measured")
            metric.check(len(reference) if held is None or not metric.compares else held.count(part), "in the reference")
            chosen.append(metric)
        elif not asked:
            left_out.append(f"{metric.kind} needs {WORDS[part]}, and {reason}")
        else:
            raise Problem(f"metric {metric.kind!r} needs {WORDS[part]}, and {reason}")
    return chosen, left_out
