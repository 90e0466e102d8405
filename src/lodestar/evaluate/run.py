"""Measuring: pictures → features → numbers.

Pictures are made, or read, batch by batch, and pass once through the extractor for all metrics; no more is held of them than the
metrics need. What is found of pictures on disk is kept in a folder too, under a key of their content and the extractor.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lodestar.config import Config, Problem
from lodestar.data import Source, open_source, sequential
from lodestar.evaluate.extractors import Extractor, gives, note
from lodestar.evaluate.kept import Kept, cached, kept, load
from lodestar.evaluate.metrics import KID, DensityCoverage, Frechet, Metric, Nearest, PrecisionRecall, Score, SpatialFrechet
from lodestar.evaluate.metrics.base import WORDS
from lodestar.evaluate.neighbours import nearest
from lodestar.evaluate.published import is_published, published
from lodestar.evaluate.repeats import check, half_width
from lodestar.evaluate.statistics import PARTS, Collector, Moments, Part, Statistics
from lodestar.evaluate.tables import report_table
from lodestar.files import CACHE, cache_folder
from lodestar.guidance import AnyGuidance
from lodestar.images import save_grid
from lodestar.models.classifier import PictureClassifier
from lodestar.models.diffusion import Diffusion
from lodestar.models.request import Request
from lodestar.progress import progress
from lodestar.samplers import AnySampler

if TYPE_CHECKING:
    from rich.table import Table

METRICS: tuple[Metric, ...] = (Frechet(), SpatialFrechet(), Score(), KID(), PrecisionRecall(), DensityCoverage())
"""What is measured where nothing else is asked for, as far as the extractor and the reference go."""

_RECIPE = "2"
"""How pictures become features (size, range, order); kept features of another recipe are made again."""

_CLOSEST, _NEIGHBOURS = 10, 6
"""Pictures drawn beside their nearest neighbours, and how many of these."""


@dataclass(frozen=True)
class Report:
    """The numbers, and everything that they depend on."""

    numbers: Mapping[str, float]
    """By the metrics' names: frechet, score, kid, precision, recall and so on; of several runs, their means."""
    count: int
    """Pictures measured, in each run."""
    reference: str
    reference_count: int
    reference_fingerprint: str
    extractor: str
    extractor_digest: str
    extractor_dtype: str
    pictures: str | None = None
    """Where they were read from; None if they were sampled, and then what follows tells how."""
    model_digest: str | None = None
    """Of the model's file, as `lodestar info` shows it; of its configuration and weights where it was built in code."""
    model_dtype: str | None = None
    """The number format that it computes in."""
    classifier_digest: str | None = None
    """Likewise, of the classifier that guides."""
    weak_digest: str | None = None
    """Likewise, of the weaker model of autoguidance."""
    seed: int | None = None
    """Of the first picture; picture k has seed + k, and class k modulo the number of classes. Run r begins at seed + r·count."""
    sampler: str | None = None
    plan: str | None = None
    guidance: str | None = None
    """In the order of application, separated by spaces; empty for none."""
    clip: bool | None = None
    temperature: float | None = None
    seconds: float | None = None
    """Sampling the pictures and passing them through the extractor took so long."""
    images_per_second: float | None = None
    runs: tuple[Mapping[str, float], ...] = ()
    """The numbers of each run, where there are several."""
    intervals: Mapping[str, float] | None = None
    """Likewise: half-widths of the means' 95 % intervals, over the draw of the noise and nothing else."""
    warnings: tuple[str, ...] = ()
    """Why the numbers may mislead, and what was done to the pictures before they were measured."""

    def to_json(self) -> str:
        """All of it, indented."""
        return json.dumps(asdict(self), indent=1, allow_nan=False, ensure_ascii=False)

    def table(self) -> Table:
        """For a person."""
        spread = self.intervals or {}
        numbers = []
        for name, value in self.numbers.items():
            more = f" ± {spread[name]:.2g}" if spread else ""
            numbers.append((name.replace("_", " "), f"{value:.5g}{more}"))
        if spread:
            numbers.append(("", f"mean and 95 % interval over {len(self.runs)} runs with different seeds"))
        told = ("numbers", "warnings", "images_per_second", "runs", "intervals")
        settings = {name: setting for name, setting in asdict(self).items() if name not in told}
        if self.seconds is not None:
            settings["seconds"] = f"{self.seconds:.1f} ({self.images_per_second:.3g} images/s)"
        return report_table(numbers, settings, self.warnings)


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
    theirs = known_of(reference, extractor, _compared(chosen), batch_size=batch_size, cache=cache)
    runs: list[dict[str, float]] = []
    seconds = 0.0
    for run in range(repeats):
        seeds = tuple(seed + run * count for seed in request.seeds)
        start = time.perf_counter()
        title = what if repeats == 1 else f"{what}, run {run + 1} of {repeats}"
        made = _sampled(model, request.replace(seeds=seeds), extractor, batch_size, classifier, weak, title, chosen)
        seconds += time.perf_counter() - start
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
        images_per_second=repeats * count / seconds,
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
        for each, parts in ((pictures, _needed(chosen)), (reference, _compared(chosen)))
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
    theirs = known_of(reference, extractor, _compared(chosen), cache=cache)
    collector, notes = Collector(_needed(chosen)), {note(extractor, "reference", reference.channels, reference.size): None}
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


