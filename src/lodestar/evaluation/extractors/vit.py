"""Vision transformers as feature extractors, through `transformers`: DINOv2 and CLIP.

The Fréchet distance of DINOv2's features agrees better with people than Inception's (Stein et al. 2023, arXiv:2306.04675); CLIP's
features are used by CMMD (Jayasumana et al. 2024, arXiv:2401.09603).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar import checkpoint
from lodestar.config import Config, Problem, first_line
from lodestar.evaluation.statistics import FeatureSet
from lodestar.extras import need
from lodestar.nets.precision import choose_device


class Dinov2Features(Config):
    """The class token of DINOv2, after the last norm; by its name on the hub, or its folder."""

    kind: Literal["dinov2"] = "dinov2"
    model: str = "facebook/dinov2-large"

    def load(self, device: str | torch.device | None = None) -> VitExtractor:
        """The extractor. Raises Problem if the model is missing."""
        mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
        # Trained at 518 pixels; published distances are at 224.
        return _load(self, "Dinov2Model", "pooler_output", 224, mean, deviation, device)


class ClipFeatures(Config):
    """CLIP's embedding of a picture, without normalisation; by its name on the hub, or its folder."""

    kind: Literal["clip"] = "clip"
    model: str = "openai/clip-vit-large-patch14-336"

    def load(self, device: str | torch.device | None = None) -> VitExtractor:
        """The extractor. Raises Problem if the model is missing."""
        mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of its training data
        return _load(self, "CLIPVisionModelWithProjection", "image_embeds", None, mean, deviation, device)


@dataclass(frozen=True)
class VitExtractor:
    """A vision transformer as an `Extractor`."""

    name: str
    digest: str
    """SHA-256 of the weights and of the input size."""
    network: torch.nn.Module = field(repr=False)
    output: str
    """Name of the network output used as features [B, D]."""
    side: int
    """Height and width of the network's input."""
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    """Mean and standard deviation of the training data's colours, 0 to 1."""

    channels = 3
    size = None
    resizing = "bicubic, antialiased"
    dtype = "float32"

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> FeatureSet:
        """Features [B, D]; see `Extractor`."""
        assert pictures.dtype == torch.uint8, f"pictures are uint8, not {pictures.dtype}"
        parameter = next(self.network.parameters())
        x = pictures.to(parameter.device).float().expand(-1, self.channels, -1, -1)
        x = bicubic(x, (self.side, self.side)) / 255
        mean, deviation = (x.new_tensor(each).reshape(-1, 1, 1) for each in (self.mean, self.deviation))
        return FeatureSet(getattr(self.network(pixel_values=(x - mean) / deviation), self.output).cpu())


def bicubic(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize floats from 0 to 255 [B, C, H, W] to [B, C, *size], bicubic, antialiased, clamped, not rounded (Parmar et al.
    2022)."""
    return F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)


def _load(
    config: Dinov2Features | ClipFeatures,
    kind: str,
    output: str,
    side: int | None,
    mean: tuple[float, float, float],
    deviation: tuple[float, float, float],
    device: str | torch.device | None,
) -> VitExtractor:
    target, transformers = choose_device(device), need("transformers")
    where: Any = Path(config.model).expanduser()
    # Silences the list of unused parts of the file, such as CLIP's part for texts.
    logging, verbosity = transformers.logging, transformers.logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        model = getattr(transformers, kind)
        network, told = model.from_pretrained(where if where.is_dir() else config.model, output_loading_info=True)
    # The hub, the network, the cache and the model's files each raise exceptions of their own.
    except Exception as error:
        raise Problem(f"extractor {config.kind}: {config.model!r} cannot be loaded: {first_line(error)}") from None
    finally:
        logging.set_verbosity(verbosity)
    if told["missing_keys"]:
        raise Problem(
            f"extractor {config.kind}: {config.model!r} is another kind of model: it has no {min(told['missing_keys'])}"
        )
    side = side or network.config.image_size
    digest = checkpoint.content_digest({"kind": config.kind, "config": str(side)}, network.state_dict())
    name = f"{config.kind}:{config.model}"
    return VitExtractor(name, digest, network.requires_grad_(False).eval().to(target), output, side, mean, deviation)
