"""A report: numbers, the settings behind them, and warnings."""

from __future__ import annotations

import abc
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lodestar.config import Config, Problem
from lodestar.data import Source
from lodestar.data.transforms import Size, show
from lodestar.display import printed
from lodestar.evaluation.repeats import Share
from lodestar.files import write_text

if TYPE_CHECKING:
    from rich.table import Table

_DIGITS = 16
"""Number of digits shown of a digest."""


class Tabular(abc.ABC):
    """A result that is a table for a person; printed, it is the table's text."""

    @abc.abstractmethod
    def table(self) -> Table:
        """A table for display."""

    def __str__(self) -> str:
        return in_text(self.table())

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        return printed(self.table())


REPORT = "report.json"
"""File of a document in a folder."""


class Document(Tabular):
    """A result, a dataclass, that is a JSON document as a whole."""

    def to_json(self) -> str:
        """The whole report as indented JSON."""
        return json.dumps(asdict(self), indent=1, allow_nan=False, ensure_ascii=False)  # type: ignore[call-overload]

    def save(self, folder: Path) -> None:
        """Write the document into a folder, as report.json. Raises Problem."""
        write_text(folder / REPORT, self.to_json() + "\n")


@dataclass(frozen=True)
class Report(Document):
    """The numbers of a measurement, with all their settings."""

    numbers: Mapping[str, float]
    """Numbers by metric: frechet, score, kid, precision, recall and so on; means over several runs."""
    count: int
    """Number of pictures measured, in each run."""
    reference: str | None = None
    """Source of the reference; None, as the following fields, where nothing is compared with one."""
    reference_count: int | None = None
    reference_fingerprint: str | None = None
    extractor: str | None = None
    extractor_digest: str | None = None
    extractor_dtype: str | None = None
    captions: str | None = None
    """Source of the prompts; None for pictures without, or with prompts of their own."""
    pictures: str | None = None
    """Source of the pictures; None if sampled, as described by the following fields."""
    model_digest: str | None = None
    """SHA-256 of the model's file, as `lodestar info` shows it; of configuration and weights if built in code."""
    model_dtype: str | None = None
    """Number format of the model's computation."""
    prior: str | None = None
    """Settings of the way from prompts to embeddings; None for a model without priors."""
    guide_digests: Mapping[str, str] | None = None
    """SHA-256 of each guide, by role."""
    seed: int | None = None
    """Seed of the first picture; picture k has seed + k, and class k modulo the number of classes. Run r begins at seed +
    r·count."""
    sampler: str | None = None
    steps: str | None = None
    """The sampling plan."""
    guidance: str | None = None
    """Guidance in the order of application, separated by spaces; empty for none."""
    clamp: bool | None = None
    temperature: float | None = None
    reuse: int | None = None
    """Number of steps from one whole evaluation of the network to the next; 1 is no reuse."""
    top_k: int | None = None
    """Number of the likeliest codes that each code was drawn from; None for all."""
    top_p: float | None = None
    """Probability of the likeliest codes that each code was drawn from."""
    truncation: float | None = None
    """Bound of a GAN's latent numbers, in deviations; None for none."""
    seconds: float | None = None
    """Time of sampling and feature extraction, in seconds."""
    images_per_second: float | None = None
    """Speed of the fastest batch, features included: other work on the machine slows some batches, but hardly all."""
    drawn_per_second: float | None = None
    """Speed of the fastest batch, features excluded."""
    runs: tuple[Mapping[str, float], ...] = ()
    """Numbers of each run, if there are several."""
    intervals: Mapping[str, float] | None = None
    """Half-widths of the means' 95 % intervals of several runs, over the draw of the noise and nothing else."""
    shares: Mapping[str, Share] | None = None
    """The numbers that are shares of pictures: hits and count, of all runs."""
    warnings: tuple[str, ...] = ()
    """Reasons why the numbers may mislead, and preprocessing of the pictures."""

    def table(self) -> Table:
        spread = self.intervals or {}
        numbers = []
        for name, value in self.numbers.items():
            more = f" ± {spread[name]:.2g}" if spread else ""
            share = (self.shares or {}).get(name)
            numbers.append((name.replace("_", " "), f"{value:.5g}{more}" if share is None else f"{share}{more}"))
        if self.shares:
            numbers.append(("", "shares with 95 % intervals, of so many pictures"))
        if spread:
            numbers.append(("", f"mean and 95 % interval over {len(self.runs)} runs with different seeds"))
        told = ("numbers", "warnings", "images_per_second", "drawn_per_second", "runs", "intervals", "shares")
        settings = {name: setting for name, setting in asdict(self).items() if name not in told}
        settings |= {f"{role}_digest": known for role, known in (settings.pop("guide_digests") or {}).items()}
        if self.seconds is not None:
            settings["seconds"] = f"{self.seconds:.1f} ({self.images_per_second:.3g} images/s in the fastest batch)"
        return report_table(numbers, settings, self.warnings)


