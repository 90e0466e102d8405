"""`lodestar.sweep`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from pydantic import InstanceOf

from lodestar import library
from lodestar.config import Count, Problem, checked
from lodestar.display import picture
from lodestar.evaluation.axes import Axis, axis, parse_axis, parse_guidances
from lodestar.evaluation.extractors import Extractor
from lodestar.evaluation.metrics import Metric
from lodestar.evaluation.metrics.base import roles
from lodestar.evaluation.reference import Reference, choose_extractor
from lodestar.evaluation.report import Tabular
from lodestar.evaluation.run import Measurement
from lodestar.evaluation.sweep import DETAILS, PLOT, Row, Subject
from lodestar.evaluation.sweep import sweep as run
from lodestar.generators.base import Generator
from lodestar.generators.guide import Guides, check_given
from lodestar.generators.request import settings
from lodestar.guidance import Guidance
from lodestar.python.evaluate import Measured, captioned, check_compared, compared_with, of_pictures, read_metrics
from lodestar.results import results_folder
from lodestar.training.table import laid_out

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Swept(Tabular):
    """Result of a sweep."""

    names: tuple[str, ...]
    """The swept settings."""
    rows: tuple[Row, ...]
    """A row for each value, or each pair of values, in their order."""
    folder: Path
    """Folder of sweep.csv, sweep.png and the grids of samples."""

    def table(self) -> Table:
        """For a person: the values, and their numbers."""
        told = {name: name.replace("_", " ") for name in self.rows[0].numbers if name not in DETAILS}
        cells = [dict(zip(self.names, row.values, strict=True)) | {name: row.numbers[name] for name in told} for row in self.rows]
        return laid_out(cells, {name: name for name in self.names} | told)

    def _repr_html_(self) -> str:
        drawn, told = self.folder / PLOT, f"curves over {' and '.join(self.names)}"
        return super()._repr_html_() + (picture(drawn.read_bytes(), told) if drawn.is_file() else "")


class Sweeping(Measured, total=False):
    """Settings of sampling, with captions to make pictures of, and metrics."""

    metrics: str | Metric | Sequence[str | Metric] | None


def sweep(
    model: str | Path | Generator | Callable[[str], Generator] | None = None,
    reference: Reference = None,
    *,
    over: str | Iterable[str | Axis] | Mapping[str, Iterable[Any]],
    count: int = 2_000,
    seeds: int = 1,
    seed: int = 0,
    extractor: str | Path | Extractor | None = None,
    guides: Guides | None = None,
    batch_size: int = 64,
    out: str | Path | None = None,
    **how: Unpack[Sweeping],
) -> Swept:
    """Measure a model over one or two settings: ``lodestar.sweep("cifar10", over={"scale": [1, 2, 4]}, guidance="cfg")``.

    model: as in `lodestar.evaluate`; where "model" is gone through, a function that loads one by name, or None. Each has its own
    guides, captions and reference, where none are given. over: settings and their values (`lodestar.evaluation.axes`), as a
    mapping or in text ("scale=1,2,4"). count: pictures at each value. out: a folder (default ``out/sweep-NAME``), or its
    address, for sweep.csv, sweep.png and a grid of samples for each value; a sweep that stands there goes on. The rest is as in
    `lodestar.evaluate`; metrics are some of frechet, score, precision_recall (default these), caption and clip_score. Raises
    Problem.
    """
    captions, metrics = how.pop("captions", None), of_pictures(read_metrics(how.pop("metrics", None)))
    asked, swept = settings(**how), axes(over)
    check_given(guides or {}, (*asked.guidance, *swept_guidance(swept)), roles(metrics or ()))
    measured_by = Measurement(metrics=metrics, batch_size=batch_size, repeats=checked("seeds", seeds, Count))
    check_compared(measured_by, reference, extractor)
    load, fixed = _loader(model, swept)
    measured_with = choose_extractor(extractor, reference, fixed and fixed.device) if measured_by.features else None

    def subject(values: Mapping[str, str]) -> Subject:
        network = fixed or load(values["model"])
        network = network.using(values["prior"]) if "prior" in values else network
        prompted, otherwise = captioned(measured_by, captions, network, count, guides)
        source = compared_with(reference, network, measured_with, prompted, otherwise)
        return Subject(network, source, guides or {}, prompted.captions)

    name = "models" if fixed is None else Path(fixed.name).stem or "model"
    folder = Path("out") / f"sweep-{name}" if out is None else results_folder(out)
    rows = run(subject, measured_with, folder, over=swept, how=asked, count=count, seed=seed, run=measured_by)
    return Swept(tuple(one.name for one in swept), tuple(rows), folder)


def _loader(
    model: str | Path | Generator | Callable[[str], Generator] | None, over: Sequence[Axis]
) -> tuple[Callable[[str], Generator], Generator | None]:
    """A loader of models by name, and the one model where no others are gone through. Raises Problem."""
    swept = any(one.name == "model" for one in over)
    if isinstance(model, str | Path | Generator):
        if swept:
            raise Problem("model is what this sweep goes over, so it cannot be given as well")
        return library.load_generator, model if isinstance(model, Generator) else library.load_generator(model)
    if not swept:
        raise Problem("a sweep needs a model, or several to go over: model=A,B")
    return cache(model or library.load_generator), None


def axes(over: str | Iterable[str | Axis] | Mapping[str, Iterable[Any]]) -> list[Axis]:
    """Settings and their values, as they are given. Raises Problem."""
    if isinstance(over, Mapping):
        return [axis(name, values) for name, values in over.items()]
    given = [over] if isinstance(over, str) else checked("over", over, InstanceOf[Iterable[Any]])
    return [parse_axis(each) if isinstance(each, str) else checked("over", each, InstanceOf[Axis]) for each in given]


def swept_guidance(over: Iterable[Axis]) -> list[Guidance]:
    """All the guidance that is gone through."""
    return [each for one in over if one.name == "guidance" for value in one.values for each in parse_guidances(value)]
