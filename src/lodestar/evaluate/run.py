"""Measuring: pictures → features → numbers.

Pictures are made, or read, batch by batch, and pass once through the extractor for all metrics; no more is held of them than the
metrics need.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lodestar.config import Problem, short
from lodestar.data import Source
from lodestar.evaluate.extractors import Extractor, gives, note
from lodestar.evaluate.kept import Kept
from lodestar.evaluate.metrics import METRICS, Metric, Nearest
from lodestar.evaluate.metrics.base import WORDS, compared, needed
from lodestar.evaluate.neighbours import nearest
from lodestar.evaluate.reference import known_of
from lodestar.evaluate.repeats import check, half_width
from lodestar.evaluate.report import Report, digest, number_format
from lodestar.evaluate.statistics import Collector, Moments, Statistics
from lodestar.guidance import AnyGuidance
from lodestar.images import save_grid
from lodestar.models.classifier import PictureClassifier
from lodestar.models.diffusion import Diffusion
from lodestar.models.request import Request
from lodestar.progress import progress
from lodestar.samplers import AnySampler

_CLOSEST, _NEIGHBOURS = 10, 6
"""Pictures drawn beside their nearest neighbours, and how many of these."""


def evaluate(
    model: Diffusion,
    reference: Source | Kept,
    extractor: Extractor,
    *,
    count: int = 10_000,
    seed: int = 0,
    batch_size: int = 64,
    plan: str | None = None,
    sampler: AnySampler | None = None,
    guidance: Sequence[AnyGuidance] = (),
    clip: bool = True,
    temperature: float = 1.0,
    classifier: PictureClassifier | None = None,
    weak: Diffusion | None = None,
    metrics: Sequence[Metric] | None = None,
    repeats: int = 1,
    cache: Path | None = None,
    out: Path | None = None,
) -> Report:
    """Sample `count` pictures, classes in turn, and measure them against `reference`.

    plan, sampler, guidance, clip, temperature: as in `Request`; classifier, weak: as in `Diffusion.sample`. metrics: default
    those of `METRICS` that the extractor and the reference can give. repeats: measure so often, with new seeds, for means and
    intervals. cache: where what is known of the reference is kept (default: `cache_folder`). out: a folder for pictures beside
    their nearest neighbours, where the metric "nearest" is asked for. Progress goes to standard error. Raises Problem, as early
    as it can.
    """
    labels = model.labels(None, count, classifier)
    request = Request(
        labels=labels, seeds=tuple(range(seed, seed + count)), plan=plan, sampler=sampler, guidance=tuple(guidance), clip=clip,
        temperature=temperature,
    )  # fmt: skip
    return measure(
        model, request, reference, extractor, batch_size=batch_size, classifier=classifier, weak=weak, metrics=metrics,
        repeats=repeats, cache=cache, out=out,
    )  # fmt: skip


def measure(
    model: Diffusion,
    request: Request,
    reference: Source | Kept,
    extractor: Extractor,
    *,
    batch_size: int = 64,
    classifier: PictureClassifier | None = None,
    weak: Diffusion | None = None,
    metrics: Sequence[Metric] | None = None,
    repeats: int = 1,
    cache: Path | None = None,
    out: Path | None = None,
    what: str = "sampling",
) -> Report:
    """Answer a request and measure the pictures; see `evaluate`. what: the progress bar's title."""
    config = model.config
    count = len(request.labels)
    check(repeats)
    model.check(request, classifier, weak)
    notes = (
        note(extractor, "generated", config.denoiser.channels, config.size),
        note(extractor, "reference", reference.channels, reference.size),
    )
    chosen, left_out = choose(metrics or METRICS, extractor, reference, count, asked=bool(metrics))
    theirs = known_of(reference, extractor, compared(chosen), batch_size=batch_size, cache=cache)
    runs: list[dict[str, float]] = []
    seconds = fastest = 0.0
    for run in range(repeats):
        seeds = tuple(seed + run * count for seed in request.seeds)
        start = time.perf_counter()
        title = what if repeats == 1 else f"{what}, run {run + 1} of {repeats}"
        made, rate = _sampled(model, request.replace(seeds=seeds), extractor, batch_size, classifier, weak, title, chosen)
        seconds, fastest = seconds + time.perf_counter() - start, max(fastest, rate)
        if not runs:
            ours = made
        runs.append(_numbers(chosen, made, theirs))
    if out is not None:

        def picture(index: int) -> Tensor:
            (*_, last) = model.stream(request.only(index), classifier=classifier, weak=weak)
            return last.images[0]

        left_out += _draw_neighbours(out, chosen, picture, ours, theirs, reference)
    several = repeats > 1
    return Report(
        numbers={name: sum(run[name] for run in runs) / repeats for name in runs[0]},
        **_common(ours, theirs, reference, extractor),
        warnings=(*filter(None, notes), *left_out, *_warnings(chosen, ours, theirs, reference, extractor)),
        model_digest=digest(model),
        model_dtype=number_format(model),
        classifier_digest=None if classifier is None else digest(classifier),
        weak_digest=None if weak is None else digest(weak),
        seed=request.seeds[0],
        sampler=short(request.sampler or config.sampler),
        plan=request.plan or config.plan,
        guidance=" ".join(short(each) for each in request.guidance),
        clip=request.clip,
        temperature=request.temperature,
        seconds=seconds,
        images_per_second=fastest,
        runs=tuple(runs) if several else (),
        intervals={name: half_width([run[name] for run in runs]) for name in runs[0]} if several else None,
    )


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
    model: Diffusion,
    request: Request,
    extractor: Extractor,
    batch_size: int,
    classifier: PictureClassifier | None,
    weak: Diffusion | None,
    what: str,
    metrics: Sequence[Metric],
) -> tuple[Statistics, float]:
    """Statistics of the pictures of a request, and how many pictures a second the fastest batch made.

    A shorter last batch is no measure, and the batches of one that an adaptive sampler takes are counted together.
    """
    collector, fastest, start = Collector(needed(metrics)), 0.0, time.perf_counter()
    whole, made = min(batch_size, len(request.labels)), 0
    with progress(what, len(request.labels)) as done:
        for frame in model.stream(request, batch_size=batch_size, classifier=classifier, weak=weak):
            done(frame.done)
            if frame.final:
                collector.add(extractor(frame.images))
                made += len(frame.images)
                if made >= whole:
                    begun, start = start, time.perf_counter()
                    fastest, made = max(fastest, made / (start - begun)), 0
    return collector.statistics(), fastest


def choose(
    metrics: Sequence[Metric], extractor: Extractor, reference: Source | Kept, count: int | None, *, asked: bool
) -> tuple[list[Metric], list[str]]:
    """Which of these metrics are measured on `count` pictures (None: not known yet), and why the others cannot be.

    Raises Problem, before the work and not after it, for those where they were asked for, and for too few pictures.
    """
    given = gives(extractor)
    held = reference.of(extractor) if isinstance(reference, Kept) else None
    chosen, left_out = [], []
    for metric in metrics:
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
