"""Data: `label` of pictures that have no classes, `pack` of pictures into shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar.cli.options import LAST_SEED, BatchSize, DataSource, Device, ExtractorName, show
from lodestar.config import COUNT


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


def pack(
    data: DataSource,
    out: Annotated[
        str, typer.Option("--out", help="The shards' names, with a field for their number: 'shards/train-{:05d}.tar'.")
    ],
    size: Annotated[
        int | None, typer.Option("--size", min=1, max=16_384, help="Resize and crop to this side; default: as they are.")
    ] = None,
    pictures: Annotated[int, typer.Option("--pictures", min=1, max=COUNT, help="How many pictures in a shard.")] = 10_000,
    captions: Annotated[bool, typer.Option("--captions", help="Pack the captions too.")] = False,
    caption_column: Annotated[
        str | None, typer.Option("--caption-column", help="The column of captions, or several with commas and patterns.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out and count pictures that cannot be read.")] = False,
) -> None:
    """Pack pictures into tars of webdataset's form, with classes and captions. The same command again goes on."""
    from lodestar.data import open_source
    from lodestar.data.pack import pack as run

    source = open_source(data, size=size, labels=None, captions=captions, caption_column=caption_column, skip_bad=skip_bad)
    shards = run(source, out, pictures)
    left_out = f", {len(source.bad):,} left out" if source.bad else ""
    print(f"{shards[0]}{f' … {shards[-1]}' if len(shards) > 1 else ''}: {len(source) - len(source.bad):,} pictures{left_out}")