def mean_with_error(name: str, values: Tensor) -> dict[str, float]:
    """The mean of values [N], by name, and its standard error as NAME_error."""
    return {name: values.mean().item(), f"{name}_error": standard_error(values)}


def standard_error(values: Tensor) -> float:
    """The standard error of the mean of values [N]."""
    return float(values.std() / len(values) ** 0.5)


def with_errors(numbers: Mapping[str, float]) -> list[tuple[str, str]]:
    """Names and numbers, each with its standard error, which is the one called NAME_error."""
    told = []
    for name, value in numbers.items():
        error = numbers.get(f"{name}_error")
        if not name.endswith("_error"):
            told.append((name, f"{value:.4f}" + ("" if error is None else f" ± {error:.4f} (standard error)")))
    return told


def report_table(numbers: Iterable[tuple[str, str]], settings: Mapping[str, Any], warnings: Iterable[str]) -> Table:
    """A table for display, the numbers first.

    numbers: names and texts. settings: by the names of a report's fields; None values are left out.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in numbers:
        table.add_row(name, text)
    table.add_section()
    for name, setting in settings.items():
        if setting is not None:
            shown = str(setting)[:_DIGITS] if name.endswith(("_digest", "_fingerprint")) else str(setting)
            table.add_row(name.replace("_", " "), shown or "none")
    for warning in warnings:
        table.add_row("note", warning, style="yellow")
    return table


def in_text(table: Table) -> str:
    """A table as text, as wide as a terminal. Cells are not interpreted, because names may look like rich's markup."""
    from rich.console import Console

    from lodestar.progress import print_whole

    console = Console(markup=False, color_system=None)
    with console.capture() as captured:
        print_whole(console, table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()).strip("\n")


def digest(model: Any) -> str:
    """SHA-256 of the file of a generator or guide, else of its configuration and weights, if any."""
    if model.digest:
        return str(model.digest)
    if not isinstance(model, nn.Module):
        return ""
    total = hashlib.sha256(getattr(model, "config", Config()).to_json().encode())
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()


def measured_by(model: Any, reference: Source) -> dict[str, str]:
    """The fields of `Bits` about what was measured, and by which model."""
    return {
        "reference": reference.spec,
        "reference_fingerprint": reference.fingerprint,
        "model_digest": digest(model),
        "model_dtype": model.precision,
    }


@dataclass(frozen=True, kw_only=True)
class Bits(Document):
    """Measured bits of pictures under a model, with the settings behind them."""

    numbers: Mapping[str, float]
    """Numbers by name."""
    count: int
    """Pictures measured, spread evenly over the reference."""
    reference: str
    reference_fingerprint: str
    model_digest: str
    """SHA-256 of the model's file, as `lodestar info` shows it; of its configuration and weights if built in code."""
    model_dtype: str
    """Number format of the model's computation."""
    seconds: float
    warnings: tuple[str, ...] = ()

    def table(self) -> Table:
        settings = {name: setting for name, setting in asdict(self).items() if name not in ("numbers", "warnings")}
        return report_table(with_errors(self.numbers), settings | {"seconds": f"{self.seconds:.1f}"}, self.warnings)


def evenly(reference: Source, count: int) -> np.ndarray:
    """Places int64 [count] of pictures, evenly over a reference. Raises Problem for fewer than 2, or more than there are."""
    if not 2 <= count <= len(reference):
        raise Problem(f"count is {count}: bits per dimension need 2 pictures at least, and {reference.spec} has {len(reference)}")
    places: np.ndarray = np.arange(count) * len(reference) // count
    return places


def resized(reference: Source, size: Size) -> tuple[str, ...]:
    """A warning where pictures were brought to another size before their likelihood was measured."""
    if reference.size == size:
        return ()
    return (f"the pictures were resized from {show(reference.size)} to {show(size)}, which changes their likelihood",)
