"""Measuring: pictures → features → numbers.

Pictures are made, or read, batch by batch, and only their features are kept. Those of pictures on disk are kept in a folder
too, under a key of their content and the extractor, so that a reference is passed through it once.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lodestar.config import Config, Problem
from lodestar.data import Source, open_source, sequential
from lodestar.evaluate.extractors import Extractor
from lodestar.evaluate.kept import Kept, kept
from lodestar.evaluate.metrics import KID, Frechet, Metric, PrecisionRecall, Score
from lodestar.evaluate.statistics import FeatureSet, cached
from lodestar.guidance import AnyGuidance
from lodestar.models.classifier import PictureClassifier
from lodestar.models.diffusion import Diffusion, Request
from lodestar.progress import progress
from lodestar.samplers import AnySampler

if TYPE_CHECKING:
    from rich.table import Table

METRICS: tuple[Metric, ...] = (Frechet(), Score(), KID(), PrecisionRecall())
"""What is measured where nothing else is asked for."""

_RECIPE = "1"
"""How pictures become features (size, range, order); kept features of another recipe are made again."""

_CACHE = "LODESTAR_CACHE"


@dataclass(frozen=True)
class Report:
    """The numbers, and everything that they depend on."""

    numbers: Mapping[str, float]
    """By the metrics' names: frechet, score, kid, precision, recall and so on."""
    count: int
    """Pictures measured."""
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
    seed: int | None = None
    """Of the first picture; picture k has seed + k, and class k modulo the number of classes."""
    sampler: str | None = None
    plan: str | None = None
    guidance: str | None = None
    """In the order of application, separated by spaces; empty for none."""
    clip: bool | None = None
    seconds: float | None = None
    """Sampling the pictures and passing them through the extractor took so long."""
    images_per_second: float | None = None
    warnings: tuple[str, ...] = ()
    """Why the numbers may mislead, and what was done to the pictures before they were measured."""

    def to_json(self) -> str:
        """All of it, indented."""
        return json.dumps(asdict(self), indent=1, allow_nan=False, ensure_ascii=False)

    def table(self) -> Table:
        """For a person: the numbers first, then what they depend on."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE, show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in self.numbers.items():
            table.add_row(name.replace("_", " "), f"{value:.5g}")
        table.add_section()
        for name, setting in asdict(self).items():
            if name in ("numbers", "warnings", "images_per_second") or setting is None:
                continue
            if name == "seconds":
                setting = f"{self.seconds:.1f} ({self.images_per_second:.3g} images/s)"
            elif name.endswith(("_digest", "_fingerprint")):
                setting = setting[:16]
            table.add_row(name.replace("_", " "), str(setting) or "none")
        for warning in self.warnings:
            table.add_row("note", warning, style="yellow")
        return table


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
    classifier: PictureClassifier | None = None,
    metrics: Sequence[Metric] = METRICS,
    cache: Path | None = None,
) -> Report:
    """Sample `count` pictures, classes in turn, and measure them against `reference`.

    plan, sampler, guidance, clip: as in `Request`; classifier: what "classifier" guidance climbs. cache: where the features of
    the reference are kept (default: `cache_folder`). Progress goes to standard error. Raises Problem, as early as it can.
    """
    labels = model.labels(None, count, classifier)
    request = Request(
        labels=labels, seeds=tuple(range(seed, seed + count)), plan=plan, sampler=sampler, guidance=tuple(guidance), clip=clip
    )
    return measure(
        model, request, reference, extractor, batch_size=batch_size, classifier=classifier, metrics=metrics, cache=cache
    )


def measure(
    model: Diffusion,
    request: Request,
    reference: Source | Kept,
    extractor: Extractor,
    *,
    batch_size: int = 64,
    classifier: PictureClassifier | None = None,
    metrics: Sequence[Metric] = METRICS,
    cache: Path | None = None,
    what: str = "sampling",
) -> Report:
    """Answer a request and measure the pictures; see `evaluate`. what: the progress bar's title."""
    config = model.config
    count = len(request.labels)
    model.check(request, classifier)
    notes = (
        extractor.note("generated", config.denoiser.channels, config.size),
        extractor.note("reference", reference.channels, reference.size),
    )
    _check_counts(metrics, count, len(reference))
    theirs = source_features(reference, extractor, batch_size=batch_size, cache=cache)
    start = time.perf_counter()
    ours = _sampled_features(model, request, extractor, batch_size, classifier, what)
    seconds = time.perf_counter() - start
    return Report(
        numbers=_numbers(metrics, ours, theirs),
        **_common(ours, theirs, reference, extractor),
        warnings=(*filter(None, notes), *_warnings(ours, theirs, reference, extractor)),
        model_digest=digest(model),
        model_dtype=number_format(model),
        classifier_digest=None if classifier is None else digest(classifier),
        seed=request.seeds[0],
        sampler=short(request.sampler or config.sampler),
        plan=request.plan or config.plan,
        guidance=" ".join(short(each) for each in request.guidance),
        clip=request.clip,
        seconds=seconds,
        images_per_second=count / seconds,
    )


