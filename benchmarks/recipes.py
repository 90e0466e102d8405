"""A race of training recipes: the Fréchet distance of every average of every run, as one Markdown table.

    python benchmarks/recipes.py runs/race [more runs …] [--count 2000] [--guidance 1,1.5] [--reference cifar10]

A folder is a run's, or has runs in it. Runs that differ in their seed alone are one recipe, called as the first of their folders
without the number at its end; the mean of several has a line of its own, with its 95 % interval over the trainings. Measurements
are kept in the runs' folders, so that the same command goes on where it was. docs/recipes.md says how a race is run.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lodestar import bundle, checkpoint, library
from lodestar.config import Problem, decode
from lodestar.evaluation.extractors import Extractor, load_extractor
from lodestar.evaluation.measured import measured
from lodestar.evaluation.reference import open_reference
from lodestar.evaluation.repeats import half_width
from lodestar.evaluation.run import Measurement
from lodestar.generators.request import settings
from lodestar.models.diffusion import DiffusionConfig
from lodestar.models.first import upgraded
from lodestar.training.names import RUN as FILE
from lodestar.training.run import Run

KEPT = "recipes"
"""Folder of the measurements in a run's."""

Column = tuple[str, float]
"""An average's label, and a scale of guidance."""


@dataclass(frozen=True)
class Entry:
    """A run of the race."""

    folder: Path
    run: Run
    images: int
    seconds: float
    distances: dict[Column, float] = field(default_factory=dict)

    @property
    def averages(self) -> dict[str, Path]:
        """Files of the run's averages by label; the first is the model's."""
        first, *more = (profile.label for profile in self.run.train.ema)
        model = self.folder / library.MODEL
        return {first: model} | {label: model.with_name(f"{model.stem}-{label}{model.suffix}") for label in more}

    @property
    def recipe(self) -> str:
        """The run's settings without its seed."""
        return self.run.replace(train=self.run.train.replace(seed=0)).to_json()

    @property
    def name(self) -> str:
        """The folder's name without a number at its end."""
        return re.sub(r"[-_.](seed|s)?\d+$", "", self.folder.name)


def entries(folders: Sequence[Path]) -> Iterator[Entry]:
    """The runs in these folders, in the order of their names. Raises Problem where there is none."""
    for folder in folders:
        found = sorted(path.parent for path in folder.rglob(FILE))
        if not found:
            raise Problem(f"{folder} holds no run: a folder with {FILE} in it, or with such folders")
        for each in found:
            run = decode(Run, upgraded((each / FILE).read_text(encoding="utf-8")), str(each / FILE))
            known = checkpoint.peek(library.find(each)).provenance
            yield Entry(each, run, known["images_seen"], known["seconds"])


def measure(entry: Entry, options: argparse.Namespace, extractor: Extractor) -> None:
    """Measure a run's averages, with guidance only where the model was trained for it. Raises Problem."""
    config = library.config(entry.folder)
    if not isinstance(config, DiffusionConfig):
        raise Problem(f"{entry.folder} makes no pictures: a race is of diffusion models")
    name: str = options.reference
    reference = open_reference(None if name in bundle.embedded() else name, name, extractor, config.size)
    for label, path in entry.averages.items():
        for scale in options.guidance if config.droppable else {1.0}.intersection(options.guidance):
            guidance = () if scale == 1 else f"cfg:{scale:g}"
            report = measured(
                entry.folder / KEPT / f"{label}-{scale:g}.json", path, reference, extractor,
                count=options.count, seed=options.seed,
                how=settings(steps=options.steps, sampler=options.sampler, guidance=guidance),
                run=Measurement(batch_size=options.batch_size, title=f"{entry.folder}, {label}, guidance {scale:g}"),
            )  # fmt: skip
            entry.distances[label, scale] = report["numbers"]["frechet"]


def table(found: Sequence[Entry]) -> list[str]:
    """The lines of the table: a line for each run, and one for the mean of several."""
    columns = list(dict.fromkeys(column for entry in found for column in entry.distances))
    heads = ["recipe", "seed", "images", "seconds", *(f"{label}, guidance {scale:g}" for label, scale in columns)]
    lines = [f"| {' | '.join(heads)} |", "|---|---" + "|---:" * (len(heads) - 2) + "|"]
    grouped: dict[str, list[Entry]] = {}
    for entry in found:
        grouped.setdefault(entry.recipe, []).append(entry)
    for runs in grouped.values():
        name = runs[0].name
        for entry in runs:
            cells = [_cell(entry.distances.get(column)) for column in columns]
            numbers = [str(entry.run.train.seed), f"{entry.images:,}", f"{entry.seconds:,.0f}"]
            lines.append(f"| {' | '.join([name, *numbers, *cells])} |")
        if len(runs) > 1:
            means = [_mean([entry.distances.get(column) for entry in runs]) for column in columns]
            numbers = [f"mean of {len(runs)}", f"{statistics.mean(entry.images for entry in runs):,.0f}"]
            numbers.append(f"{statistics.mean(entry.seconds for entry in runs):,.0f}")
            lines.append(f"| {' | '.join([f'**{name}**', *numbers, *means])} |")
    return lines


def _cell(distance: float | None) -> str:
    return "" if distance is None else f"{distance:.2f}"


def _mean(distances: Sequence[float | None]) -> str:
    known = [distance for distance in distances if distance is not None]
    if len(known) < len(distances):
        return ""
    return f"{statistics.mean(known):.2f} ± {half_width(known):.2f}"


def main() -> None:
    """Measure the runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs, or of folders of runs")
    parser.add_argument("--count", type=int, default=2_000, help="pictures for each Fréchet distance")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first picture, the same for all")
    parser.add_argument("--steps", default="trailing:20")
    parser.add_argument("--sampler", default="dpmpp")
    parser.add_argument("--guidance", type=lambda text: [float(each) for each in text.split(",")], default=[1.0, 1.5])
    parser.add_argument("--reference", default="cifar10", help="an embedded model, whose reference it is, or pictures")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        found, extractor = list(entries(options.runs)), load_extractor()
        for entry in found:
            measure(entry, options, extractor)
    except Problem as problem:
        parser.exit(2, f"{problem}\n")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
