"""CLIPScore: how well pictures suit their prompts, by the cosine of a CLIP's embeddings.

Hessel et al. 2021, arXiv:2104.08718, section 3: CLIPScore = w · max(cos(c, v), 0) with w = 2.5, of the embeddings of caption and
picture, averaged over the pictures. Prompts longer than the CLIP's context are cut, as there. Numbers compare for the same CLIP
alone, and flatter pictures that were guided by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.config import Problem
from lodestar.evaluation.metrics.base import Marker, PromptedMetric
from lodestar.evaluation.repeats import Share
from lodestar.generators.guide import Guide
from lodestar.models.clip import PictureClip
from lodestar.nets.clip import unit

_WEIGHT = 2.5


class ClipScore(PromptedMetric):
    """CLIPScore ``clip_score`` and the mean cosine ``clip_cosine``, by the CLIP in role "clip_score", else by the one in role
    "clip"."""

    kind: Literal["clip_score"] = "clip_score"
    roles: ClassVar[tuple[str, ...]] = ("clip_score", "clip")

    def marker(self, guide: Guide | None) -> Marker:
        if guide is None:
            raise Problem(
                f"metric {self.kind!r} needs a CLIP, and the model has none of its own: give one with --guide clip=MODEL"
            )
        if not isinstance(guide, PictureClip):
            raise Problem(f"metric {self.kind!r} needs a CLIP, and {getattr(guide, 'name', '') or 'the guide'} is none")
        if guide.config.network.image.in_channels != 3:
            raise Problem(f"metric {self.kind!r}: {guide.name or 'this CLIP'} sees grey pictures, and scored are those in colour")

        @torch.inference_mode()
        def cosines(pictures: Tensor, prompts: Sequence[str]) -> Tensor:
            seen = unit(guide.image_features(pixels.encode(pictures.to(guide.device))))
            return (seen * unit(guide.text_features(prompts, cut=True))).sum(dim=1, keepdim=True).double().cpu()

        return cosines

    def __call__(self, marks: Tensor) -> Mapping[str, float | Share]:
        return {"clip_score": float(_WEIGHT * marks.clamp(min=0).mean()), "clip_cosine": float(marks.mean())}
