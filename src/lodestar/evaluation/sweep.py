"""Quality over one or two settings: numbers as CSV, curves or heat maps, and a grid of samples for each value.

All values have the same classes and seeds, so that nothing but the swept settings differs. A sweep that was interrupted, or
is given further values, goes on where its CSV ends.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from lodestar.conditions import Ask
from lodestar.config import Config, Problem, short
from lodestar.core.noise import seeds_from
from lodestar.data import Source
from lodestar.evaluation.axes import EDITED, WHO, Axis
from lodestar.evaluation.captions import Captions
from lodestar.evaluation.compare import choose
from lodestar.evaluation.extractors import Extractor
from lodestar.evaluation.kept import Kept
from lodestar.evaluation.metrics import Caption, ClipScore, Frechet, Metric, PrecisionRecall, Score
from lodestar.evaluation.metrics.base import roles
from lodestar.evaluation.metrics.caption import CLAIMS
from lodestar.evaluation.plot import Curve, Ticks, curves, heat_maps, sheet
from lodestar.evaluation.repeats import check
from lodestar.evaluation.report import Report, digest
from lodestar.evaluation.run import Measurement, measure, requested
from lodestar.extras import need
from lodestar.files import check_writable, read_csv, reading, write_csv
from lodestar.generators.base import Generator
from lodestar.generators.guide import Guides, chosen
from lodestar.generators.request import Request, Settings
from lodestar.images import save_grid
from lodestar.progress import Foretold, error_console

_FEATURES = (Frechet(), Score(), PrecisionRecall())
METRICS: tuple[Metric, ...] = (*_FEATURES, Caption(), ClipScore())
"""Metrics that are drawn; by default those of features, as far as extractor and reference go."""
_ACCURACIES = tuple(f"caption_{group}{claim}" for group in ("", "one_", "two_", "three_") for claim in CLAIMS)
DETAILS = ("score_std", "seconds", "clip_cosine", *(name for name in _ACCURACIES if name.count("_") > 1))
"""Numbers that only the CSV has."""
_NUMBERS = (
    *("frechet", "score", "score_std", "precision", "recall", "f_score", *_ACCURACIES, "clip_score", "clip_cosine"),
    *("seconds", "images_per_second"),
)
PANELS = {
    "frechet": "Fréchet distance (lower is better)",
    "score": "Score (higher is better)",
    "precision": "Precision: fidelity (higher is better)",
    "recall": "Recall: diversity (higher is better)",
    "caption_attributes": "Share of captions with all attributes right",
    "caption_place": "Share of captions with all places right",
    "caption_relation": "Share of captions with all relations right",
    "caption_right": "Share of captions with everything right",
    "clip_score": "CLIPScore (higher is better)",
}
"""Titles of the numbers that are drawn."""
_TOLD = (
    *("sampler", "guidance", *EDITED, "model_digest", "model_dtype", "prior", "guide_digests"),
    *("metrics", "captions", "reference_count", "reference_fingerprint"),
)
"""Columns of the CSV that belong to a model and its settings."""
_TIME = "seconds per image in the fastest batch, features included"
CSV = "sweep.csv"
"""File of the numbers."""
PLOT = "sweep.png"
"""File of the curves or heat maps."""
_GRID_ROWS, _GRID_COLUMNS = 10, 8


@dataclass(frozen=True)
class Row:
    """A point of a sweep, in one setting or two: a line of its CSV."""

    values: tuple[str, ...]
    """Values of the swept settings, in their order."""
    steps: str
    """The sampling plan; empty of a model that makes a picture at once."""
    step_count: int
    """Number of steps of the plan."""
    numbers: Mapping[str, float]
    """frechet, score, score_std, precision, recall, f_score, as far as extractor and reference go; caption_right and the like,
    clip_score and clip_cosine, of prompts; seconds, images_per_second."""
    intervals: Mapping[str, float]
    """Half-widths of 95 % intervals of the measured ones, where each was measured several times."""
    notes: str = ""
    """The report's warnings."""
    of: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Other settings, and digests of the model and of what belongs to it."""

    @property
    def name(self) -> str:
        """The swept values, as text."""
        return " ".join(self.values)


@dataclass(frozen=True)
class Subject:
    """A model to be measured, with what belongs to it."""

    model: Generator
    reference: Source | Kept | None
    """None where no metric is of features."""
    guides: Guides
    captions: Captions | None = None


@dataclass(frozen=True)
class _Ready:
    """A subject with the points of the sweep that are its own."""

    subject: Subject
    points: Mapping[tuple[str, ...], Settings]
    """The swept values, and the settings with them."""
    run: Measurement
    grid: tuple[Ask, ...]
    told: Mapping[str, str]
    """Settings and origins that its rows have in common."""


def sweep(
    of: Callable[[Mapping[str, str]], Subject],
    extractor: Extractor | None,
    out: Path,
    *,
    over: Sequence[Axis],
    how: Settings | None = None,
    count: int = 2_000,
    seed: int = 0,
    run: Measurement | None = None,
) -> list[Row]:
    """Measure `count` pictures at each value of one setting, or at each pair of values of two; rows in their order.

    of: the subject for the swept ones of "model" and "prior", by name. over: the settings (`lodestar.evaluation.axes`); those of
    whole settings take effect before those of their fields. Writes into the folder `out`: sweep.csv, sweep.png and
    samples-<values>.png (rows are classes, columns seeds), and of two settings all of these in samples.png. how: the other
    settings. The rest is `evaluate`'s; metrics are some of `METRICS`. Raises Problem, also where `out` holds another sweep, or
    something else.
    """
    need("matplotlib")
    how, run = how or Settings(), run or Measurement()
    check(run.repeats)
    _check_axes(over, how)
    every = list(itertools.product(*(axis.values for axis in over)))
    mine: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for values in every:
        mine.setdefault(_who(over, values), []).append(values)
    names, ready = [axis.name for axis in over if axis.name in WHO], dict[tuple[str, ...], _Ready]()
    for who, points in mine.items():
        subject = of(dict(zip(names, who, strict=True)))
        ready[who] = _ready(subject, over, points, how, run, extractor=extractor, count=count, seed=seed)
    asked = [(this := ready[_who(over, values)], *_asked(this, values, count, seed)) for values in every]
    fixed = _fixed(over, run, extractor, count, seed)
    rows = _read(out, over, fixed, {who: each.told for who, each in ready.items()})
    console = run.console or error_console()
    work = sum((len(each.grid) + count * run.repeats) * row.step_count for each, row, _ in asked if row.values not in rows)
    foretold, before = Foretold(console, work), 0  # in steps of pictures
    for number, (each, row, again) in enumerate(asked, start=1):
        picture, model, guides = grid_of(out, row.values), each.subject.model, each.subject.guides
        if row.values not in rows or not picture.exists():
            frames = model.stream(again.replace(asks=each.grid), guides=guides, batch_size=run.batch_size)
            save_grid(picture, torch.cat([frame.images for frame in frames if frame.final]), columns=_GRID_COLUMNS)
        if row.values not in rows:
            title = f"{fixed['swept']} {row.name} ({number} of {len(asked)})"
            before += len(each.grid) * row.step_count
            this_run = replace(each.run, title=title, console=console, tick=foretold.within(before, row.step_count))
            report = measure(model, again, each.subject.reference, extractor, guides=guides, run=this_run)
            rows[row.values] = _filled(row, report)
            before += count * run.repeats * row.step_count
            _write(out, rows, over, fixed)
    _plot(out, rows, over, fixed)
    return [rows[row.values] for _, row, _ in asked]


def _who(over: Sequence[Axis], values: Sequence[str]) -> tuple[str, ...]:
    """The values among these that decide who makes the pictures."""
    return tuple(value for axis, value in zip(over, values, strict=True) if axis.name in WHO)


def _ready(
    subject: Subject, over: Sequence[Axis], values: Iterable[tuple[str, ...]], how: Settings, run: Measurement, *,
    extractor: Extractor | None, count: int, seed: int,
) -> _Ready:  # fmt: skip
    """A subject with its settings and guides at these values. Raises Problem."""
    model, reference, given = subject.model, subject.reference, bool(run.metrics)
    plain = model.complete(how)
    points = {each: _placed(over, each, plain) for each in values}  # so that all can be read before the first is tried
    run = replace(_drawn(run), captions=subject.captions)
    wanted = [each for settings in points.values() for each in settings.guidance]
    guides = chosen(wanted, subject.guides, model.companions, roles(run.metrics or ()))
    if reference is not None and extractor is not None:
        metrics, _ = choose(run.features, extractor, reference, count, asked=given)
        run = replace(run, metrics=(*metrics, *run.prompted))
    told = _kept(plain, over) | {
        "model_digest": digest(model),
        "model_dtype": model.precision,
        "prior": "" if model.prior is None else short(model.prior),
        "guide_digests": " ".join(f"{role}={digest(guide)}" for role, guide in sorted(guides.items())),
        "metrics": " ".join(map(short, run.metrics or ())),
        "captions": "" if run.captions is None else run.captions.digest,
        "reference_count": "" if reference is None else str(len(reference)),
        "reference_fingerprint": "" if reference is None else reference.fingerprint,
    }
    told = {name: text for name, text in told.items() if name not in {axis.name for axis in over}}
    return _Ready(replace(subject, guides=guides), points, run, _grid(model, seed, guides, run.captions), told)


def _drawn(run: Measurement) -> Measurement:
    """The settings with metrics that are drawn: those that are given, else all of features. Raises Problem for others."""
    known = [metric.kind for metric in METRICS]
    for metric in run.metrics or ():
        if metric.kind not in known:
            raise Problem(f"metric {metric.kind!r} is not drawn by a sweep: choose from {', '.join(known)}")
    return run if run.metrics else replace(run, metrics=_FEATURES)


def _asked(ready: _Ready, values: tuple[str, ...], count: int, seed: int) -> tuple[Row, Request]:
    """A row without numbers, and what is to be sampled for it. Raises Problem if that cannot be answered."""
    model, guides, how = ready.subject.model, ready.subject.guides, ready.points[values]
    asked = requested(model, how, count, seed, guides, ready.run.captions)
    told = {name: ready.told[name] for name in _TOLD if name in ready.told}
    return Row(values, how.steps or "", model.prepare(asked, guides).length, {}, {}, of=told), asked


def grid_of(out: Path, values: Sequence[str]) -> Path:
    """The file of a row's grid."""
    return out / f"samples-{'_'.join(re.sub(r'[^0-9A-Za-z.,+-]', '-', value) for value in values)}.png"


