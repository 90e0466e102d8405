"""Quality against guidance scale, or against steps: numbers as CSV, a plot, and a grid of samples for each value.

All values have the same classes and seeds, so that nothing but the swept setting differs. A sweep that was interrupted, or
is given further values, goes on where its CSV ends.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lodestar.config import Problem
from lodestar.core.plan import parse_plan
from lodestar.data import Source
from lodestar.evaluate.extractors import Extractor
from lodestar.evaluate.kept import Kept
from lodestar.evaluate.metrics import Frechet, PrecisionRecall, Score
from lodestar.evaluate.plot import Panel, plot
from lodestar.evaluate.run import Report, digest, measure, number_format, short
from lodestar.extras import need
from lodestar.files import write_text
from lodestar.guidance import CFG, AnyGuidance, Classifier
from lodestar.images import save_grid
from lodestar.models.classifier import PictureClassifier
from lodestar.models.diffusion import Diffusion, Request
from lodestar.samplers import AnySampler

_METRICS = (Frechet(), Score(), PrecisionRecall())
_NUMBERS = ("frechet", "score", "score_std", "precision", "recall", "f_score", "seconds", "images_per_second")
_VARYING = ("scale", "plan", "steps")
_FIXED = (
    "swept", "sampler", "guidance", "clip", "count", "seed", "model_digest", "model_dtype", "classifier_digest", "extractor",
    "extractor_digest", "extractor_dtype", "reference_count", "reference_fingerprint",
)  # fmt: skip
_COLUMNS = (*_VARYING, *_NUMBERS, *_FIXED, "notes")
_GRID_ROWS, _GRID_COLUMNS = 10, 8


@dataclass(frozen=True)
class Row:
    """One value of a sweep: a line of its CSV."""

    scale: float | None
    """The guidance scale, where that is swept."""
    plan: str
    steps: int
    """How many steps the plan takes."""
    numbers: Mapping[str, float]
    """frechet, score, score_std, precision, recall, f_score, seconds, images_per_second."""
    notes: str = ""
    """The report's warnings."""

    @property
    def name(self) -> str:
        """The swept value, as text."""
        return self.plan if self.scale is None else f"{self.scale:.12g}"


def parse_scales(text: str) -> tuple[float, ...]:
    """Read ``0,1,5,10,30``: guidance scales, 0 or more, no two the same. Raises Problem naming the bad one."""
    scales: list[float] = []
    for part in text.split(","):
        try:
            scale = float(part)
        except ValueError:
            shown = repr(part.strip()) if part.strip() else "empty"
            raise Problem(f"scales {text!r}: one is {shown}: write numbers with commas between them, such as 0,1,5,10") from None
        _check_scale(scale)
        scales.append(scale)
    _check_different("scales", scales)
    return tuple(scales)


def sweep(
    model: Diffusion,
    reference: Source | Kept,
    extractor: Extractor,
    out: Path,
    *,
    scales: Sequence[float] = (),
    steps: Sequence[str] = (),
    guidance: Sequence[AnyGuidance] = (),
    count: int = 2_000,
    seed: int = 0,
    batch_size: int = 64,
    plan: str | None = None,
    sampler: AnySampler | None = None,
    clip: bool = True,
    classifier: PictureClassifier | None = None,
    cache: Path | None = None,
) -> list[Row]:
    """Measure `count` pictures at each of `scales`, or of `steps` (sampling plans): give one of the two; rows in their order.

    With `scales`, `guidance` has one member with a scale, cfg or classifier, and each value takes its place. Writes into the
    folder `out`: sweep.csv, sweep.png and samples-<value>.png (rows are classes, columns seeds). The other settings are
    `evaluate`'s. Raises Problem, also where `out` holds another sweep, or something else.
    """
    need("matplotlib")
    requests = _requests(model, scales, steps, guidance, count, seed, plan, sampler, clip, classifier)
    for _, request in requests:
        model.check(request, classifier)
    fixed = {
        "swept": "scale" if scales else "steps",
        "sampler": short(sampler or model.config.sampler),
        "guidance": " ".join(_without_scale(each) if scales else short(each) for each in guidance),
        "clip": str(clip),
        "count": str(count),
        "seed": str(seed),
        "model_digest": digest(model),
        "model_dtype": number_format(model),
        "classifier_digest": "" if classifier is None else digest(classifier),
        "extractor": extractor.name,
        "extractor_digest": extractor.digest,
        "extractor_dtype": extractor.dtype,
        "reference_count": str(len(reference)),
        "reference_fingerprint": reference.fingerprint,
    }
    if scales:
        fixed["plan"] = plan or model.config.plan
    rows = _read(out, fixed)
    for number, (row, request) in enumerate(requests, start=1):
        picture = out / f"samples-{re.sub(r'[^0-9A-Za-z.,_-]', '-', row.name)}.png"
        if row.name not in rows or not picture.exists():
            _save_grid(picture, model, request, batch_size, classifier)
        if row.name not in rows:
            report = measure(
                model,
                request,
                reference,
                extractor,
                batch_size=batch_size,
                classifier=classifier,
                metrics=_METRICS,
                cache=cache,
                what=f"{'scale' if scales else 'steps'} {row.name} ({number} of {len(requests)})",
            )
            rows[row.name] = _filled(row, report)
            _write(out, rows, fixed)
    _plot(out, rows, fixed)
    return [rows[row.name] for row, _ in requests]


