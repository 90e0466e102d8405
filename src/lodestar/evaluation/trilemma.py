"""Several models in one table and one picture: fidelity, diversity and speed.

Each kind of model gives up one of the three, the trilemma of Xiao et al. 2022.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lodestar.config import Problem
from lodestar.evaluation.metrics import DensityCoverage, Frechet, PrecisionRecall
from lodestar.evaluation.plot import Bars, Scatter, marked
from lodestar.evaluation.report import Document
from lodestar.files import check_writable, read_json, write_text
from lodestar.generators.autoencoder import VQVAE, Autoencoder
from lodestar.generators.base import Generator
from lodestar.generators.code_prior import CodePrior
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.gan import Gan

if TYPE_CHECKING:
    from rich.table import Table

METRICS = (Frechet(), PrecisionRecall(), DensityCoverage())
"""Metrics of all models."""
TABLE, MARKDOWN, PICTURE = "compare.json", "compare.md", "compare.png"
"""Files of a comparison."""

NUMBERS: Mapping[str, tuple[str, str]] = {
    "frechet": ("Fréchet distance", "FD"),
    "precision": ("precision (fidelity)", "prec."),
    "recall": ("recall (diversity)", "recall"),
    "coverage": ("coverage (diversity)", "cover."),
    "drawn_per_second": ("pictures a second", "/s"),
    "evaluations": ("evaluations a picture", "evals"),
    "bpd": ("bits per dimension", "bpd"),
    "mse": ("squared error of reconstructions", "mse"),
}
"""Numbers by name, with their headings, in full and short; any of them may be missing in a row."""
_ABOUT = {
    "model": ("model", "model"), "kind": ("kind", "kind"), "parameters": ("parameters", ""), "images": ("images seen", ""),
}  # fmt: skip
"""Headings of a row's other cells; those without a short one are in Markdown alone."""


_SHOWN = 24
"""Characters of a model's text that a terminal shows in one line."""


@dataclass(frozen=True)
class Row:
    """A model of a comparison: a line of its table."""

    model: str
    """Text of the model with its settings, as it was asked for."""
    kind: str
    digest: str
    """SHA-256 of the model's file."""
    dtype: str
    """Number format of the model's computation."""
    guide_digests: Mapping[str, str]
    """SHA-256 of each guide, by role."""
    parameters: int
    images_seen: int | None
    """Images of training, repeats counted; None where the model does not tell."""
    training_seconds: float | None
    """Seconds of training, likewise."""
    sampler: str
    """Steps, sampler and guidance; empty for models of one pass."""
    numbers: Mapping[str, float]
    """Numbers by the names of `NUMBERS`, and their standard errors, NAME_error."""
    notes: tuple[str, ...] = ()
    """Reasons for missing numbers, and why others may mislead."""

    def same(self, other: Row) -> bool:
        """True if both are of the same model, settings and guides."""
        names = ("model", "digest", "dtype", "guide_digests")
        return all(getattr(self, name) == getattr(other, name) for name in names)