def _check_axes(over: Sequence[Axis], how: Settings) -> None:
    names = [axis.name for axis in over]
    if not 1 <= len(names) <= 2 or len(set(names)) < len(names):
        raise Problem(f"a sweep goes over one setting or two different ones: {', '.join(names) or 'none is given'}")
    for name in names:
        if name in Settings.model_fields and name != "clamp" and getattr(how, name) != getattr(Settings(), name):
            raise Problem(f"{name} is what this sweep goes over, so it cannot be given as well")


def _placed(over: Sequence[Axis], values: Sequence[str], how: Settings) -> Settings:
    """The settings with these values. Raises Problem."""
    # A field can be set only once it is known whose.
    for axis, value in sorted(zip(over, values, strict=True), key=lambda pair: not pair[0].whole):
        how = axis.place(how, value)
    return how


def _fixed(over: Sequence[Axis], run: Measurement, extractor: Extractor | None, count: int, seed: int) -> dict[str, str]:
    """What all rows of a sweep have in common."""
    return {
        "swept": " ".join(axis.name for axis in over),
        "count": str(count),
        "seed": str(seed),
        "repeats": str(run.repeats),
        "extractor": extractor.name if extractor else "",
        "extractor_digest": extractor.digest if extractor else "",
        "extractor_dtype": extractor.dtype if extractor else "",
    }


