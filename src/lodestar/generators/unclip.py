"""DALL·E 2 as a generator (Ramesh et al. 2022): a prompt, a prior's embedding of a picture, and a decoder's picture of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
from pydantic import InstanceOf
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.conditions import Ask, Label
from lodestar.config import Problem, checked, decode, parse
from lodestar.display import caption
from lodestar.generators.base import PRIOR, Generator, Prepared, empty
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.editor import Editor
from lodestar.generators.edits.editing import PreparedEdit
from lodestar.generators.edits.request import EditRequest, Material
from lodestar.generators.guide import Critic, Guides, Reference, chosen
from lodestar.generators.priors import ROLES, AnyPrior, DiffusionPrior, Prior
from lodestar.generators.request import Frame, Request, Settings
from lodestar.guidance import Sees
from lodestar.models.clip import PictureClip
from lodestar.models.look import parameters
from lodestar.nets.precision import Precision

CLIP = "clip"
"""Role of the CLIP in a bundle."""
EMBEDDING = "embedding"
"""Name of an ask's value: an embedding in the place of a prior's."""


@dataclass(frozen=True)
class PreparedUnclip:
    """A checked request to an `UnClip`."""

    model: UnClip
    request: Request
    guides: Guides
    """Guides of the request's guidance, by role."""
    decoding: Prepared

    @property
    def length(self) -> int:
        return self.decoding.length

    @torch.inference_mode()
    def frames(self, batch_size: int = 32, start: Tensor | None = None) -> Iterator[Frame]:
        """The answer, a frame for every step of the decoder; see `Prepared`."""
        asks = self.request.asks
        for first in range(0, len(asks), batch_size):
            rows = slice(first, first + batch_size)
            part = self.request.model_copy(update={"asks": self.model.embedded(asks[rows], self.guides)})
            given = None if start is None else start[rows]
            for frame in self.model.decoder.prepare(part, self.guides).frames(batch_size, given):
                yield replace(frame, first=first + frame.first)


