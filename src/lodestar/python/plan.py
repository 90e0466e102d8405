"""`lodestar.plan`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import torch
from pydantic import InstanceOf

from lodestar import checkpoint, library
from lodestar.config import BatchSize, Count, Note, Problem, checked
from lodestar.core.chain import Schedule
from lodestar.core.plan import parse_plan
from lodestar.evaluation.optimize import FINE, SEED, Search
from lodestar.evaluation.report import Tabular
from lodestar.files import check_writable
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.guide import Guides
from lodestar.generators.optima import Optimum, noted
from lodestar.nets.int8 import between
from lodestar.progress import error_console
from lodestar.training.table import Row, laid_out

if TYPE_CHECKING:
    from rich.table import Table

STEPS = (6, 8, 10, 12)
"""Default numbers of steps."""
PICTURES = 64
"""Default number of pictures in a search."""


@dataclass(frozen=True)
class Planned(Tabular):
    """Optimised plans of a model."""

    plans: tuple[Optimum, ...]
    """A plan for each number of steps."""
    schedule: Schedule
    """The model's schedule."""
    file: Path | None = None
    """The model's file with the plans in its card; None where none was written."""

    def table(self) -> Table:
        """For a person: the errors of the plans, beside those of the usual plans."""
        headings = {"steps": "steps", "error": "error", "usual": "best usual plan", "usual_error": "its error"}
        cells: list[Row] = [{name: getattr(each, name) for name in headings} for each in self.plans]
        return laid_out(cells, headings)

    def _repr_html_(self) -> str:
        return super()._repr_html_() + "".join(parse_plan(each.plan).drawn(self.schedule) for each in self.plans)


class Solved(TypedDict, total=False):
    """Settings of `plan`, as those of `sample`."""

    sampler: Any
    guidance: Any
    clamp: bool
    prompt: Any
    cut_prompt: bool
    style: Any
    reference: Any


@contextmanager
def _smooth(network: Diffusion) -> Iterator[None]:
    """Compute without 8 bits: their rounding would be a large part of the small differences that a search goes by."""
    dtype = network.denoiser.dtype
    network.denoiser.dtype = between() if dtype == torch.int8 else dtype
    try:
        yield
    finally:
        network.denoiser.dtype = dtype


def plan(
    model: str | Path | Diffusion,
    steps: int | Sequence[int] = STEPS,
    *,
    guides: Guides | None = None,
    fine: str = FINE,
    count: int = PICTURES,
    seed: int = SEED,
    batch_size: int = 32,
    out: str | Path | None = None,
    **how: Unpack[Solved],
) -> Planned:
    """Optimise a model's plans of few steps: the noise levels to visit (`lodestar.evaluation.optimize`).

    model: loaded, or its name, run or file; a loaded one then samples with ``steps="optimized:8"``. steps: numbers of steps.
    guides, how: as in `sample`; each sampler and guidance has plans of its own, and so have pictures of prompts, for a model
    that knows texts. fine: the plan of many steps whose pictures few
    steps are to end at. count: pictures in the search, whose seeds begin at `seed`; half as many more measure the result. out: a
    file to write, the model with the plans in its card; the model's own file is allowed. Progress goes to standard error; a
    model in int8 is searched in the format of what is between. Raises Problem.
    """
    several = [steps] if isinstance(steps, int) else checked("steps", steps, InstanceOf[Sequence[Any]])
    wanted = [checked("steps", each, int) for each in several]
    network = model if isinstance(model, Diffusion) else library.load_diffusion(model)
    given: Any = {**how, "steps": fine}
    prompts, asked, guiding, _ = network.guided(guides, given)
    if network.config.denoiser.text is not None and not prompts.texts:
        warnings.warn(Note("this model knows texts: without prompts, plans are optimised for pictures of none"), stacklevel=2)
    if out is not None:
        _check(Path(out))
    console = error_console()
    search = Search(
        network, asked, lambda line: console.print(line, markup=False, highlight=False),
        guiding, prompts, checked("count", count, Count), seed, checked("batch size", batch_size, BatchSize),
    )  # fmt: skip
    with _smooth(network):
        found = tuple(search.run(sorted(set(wanted))))
    network.provenance = noted(network.provenance, found)
    return Planned(found, network.config.schedule, None if out is None else _written(network, Path(out)))


def _check(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise Problem(f"{path}: the name of a model's file ends in .safetensors")
    check_writable(path)


def _written(network: Diffusion, path: Path) -> Path:
    if network.digest:
        return checkpoint.annotate(library.find(network.name), path, network.provenance)
    return network.save(path)
