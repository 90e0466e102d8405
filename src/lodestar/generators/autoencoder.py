"""Autoencoders as generators: pictures of latents that are drawn, and of pictures' own latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pydantic import InstanceOf
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.codecs.autoencoder import AutoencoderCoder, LatentCoder
from lodestar.codecs.vqvae import VQVAECoder
from lodestar.config import Problem, checked
from lodestar.core.level import spread
from lodestar.core.noise import SeededNoise
from lodestar.core.slerp import slerp
from lodestar.generators.decoding import Decoding, check_settings
from lodestar.generators.editor import Editor
from lodestar.generators.edits import Interpolate, Reconstruct
from lodestar.generators.edits.request import EditRequest, Material
from lodestar.generators.guide import Critic, Guides
from lodestar.generators.request import Request, Settings
from lodestar.guidance import Sees
from lodestar.models.look import look
from lodestar.models.save import Model
from lodestar.nets.precision import Precision, name_of

_ONE = "an autoencoder decodes once, without noise levels"


class Latent(LatentCoder, Model, Editor):
    """An autoencoder that answers requests."""

    def __repr__(self) -> str:
        return look(self, self.shape, None, self.dtype, f"latents {'×'.join(map(str, self.space))}")

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.config.channels, *self.config.size)

    @property
    def space(self) -> tuple[int, int, int]:
        return self.config.space

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def precision(self) -> Precision:
        return name_of(self.dtype)

    @property
    def known(self) -> tuple[tuple[str, ...], int | None]:
        return (), None

    @property
    def defaults(self) -> Settings:
        return Settings()

    def agree(self, guide: Critic, sees: Sees) -> None:
        raise Problem("no guide knows an autoencoder's pictures: guides are of diffusion models")

    def prepare(self, asked: Request, guides: Guides | None = None) -> Decoding:
        self._check(checked("request", asked, InstanceOf[Request]))
        self.check_latents(drawn=True)
        self.eval()

        def pictures(rows: slice, start: Tensor | None) -> Tensor:
            noise = self._noise([ask.seed for ask in asked.asks[rows]], asked.settings) if start is None else start
            return self.pictures(self.draw(noise.to(self.device)))

        return Decoding(asked.asks, pictures)

    def prepare_edit(self, asked: EditRequest, material: Material, guides: Guides | None = None) -> Decoding:
        """Check a request for reconstructions, or for an interpolation. Raises Problem if it cannot be answered."""
        self._check(checked("request", asked, InstanceOf[EditRequest]))
        if (material.digests, material.mask_digest) != (asked.pictures, asked.mask):
            raise Problem("these are not the pictures that the request is made of: their values have changed since")
        if material.mask is not None:
            raise Problem(f"a mask has no effect on {asked.edit.kind}: leave it out")
        for number, picture in enumerate(material.pictures):
            if picture.shape != self.shape:
                raise Problem(
                    f"picture {number} is {tuple(picture.shape)}: the model's are {self.shape} (channels, height, width)"
                )
        asked.edit.check_asks(asked)
        if asked.settings.temperature != 1 and not asked.edit.draws(len(asked.pictures)):
            raise Problem(f"temperature is {asked.settings.temperature:g}: {asked.edit.kind} of pictures draws no noise")
        self.eval()
        x = pixels.encode(material.pictures.to(self.device))
        match asked.edit:
            case Reconstruct(level=level):
                self._check_level(level)
                return Decoding(asked.asks, lambda rows, _: self.reconstruct(x[asked.sources[rows]], level))
            case Interpolate() as how:
                return Decoding(asked.asks, self._between(asked, how, x))
        raise Problem(f"{asked.edit.kind} needs noise levels, and {_ONE}: its edits are reconstruct and interpolate")

    def _check(self, asked: Request) -> None:
        """Raise Problem for what an autoencoder cannot be asked for."""
        check_settings(asked, self.name, _ONE, "temperature")
        for ask in asked.asks:
            self.label(None if ask.label is None else str(ask.label), {})

    def _check_level(self, level: str | None) -> None:
        """Raise Problem for a level of codes that there is not."""
        if level is not None:
            self.reconstruct(torch.empty(0, *self.shape, device=self.device), level)

    def _between(self, asked: EditRequest, how: Interpolate, x: Tensor) -> Callable[[slice, Tensor | None], Tensor]:
        """Pictures between two pictures, in a straight line of latents, or between two seeds, on the sphere. Raises Problem."""
        if len(x) not in (0, 2):
            raise Problem(f"interpolate goes between two pictures, and the number given is {len(x)}")
        if (len(x) == 2) == (how.to_seed is not None):
            raise Problem("interpolate needs two pictures, or a seed at the other end, and not both: this model knows no labels")
        if how.guided:
            raise Problem(f"guided has no effect on {self.name or 'this model'}: {_ONE}")
        self.check_latents(drawn=how.to_seed is not None)
        weights = torch.tensor(asked.weights, dtype=torch.float64, device=self.device)

        def pictures(rows: slice, _: Tensor | None) -> Tensor:
            weight = weights[rows]
            if how.to_seed is not None:
                seeds = [[ask.seed for ask in asked.asks[rows]], [how.to_seed] * len(weight)]
                first, last = (self._noise(each, asked.settings).to(self.device) for each in seeds)
                return self.pictures(self.draw(slerp(first, last, weight)))
            first, last = (self.latents(each[None]).expand(len(weight), *self.space) for each in x)
            return self.pictures(spread(1 - weight, first) * first + spread(weight, last) * last)

        return pictures

    def _noise(self, seeds: Sequence[int], how: Settings) -> Tensor:
        return SeededNoise(seeds, how.temperature).start(self.space)


class VQVAE(VQVAECoder, Latent):
    """A VQ-VAE that answers requests: it encodes pictures and decodes them."""


class Autoencoder(AutoencoderCoder, Latent):
    """An autoencoder, a denoising autoencoder or a VAE that answers requests."""
