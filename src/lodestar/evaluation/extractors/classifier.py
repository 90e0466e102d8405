"""A classifier of this project as a feature extractor.

Features are the input of the last layer, logits those of the score. Spatial features are the first channels of the map before
pooling, flattened, as Nash et al. take them from Inception; they keep the positions of things.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar import library
from lodestar.codecs import pixels
from lodestar.config import Config
from lodestar.evaluation.extractors.base import SPATIAL_CHANNELS
from lodestar.evaluation.statistics import FeatureSet
from lodestar.models.classifier import PictureClassifier
from lodestar.nets.precision import name_of


class ClassifierFeatures(Config):
    """Features of a classifier, by its name, run or file (`lodestar.library.find`)."""

    kind: Literal["classifier"] = "classifier"
    model: str = "cifar10_features"

    def load(self, device: str | torch.device | None = None) -> ClassifierExtractor:
        """The extractor. Raises Problem if the classifier is missing or damaged."""
        classifier = library.load_classifier(self.model, device, torch.float32)
        return ClassifierExtractor(self.model, classifier.digest, classifier)


@dataclass(frozen=True)
class ClassifierExtractor:
    """A classifier of pictures as an `Extractor`."""

    name: str
    digest: str
    """SHA-256 of its configuration and weights."""
    model: PictureClassifier = field(repr=False)

    resizing = "bilinear, antialiased"

    @property
    def channels(self) -> int:
        return self.model.config.network.in_channels

    @property
    def size(self) -> tuple[int, int]:
        return self.model.config.size

    @property
    def dtype(self) -> str:
        return name_of(self.model.dtype)

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> FeatureSet:
        """Features [B, D], logits [B, K] and, with a pooled map, spatial features [B, 7·H'·W']; see `Extractor`."""
        assert pictures.dtype == torch.uint8, f"pictures are uint8, not {pictures.dtype}"
        x = pixels.encode(pictures.to(next(self.model.parameters()).device))
        if x.shape[-2:] != self.size:
            # Shrinking without the filter aliases, which would change the distance (Parmar et al. 2022, arXiv:2104.11222).
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True, align_corners=False)
        x = x.expand(-1, self.channels, -1, -1)
        self.model.eval()
        told = self.model.told(x)
        spatial = None if told.maps is None else told.maps[:, :SPATIAL_CHANNELS].flatten(1).cpu()
        return FeatureSet(told.features.cpu(), told.logits.cpu(), spatial)
