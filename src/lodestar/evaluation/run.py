"""Measuring: pictures → features → numbers.

Pictures are made, or read, batch by batch, and pass once through the extractor for all metrics; no more is held of them than the
metrics need.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from lodestar.config import BatchSize, Problem, checked, short
from lodestar.core.noise import seeds_from
from lodestar.data import Source
from lodestar.evaluation.extractors import Extractor, InceptionExtractor, gives, note
from lodestar.evaluation.kept import Kept
from lodestar.evaluation.metrics import METRICS, Metric, Nearest, Score
from lodestar.evaluation.metrics.base import WORDS, compared, needed
from lodestar.evaluation.neighbours import nearest
from lodestar.evaluation.reference import known_of
from lodestar.evaluation.repeats import check, half_width
from lodestar.evaluation.report import Report, digest
from lodestar.evaluation.statistics import Collector, Moments, Part, Statistics
from lodestar.generators.base import Generator, Prepared
from lodestar.generators.guide import Guides, chosen
from lodestar.generators.request import Request, Settings, request
from lodestar.images import save_grid
from lodestar.progress import progress

_CLOSEST, _NEIGHBOURS = 10, 6
"""Pictures drawn beside their nearest neighbours, and how many of these."""


def evaluate(
    model: Generator,
    reference: Source | Kept,
    extractor: Extractor,
    how: Settings | None = None,
    *,
    count: int = 10_000,
    seed: int = 0,
    guides: Guides | None = None,
    run: Measurement | None = None,
) -> Report:
    """Sample `count` pictures, classes in turn, and measure them against `reference`.

    how, guides: as a `Request` has them. run: how it is measured. Progress goes to standard error. Raises Problem, as early as it
    can.
    """
    how = how or Settings()
    guiding = chosen(how.guidance, guides or {}, model.companions)
    asked = request(model.labels(None, count, guiding), seed, how)
    return measure(model, asked, reference, extractor, guides=guiding, run=run)


@dataclass(frozen=True)
class Measurement:
    """Settings of measuring pictures."""

    metrics: Sequence[Metric] | None = None
    """Metrics; by default those of `METRICS` supported by the extractor and the reference."""
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


def measure(
    model: Generator,
    asked: Request,
    reference: Source | Kept,
    extractor: Extractor,
    *,
    guides: Guides | None = None,
    run: Measurement | None = None,
) -> Report:
    """Answer a request and measure the pictures; see `evaluate`."""
    run = run or Measurement()
    channels, *size = model.shape
    count, repeats = len(asked.asks), run.repeats
    check(repeats)
    prepared: Prepared | None = model.prepare(asked, guides)
    # All of them now, so that a last seed that does not exist is told before the work.
    seeds_from(asked.asks[0].seed, repeats * count)
    requests = [asked, *(_later(asked, number * count) for number in range(1, repeats))]
    notes = (
        note(extractor, "generated", channels, (size[0], size[1])),
        note(extractor, "reference", reference.channels, reference.size),
    )
    metrics, left_out = choose(run.metrics or METRICS, extractor, reference, count, asked=bool(run.metrics))
    theirs = known_of(reference, extractor, compared(metrics), batch_size=run.batch_size, cache=run.cache)
    numbers: list[dict[str, float]] = []
    seconds = fastest = 0.0
    for number, again in enumerate(requests):
        start = time.perf_counter()
        title = run.title if repeats == 1 else f"{run.title}, run {number + 1} of {repeats}"
        this = replace(run, title=title, tick=partial(_tick, run.tick, number * count))
        made, rate = _sampled(prepared or model.prepare(again, guides), again, extractor, needed(metrics), this)
        prepared = None
        seconds, fastest = seconds + time.perf_counter() - start, max(fastest, rate)
        if not numbers:
            ours = made
        numbers.append(_numbers(metrics, made, theirs))
    if run.out is not None:

        def picture(index: int) -> Tensor:
            (*_, last) = model.stream(asked.only(index), guides=guides)
            return last.images[0]

        left_out += _draw_neighbours(run.out, metrics, picture, ours, theirs, reference)
    several = repeats > 1
    return Report(
        numbers={name: sum(each[name] for each in numbers) / repeats for name in numbers[0]},
        **_common(ours, theirs, reference, extractor),
        **_made_by(model, asked, guides or {}),
        warnings=(*filter(None, notes), *left_out, *_warnings(metrics, ours, theirs, reference, extractor)),
        seconds=seconds,
        images_per_second=fastest,
        runs=tuple(numbers) if several else (),
        intervals={name: half_width([each[name] for each in numbers]) for name in numbers[0]} if several else None,
    )


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
        "guide_digests": {role: digest(guide) for role, guide in guides.items()} or None,
        "seed": asked.asks[0].seed,
        "sampler": None if how.sampler is None else short(how.sampler),
        "steps": how.steps,
        "guidance": " ".join(short(each) for each in how.guidance),
        "clamp": how.clamp,
        "temperature": how.temperature,
        "reuse": how.reuse,
    }


def evaluate_pictures(
    pictures: Source,
    reference: Source | Kept,
    extractor: Extractor,
    *,
    batch_size: int = 64,
    metrics: Sequence[Metric] | None = None,
    cache: Path | None = None,
    out: Path | None = None,
) -> Report:
    """Measure pictures on disk, whoever made them, against `reference`; see `evaluate`. Raises Problem."""
    notes = [note(extractor, source.spec, source.channels, source.size) for source in (pictures, reference)]
    chosen, left_out = choose(metrics or METRICS, extractor, reference, len(pictures), asked=bool(metrics))
    ours, theirs = (
        known_of(each, extractor, parts, batch_size=batch_size, cache=cache)
        for each, parts in ((pictures, needed(chosen)), (reference, compared(chosen)))
    )
    numbers = _numbers(chosen, ours, theirs)
    if out is not None:

        def picture(index: int) -> Tensor | None:
            return _shown(pictures, index)

        left_out += _draw_neighbours(out, chosen, picture, ours, theirs, reference)
    remarks = (*left_out, *_left_out(pictures, ours), *_warnings(chosen, ours, theirs, reference, extractor))
    return Report(
        numbers=numbers,
        **_common(ours, theirs, reference, extractor),
        warnings=(*filter(None, notes), *remarks),
        pictures=pictures.spec,
    )


def evaluate_batches(
    batches: Iterable[Tensor | np.ndarray],
    reference: Source | Kept,
    extractor: Extractor,
    *,
    metrics: Sequence[Metric] | None = None,
    cache: Path | None = None,
    what: str = "batches",
) -> Report:
    """Measure pictures as they come, whoever makes them, against `reference`; see `evaluate`. Raises Problem.

    batches: tensors uint8 [B, C, H, W], or arrays uint8 [B, H, W, C], B and size as they like. what: names them in the report.
    """
    chosen, left_out = choose(metrics or METRICS, extractor, reference, None, asked=bool(metrics))
    theirs = known_of(reference, extractor, compared(chosen), cache=cache)
    collector, notes = Collector(needed(chosen)), {note(extractor, "reference", reference.channels, reference.size): None}
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
        numbers=_numbers(chosen, ours, theirs),
        **_common(ours, theirs, reference, extractor),
        warnings=(*filter(None, notes), *left_out, *_warnings(chosen, ours, theirs, reference, extractor)),
        pictures=what,
    )


def _sampled(
    prepared: Prepared, asked: Request, extractor: Extractor, parts: Collection[Part], run: Measurement
) -> tuple[Statistics, float]:
    """Statistics of the pictures of a request, and how many pictures a second the fastest batch made.

    A shorter last batch is no measure, and the batches of one that an adaptive sampler takes are counted together.
    """
    collector, fastest, start = Collector(parts), 0.0, time.perf_counter()
    whole, made = min(run.batch_size, len(asked.asks)), 0
    tick = run.tick or (lambda _: None)
    with progress(run.title, len(asked.asks), console=run.console) as done:
        tick(0)
        for frame in prepared.frames(run.batch_size):
            done(frame.done)
            if frame.final:
                collector.add(extractor(frame.images))
                tick(collector.count)
                made += len(frame.images)
                if made >= whole:
                    begun, start = start, time.perf_counter()
                    fastest, made = max(fastest, made / (start - begun)), 0
    return collector.statistics(), fastest


def choose(
    metrics: Sequence[Metric], extractor: Extractor, reference: Source | Kept, count: int | None, *, asked: bool
) -> tuple[list[Metric], list[str]]:
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


def _numbers(metrics: Sequence[Metric], ours: Statistics, theirs: Statistics) -> dict[str, float]:
    return {name: value for metric in metrics for name, value in metric(ours, theirs).items()}


def _draw_neighbours(
    out: Path,
    metrics: Sequence[Metric],
    picture: Callable[[int], Tensor | None],
    ours: Statistics,
    theirs: Statistics,
    reference: Source | Kept,
) -> list[str]:
    """Write neighbours.png, where the metric "nearest" is asked for: rows of a picture and, after a gap, its nearest ones.

    The pictures are those with the nearest neighbours of all. Returns why nothing can be drawn, if so.
    """
    if not any(isinstance(metric, Nearest) for metric in metrics):
        return []
    if isinstance(reference, Kept) or theirs.count("features") < len(reference):
        return ["neighbours.png is not drawn: that needs the pictures of the reference, all of them, with --reference PICTURES"]
    assert ours.features is not None and theirs.features is not None
    distances, indices = nearest(ours.features, theirs.features, min(_NEIGHBOURS, len(theirs.features)))
    rows = []
    for row in distances[:, 0].argsort()[:_CLOSEST].tolist():
        shown = [picture(row), *(_shown(reference, index) for index in indices[row].tolist())]
        found = [each for each in shown if each is not None]
        gap = torch.full_like(found[0], 255)
        rows += [found[0], gap, *found[1:]]
    # Grey ones may stand beside others in colour.
    save_grid(out / "neighbours.png", torch.stack([row.expand(3, -1, -1) for row in rows]), columns=indices.shape[1] + 2)
    return []


def _shown(source: Source, index: int) -> Tensor | None:
    image = source.image(index)
    return None if image is None else torch.from_numpy(image.copy())


def _warnings(
    metrics: Sequence[Metric], ours: Statistics, theirs: Statistics, reference: Source | Kept, extractor: Extractor
) -> Iterator[str]:
    if isinstance(reference, Kept) and (remark := reference.note(extractor)):
        yield remark
    for metric in metrics:
        if remark := metric.note(len(ours)):
            yield remark
        for each, which in ((ours, "measured pictures"), (theirs, "pictures of the reference")):
            known = getattr(each, metric.needs)
            # N pictures span at most N - 1 directions around their mean.
            if isinstance(known, Moments) and known.count <= len(known.mean):
                yield (
                    f"{known.count} {which} are too few for the covariance of {len(known.mean)} {WORDS[metric.needs]}: "
                    f"{metric.kind} is biased upwards, take many more than {len(known.mean)}"
                )
        if metric.compares and 0 < theirs.count(metric.needs) < len(theirs):
            yield f"{metric.kind}: of the reference, features of {theirs.count(metric.needs)} pictures in {len(theirs)} are kept"
    yield from _left_out(reference, theirs)


def _left_out(source: Source | Kept, known: Statistics) -> Iterator[str]:
    if len(known) < len(source):
        yield f"{len(source) - len(known)} pictures of {source.spec} cannot be decoded and were left out"


def _common(ours: Statistics, theirs: Statistics, reference: Source | Kept, extractor: Extractor) -> dict[str, Any]:
    return {
        "count": len(ours),
        "reference": reference.spec,
        "reference_count": len(theirs),
        "reference_fingerprint": reference.fingerprint,
        "extractor": extractor.name,
        "extractor_digest": extractor.digest,
        "extractor_dtype": extractor.dtype,
    }