def _kept(plain: Settings, over: Sequence[Axis]) -> dict[str, str]:
    """Settings of a subject: whole settings, without the swept fields."""
    swept = {axis.name for axis in over}
    within = [axis.within(plain) for axis in over if not axis.whole and "guidance" not in swept]

    def told(config: Config) -> str:
        return short(config, omit=[field for owner, field in within if owner is config])

    edited = {name: getattr(plain, name) for name in EDITED}
    return {
        "sampler": "" if plain.sampler is None else told(plain.sampler),
        "guidance": " ".join(told(each) for each in plain.guidance),
        **{
            name: "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
            for name, value in edited.items()
        },
        "steps": plain.steps or "",
    }


def _filled(row: Row, report: Report) -> Row:
    assert report.seconds is not None, "sampled, not read"
    assert report.images_per_second is not None, "sampled, not read"
    shares = {name: share.half_width() for name, share in (report.shares or {}).items()}
    numbers = {**report.numbers, "seconds": report.seconds, "images_per_second": report.images_per_second}
    return replace(
        row,
        numbers={name: numbers[name] for name in _NUMBERS if name in numbers},
        intervals={name: each for name, each in (report.intervals or shares).items() if name in PANELS},
        notes="; ".join(report.warnings),
    )


def _read(
    out: Path, over: Sequence[Axis], fixed: Mapping[str, str], told: Mapping[tuple[str, ...], Mapping[str, str]]
) -> dict[tuple[str, ...], Row]:
    """The rows that stand in a folder, by their values. Raises Problem where it holds something else, or another sweep.

    told: what the rows of each subject have to say.
    """
    path = out / CSV
    if out.exists() and not out.is_dir():
        raise Problem(f"{out} is a file: name a folder for the sweep")
    if not path.exists():
        # A sweep that was killed at its first value has left a grid, and perhaps a temporary file.
        names = sorted(entry.name for entry in out.iterdir()) if out.exists() else []
        strange = [name for name in names if not name.startswith((".", "samples")) and name != PLOT]
        if strange:
            raise Problem(f"{out} holds something else ({strange[0]}) and no sweep.csv: name a new or an empty folder")
        check_writable(path)
        return {}
    with reading(path, "cannot be read as a sweep's", ": name another folder, or remove it"):
        lines = read_csv(path)
        rows = [_row(line, over) for line in lines if line["swept"] == fixed["swept"]]
    for line in lines:
        who = tuple(line.get(axis.name) or "" for axis in over if axis.name in WHO)
        for name, value in {**fixed, **told.get(who, {})}.items():
            if (line.get(name) or "") != value:  # which older ones may lack
                theirs, ours = (_brief(text) for text in (line.get(name), value))
                raise Problem(f"{out} holds another sweep: {name} is {theirs} there and {ours} here: name another folder")
    return {row.values: row for row in rows}