def _requests(
    model: Diffusion,
    scales: Sequence[float],
    steps: Sequence[str],
    guidance: Sequence[AnyGuidance],
    count: int,
    seed: int,
    plan: str | None,
    sampler: AnySampler | None,
    clip: bool,
    classifier: PictureClassifier | None,
) -> list[tuple[Row, Request]]:
    """What is sampled at each value, everything checked that can be before sampling."""
    if bool(scales) == bool(steps):
        raise Problem("a sweep needs scales or steps to go through, " + ("and not both" if scales else "and neither is given"))
    if steps and plan is not None:
        raise Problem(f"steps {plan!r}: this sweep goes through steps ({', '.join(steps)}), so no others can be given")
    plain = Request(
        labels=model.labels(None, count, classifier),
        seeds=tuple(range(seed, seed + count)),
        plan=plan or model.config.plan,
        sampler=sampler,
        guidance=tuple(guidance),
        clip=clip,
    )

    def length(plan: str) -> int:
        return len(model.config.schedule.steps(parse_plan(plan)))

    if steps:
        _check_different("steps", steps)
        return [(Row(None, text, length(text), {}), plain.replace(plan=text)) for text in steps]
    for scale in scales:
        _check_scale(scale)
    _check_different("scales", scales)
    scaled = [place for place, each in enumerate(guidance) if isinstance(each, CFG | Classifier)]
    if len(scaled) != 1:
        given = " ".join(each.kind for each in guidance) or "none"
        raise Problem(f"scales need exactly one guidance that has a scale, cfg or classifier: guidance is {given}")
    place, swept, taken = scaled[0], guidance[scaled[0]], length(plan or model.config.plan)
    return [
        (
            Row(scale, plan or model.config.plan, taken, {}),
            plain.replace(guidance=(*guidance[:place], swept.replace(scale=float(scale)), *guidance[place + 1 :])),
        )
        for scale in scales
    ]


def _check_scale(scale: float) -> None:
    if not (math.isfinite(scale) and scale >= 0):
        raise Problem(f"scale {scale:g}: guidance scales are finite numbers, 0 or more")


def _check_different(what: str, values: Sequence[float] | Sequence[str]) -> None:
    for value in values:
        if list(values).count(value) > 1:
            raise Problem(f"{what}: {value if isinstance(value, str) else f'{value:g}'} is given twice")


def _without_scale(guidance: AnyGuidance) -> str:
    return short(guidance, omit="scale" if isinstance(guidance, CFG | Classifier) else "")


def _filled(row: Row, report: Report) -> Row:
    assert report.seconds is not None, "sampled, not read"
    assert report.images_per_second is not None, "sampled, not read"
    numbers = {**report.numbers, "seconds": report.seconds, "images_per_second": report.images_per_second}
    return replace(row, numbers={name: numbers[name] for name in _NUMBERS}, notes="; ".join(report.warnings))