class UnClip(Editor):
    """A decoder with its CLIP and priors."""

    prior: Prior

    def __init__(self, decoder: Diffusion, prior: Prior | None = None) -> None:
        """decoder: its companions are the CLIP, and the priors by role. prior: the default one."""
        self.decoder, self.prior = decoder, prior or DiffusionPrior()
        self.name, self.digest, self.provenance = decoder.name, decoder.digest, decoder.provenance
        self.companions = {role: load for role, load in decoder.companions.items() if role not in (CLIP, *ROLES)}
        self.companions[CLIP] = lambda: self.clip

    def __repr__(self) -> str:
        return f"UnClip({self.decoder!r}, prior {self.prior.kind})"

    def _repr_html_(self) -> str:
        """The summary and the decoder's parameters, for a notebook."""
        return caption(repr(self)) + parameters(self.decoder)

    @cached_property
    def clip(self) -> PictureClip:
        """The CLIP of the embeddings. Raises Problem where it is none, or another one than the decoder's."""
        return _joined(self.decoder)

    def seen(self, pictures: Tensor) -> Tensor:
        """Embeddings float32 [P, E] of pictures uint8 [P, C, H, W], by the CLIP."""
        with torch.no_grad():
            found: Tensor = self.clip.image_features(pixels.encode(pictures.to(self.clip.device)))
        return found

    @cached_property
    def _models(self) -> dict[str, Any]:
        return {}

    def model_of(self, prior: Prior) -> Any:
        """The model of a prior, loaded once. Raises Problem where the bundle has none, or one of another CLIP."""
        role = prior.role
        if role is None:
            return None
        if role not in self.decoder.companions:
            raise Problem(f"prior {prior.kind}: {self.name} has no part {role!r}")
        if role not in self._models:
            model: Any = self.decoder.companions[role]()
            self.clip.join(model)
            self._models[role] = model
        return self._models[role]

    def using(self, prior: Prior | str) -> Self:
        """The generator with another default prior. Raises Problem if its model is missing."""
        chosen: Prior = parse("prior", prior, AnyPrior) if isinstance(prior, str) else checked("prior", prior, InstanceOf[Prior])
        self.model_of(chosen)
        other = copy(self)  # with the models that are loaded
        other.prior = chosen
        return other

    def sample(self, *args: Any, prior: Prior | str | None = None, **how: Any) -> Any:
        """Sample pictures; see `Generator.sample`. prior: a `Prior`, or its short form, ``"diffusion:scale=2"``."""
        return Generator.sample(self if prior is None else self.using(prior), *args, **how)

    def embedded(self, asks: Sequence[Ask], guides: Guides | None = None) -> tuple[Ask, ...]:
        """The asks with embeddings: those that they have, else a prior's for their texts; none without a text.

        guides: those that the decoder is guided by.
        """
        found: dict[int, Tensor] = {}
        wanting = {row: _prior_of(ask, self.prior) for row, ask in enumerate(asks) if ask.text and EMBEDDING not in ask.others}
        for prior in dict.fromkeys(wanting.values()):
            rows = [row for row, each in wanting.items() if each == prior]
            embeddings = prior.embed(self.model_of(prior), self.clip, [asks[row] for row in rows])
            found |= dict(zip(rows, embeddings, strict=True))
        return tuple(
            self._told(ask.replace(others={**ask.others, EMBEDDING: found[row].tolist()}) if row in found else ask, guides)
            for row, ask in enumerate(asks)
        )

    def _told(self, ask: Ask, guides: Guides | None) -> Ask:
        """An ask as the decoder is told it: without its text, if neither the decoder nor a guide reads it."""
        return ask if self.decoder.hears(guides) else ask.replace(text=None)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.decoder.shape

    @property
    def reads(self) -> bool:
        return True

    @property
    def device(self) -> torch.device:
        return self.decoder.device

    @property
    def precision(self) -> Precision:
        return self.decoder.precision

    @property
    def known(self) -> tuple[tuple[str, ...], int | None]:
        return self.decoder.known

    @property
    def defaults(self) -> Settings:
        return self.decoder.defaults

    def resolved(self, how: Settings) -> Settings:
        return self.decoder.resolved(how)

    def agree(self, guide: Critic, sees: Sees) -> None:
        self.decoder.agree(guide, sees)

    def reference(self, pictures: Any) -> Reference:
        return self.decoder.reference(pictures)

    def label(self, asked: str | int | None, guides: Guides) -> Label:
        return self.decoder.label(asked, guides)

    def prompt(self, asked: str | None, cut: bool = False, guides: Guides | None = None) -> str | None:
        return None if asked is None or empty(asked) else self.clip.prompt(asked, cut)

    def prepare(self, asked: Request, guides: Guides | None = None) -> PreparedUnclip:
        checked("request", asked, InstanceOf[Request])
        for ask in asked.asks:
            if ask.text:
                self.clip.prompt(ask.text)
                self.model_of(_prior_of(ask, self.prior))
            elif EMBEDDING not in ask.others and not self.decoder.config.droppable:
                raise Problem("prompt none: this model was never trained without embeddings: give one")
        nothing = [0.0] * self.clip.config.network.image.embed
        guiding = chosen(asked.settings.guidance, guides or {}, self.companions)
        asks = (ask.replace(others={EMBEDDING: nothing, **ask.others}) if ask.text else ask for ask in asked.asks)
        told = tuple(self._told(ask, guiding) for ask in asks)
        return PreparedUnclip(self, asked, guiding, self.decoder.prepare(asked.model_copy(update={"asks": told}), guiding))

    def prepare_edit(self, asked: EditRequest, material: Material, guides: Guides | None = None) -> PreparedEdit:
        """Check a request for edited pictures, whose embeddings it tells; see `Diffusion.prepare_edit`."""
        if self.decoder.config.denoiser.text is not None:
            self.clip.join(self.decoder)
        return self.decoder.prepare_edit(asked, material, guides)


def join_text(model: Diffusion) -> None:
    """Give a model that is told texts by a CLIP, and no embeddings, the tower of the CLIP among its companions, if there is one.

    Raises Problem where that is none, or another one than the model's.
    """
    denoiser = model.config.denoiser
    if denoiser.condition("clip_text") is not None and denoiser.embedding is None and CLIP in model.companions:
        _joined(model)


def _joined(model: Diffusion) -> PictureClip:
    """The CLIP among a model's companions, its text tower joined to the model. Raises Problem; see `join_text`."""
    clip: Any = model.companions[CLIP]()
    if not isinstance(clip, PictureClip):
        raise Problem(f"{clip.name} is no CLIP: the part {CLIP!r} of a bundle has to be one")
    clip.join(model)
    return clip


def is_unclip(decoder: Diffusion) -> bool:
    """True for a decoder of embeddings with a CLIP among its companions."""
    return decoder.config.denoiser.embedding is not None and CLIP in decoder.companions


def _prior_of(ask: Ask, default: Prior) -> Prior:
    """The prior of an ask. Raises Problem for settings of none."""
    given = ask.others.get(PRIOR)
    prior: Prior = default if given is None else decode(AnyPrior, given, "an ask's prior")
    return prior
