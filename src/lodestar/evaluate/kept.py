"""References whose features are kept in a file, so that an embedded model can be measured without its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lodestar import library
from lodestar.config import Config, Problem, decode
from lodestar.data import Source
from lodestar.evaluate.extractors import Extractor
from lodestar.evaluate.statistics import FeatureSet, load, save

FOLDER = library.WEIGHTS / "references"
"""Where those of the embedded models are, under the models' names."""


class KeptConfig(Config):
    """What the pictures were, and who extracted their features."""

    spec: str
    fingerprint: str
    channels: int
    size: tuple[int, int]
    extractor_digest: str
    extractor_dtype: str | None = None
    """The number format that it computed in; None if that was not written down."""


@dataclass(frozen=True)
class Kept:
    """A reference as `lodestar.evaluate.run` takes it, in place of a source of pictures."""

    config: KeptConfig
    features: FeatureSet = field(repr=False)

    def __len__(self) -> int:
        return len(self.features)

    @property
    def spec(self) -> str:
        """What its pictures were called."""
        return self.config.spec

    @property
    def fingerprint(self) -> str:
        """Of its pictures' content."""
        return self.config.fingerprint

    @property
    def channels(self) -> int:
        """Of its pictures."""
        return self.config.channels

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its pictures."""
        return self.config.size

    def of(self, extractor: Extractor) -> FeatureSet:
        """The features. Raises Problem unless this extractor made them."""
        if extractor.digest != self.config.extractor_digest:
            raise Problem(
                f"the features kept of {self.spec} are another extractor's, not {extractor.name}'s: give --reference PICTURES"
            )
        return self.features

    def note(self, extractor: Extractor) -> str | None:
        """That the features were computed in another number format than this extractor's, in words; None if they were not."""
        then, now = self.config.extractor_dtype, extractor.dtype
        return None if then in (None, now) else f"reference: its features were computed in {then}, those of the pictures in {now}"


def keep(path: Path, source: Source, features: FeatureSet, extractor: Extractor) -> None:
    """Write a reference, atomically, its features in 16 bits."""
    config = KeptConfig(
        spec=Path(source.spec).name,
        fingerprint=source.fingerprint,
        channels=source.channels,
        size=source.size,
        extractor_digest=extractor.digest,
        extractor_dtype=extractor.dtype,
    )
    logits = None if features.logits is None else features.logits.half()
    save(path, FeatureSet(features.features.half(), logits), config.to_json())


def kept(name: str) -> Kept | None:
    """The reference that is kept for an embedded model, if there is one. Raises Problem if it is damaged."""
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        return None
    features, config = load(path)
    return Kept(decode(KeptConfig, config, str(path)), features)
