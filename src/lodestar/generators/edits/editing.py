"""Edits with a model: checks, and the stream of frames of the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lodestar.config import Problem
from lodestar.core.noise import SeededNoise
from lodestar.core.transition import Transition
from lodestar.generators.edits import AnyEdit
from lodestar.generators.edits.base import EditJob
from lodestar.generators.edits.request import EditRequest, Material
from lodestar.generators.guide import NOTHING, Handed
from lodestar.generators.guided import Guided
from lodestar.generators.request import Frame
from lodestar.models.diffusion import DiffusionConfig, DiffusionModel
from lodestar.samplers import Sampler


@dataclass(frozen=True)
class PreparedEdit:
    """A request for edited pictures that can be answered."""

    guided: Guided
    request: EditRequest
    material: Material
    sampler: Sampler
    steps: Sequence[Transition]

    @property
    def length(self) -> int:
        return self.request.edit.length(self.steps)

    @torch.inference_mode()
    def frames(self, batch_size: int = 32, start: Tensor | None = None) -> Iterator[Frame]:
        """The answer, batch by batch, a frame for every step. start: has to be None, because seeds draw an edit's noise."""
        assert start is None, "an edit begins with its pictures"
        model, asked, material = self.guided.model, self.request, self.material
        pictures = model.codec.centre(material.pictures.to(model.device))
        mask = None if material.mask is None else material.mask.to(model.device)
        model.eval()
        size = 1 if self.sampler.adaptive else batch_size
        for first in range(0, len(asked.asks), size):
            part = asked.only(*range(first, min(first + size, len(asked.asks))))
            noise = SeededNoise(part.seeds, part.settings.temperature)
            job = EditJob(self.guided, part, pictures, handed_of(part, material), mask, noise, self.steps, self.sampler)
            for state in asked.edit.states(job):
                done = state.index + 1
                x = state.x if done == self.length else state.estimate.x0
                yield Frame(first, done, self.length, x, model.codec.decode)


def shape_of(model: DiffusionModel, how: AnyEdit, name: str = "") -> tuple[int, int, int]:
    """Channels, height and width of the pictures that an edit is made of. Raises Problem where the model enlarges none."""
    channels, *size = model.shape
    small = model.config.denoiser.low_res
    if how.enlarges and small is None:
        raise Problem(f"{name or 'this model'} makes pictures from noise and enlarges none: use lodestar sample")
    height, width = small if how.enlarges and small is not None else size
    return channels, height, width


def check_material(model: DiffusionModel, how: AnyEdit, material: Material, name: str = "") -> None:
    """Raise Problem unless pictures and mask are of the sizes that an edit with this model takes."""
    shape = shape_of(model, how, name)
    for number, picture in enumerate(material.pictures):
        if picture.shape != shape:
            raise Problem(f"picture {number} is {tuple(picture.shape)}: the model's are {shape} (channels, height, width)")
    if material.mask is not None and model.space != model.shape:
        raise Problem(f"a mask is of pixels, and {name or 'this model'} makes latents of {'×'.join(map(str, model.space))}")
    if material.mask is not None and material.mask.shape != model.shape[1:]:
        raise Problem(f"the mask is {tuple(material.mask.shape)}: the model's pictures are {model.shape[1:]} (height, width)")


def sampler_of(model: DiffusionConfig, asked: EditRequest) -> Sampler:
    """The sampler of a request: the one asked for, else the edit's usual one, else the model's."""
    return asked.settings.sampler or asked.edit.usual or model.sampler


def handed_of(asked: EditRequest, material: Material) -> Handed:
    """The picture that each result of a request is enlarged from; nothing where none is."""
    return {"low_res": material.pictures[asked.sources]} if asked.edit.enlarges else NOTHING
