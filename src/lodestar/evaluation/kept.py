"""Statistics of pictures in a file: the reference in a model's bundle, or the output of ``lodestar stats``.

The file holds moments and, optionally, features in 16 bits (32 in this machine's cache).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from lodestar import checkpoint, library
from lodestar.config import Config, Problem, Side, decode
from lodestar.data import Source
from lodestar.evaluation.extractors import Extractor
from lodestar.evaluation.statistics import Moments, Part, Statistics
from lodestar.files import reading
from lodestar.world import here

KIND = "statistics"
"""Kind of the file among checkpoints."""

ROLE = "reference"
"""Role of such a file in a model's bundle."""


class KeptConfig(Config):
    """The pictures and the extractor of kept statistics."""

    spec: str
    fingerprint: str
    count: int = Field(ge=1, le=1_000_000_000)
    channels: int = Field(ge=1, le=1_024)
    size: tuple[Side, Side]
    extractor: str
    extractor_digest: str
    extractor_dtype: str
    """Number format of the extractor's computation."""


@dataclass(frozen=True)
class Kept:
    """A reference made of kept statistics, in place of a source of pictures."""

    config: KeptConfig
    statistics: Statistics = field(repr=False)

    def __len__(self) -> int:
        return self.config.count

    @property
    def spec(self) -> str:
        """Name of the pictures' source."""
        return self.config.spec

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the pictures' content."""
        return self.config.fingerprint

    @property
    def channels(self) -> int:
        """Channels of the pictures."""
        return self.config.channels

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.config.size

    def of(self, extractor: Extractor) -> Statistics:
        """The statistics. Raises Problem unless the features are of this extractor."""
        if extractor.digest != self.config.extractor_digest:
            raise Problem(
                f"the features kept of {self.spec} are those of the extractor {self.config.extractor} "
                f"({self.config.extractor_digest[:16]}), not of {extractor.name} ({extractor.digest[:16]}): "
                "give --reference PICTURES"
            )
        return self.statistics

    def note(self, extractor: Extractor) -> str | None:
        """Note that the features were computed in another number format than this extractor's; None if not."""
        then, now = self.config.extractor_dtype, extractor.dtype
        return None if then == now else f"reference: its features were computed in {then}, those of the pictures in {now}"


def keep(
    path: str | Path, source: Source, statistics: Statistics, extractor: Extractor, dtype: torch.dtype = torch.float16
) -> None:
    """Write a reference, atomically, its features and logits in `dtype`."""
    config = KeptConfig(
        spec=Path(source.spec).name,
        fingerprint=source.fingerprint,
        count=len(statistics),
        channels=source.channels,
        size=source.size,
        extractor=Path(extractor.name).name,
        extractor_digest=extractor.digest,
        extractor_dtype=extractor.dtype,
    )
    tensors = {
        f"{name}.{what}": getattr(moments, what)
        for name, moments in (("moments", statistics.moments), ("spatial", statistics.spatial))
        for what in ("mean", "scatter")
        if moments is not None
    }
    for name, rows in (("features", statistics.features), ("logits", statistics.logits)):
        if rows is not None:
            tensors[name] = rows.to(dtype)
    checkpoint.save(path, KIND, config.to_json(), tensors, {})


def load(path: str | Path) -> Kept:
    """Read a reference written by `keep`. Raises Problem for a missing, damaged or other file."""
    header, tensors = checkpoint.load(path, KIND)
    config = decode(KeptConfig, header.config, str(path))
    with reading(path):
        moments = _moments(tensors, "moments", config.count)
        spatial = _moments(tensors, "spatial", config.count) if "spatial.mean" in tensors else None
        features, logits = (tensors[name].float() if name in tensors else None for name in ("features", "logits"))
        if features is not None and features.shape[1:] != moments.mean.shape:
            raise ValueError(f"features are {list(features.shape)}, and their mean is {list(moments.mean.shape)}")
        if logits is not None and (features is None or logits.ndim != 2 or len(logits) != len(features)):
            raise ValueError(f"logits are {list(logits.shape)}, and not one row for each of the features")
        return Kept(config, Statistics(moments, spatial, features, logits))


def _moments(tensors: Mapping[str, Tensor], name: str, count: int) -> Moments:
    mean, scatter = tensors[f"{name}.mean"], tensors[f"{name}.scatter"]
    if mean.ndim != 1 or scatter.shape != (len(mean), len(mean)):
        raise ValueError(f"{name} have a mean of {list(mean.shape)} and a scatter of {list(scatter.shape)}")
    return Moments(count, mean, scatter)


def kept(name: str) -> Kept | None:
    """The reference in a model's bundle, if there is one. Raises Problem if it is damaged."""
    found = library.parts(name).get(ROLE)
    return None if found is None else load(found.file)


def cached(
    path: Path, parts: Collection[Part], source: Source, extractor: Extractor, make: Callable[[Collection[Part]], Statistics]
) -> Statistics:
    """The statistics kept at `path` if they have all of `parts`; otherwise those returned by `make`, kept there for next time.

    A damaged file is simply replaced.
    """
    known = None
    if path.exists():
        with contextlib.suppress(Problem):
            known = load(path).of(extractor)
    # All processes make them, or none.
    if not here().any(known is None or not known.parts.issuperset(parts)) and known is not None:
        return known
    parts = parts if known is None else known.parts.union(parts)
    statistics = make(parts)
    keep(path, source, statistics, extractor, torch.float32)
    return statistics