def _row(line: Mapping[str, str], over: Sequence[Axis]) -> Row:
    numbers = {name: float(line[name]) for name in _NUMBERS if line.get(name)}  # older ones may lack some
    intervals = {name: float(line[_interval(name)]) for name in PANELS if line.get(_interval(name))}
    values = tuple(line[axis.name] for axis in over)
    told = {name: line.get(name) or "" for name in _TOLD if name not in {axis.name for axis in over}}
    return Row(values, line["steps"], int(line["step_count"]), numbers, intervals, line["notes"], told)


def _interval(name: str) -> str:
    return f"{name}_interval"


def _brief(text: str | None) -> str:
    return repr(text if text is None or len(text) < 64 else text[:16])


def _write(out: Path, rows: Mapping[tuple[str, ...], Row], over: Sequence[Axis], fixed: Mapping[str, str]) -> None:
    names = [axis.name for axis in over]
    lines = []
    for row in sorted(rows.values(), key=lambda row: [_order(axis, row, place) for place, axis in enumerate(over)]):
        swept = {**dict(zip(names, row.values, strict=True)), "steps": row.steps, "step_count": row.step_count}
        intervals = {_interval(name): value for name, value in row.intervals.items()}
        numbers = {**dict.fromkeys(_NUMBERS, ""), **row.numbers, **intervals}
        lines.append({**swept, **numbers, **fixed, **row.of, "notes": row.notes})
    write_csv(out / CSV, lines)


