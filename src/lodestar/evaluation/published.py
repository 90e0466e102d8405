"""Published references: .npz files of Inception's means and covariances, most with pictures too.

guided-diffusion's have ``mu``, ``sigma`` [2048] and ``mu_s``, ``sigma_s`` [2023] (spatial) of a whole data set, and 10,000 of its
pictures in ``arr_0`` for precision and recall; pytorch-fid's and EDM's have ``mu`` and ``sigma`` alone.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lodestar.config import Problem
from lodestar.data import Source
from lodestar.data.columns import Asked
from lodestar.data.npz import PICTURES, NpzRows, array, names, open_npz
from lodestar.evaluation.extractors import Extractor, InceptionExtractor
from lodestar.evaluation.extractors.inception import SPATIAL
from lodestar.evaluation.kept import Kept, KeptConfig
from lodestar.evaluation.statistics import Moments, Statistics
from lodestar.files import sha256
from lodestar.nets.inception import FEATURES, SIDE


@dataclass(frozen=True)
class Published(Kept):
    """A published reference, used like `Kept`."""

    def note(self, extractor: Extractor) -> str:
        """Source of the means and covariances, in words."""
        features = self.statistics.features
        held = "" if features is None else f"; features are those of its {len(features)} pictures"
        return f"reference: means and covariances are the file's, which does not say of how many pictures{held}"


def is_published(spec: str) -> bool:
    """True for an .npz file of means and covariances. Raises Problem if it is damaged."""
    path = Path(spec).expanduser()
    if path.suffix != ".npz" or not path.is_file():
        return False
    with open_npz(path) as archive:
        return "mu" in names(archive)


def published(spec: str, extractor: Extractor, features: Callable[[Source], Tensor | None]) -> Published:
    """Read a published reference; `features` returns the features [N, 2048] of its pictures.

    Raises Problem for a damaged file, and for another extractor than Inception.
    """
    if not isinstance(extractor, InceptionExtractor):
        raise Problem(f"{spec} holds statistics of Inception's features, not of {extractor.name}'s: give --extractor inception")
    path = Path(spec).expanduser()
    with open_npz(path) as archive:
        held = names(archive)
        pictures = Source(NpzRows(path, spec, Asked(labels=False)), spec) if PICTURES in held else None
        # The number of pictures is not in the file. It exceeds that of features, or the field would not compare with them.
        count = max(FEATURES + 1, 0 if pictures is None else len(pictures))
        moments = _moments(archive, "mu", "sigma", FEATURES, count, spec)
        spatial = _moments(archive, "mu_s", "sigma_s", SPATIAL, count, spec) if "mu_s" in held else None
    config = KeptConfig(
        spec=spec,
        fingerprint=sha256(path),
        count=count,
        channels=extractor.channels,
        size=(SIDE, SIDE) if pictures is None else pictures.size,
        extractor=extractor.name,
        extractor_digest=extractor.digest,
        extractor_dtype=extractor.dtype,
    )
    return Published(config, Statistics(moments, spatial, None if pictures is None else features(pictures)))


def _moments(archive: zipfile.ZipFile, mean: str, covariance: str, width: int, count: int, spec: str) -> Moments:
    """The moments with mean [width] and covariance [width, width] under these names. Raises Problem."""
    found = []
    for name, shape in ((mean, [width]), (covariance, [width, width])):
        if name not in names(archive):
            raise Problem(f"{spec} holds no {name}: it holds {', '.join(names(archive))}")
        value = array(archive, name, spec)
        if list(value.shape) != shape or value.dtype.kind != "f":
            raise Problem(f"{spec}: {name} is {value.dtype} {list(value.shape)}, and Inception's is float {shape}")
        found.append(torch.from_numpy(value).double())
        if not found[-1].isfinite().all():
            raise Problem(f"{spec}: {name} is not finite")
    return Moments(count, found[0], found[1] * (count - 1))
