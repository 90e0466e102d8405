"""A report: numbers, everything that they depend on, and what to mind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lodestar.config import Config

if TYPE_CHECKING:
    from rich.table import Table

_DIGITS = 16
"""Of a digest, which nobody compares to its end."""


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
    guide_digests: Mapping[str, str] | None = None
    """Likewise, of the guides that steer it, by role."""
    seed: int | None = None
    """Of the first picture; picture k has seed + k, and class k modulo the number of classes. Run r begins at seed + r·count."""
    sampler: str | None = None
    steps: str | None = None
    """The sampling plan."""
    guidance: str | None = None
    """In the order of application, separated by spaces; empty for none."""
    clamp: bool | None = None
    temperature: float | None = None
    seconds: float | None = None
    """Sampling the pictures and passing them through the extractor took so long."""
    images_per_second: float | None = None
    """Of the fastest batch, features included: other work on the machine slows batches, but hardly all of them."""
    runs: tuple[Mapping[str, float], ...] = ()
    """The numbers of each run, where there are several."""
    intervals: Mapping[str, float] | None = None
    """Likewise: half-widths of the means' 95 % intervals, over the draw of the noise and nothing else."""
    warnings: tuple[str, ...] = ()
    """Why the numbers may mislead, and what was done to the pictures before they were measured."""

    def __str__(self) -> str:
        return in_text(self.table())

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
        settings |= {f"{role}_digest": known for role, known in (settings.pop("guide_digests") or {}).items()}
        if self.seconds is not None:
            settings["seconds"] = f"{self.seconds:.1f} ({self.images_per_second:.3g} images/s in the fastest batch)"
        return report_table(numbers, settings, self.warnings)


def report_table(numbers: Iterable[tuple[str, str]], settings: Mapping[str, Any], warnings: Iterable[str]) -> Table:
    """For a person, the numbers first.

    numbers: names and texts. settings: by the names of a report's fields; those that are None are left out.
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
    """A table as text, as wide as a terminal, what stands in it as it is: names may look like rich's markup."""
    from rich.console import Console

    console = Console(markup=False, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()).strip("\n")


def digest(model: Any) -> str:
    """SHA-256 of the file that a generator or a guide was loaded from, else of its configuration and weights, if it has any."""
    if model.digest:
        return str(model.digest)
    if not isinstance(model, nn.Module):
        return ""
    total = hashlib.sha256(getattr(model, "config", Config()).to_json().encode())
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()
