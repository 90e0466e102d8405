"""`reproduce`: the rows of published tables, made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar.cli.options import BatchSize, Device, ExtractorName, Out, Reference, Seed, show, tell
from lodestar.config import COUNT


def reproduce(
    row: Annotated[str | None, typer.Argument(help="A row: adm-g-256, adm-64 …; none lists them.")] = None,
    models: Annotated[
        Path, typer.Option("--models", help="The folder of converted models (lodestar convert openai/NAME --out models).")
    ] = Path("models"),
    reference: Reference = None,
    count: Annotated[
        int, typer.Option("--count", min=1, max=COUNT, help="How many pictures to sample; the tables have 50,000.")
    ] = 50_000,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    extractor: ExtractorName = None,
    device: Device = None,
    out: Out = None,
) -> None:
    """Make a row of a published table again: its settings, the numbers measured and those printed, side by side."""
    from lodestar.config import choose
    from lodestar.evaluation import extractors, run
    from lodestar.evaluation.metrics import PUBLISHED
    from lodestar.evaluation.reference import open_reference
    from lodestar.evaluation.report import REPORT
    from lodestar.files import check_writable
    from lodestar.presets import recipes

    if row is None:
        show(recipes.listing())
        return
    recipe = choose("row", row, recipes.RECIPES)
    if out is not None:
        check_writable(out / REPORT)
    network, guides = recipes.load(recipe, models, device)
    against = str(recipes.reference_file(recipe, reference))
    measured_with = extractors.load_extractor(extractor or "inception", device)
    source = open_reference(against, None, measured_with, network.shape[1:], metrics=PUBLISHED, batch_size=batch_size)
    asked = recipes.drawn(recipe, network, guides, count, seed)
    how = run.Measurement(metrics=PUBLISHED, batch_size=batch_size, title=row)
    report = run.measure(network, asked, source, measured_with, guides=guides, run=how)
    show(recipes.comparison(recipe, report.numbers, count))
    tell(report, out)
