"""A GAN as a generator of frames: pictures of latents that are drawn, in one pass."""

from __future__ import annotations

import torch
from pydantic import InstanceOf
from torch import Tensor

from lodestar.conditions import Composed, Label
from lodestar.config import Problem, checked
from lodestar.core.noise import SeededNoise
from lodestar.generators.base import Generator
from lodestar.generators.decoding import Decoding, check_settings
from lodestar.generators.guide import Critic, Guides
from lodestar.generators.request import Request, Settings
from lodestar.guidance import Sees
from lodestar.models.gan import GanModel, truncated
from lodestar.models.labels import read_label
from lodestar.models.look import look
from lodestar.nets.precision import Precision, name_of

_ONE = "a GAN makes a picture in one pass, without noise levels"


class Gan(GanModel, Generator):
    """A GAN's generator that answers requests."""

    def __repr__(self) -> str:
        network = self.config.network
        return look(self, self.shape, network.classes, self.dtype, f"latents of {network.latent}")

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.config.network.in_channels, *self.config.network.size)

    @property
    def space(self) -> tuple[int, int, int]:
        return (self.config.network.latent, 1, 1)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def precision(self) -> Precision:
        return name_of(self.dtype)

    @property
    def known(self) -> tuple[tuple[str, ...], int | None]:
        return self.config.names or (), self.config.network.classes

    @property
    def defaults(self) -> Settings:
        return Settings()

    def agree(self, guide: Critic, sees: Sees) -> None:
        raise Problem("no guide knows a GAN's pictures: guides are of diffusion models")

    def label(self, asked: str | int | None, guides: Guides) -> Label:
        names, classes = self.known
        if asked is None or asked == "none":
            if classes is not None:
                raise Problem("label none: this model was never trained without its classes")
            return None
        if classes is None:
            raise Problem(f"label {asked!r}: this model knows no classes")
        label = read_label(asked, names, classes)
        if isinstance(label, Composed):
            raise Problem(f"label {asked!r}: labels are composed by diffusion models alone: give one class")
        return label

    def prepare(self, asked: Request, guides: Guides | None = None) -> Decoding:
        check_settings(checked("request", asked, InstanceOf[Request]), self.name, _ONE, "temperature", "truncation")
        how, classes = asked.settings, self.config.network.classes
        bound = how.truncation or self.config.network.bound
        labels = [self.label(each if each is None or isinstance(each, int) else str(each), {}) for each in asked.labels]
        self.eval()

        def pictures(rows: slice, start: Tensor | None) -> Tensor:
            noise = SeededNoise(asked.seeds[rows]).start(self.space) if start is None else start
            z = noise if bound is None else truncated(noise, bound)
            told = None if classes is None else torch.tensor(labels[rows], device=self.device)
            made: Tensor = self((how.temperature * z).flatten(1).to(self.device), told, how.temperature)
            return made

        return Decoding(asked.asks, pictures)