def evaluate_pictures(
    pictures: Source,
    reference: Source | Kept,
    extractor: Extractor,
    *,
    batch_size: int = 64,
    metrics: Sequence[Metric] = METRICS,
    cache: Path | None = None,
) -> Report:
    """Measure pictures on disk, whoever made them, against `reference`. Raises Problem."""
    notes = [extractor.note(source.spec, source.channels, source.size) for source in (pictures, reference)]
    _check_counts(metrics, len(pictures), len(reference))
    ours, theirs = (source_features(source, extractor, batch_size=batch_size, cache=cache) for source in (pictures, reference))
    return Report(
        numbers=_numbers(metrics, ours, theirs),
        **_common(ours, theirs, reference, extractor),
        warnings=(*filter(None, notes), *_left_out(pictures, ours), *_warnings(ours, theirs, reference, extractor)),
        pictures=pictures.spec,
    )


def open_reference(spec: str | None, model: str | None, extractor: Extractor, size: tuple[int, int]) -> Source | Kept:
    """The pictures to compare with, or the features that are kept of an embedded model's where no `spec` is given.

    size: height and width of the pictures that are measured; those of the reference are resized and cropped to it, as for
    training. Raises Problem.
    """
    if spec is not None:
        return open_source(spec, channels=extractor.channels, size=size)
    reference = None if model is None else kept(model)
    if reference is None:
        raise Problem("--reference is missing: the pictures to compare with (a parquet file, a folder, hf:owner/name)")
    return reference


def source_features(
    source: Source | Kept, extractor: Extractor, *, batch_size: int = 64, cache: Path | None = None
) -> FeatureSet:
    """The features of all pictures of a source, from `cache` where they have been made before. Raises Problem."""
    if isinstance(source, Kept):
        return source.of(extractor)
    folder = (cache or cache_folder()) / "features"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise Problem(f"cannot keep features in {folder} ({reason}): name another folder in ${_CACHE}") from error
    # Of a source that must not skip, every picture has to be readable; one that may has other features.
    strictness = "skip" if source.skip_bad else "strict"
    parts = (_RECIPE, source.fingerprint, strictness, extractor.digest, extractor.dtype)
    key = hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def make() -> FeatureSet:
        with progress(f"features of {source.spec}", len(source)) as done:
            sets = []
            for number, batch in enumerate(sequential(source, batch_size), start=1):
                sets.append(extractor(batch.image))
                done(min(number * batch_size, len(source)))
        return _joined(sets)

    return cached(folder, key, make)


def cache_folder() -> Path:
    """Where features are kept: ``$LODESTAR_CACHE``, or ``lodestar`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if os.environ.get(_CACHE):
        return Path(os.environ[_CACHE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lodestar"


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


def short(config: Config, omit: str = "") -> str:
    """A sampler or guidance in the short form that `lodestar.config.parse` reads: ``cfg:scale=3.0,rescale=0.0``.

    Every field is stated, but for the one to `omit`.
    """
    fields = {name: value for name, value in config.model_dump(mode="json").items() if name != omit}
    kind = fields.pop("kind")
    listed = ",".join(f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in fields.items())
    return f"{kind}:{listed}" if listed else kind


def _sampled_features(
    model: Diffusion,
    request: Request,
    extractor: Extractor,
    batch_size: int,
    classifier: PictureClassifier | None,
    what: str,
) -> FeatureSet:
    sets = []
    with progress(what, len(request.labels)) as done:
        for frame in model.stream(request, batch_size=batch_size, classifier=classifier):
            done(frame.first + len(frame.x) * frame.step / frame.steps)
            if frame.final:
                sets.append(extractor(frame.images))
    return _joined(sets)


def _joined(sets: Sequence[FeatureSet]) -> FeatureSet:
    if not sets:
        raise Problem("there are no pictures to measure")
    logits = [each.logits for each in sets if each.logits is not None]
    return FeatureSet(torch.cat([each.features for each in sets]), torch.cat(logits) if logits else None)


def _check_counts(metrics: Sequence[Metric], count: int, reference: int) -> None:
    """Raise Problem before the work, not after it, where a metric needs more pictures."""
    for metric in metrics:
        for number, which in ((count, "measured"), (reference, "in the reference")):
            if number < metric.least:
                raise Problem(f"metric {metric.kind!r} needs at least {metric.least} pictures: {number} {which}")


def _numbers(metrics: Sequence[Metric], ours: FeatureSet, theirs: FeatureSet) -> dict[str, float]:
    return {name: value for metric in metrics for name, value in metric(ours, theirs).items()}


def _warnings(ours: FeatureSet, theirs: FeatureSet, reference: Source | Kept, extractor: Extractor) -> Iterator[str]:
    if isinstance(reference, Kept) and (note := reference.note(extractor)):
        yield note
    dimension = ours.features.shape[1]
    for features, which in ((ours, "measured pictures"), (theirs, "pictures of the reference")):
        # N pictures span at most N - 1 directions around their mean.
        if len(features) <= dimension:
            yield (
                f"{len(features)} {which} are too few for the covariance of {dimension} features, which lacks full rank: "
                f"the Fréchet distance is biased upwards, take many more than {dimension}"
            )
    yield from _left_out(reference, theirs)


def _left_out(source: Source | Kept, features: FeatureSet) -> Iterator[str]:
    if len(features) < len(source):
        yield f"{len(source) - len(features)} pictures of {source.spec} cannot be decoded and were left out"


def _common(ours: FeatureSet, theirs: FeatureSet, reference: Source | Kept, extractor: Extractor) -> dict[str, Any]:
    return {
        "count": len(ours),
        "reference": reference.spec,
        "reference_count": len(theirs),
        "reference_fingerprint": reference.fingerprint,
        "extractor": extractor.name,
        "extractor_digest": extractor.digest,
        "extractor_dtype": extractor.dtype,
    }
