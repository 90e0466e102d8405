"""Synthetic classes for pictures without labels: clusters of their features (Hu et al. 2023, "Self-Guided Diffusion Models").

A model conditional on the clusters can be guided like one of human classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.table import Table
from torch import Tensor

from lodestar.config import Problem
from lodestar.core.noise import seeds_from
from lodestar.data import Source, sequential
from lodestar.data.parquet import write_parquet
from lodestar.evaluation.extractors import Extractor, note
from lodestar.extras import need
from lodestar.files import check_writable
from lodestar.progress import progress

_STARTS = 10
"""Number of k-means initializations; the best result is kept."""


@dataclass(frozen=True)
class Clusters:
    """The cluster of each picture, and the agreement of clusters with the data's own labels, if any."""

    labels: np.ndarray = field(repr=False)
    """Cluster of each picture, int64 [N]; cluster 0 is the largest."""
    sizes: tuple[int, ...]
    information: float | None
    """Normalised mutual information of clusters and labels, 0 to 1; None without labels."""
    purity: float | None
    """Share of pictures whose label is the most common in their cluster; None without labels."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"cluster-{number}" for number in range(len(self.sizes)))

    def table(self) -> Table:
        """A table for display: the sizes, then the agreement."""
        table = Table(box=box.SIMPLE, show_header=False)
        for name, size in zip(self.names, self.sizes, strict=True):
            table.add_row(name, f"{size:,} pictures")
        if self.information is not None and self.purity is not None:
            table.add_section()
            table.add_row("normalised mutual information with the labels", f"{self.information:.3f}")
            table.add_row("purity", f"{self.purity:.3f}")
        return table


def label(
    source: Source,
    extractor: Extractor,
    clusters: int,
    out: Path,
    *,
    seed: int = 0,
    batch_size: int = 64,
) -> Clusters:
    """Cluster a source's pictures and write them, their files untouched, with these classes to the parquet file `out`.

    Pictures that cannot be decoded are left out if the source may skip them. Raises Problem, also for more clusters than
    pictures, and if `out` exists.
    """
    if out.exists():
        raise Problem(f"{out} exists: choose another --out, or remove it")
    check_writable(out)
    seeds_from(seed, 1)
    _check(clusters, len(source), source.spec)
    note(extractor, source.spec, source.channels, source.size)
    features = []
    with progress(f"features of {source.spec}", len(source)) as done:
        for batch in sequential(source, batch_size):
            features.append(extractor(batch.image).features)
            done(sum(map(len, features)))
    found = np.array([k for k in range(len(source)) if k not in source.bad])
    _check(clusters, len(found), source.spec)
    result = cluster(torch.cat(features), clusters, None if source.rows.labels is None else source.rows.labels[found], seed)

    def pictures() -> Iterator[tuple[bytes, int]]:
        for index, number in zip(found, result.labels, strict=True):
            yield source.rows.encoded(int(index)), int(number)

    write_parquet(out, pictures(), result.names)
    return result


def cluster(features: Tensor, count: int, truth: np.ndarray | None = None, seed: int = 0) -> Clusters:
    """k-means (Lloyd's, begun by k-means++) over features [N, D] of unit variance each; truth: the pictures' labels [N].

    Raises Problem if fewer than `count` pictures differ.
    """
    kmeans, metrics = need("sklearn.cluster").KMeans, need("sklearn.metrics")
    values = features.double().numpy()
    # Far from an extractor's training data, its features differ much in scale, and a few would dominate.
    values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # equal pictures are reported below, in our words
        raw = kmeans(count, n_init=_STARTS, random_state=_random(seed)).fit_predict(values)
    sizes = np.bincount(raw, minlength=count)
    if not sizes.all():
        raise Problem(f"--clusters {count}: only {int((sizes > 0).sum())} of the {len(values)} pictures differ in their features")
    order = np.argsort(-sizes, kind="stable")
    labels = np.argsort(order)[raw]
    if truth is None:
        return Clusters(labels, tuple(sizes[order].tolist()), None, None)
    joint = np.zeros((count, int(truth.max()) + 1), np.int64)
    np.add.at(joint, (labels, truth), 1)
    information = float(metrics.normalized_mutual_info_score(truth, labels))
    return Clusters(labels, tuple(sizes[order].tolist()), information, float(joint.max(1).sum() / len(labels)))


def _random(seed: int) -> int | np.random.RandomState:
    """A seed for scikit-learn: numbers of 32 bits, and above them a generator. Raises Problem beyond 64 bits."""
    (seed,) = seeds_from(seed, 1)
    return seed if seed < 2**32 else np.random.RandomState(np.random.MT19937(seed))


def _check(clusters: int, pictures: int, spec: str) -> None:
    if clusters > pictures:
        raise Problem(f"--clusters {clusters}: {spec} has only {pictures} pictures")