@dataclass(frozen=True)
class Trilemma(Document):
    """The measured comparison, with all its settings."""

    rows: tuple[Row, ...]
    count: int
    """Number of pictures of each model."""
    seed: int
    budget: str
    """Budget of training, for each model that was trained here; empty where none was."""
    reference: str
    reference_count: int
    reference_fingerprint: str
    extractor: str
    extractor_digest: str
    extractor_dtype: str
    captions: str = ""
    """Source of the prompts; empty for pictures without."""

    def table(self) -> Table:
        from rich import box
        from rich.table import Table

        names = {name: short for name, (_, short) in self._headings().items() if short}
        table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
        longest = max((len(row.model) for row in self.rows), default=0)
        for name, heading in names.items():
            table.add_column(
                heading, justify="left" if name in _ABOUT else "right", overflow="fold", no_wrap=name in NUMBERS,
                min_width=min(longest, _SHOWN) if name == "model" else None,
            )  # fmt: skip
        for cells in self._cells():
            table.add_row(*(cells[name] for name in names))
        return table

    def markdown(self) -> str:
        """The table in Markdown, with the picture, the settings and the notes."""
        names = self._headings()
        lines = [f"![Fidelity, diversity and speed of the models in the table]({PICTURE})", ""]
        lines += [_line(heading for heading, _ in names.values())]
        lines += [_line("---" if name in ("model", "kind") else "--:" for name in names)]
        lines += [_line(cells[name] for name in names) for cells in self._cells()]
        told = {name: value for name, value in asdict(self).items() if name != "rows" and value != ""}
        lines += ["", *(f"- {name.replace('_', ' ')}: {value}" for name, value in told.items())]
        noted: dict[str, list[str]] = {}
        for row in self.rows:
            for note in row.notes:
                noted.setdefault(note, []).append(row.model)
        notes = [f"- {'all' if len(of) == len(self.rows) else ', '.join(of)}: {note}" for note, of in noted.items()]
        return "\n".join([*lines, *(["", "Notes:", "", *notes] if notes else [])]) + "\n"

    def save(self, folder: Path) -> None:
        """Write the table, as JSON and in Markdown, and the picture. Raises Problem."""
        write_text(folder / TABLE, self.to_json() + "\n")
        write_text(folder / MARKDOWN, self.markdown())
        draw(folder / PICTURE, self)

    def kept(self, folder: Path) -> dict[str, Row]:
        """The rows of the same comparison that stand in a folder, by model. Raises Problem where it holds another, or else."""
        if folder.exists() and not folder.is_dir():
            raise Problem(f"{folder} is a file: name a folder for the comparison")
        path = folder / TABLE
        if not path.exists():
            check_writable(path)
            return {}
        try:
            there = _read(read_json(path))
        except (TypeError, KeyError, AttributeError):
            raise Problem(f"{path} cannot be read as a comparison's: name another folder, or remove it") from None
        for name, value in asdict(self).items():
            if name != "rows" and (theirs := getattr(there, name)) != value:
                raise Problem(
                    f"{folder} holds another comparison: {name} is {theirs!r} there and {value!r} here: name another folder"
                )
        return {row.model: row for row in there.rows}

    def _headings(self) -> dict[str, tuple[str, str]]:
        """Headings of the columns by name; numbers that no model has are left out."""
        return _ABOUT | {name: told for name, told in NUMBERS.items() if any(name in row.numbers for row in self.rows)}

    def _cells(self) -> Iterator[dict[str, str]]:
        for row in self.rows:
            seen = "" if row.images_seen is None else f"{row.images_seen:,}"
            about = {"model": row.model, "kind": row.kind, "parameters": f"{row.parameters:,}", "images": seen}
            yield about | {name: _number(row.numbers.get(name)) for name in NUMBERS}


def _read(data: Any) -> Trilemma:
    rows = tuple(Row(**{**row, "notes": tuple(row["notes"])}) for row in data["rows"])
    return Trilemma(**{**data, "rows": rows})


def _line(cells: Iterable[str]) -> str:
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"


def draw(path: Path, found: Trilemma) -> None:
    """Draw the comparison as a PNG: diversity against fidelity, distance against speed, and the other numbers as bars.

    Raises Problem without matplotlib.
    """
    rows = found.rows

    def points(x: str, y: str) -> dict[str, tuple[float, float]]:
        return {row.model: (row.numbers[x], row.numbers[y]) for row in rows if {x, y} <= row.numbers.keys()}

    panels: dict[str, Scatter | Bars] = {
        "diversity against fidelity": Scatter(points("precision", "recall"), "precision: fidelity", "recall: diversity"),
        "distance against speed": Scatter(points("drawn_per_second", "frechet"), "pictures a second", "Fréchet distance"),
    }
    for name, title in {
        "coverage": "coverage: diversity (higher is better)",
        "evaluations": "network evaluations a picture",
        "bpd": "bits per dimension (lower is better)",
        "mse": "squared error of reconstructions",
    }.items():
        if values := {row.model: row.numbers[name] for row in rows if name in row.numbers}:
            panels[title] = Bars(values, wide=name == "evaluations")
    title = f"{found.count:,} pictures each against {found.reference_count:,} of {found.reference}, extractor {found.extractor}"
    marked(path, f"{title}\n{found.budget}" if found.budget else title, [row.model for row in rows], panels)


@contextmanager
def counting(model: Generator) -> Iterator[list[int]]:
    """A context that counts the evaluations of a network, for each picture of its batches, in a list of their numbers."""
    counted: list[int] = []
    if not isinstance(model, Diffusion):
        yield counted
        return
    hook = model.denoiser.network.register_forward_hook(lambda _, given, __: counted.append(len(given[0])))
    try:
        yield counted
    finally:
        hook.remove()


def kind_of(model: Generator) -> str:
    """A model's kind in words."""
    match model:
        case Autoencoder():
            return "VAE" if model.config.posterior == "gaussian" else "autoencoder"
        case VQVAE():
            return "VQ-VAE"
        case Gan():
            return "GAN"
        case CodePrior():
            return "prior of codes"
        case Diffusion() if model.config.denoiser.latent is not None:
            return "diffusion GAN"
        case Diffusion():
            return "diffusion" if model.space == model.shape else "diffusion in latents"
    return type(model).__name__


def evaluations(model: Generator, counted: list[int], pictures: int) -> float:
    """Evaluations of the network for a picture; of a prior of codes one for each code."""
    if isinstance(model, CodePrior):
        return float(sum(height * width for height, width in (network.size for network in model.config.networks)))
    return sum(counted) / pictures if counted else 1.0
