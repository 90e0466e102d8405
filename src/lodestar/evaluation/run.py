"""Measuring: pictures → features and marks → numbers.

Pictures are made, or read, batch by batch, and pass once through the extractor for all metrics; no more is held of them than the
metrics need.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from lodestar.config import BatchSize, Problem, checked, short
from lodestar.core.noise import seeds_from
from lodestar.data import Source
from lodestar.evaluation import marks
from lodestar.evaluation.captions import Captions
from lodestar.evaluation.compare import Comparison, left_out
from lodestar.evaluation.copies import shown_of
from lodestar.evaluation.extractors import Extractor, note
from lodestar.evaluation.kept import Kept
from lodestar.evaluation.marks import Marked, Marks
from lodestar.evaluation.metrics import METRICS, FeatureMetric
from lodestar.evaluation.metrics.base import PromptedMetric, roles
from lodestar.evaluation.repeats import Share, check, half_width
from lodestar.evaluation.report import Report, digest
from lodestar.evaluation.statistics import Statistics
from lodestar.generators.base import Generator, Prepared
from lodestar.generators.guide import Guides, chosen
from lodestar.generators.request import Prompts, Request, Settings, seeded
from lodestar.progress import progress
from lodestar.world import World, here


@dataclass(frozen=True)
class Measurement:
    """Settings of measuring pictures."""

    metrics: Sequence[FeatureMetric | PromptedMetric] | None = None
    """Metrics; by default those of `METRICS` supported by the extractor and the reference."""
    captions: Captions | None = None
    """Captions, to make pictures of in turn or to compare given pictures with, in their order."""
    batch_size: int = 64
    repeats: int = 1
    """Number of measurements, with new seeds each, for means and intervals."""
    cache: Path | None = None
    """Folder of kept statistics of the reference (default: `cache_folder`)."""
    out: Path | None = None
    """A folder for pictures beside their nearest neighbours, where the metric "nearest" is asked for."""
    title: str = "sampling"
    """Title of the progress bar."""
    console: Console | None = None
    """Console of the progress bar; default standard error."""
    tick: Callable[[int], None] | None = None
    """Is called with the pictures measured so far, of all repeats: when sampling begins, and after every batch."""

    def __post_init__(self) -> None:
        checked("batch size", self.batch_size, BatchSize)

    @property
    def prompted(self) -> list[PromptedMetric]:
        """Metrics of pictures beside their prompts."""
        return [metric for metric in self.metrics or () if isinstance(metric, PromptedMetric)]

    @property
    def features(self) -> Sequence[FeatureMetric]:
        """Metrics of features."""
        return [metric for metric in self.metrics or METRICS if not isinstance(metric, PromptedMetric)]

    def comparison(self, reference: Source | Kept | None, extractor: Extractor | None, count: int | None) -> Comparison | None:
        """The comparison of `count` pictures with a reference; None where no metric has features. Raises Problem."""
        if not self.features:
            return None
        assert reference is not None and extractor is not None, "there are metrics of features"
        return Comparison.of(
            reference, extractor, self.features, count, asked=bool(self.metrics), batch_size=self.batch_size, cache=self.cache
        )


def evaluate(
    model: Generator,
    reference: Source | Kept | None,
    extractor: Extractor | None,
    how: Settings | None = None,
    *,
    count: int = 10_000,
    seed: int = 0,
    guides: Guides | None = None,
    run: Measurement | None = None,
) -> Report:
    """Sample `count` pictures, classes and captions in turn, and measure them against `reference`.

    reference, extractor: None where no metric is of features. how, guides: as a `Request` has them. run: how it is measured.
    Progress goes to standard error. Raises Problem, as early as it can.
    """
    how, run = how or Settings(), run or Measurement()
    guiding = chosen(how.guidance, guides or {}, model.companions, roles(run.metrics or ()))
    asked = requested(model, how, count, seed, guiding, run.captions)
    return measure(model, asked, reference, extractor, guides=guiding, run=run)


def requested(
    model: Generator, how: Settings, count: int, seed: int, guides: Guides, captions: Captions | None = None
) -> Request:
    """A request for `count` pictures, classes and captions in turn; picture k has the seed `seed` + k. Raises Problem."""
    prompts = Prompts() if captions is None else Prompts(captions.texts)
    return seeded(model.wanted(None, prompts, count, guides), seed, how)


def measure(
    model: Generator,
    asked: Request,
    reference: Source | Kept | None,
    extractor: Extractor | None,
    *,
    guides: Guides | None = None,
    run: Measurement | None = None,
) -> Report:
    """Answer a request and measure the pictures; see `evaluate`."""
    run, world = run or Measurement(), here()
    if world.rank > 0:
        run = replace(run, console=Console(quiet=True))
    count, repeats = len(asked.asks), run.repeats
    check(repeats)
    mine = world.rows(count)
    prepared: Prepared | None = model.prepare(asked.only(*mine), guides)
    # All of them now, so that a last seed that does not exist is told before the work.
    seeds_from(asked.asks[0].seed, repeats * count)
    requests = [asked, *(_later(asked, number * count) for number in range(1, repeats))]
    told = [ask.text for ask in asked.asks] if run.captions is None else run.captions.compared(count)
    marking = Marks(run.prompted, told, guides or {})
    notes = [] if run.captions is None or run.captions.note is None else [run.captions.note]
    if model.reads and not any(ask.text for ask in asked.asks):
        notes.append("no captions are given (--captions DATA): the pictures are unconditional")
    if reference is not None and extractor is not None:
        notes += filter(None, (note(extractor, *each) for each in (_shape(model), _of(reference, "reference"))))
    against = run.comparison(reference, extractor, count)
    numbers: list[Marked] = []
    seconds = fastest = alone = 0.0
    for number, again in enumerate(requests):
        start = time.perf_counter()
        title = run.title if repeats == 1 else f"{run.title}, run {number + 1} of {repeats}"
        this = replace(run, title=title, tick=partial(_tick, run.tick, number * count))
        made, rate, drawn = _sampled(prepared or model.prepare(again.only(*mine), guides), mine, against, marking, this, world)
        prepared = None
        seconds, fastest, alone = seconds + time.perf_counter() - start, max(fastest, rate), max(alone, drawn)
        if not numbers:
            ours = made
        numbers.append(_numbers(against, made) | marking.numbers(world))

    def picture(index: int) -> Tensor:
        (*_, last) = model.stream(asked.only(index), guides=guides)
        return last.images[0]

    return Report(
        count=count,
        **_merged(numbers),
        **_compared(against, ours, run.out, picture, notes),
        **_made_by(model, asked, guides or {}),
        captions=run.captions.spec or None if run.captions else None,
        seconds=seconds,
        images_per_second=fastest * world.size,
        drawn_per_second=alone * world.size,
    )


def _shape(model: Generator) -> tuple[str, int, tuple[int, int]]:
    channels, *size = model.shape
    return "generated", channels, (size[0], size[1])


def _of(source: Source | Kept, name: str) -> tuple[str, int, tuple[int, int]]:
    return name, source.channels, source.size


def _tick(tick: Callable[[int], None] | None, before: int, done: int) -> None:
    if tick is not None:
        tick(before + done)


def _later(asked: Request, more: int) -> Request:
    """The request with seeds increased by `more`."""
    return asked.replace(asks=tuple(ask.replace(seed=ask.seed + more) for ask in asked.asks))


def _made_by(model: Generator, asked: Request, guides: Guides) -> dict[str, Any]:
    """Fields of a report on the origin of the pictures."""
    how = model.complete(asked.settings)
    return {
        "model_digest": digest(model),
        "model_dtype": model.precision,
        "prior": None if model.prior is None else short(model.prior),
        "guide_digests": {role: digest(guide) for role, guide in guides.items()} or None,
        "seed": asked.asks[0].seed,
        **settings_told(how),
    }


def settings_told(how: Settings) -> dict[str, Any]:
    """Fields of a report on complete settings of sampling."""
    whole = ("steps", "clamp", "temperature", "reuse", "top_k", "top_p", "truncation")
    return {
        **{name: getattr(how, name) for name in whole},
        "sampler": None if how.sampler is None else short(how.sampler),
        "guidance": " ".join(short(each) for each in how.guidance),
    }


def _numbers(against: Comparison | None, ours: Statistics | None) -> Marked:
    return {} if against is None or ours is None else dict(against.numbers(ours))


def _merged(runs: Sequence[Marked]) -> dict[str, Any]:
    """Fields of a report on the numbers of one run or several: means with their intervals, and shares of all pictures."""
    values = [{name: float(value) for name, value in each.items()} for each in runs]
    shares = {name: [each[name] for each in runs] for name, value in runs[0].items() if isinstance(value, Share)}
    several = len(runs) > 1
    return {
        "numbers": {name: sum(each[name] for each in values) / len(values) for name in values[0]},
        "runs": tuple(values) if several else (),
        "intervals": {name: half_width([each[name] for each in values]) for name in values[0]} if several else None,
        "shares": {name: reduce(add, each) for name, each in shares.items()} or None,
    }


def _compared(
    against: Comparison | None,
    ours: Statistics | None,
    out: Path | None,
    picture: Callable[[int], Tensor | None],
    notes: Sequence[str],
    more: Iterable[str] = (),
) -> dict[str, Any]:
    """Fields of a report on the reference, and its warnings; draws nearest neighbours."""
    if against is None or ours is None:
        return {"warnings": (*notes, *more)}
    undrawn = against.draw(out, picture, ours)
    warnings = (*notes, *against.left_out, *undrawn, *more, *against.warnings(ours))
    return against.fields() | {"warnings": warnings}


def evaluate_pictures(
    pictures: Source,
    reference: Source | Kept | None,
    extractor: Extractor | None,
    *,
    guides: Guides | None = None,
    run: Measurement | None = None,
) -> Report:
    """Measure pictures on disk, whoever made them, against `reference`; see `evaluate`. Raises Problem.

    Prompts are the captions of `run`, else the source's own.
    """
    run = run or Measurement()
    notes = []
    if reference is not None and extractor is not None:
        notes = [note(extractor, *_of(source, source.spec)) for source in (pictures, reference)]
    against = run.comparison(reference, extractor, len(pictures))
    texts = None if run.captions is None else run.captions.texts
    marked = marks.of_pictures(run.prompted, pictures, texts, guides or {}, run.batch_size)
    ours = None if against is None else against.known(pictures, run.batch_size, run.cache)
    return Report(
        count=len(pictures) if ours is None else len(ours),
        **_merged([_numbers(against, ours) | marked]),
        **_compared(
            against, ours, run.out, partial(shown_of, pictures), list(filter(None, notes)),
            () if ours is None else left_out(pictures, ours),
        ),
        guide_digests={role: digest(guide) for role, guide in (guides or {}).items()} or None,
        captions=run.captions.spec or None if run.captions else None,
        pictures=pictures.spec,
    )  # fmt: skip


def evaluate_batches(
    batches: Iterable[Tensor | np.ndarray],
    reference: Source | Kept,
    extractor: Extractor,
    *,
    metrics: Sequence[FeatureMetric] | None = None,
    cache: Path | None = None,
    what: str = "batches",
) -> Report:
    """Measure pictures as they come, whoever makes them, against `reference`; see `evaluate`. Raises Problem.

    batches: tensors uint8 [B, C, H, W], or arrays uint8 [B, H, W, C], B and size as they like. what: names them in the report.
    """
    against = Comparison.of(reference, extractor, metrics or METRICS, None, asked=bool(metrics), cache=cache)
    collector, notes = against.collector(), {note(extractor, *_of(reference, "reference")): None}
    with progress(f"features of {what}", 0) as done:
        for batch in batches:
            place = 3 if isinstance(batch, np.ndarray) else 1
            if batch.dtype not in (torch.uint8, np.uint8) or batch.ndim != 4 or batch.shape[place] not in (1, 3):
                shown = f"{batch.dtype} {list(batch.shape)}"
                raise Problem(f"{what}: one is {shown}: give tensors uint8 [B, C, H, W] or arrays uint8 [B, H, W, C], C = 1 or 3")
            pictures = torch.as_tensor(batch).movedim(place, 1)
            _, channels, height, width = pictures.shape
            notes[note(extractor, what, channels, (height, width))] = None
            collector.add(extractor(pictures))
            done(collector.count)
    ours = collector.statistics()
    return Report(
        count=len(ours),
        **_merged([_numbers(against, ours)]),
        **_compared(against, ours, None, lambda index: None, list(filter(None, notes))),
        pictures=what,
    )


def _sampled(
    prepared: Prepared, mine: range, against: Comparison | None, marking: Marks, run: Measurement, world: World
) -> tuple[Statistics | None, float, float]:
    """Statistics of all pictures of a request, of which these numbers are made here, and marked too; and how many a second the
    fastest batch made, with features and without.

    A shorter last batch is no measure, and the batches of one that an adaptive sampler takes are counted together.
    """
    collector, fastest, alone = None if against is None else against.collector(world), 0.0, 0.0
    whole, made, total, start, apart = min(run.batch_size, len(mine)), 0, 0, time.perf_counter(), 0.0
    tick = run.tick or (lambda _: None)
    with progress(run.title, len(mine), console=run.console) as done:
        tick(0)
        for frame in prepared.frames(run.batch_size):
            done(frame.done)
            if frame.final:
                images, measuring = frame.images, time.perf_counter()
                if collector is not None and against is not None:
                    collector.add(against.extractor(images))
                marking.add(mine[frame.first : frame.first + len(images)], images)
                apart += time.perf_counter() - measuring
                made, total = made + len(images), total + len(images)
                tick(total * world.size)
                if made >= whole:
                    begun, start = start, time.perf_counter()
                    fastest, alone = max(fastest, made / (start - begun)), max(alone, made / (start - begun - apart))
                    made, apart = 0, 0.0
    return None if collector is None else collector.statistics(), fastest, alone
