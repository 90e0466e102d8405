"""References of a measurement: pictures, or kept statistics.

Statistics of pictures on disk are kept in a folder, under a key of their content and the extractor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lodestar.config import Problem
from lodestar.data import Pictures, Source, open_source, sequential
from lodestar.evaluation.extractors import DEFAULT, Extractor, load_extractor
from lodestar.evaluation.kept import Kept, cached, kept, load
from lodestar.evaluation.metrics import METRICS, FeatureMetric
from lodestar.evaluation.metrics.base import compared
from lodestar.evaluation.published import is_published, published
from lodestar.evaluation.statistics import PARTS, Collector, Part, Statistics
from lodestar.files import CACHE, cache_folder
from lodestar.progress import error_console, progress
from lodestar.world import here

_RECIPE = "2"
"""Version of the conversion from pictures to features (size, range, order); kept features of another version are made again."""


Reference = str | Path | Source | Pictures | Kept | None
"""Pictures or statistics to compare with, in any form; None: the statistics in the model's bundle."""


def choose_extractor(given: str | Path | Extractor | None, reference: Reference, device: Any = None) -> Extractor:
    """The extractor that is given, or the one of this name; default Inception with a published reference, else the package's.

    device: default a GPU where there is one. Raises Problem.
    """
    if given is not None and not isinstance(given, str | Path):
        return given
    published = isinstance(reference, str | Path) and is_published(str(reference))
    return load_extractor(given or ("inception" if published else DEFAULT), device)


def open_reference(
    spec: Reference,
    model: str | None,
    extractor: Extractor,
    size: tuple[int, int],
    *,
    metrics: Sequence[FeatureMetric] | None = None,
    batch_size: int = 64,
) -> Source | Kept:
    """The reference pictures, or kept statistics: of a file, or of the embedded model without a `spec`.

    spec: a path or a name, or pictures that are there in Python, as `lodestar.data.open_source` takes them. size: height and
    width of the measured pictures; the reference's are resized and cropped to this size, as for training. metrics, batch_size: as
    in `evaluate`; of a published reference, only the statistics that the metrics need are computed. Raises Problem.
    """
    spec = str(spec) if isinstance(spec, Path) else spec
    if isinstance(spec, Kept):
        return spec
    if isinstance(spec, str) and Path(spec).suffix == ".safetensors":
        reference: Kept | None = load(spec)
    elif isinstance(spec, str) and is_published(spec):
        parts = compared(METRICS if metrics is None else metrics) & {"features"}

        def features(pictures: Source) -> Tensor | None:
            return known_of(pictures, extractor, parts, batch_size=batch_size).features if parts else None

        reference = published(spec, extractor, features)
    elif spec is not None:
        return open_source(spec, channels=extractor.channels, size=size, labels=False)
    else:
        reference = None if model is None else kept(model)
    if reference is None:
        raise Problem(
            "--reference is missing: the pictures to compare with (a parquet, .npz, .zip or tar file, a folder, hf:owner/name), "
            "or a file of lodestar stats"
        )
    return reference


def known_of(
    source: Source | Kept,
    extractor: Extractor,
    parts: Collection[Part] = PARTS,
    *,
    batch_size: int = 64,
    cache: Path | None = None,
) -> Statistics:
    """Statistics of all pictures of a source, with at least `parts`, from `cache` if kept. Raises Problem."""
    if isinstance(source, Kept):
        return source.of(extractor)
    folder = (cache or cache_folder()) / "statistics"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise Problem(f"cannot keep statistics in {folder} ({reason}): name another folder in ${CACHE}") from error
    # Without permission to skip, every picture has to be readable; a source with skips has other features.
    strictness = "skip" if source.skip_bad else "strict"
    key = " ".join((_RECIPE, source.fingerprint, strictness, extractor.digest, extractor.dtype))
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"

    def make(more: Collection[Part]) -> Statistics:
        return collect(source, extractor, Collector(more, world=here()), batch_size)

    return cached(path, parts, source, extractor, make)


def collect(source: Source, extractor: Extractor, into: Collector, batch_size: int = 64) -> Statistics:
    """Pass all pictures of a source through an extractor, once, a share of them in each process. Raises Problem."""
    rows = into.world.rows(len(source))
    with progress(f"features of {source.spec}", len(rows), console=error_console(into.world.rank > 0)) as done:
        for number, batch in enumerate(sequential(source, batch_size, rows), start=1):
            into.add(extractor(batch.image))
            done(min(number * batch_size, len(rows)))
    return into.statistics()
