"""Data: `label` of pictures that have no classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar.cli.options import LAST_SEED, BatchSize, DataSource, Device, ExtractorName, show


def label(
    data: DataSource,
    out: Annotated[Path, typer.Option("--out", help="The parquet file to write.")] = Path("labelled.parquet"),
    clusters: Annotated[int, typer.Option("--clusters", min=2, max=100_000, help="How many classes to find.")] = 10,
    seed: Annotated[int, typer.Option("--seed", min=0, max=LAST_SEED, help="Seed of the clusters' first centres.")] = 0,
    batch_size: BatchSize = 64,
    extractor: ExtractorName = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be decoded.")] = False,
    device: Device = None,
) -> None:
    """Find classes in unlabelled pictures: clusters of their features, written as a data set to train on."""
    from lodestar.data import open_source
    from lodestar.evaluation import extractors
    from lodestar.evaluation.cluster import label as run

    measured_with = extractors.load_extractor(extractor or extractors.DEFAULT, device)
    source = open_source(data, channels=measured_with.channels, size=measured_with.size, labels=None, skip_bad=skip_bad)
    found = run(source, measured_with, clusters, out, seed=seed, batch_size=batch_size)
    show(found.table())
    print(out)
