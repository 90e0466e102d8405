"""`lodestar.sweep`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from lodestar import library
from lodestar.config import Problem
from lodestar.evaluation.axes import Axis, axis, parse_axis, parse_guidances
from lodestar.evaluation.extractors import Extractor
from lodestar.evaluation.reference import Reference, choose_extractor, open_reference
from lodestar.evaluation.report import Tabular
from lodestar.evaluation.run import Measurement
from lodestar.evaluation.sweep import Row
from lodestar.evaluation.sweep import sweep as run
from lodestar.generators.base import Generator
from lodestar.generators.guide import Guides, check_given
from lodestar.generators.request import Asked, settings
from lodestar.guidance import Guidance
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
        told = {name: name.replace("_", " ") for name in self.rows[0].numbers if name not in ("score_std", "seconds")}
        cells = [dict(zip(self.names, row.values, strict=True)) | {name: row.numbers[name] for name in told} for row in self.rows]
        return laid_out(cells, {name: name for name in self.names} | told)


def sweep(
    model: str | Path | Generator,
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
    **how: Unpack[Asked],
) -> Swept:
    """Measure a model over one or two settings: ``lodestar.sweep("cifar10", over={"scale": [1, 2, 4]}, guidance="cfg")``.

    over: settings and their values (`lodestar.evaluation.axes`), as a mapping or in text ("scale=1,2,4"). count: pictures at each
    value. out: a folder (default ``out/sweep-NAME``) for sweep.csv, sweep.png and a grid of samples for each value; a sweep that
    stands there goes on. The rest is as in `lodestar.evaluate`; the metrics are those of the plot. Raises Problem.
    """
    network = model if isinstance(model, Generator) else library.load_diffusion(model)
    if network.defaults.sampler is None:
        raise Problem(f"a sweep varies sampling, and {network.name or 'this model'} makes a picture at once")
    asked, swept = settings(**how), axes(over)
    check_given(guides or {}, (*asked.guidance, *swept_guidance(swept)))
    measured_with = choose_extractor(extractor, reference, network.device)
    source = open_reference(reference, network.name, measured_with, (network.shape[1], network.shape[2]))
    folder = Path("out") / f"sweep-{Path(network.name).stem or 'model'}" if out is None else Path(out)
    rows = run(
        network, source, measured_with, folder, over=swept, how=asked, count=count, seed=seed, guides=guides,
        run=Measurement(batch_size=batch_size, repeats=seeds),
    )  # fmt: skip
    return Swept(tuple(one.name for one in swept), tuple(rows), folder)


def axes(over: str | Iterable[str | Axis] | Mapping[str, Iterable[Any]]) -> list[Axis]:
    """Settings and their values, as they are given. Raises Problem."""
    if isinstance(over, Mapping):
        return [axis(name, values) for name, values in over.items()]
    return [parse_axis(each) if isinstance(each, str) else each for each in ([over] if isinstance(over, str) else over)]


def swept_guidance(over: Iterable[Axis]) -> list[Guidance]:
    """All the guidance that is gone through."""
    return [each for one in over if one.name == "guidance" for value in one.values for each in parse_guidances(value)]