def _grid(model: Generator, seed: int, guides: Guides, captions: Captions | None) -> tuple[Ask, ...]:
    """What a row's grid shows: classes, evenly chosen where there are many, or the first captions, by the first seeds."""
    _, classes = model.classes(guides)
    texts = [] if captions is None else list(dict.fromkeys(captions.texts))
    height = min(max(classes or 1, len(texts)), _GRID_ROWS)
    rows = [
        Ask(label=None if classes is None else row * classes // height, text=texts[row % len(texts)] if texts else None)
        for row in range(height)
    ]
    return tuple(ask.replace(seed=each) for ask in rows for each in seeds_from(seed, _GRID_COLUMNS))


def _plot(out: Path, rows: Mapping[tuple[str, ...], Row], over: Sequence[Axis], fixed: Mapping[str, str]) -> None:
    told_of = [row.of for row in rows.values()]
    same = {name: text for name, text in told_of[0].items() if all(each.get(name) == text for each in told_of)}
    plans = {row.steps for row in rows.values()}
    at_once = plans == {""}
    told = [] if at_once else [same[name] or f"no {name}" for name in ("guidance", "sampler") if name in same]
    plan = [f"steps {plans.pop()}"] if len(plans) == 1 and not at_once else []
    runs = f" in each of {fixed['repeats']} runs" if fixed["repeats"] != "1" else ""
    by = f", extractor {fixed['extractor']}" if fixed["extractor"] else ""
    title = "\n".join(filter(None, [", ".join([*told, *plan]), f"{fixed['count']} pictures{runs}{by}"]))
    ticks = [_ticks(axis, place, rows.values()) for place, axis in enumerate(over)]
    path = out / PLOT
    panels = {name: text for name, text in PANELS.items() if any(name in row.numbers for row in rows.values())}

    def along(name: str, x: int, other: str | None = None, intervals: bool = False) -> list[float]:
        """A number along axis x, at a value of the other one if there is one; NaN where it was not measured."""
        pairs = [(value,) if other is None else (value, other) if x == 0 else (other, value) for value in ticks[x].names]
        found = [rows.get(pair) for pair in pairs]
        return [math.nan if row is None else (row.intervals if intervals else row.numbers).get(name, math.nan) for row in found]

    def seconds(x: int, other: str | None = None) -> list[float]:
        return [1 / each for each in along("images_per_second", x, other)]

    def against_time(x: int, others: Sequence[str | None]) -> dict[str, list[Curve]]:
        """A panel of quality against time: a curve for each value of the other setting, or a point for each name along x."""
        if "frechet" not in panels:
            return {}
        found = [(other or "", along("frechet", x, other), seconds(x, other)) for other in others]
        if ticks[x].numbers is None:
            ((_, values, times),) = found
            found = [(name, [value], [time]) for name, value, time in zip(ticks[x].names, values, times, strict=True)]
        return {"Fréchet distance against time": [Curve(name, values, places=times) for name, values, times in found]}

    def curve(name: str, x: int, other: str | None = None) -> Curve:
        spread = along(name, x, other, intervals=True)
        if name == "score" and fixed["repeats"] == "1":
            spread = along("score_std", x, other)
        return Curve(other or "", along(name, x, other), None if all(map(math.isnan, spread)) else spread)

    if len(over) == 2:
        _sheet(out, title, ticks)
    if len(over) == 1:
        shown = {text: [curve(name, 0)] for name, text in panels.items()}
        return curves(path, title, ticks[0], shown | against_time(0, [None]), _TIME)
    first, second = ticks
    if (first.numbers is None) == (second.numbers is None):
        maps = {text: [along(name, 0, other) for other in second.names] for name, text in panels.items()}
        return heat_maps(path, title, first, second, maps | {_TIME.capitalize(): [seconds(0, other) for other in second.names]})
    x = 0 if second.numbers is None else 1
    lines = {text: [curve(name, x, other) for other in ticks[1 - x].names] for name, text in panels.items()}
    curves(path, title, ticks[x], lines | against_time(x, ticks[1 - x].names), _TIME)


def _ticks(axis: Axis, place: int, rows: Iterable[Row]) -> Ticks:
    """The values that there are of a setting, in their order."""
    ordered = sorted({row.values[place]: _order(axis, row, place) for row in rows}.items(), key=lambda pair: pair[1])
    names, keys = [name for name, _ in ordered], [key for _, key in ordered]
    numbers = [key[0] for key in keys]
    numeric = all(number < math.inf for number in numbers) and len(set(numbers)) == len(numbers)
    label = "guidance scale" if axis.name == "scale" else axis.name
    return Ticks(label, names, numbers if numeric else None)


def _sheet(out: Path, title: str, ticks: Sequence[Ticks]) -> None:
    """Draw the grids of two settings as one picture, numbers from left to right."""
    turned = ticks[0].numbers is None and ticks[1].numbers is not None
    x, y = reversed(ticks) if turned else ticks
    files = [[grid_of(out, (down, across) if turned else (across, down)) for across in x.names] for down in y.names]
    sheet(out / "samples.png", title, x, y, files)


def _order(axis: Axis, row: Row, place: int) -> tuple[float, int, str]:
    """Numbers by size, and plans by their steps; what is no number after them, as it is given, others by name."""
    text = row.values[place]
    if axis.name == "steps":
        return row.step_count, 0, text
    try:
        return float(text), 0, ""
    except ValueError:
        return math.inf, axis.values.index(text) if text in axis.values else len(axis.values), text
