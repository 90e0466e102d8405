"""Inception-v3 as a feature extractor, used for published FID, sFID, Inception score, precision and recall.

As in OpenAI's evaluator (guided-diffusion, ``evaluations/evaluator.py``): pictures are resized as in TensorFlow 1, features are
pool_3 [2048], spatial features the first 7 channels of mixed_6/conv at 17 × 17 places [2023], logits 1008 class logits without
bias.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lodestar import checkpoint
from lodestar.config import Config
from lodestar.conversion import foreign
from lodestar.download import fetch
from lodestar.evaluation.extractors.base import SPATIAL_CHANNELS
from lodestar.evaluation.statistics import FeatureSet
from lodestar.files import sha256
from lodestar.nets.inception import Inception, prepare
from lodestar.nets.precision import choose_device, place

URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
"""Address of the weights of TensorFlow's graph, ported (pytorch-fid; torch-fidelity has the same file). 96 MB."""
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

SPATIAL = SPATIAL_CHANNELS * 17 * 17
"""Number of spatial features."""


class InceptionFeatures(Config):
    """Features of Inception-v3, with the weights at `URL` or in a file."""

    kind: Literal["inception"] = "inception"
    weights: str | None = None
    """File of the weights; None is the published one, from the cache folder or fetched into it."""

    def load(self, device: str | torch.device | None = None) -> InceptionExtractor:
        """The extractor. Raises Problem if the weights are missing."""
        target = choose_device(device)
        path = fetch(URL, SHA256) if self.weights is None else Path(self.weights).expanduser()
        tensors = foreign.read(path)
        with torch.device("meta"):
            network = Inception()
        checkpoint.fill(network, {name: tensors.get(name, torch.tensor(0)) for name in tensors | _counters(network)}, path)
        place(network.requires_grad_(False).eval(), target)
        return InceptionExtractor("inception" if self.weights is None else f"inception:{self.weights}", sha256(path), network)


@dataclass(frozen=True)
class InceptionExtractor:
    """Inception-v3 as an `Extractor`."""

    name: str
    digest: str
    """SHA-256 of the file of weights."""
    network: Inception = field(repr=False)

    channels = 3
    size = None
    resizing = "as in TensorFlow 1, not antialiased"
    dtype = "float32"

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> FeatureSet:
        """Features [B, 2048], logits [B, 1008], spatial features [B, 2023], by row, column and channel; see `Extractor`."""
        assert pictures.dtype == torch.uint8, f"pictures are uint8, not {pictures.dtype}"
        x = pictures.to(self.network.fc.weight.device).expand(-1, self.channels, -1, -1)
        # GPUs' short floats (TF32) would change distances published to three digits.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            features, logits, maps = self.network(prepare(x).contiguous(memory_format=torch.channels_last))
        # This is the order of the published references' covariances.
        spatial = maps[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        return FeatureSet(features.cpu(), logits.cpu(), spatial.cpu())


def _counters(network: Inception) -> dict[str, Tensor]:
    """Batch counters of the norms from training: some files have them, and nothing depends on them."""
    return {name: tensor for name, tensor in network.state_dict().items() if name.endswith("num_batches_tracked")}
