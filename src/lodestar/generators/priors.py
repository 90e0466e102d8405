"""Priors: settings of the way from a prompt to a picture's embedding, one method a class. `KINDS` lists them.

The models behind them are parts of an `UnClip`'s bundle, under the role of their method.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.conditions import Ask
from lodestar.config import SEEDS, Config, Kinds, Problem
from lodestar.core.plan import PlanText
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.request import Request, Settings
from lodestar.guidance import CFG
from lodestar.models.autoregressive import AutoregressivePrior
from lodestar.models.clip import PictureClip
from lodestar.nets.clip import unit

_APART = 2**40
"""Distance of the seeds of a picture's candidates, so that no noise is that of another picture, or of the decoder."""


class Prior(Config, abc.ABC):
    """A way from prompts to embeddings of pictures."""

    kind: str

    @property
    @abc.abstractmethod
    def role(self) -> str | None:
        """Role of the model in a bundle; None without a model."""

    @abc.abstractmethod
    def embed(self, model: Any, clip: PictureClip, asks: Sequence[Ask]) -> Tensor:
        """Embeddings float32 [B, E] for the texts of asks, each of its own seed; model: the one in the role."""


class DiffusionPrior(Prior):
    """A diffusion model of embeddings. Of several candidates, the one nearest to the text is kept."""

    kind: Literal["diffusion"] = "diffusion"
    scale: float = Field(default=2.0, ge=0, le=1e6)
    """Scale of classifier-free guidance; 1 is none."""
    steps: PlanText | None = None
    """Sampling plan; None is the model's own."""
    best_of: int = Field(default=2, ge=1, le=1_000)
    """Number of candidates for each picture."""

    @property
    def role(self) -> str | None:
        return "prior"

    def embed(self, model: Any, clip: PictureClip, asks: Sequence[Ask]) -> Tensor:
        if not isinstance(model, Diffusion):
            raise Problem(f"prior {self.kind}: {model.name or 'the model'} is no diffusion model")
        wanted = [
            Ask(seed=(ask.seed + (number + 1) * _APART) % SEEDS, text=ask.text) for ask in asks for number in range(self.best_of)
        ]
        guidance = () if self.scale == 1 else (CFG(scale=self.scale),)
        asked = Request(asks=tuple(wanted), settings=Settings(steps=self.steps, guidance=guidance))
        frames = model.prepare(asked).frames(max(len(wanted), 1))
        found = torch.cat([frame.images for frame in frames if frame.final]).flatten(1).to(clip.device)
        if self.best_of == 1:
            return found
        candidates = found.view(len(asks), self.best_of, -1)
        texts = unit(clip.text_features([ask.text or "" for ask in asks]))
        nearest = (unit(candidates) * texts[:, None]).sum(dim=-1).argmax(dim=1)
        return candidates[torch.arange(len(asks), device=candidates.device), nearest]


class Autoregressive(Prior):
    """An autoregressive model of embeddings."""

    kind: Literal["autoregressive"] = "autoregressive"
    scale: float = Field(default=2.0, ge=0, le=1e6)
    """Scale of classifier-free guidance; 1 is none."""
    temperature: float = Field(default=1.0, gt=0, le=1_000)
    """Temperature of the codes' probabilities."""

    @property
    def role(self) -> str | None:
        return "prior_ar"

    def embed(self, model: Any, clip: PictureClip, asks: Sequence[Ask]) -> Tensor:
        if not isinstance(model, AutoregressivePrior):
            raise Problem(f"prior {self.kind}: {model.name or 'the model'} is no autoregressive prior")
        seeds = [(ask.seed + _APART) % SEEDS for ask in asks]
        return model.sample([ask.text or "" for ask in asks], seeds, self.scale, self.temperature)


class TextPrior(Prior):
    """No prior: the text's own embedding in the place of a picture's (Ramesh et al. 2022, section 5.1)."""

    kind: Literal["text"] = "text"

    @property
    def role(self) -> str | None:
        return None

    def embed(self, model: Any, clip: PictureClip, asks: Sequence[Ask]) -> Tensor:
        return clip.text_features([ask.text or "" for ask in asks])


KINDS = Kinds(DiffusionPrior, Autoregressive, TextPrior)
AnyPrior = Annotated[Prior, KINDS]

ROLES = ("prior", "prior_ar")
"""Roles of the models in a bundle."""
