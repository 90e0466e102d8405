"""Feature extractors: what turns pictures into the vectors that they are measured by.

Numbers compare only where the extractor is the same, so every result names it and its digest. Here it is a classifier of this
project; its features are what its classes are told from, its logits what the score is made of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar import library
from lodestar.codecs import pixels
from lodestar.config import Problem
from lodestar.data.transforms import show
from lodestar.evaluate.statistics import FeatureSet
from lodestar.models.classifier import PictureClassifier

DEFAULT = "cifar10_features"
"""The extractor in the package."""


@dataclass(frozen=True)
class Extractor:
    """A classifier of pictures as a feature extractor. Called with pictures uint8 [B, C, H, W], it answers their features."""

    name: str
    digest: str
    """SHA-256 of its configuration and weights."""
    classifier: PictureClassifier = field(repr=False)

    @property
    def channels(self) -> int:
        """Colour channels of the pictures that it sees: 1 (grey) or 3."""
        return self.classifier.config.network.in_channels

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures that it sees."""
        return self.classifier.config.size

    @property
    def dtype(self) -> str:
        """The number format that it computes in: the same extractor in another one gives slightly other numbers."""
        return str(self.classifier.dtype).removeprefix("torch.")

    def note(self, what: str, channels: int, size: tuple[int, int]) -> str | None:
        """What is done to pictures of `size` (height, width) before they are seen, in words; None for nothing.

        Raises Problem for colour pictures where it sees grey ones: their colours would go unmeasured.
        """
        if channels not in (1, self.channels):
            raise Problem(f"{what}: pictures of {channels} channels, and the extractor {self.name} sees {self.channels} (grey)")
        done = [] if channels == self.channels else ["taken as colour pictures"]
        done += [] if size == self.size else [f"resized from {show(size)} to {show(self.size)} (bilinear, antialiased)"]
        return f"{what}: {' and '.join(done)} for the extractor" if done else None

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> FeatureSet:
        """Features float32 [B, D] and logits [B, K], on the CPU. Raises Problem if any is not finite."""
        assert pictures.dtype == torch.uint8, f"pictures are uint8, not {pictures.dtype}"
        x = pixels.encode(pictures.to(next(self.classifier.parameters()).device))
        if x.shape[-2:] != self.size:
            # Shrinking without the filter aliases, and the distance would measure that (Parmar et al. 2022, arXiv:2104.11222).
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True, align_corners=False)
        x = x.expand(-1, self.channels, -1, -1)
        self.classifier.eval()
        features, logits = self.classifier.told(x)
        return FeatureSet(features.cpu(), logits.cpu())


def load_extractor(name: str | Path = DEFAULT, device: str | torch.device | None = None) -> Extractor:
    """The classifier that `name` names (`lodestar.library.find`) as an extractor. Raises Problem if there is no sound one."""
    classifier = library.load(name, device, kind="classifier")
    assert isinstance(classifier, PictureClassifier)
    return Extractor(str(name), classifier.digest, classifier)