def _read(out: Path, fixed: Mapping[str, str]) -> dict[str, Row]:
    """The rows that stand in a folder, by name. Raises Problem where it holds something else, or a sweep of other settings."""
    path = out / "sweep.csv"
    if out.exists() and not out.is_dir():
        raise Problem(f"{out} is a file: name a folder for the sweep")
    if not path.exists():
        # A sweep that was killed at its first value has left a grid, and perhaps a temporary file.
        names = sorted(entry.name for entry in out.iterdir()) if out.exists() else []
        strange = [name for name in names if not name.startswith((".", "samples-")) and name != "sweep.png"]
        if strange:
            raise Problem(f"{out} holds something else ({strange[0]}) and no sweep.csv: name a new or an empty folder")
        return {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file, strict=True))
        rows = [
            Row(float(line["scale"]) if line["scale"] else None, line["plan"], int(line["steps"]), _floats(line), line["notes"])
            for line in lines
        ]
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror or error}") from error
    except (csv.Error, KeyError, TypeError, ValueError):
        raise Problem(f"{path} is damaged, or not a sweep's: name another folder, or remove it") from None
    for line in lines:
        for name, value in fixed.items():
            if line.get(name) != value:
                theirs, ours = (_brief(text) for text in (line.get(name), value))
                raise Problem(f"{out} holds another sweep: {name} is {theirs} there and {ours} here: name another folder")
    return {row.name: row for row in rows}


def _floats(line: Mapping[str, str]) -> dict[str, float]:
    return {name: float(line[name]) for name in _NUMBERS}


def _brief(text: str | None) -> str:
    return repr(text if text is None or len(text) < 64 else text[:16])


def _sorted(rows: Mapping[str, Row]) -> list[Row]:
    return sorted(rows.values(), key=lambda row: (row.scale or 0, row.steps, row.plan))


def _write(out: Path, rows: Mapping[str, Row], fixed: Mapping[str, str]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in _sorted(rows):
        scale = "" if row.scale is None else row.name
        writer.writerow({**fixed, "scale": scale, "plan": row.plan, "steps": row.steps, **row.numbers, "notes": row.notes})
    write_text(out / "sweep.csv", text.getvalue())


def _save_grid(path: Path, model: Diffusion, request: Request, batch_size: int, classifier: PictureClassifier | None) -> None:
    """Classes, evenly chosen where there are many, by the first seeds."""
    _, classes = model.classes(classifier)
    height = min(classes or 1, _GRID_ROWS)
    labels = [None] if classes is None else [row * classes // height for row in range(height)]
    seeds = range(request.seeds[0], request.seeds[0] + _GRID_COLUMNS)
    pairs = [(label, seed) for label in labels for seed in seeds]
    asked = request.replace(labels=tuple(label for label, _ in pairs), seeds=tuple(seed for _, seed in pairs))
    frames = model.stream(asked, batch_size=batch_size, classifier=classifier)
    pictures = torch.cat([frame.images for frame in frames if frame.final])
    save_grid(path, pictures, columns=_GRID_COLUMNS)


def _plot(out: Path, rows: Mapping[str, Row], fixed: Mapping[str, str]) -> None:
    ordered = _sorted(rows)
    by_scale = fixed["swept"] == "scale"

    def values(name: str) -> list[float]:
        return [row.numbers[name] for row in ordered]

    plan = f"plan {fixed['plan']}, " if by_scale else ""
    how = f"{fixed['guidance'] or 'no guidance'}, {plan}{fixed['sampler']}"
    plot(
        out / "sweep.png",
        f"{how}\n{fixed['count']} pictures, extractor {fixed['extractor']}",
        "guidance scale" if by_scale else "steps",
        [float(row.steps) if row.scale is None else row.scale for row in ordered],
        [
            Panel("Fréchet distance (lower is better)", values("frechet")),
            Panel("Score (higher is better)", values("score"), values("score_std")),
            Panel("Precision: fidelity (higher is better)", values("precision")),
            Panel("Recall: diversity (higher is better)", values("recall")),
        ],
    )