def open_reference(
    spec: str | None,
    model: str | None,
    extractor: Extractor,
    size: tuple[int, int],
    *,
    metrics: Sequence[Metric] | None = None,
    batch_size: int = 64,
) -> Source | Kept:
    """The pictures to compare with, or what is kept of them: in a file, or of an embedded model's where no `spec` is given.

    size: height and width of the pictures that are measured; those of the reference are resized and cropped to it, as for
    training. metrics, batch_size: as in `evaluate`; of a published reference, only what they need is found out. Raises Problem.
    """
    if spec is not None and Path(spec).suffix == ".safetensors":
        reference: Kept | None = load(spec)
    elif spec is not None and is_published(spec):
        parts = _compared(METRICS if metrics is None else metrics) & {"features"}

        def features(pictures: Source) -> Tensor | None:
            return known_of(pictures, extractor, parts, batch_size=batch_size).features if parts else None

        reference = published(spec, extractor, features)
    elif spec is not None:
        return open_source(spec, channels=extractor.channels, size=size)
    else:
        reference = None if model is None else kept(model)
    if reference is None:
        raise Problem(
            "--reference is missing: the pictures to compare with (a parquet, .npz or .zip file, a folder, hf:owner/name), or a "
            "file of lodestar stats"
        )
    return reference


def known_of(
    source: Source | Kept,
    extractor: Extractor,
    parts: Collection[Part] = PARTS,
    *,
    batch_size: int = 64,
    cache: Path | None = None,
) -> Statistics:
    """What there is to know of all pictures of a source, `parts` at least, from `cache` where it is kept. Raises Problem."""
    if isinstance(source, Kept):
        return source.of(extractor)
    folder = (cache or cache_folder()) / "statistics"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise Problem(f"cannot keep statistics in {folder} ({reason}): name another folder in ${CACHE}") from error
    # Of a source that must not skip, every picture has to be readable; one that may has other features.
    strictness = "skip" if source.skip_bad else "strict"
    key = " ".join((_RECIPE, source.fingerprint, strictness, extractor.digest, extractor.dtype))
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"
    return cached(path, parts, source, extractor, lambda more: collect(source, extractor, Collector(more), batch_size))


def collect(source: Source, extractor: Extractor, into: Collector, batch_size: int = 64) -> Statistics:
    """Pass all pictures of a source through an extractor, once. Raises Problem."""
    with progress(f"features of {source.spec}", len(source)) as done:
        for number, batch in enumerate(sequential(source, batch_size), start=1):
            into.add(extractor(batch.image))
            done(min(number * batch_size, len(source)))
    return into.statistics()


def digest(model: Diffusion | PictureClassifier) -> str:
    """That of the file that a model was loaded from, else SHA-256 of its configuration and of its weights as they are held."""
    if model.digest:
        return model.digest
    total = hashlib.sha256(model.config.to_json().encode())
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()


def number_format(model: Diffusion) -> str:
    """What a model computes in: "float32" or "bfloat16"."""
    return str(model.denoiser.dtype).removeprefix("torch.")


def short(config: Config, omit: Collection[str] = ()) -> str:
    """A sampler or guidance in the short form that `lodestar.config.parse` reads: ``cfg:scale=3.0,rescale=0.0``.

    Every field is stated, but for those to `omit`.
    """
    fields = {name: value for name, value in config.model_dump(mode="json").items() if name not in omit}
    kind = fields.pop("kind")
    listed = ",".join(f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in fields.items())
    return f"{kind}:{listed}" if listed else kind


def _sampled(
    model: Diffusion,
    request: Request,
    extractor: Extractor,
    batch_size: int,
    classifier: PictureClassifier | None,
    weak: Diffusion | None,
    what: str,
    metrics: Sequence[Metric],
) -> Statistics:
    collector = Collector(_needed(metrics))
    with progress(what, len(request.labels)) as done:
        for frame in model.stream(request, batch_size=batch_size, classifier=classifier, weak=weak):
            done(frame.done)
            if frame.final:
                collector.add(extractor(frame.images))
    return collector.statistics()


def _needed(metrics: Sequence[Metric]) -> set[Part]:
    return {metric.needs for metric in metrics}


def _compared(metrics: Sequence[Metric]) -> set[Part]:
    """What is needed of the reference."""
    return {metric.needs for metric in metrics if metric.compares}


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
    save_grid(out / "neighbours.png", torch.stack(rows), columns=indices.shape[1] + 2)
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
