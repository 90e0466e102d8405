"""Marks: what metrics of prompts say of pictures, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lodestar.config import Problem
from lodestar.data import Source
from lodestar.evaluation.captions import first_of
from lodestar.evaluation.metrics.base import PromptedMetric
from lodestar.evaluation.repeats import Share
from lodestar.generators.guide import Guides
from lodestar.progress import progress
from lodestar.world import World

Marked = dict[str, float | Share]
"""Numbers and shares by name."""


class Marks:
    """The marks of pictures by several metrics."""

    def __init__(self, metrics: Sequence[PromptedMetric], prompts: Sequence[str | None], guides: Guides) -> None:
        """prompts: of all pictures, in their order. Raises Problem where a metric cannot use one, or lacks a guide."""
        self._prompts = [text or "" for text in prompts]
        self._markers, self._marks = {}, {metric: list[Tensor]() for metric in metrics}
        for metric in metrics:
            for number, text in enumerate(self._prompts):
                if not text:
                    raise Problem(
                        f"metric {metric.kind!r} compares with prompts, and picture {number} has none: give --captions DATA"
                    )
            for text in dict.fromkeys(self._prompts):
                metric.check(text)
            self._markers[metric] = metric.marker(next((guides[role] for role in metric.roles if role in guides), None))

    def add(self, numbers: Iterable[int], images: Tensor) -> None:
        """Mark pictures uint8 [B, C, H, W] of these numbers."""
        if self._markers:
            colour, texts = images.expand(-1, 3, -1, -1), [self._prompts[number] for number in numbers]
            for metric, marker in self._markers.items():
                self._marks[metric].append(marker(colour, texts))

    def numbers(self, world: World = World()) -> Marked:  # noqa: B008 (it has no state)
        """The numbers of all pictures since the last call, of all processes among which they are shared."""
        found: Marked = {}
        for metric, marks in self._marks.items():
            found |= metric(world.gather(torch.cat(marks)))
            marks.clear()
        return found


def of_pictures(
    metrics: Sequence[PromptedMetric], pictures: Source, texts: Sequence[str] | None, guides: Guides, batch_size: int
) -> Marked:
    """The numbers of the pictures of a source with its captions, or with these texts, in its order. Raises Problem."""
    if not metrics:
        return {}
    if texts is None and not pictures.captioned:
        raise Problem(f"metric {metrics[0].kind!r} compares with prompts, and {pictures.spec} has none: give --captions DATA")
    if texts is not None and len(texts) < len(pictures):
        raise Problem(f"{pictures.spec} has {len(pictures):,} pictures, and captions are there for {len(texts):,} of them")
    prompts = [first_of(pictures.texts(index)) for index in range(len(pictures))] if texts is None else texts
    marks = Marks(metrics, prompts, guides)
    with progress(f"prompts of {pictures.spec}", len(pictures)) as done:
        for start in range(0, len(pictures), batch_size):
            rows = range(start, min(start + batch_size, len(pictures)))
            there = {index: torch.from_numpy(image.copy()) for index in rows if (image := pictures.image(index)) is not None}
            if there:
                marks.add(there, torch.stack(list(there.values())))
            done(rows.stop)
    return marks.numbers()
