"""Edits wired to a model: the request, the pictures that it is made of, and the stream of frames that answers it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from pydantic import model_validator
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.conditions import Label
from lodestar.config import Problem
from lodestar.core.noise import SeededNoise
from lodestar.models.classifier import PictureClassifier
from lodestar.models.diffusion import Diffusion, Samples
from lodestar.models.edits import AnyEdit, Batch
from lodestar.models.request import Frame, Request
from lodestar.samplers import AnySampler


class EditRequest(Request):
    """What to make of pictures. The command line, Python and a manifest all make one of these."""

    each: ClassVar[tuple[str, ...]] = (*Request.each, "sources", "weights")

    edit: AnyEdit
    pictures: tuple[str, ...] = ()
    """The pictures that it is made of, each by the SHA-256 of its values."""
    mask: str | None = None
    """Likewise, where there is one."""
    origins: tuple[Label, ...] = ()
    """The class that each of them has, where it is inverted; of an interpolation, the classes at its two ends."""
    sources: tuple[int, ...] = ()
    """The number of the picture that each result is made of; empty where none is made of one alone."""
    weights: tuple[float, ...] = ()
    """Where each result is between two ends, in [0, 1]; empty where there are no ends."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        results = len(self.labels)
        assert len(self.seeds) == results and len(self.sources) in (0, results) and len(self.weights) in (0, results)
        assert all(0 <= source < len(self.pictures) for source in self.sources)
        return self


@dataclass(frozen=True)
class Material:
    """The pictures that an edit is made of, of the shape that `shape_of` tells."""

    pictures: Tensor = field(repr=False)
    """uint8 [P, C, H, W]; P may be 0."""
    mask: Tensor | None = field(default=None, repr=False)
    """bool [H, W], True where something is to be made."""
    names: tuple[str, ...] = ()
    """Where each of the pictures comes from, if from a file."""
    labels: tuple[str, ...] = ()
    """The class that each is known to have, where that is told of all of them."""

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each picture's values."""
        return tuple(_digest(picture) for picture in self.pictures)

    @property
    def mask_digest(self) -> str | None:
        """SHA-256 of the mask's values."""
        return None if self.mask is None else _digest(self.mask)


@dataclass(frozen=True)
class Edited(Samples):
    """Edited pictures: results, with the request that they answer and what they are made of."""

    material: Material = field(kw_only=True, repr=False)


def shape_of(model: Diffusion, how: AnyEdit) -> tuple[int, int, int]:
    """Channels, height and width of the pictures that this edit is made of. Raises Problem where the model enlarges none."""
    channels, *size = model.shape
    small = model.config.denoiser.low_res
    if how.enlarges and small is None:
        raise Problem(f"{model.name or 'this model'} makes pictures from noise and enlarges none: use lodestar sample")
    height, width = small if how.enlarges and small is not None else size
    return channels, height, width


def sampler_of(model: Diffusion, request: EditRequest) -> AnySampler:
    """The sampler of a request: the one asked for, else the edit's usual one, else the model's."""
    return request.sampler or request.edit.usual or model.config.sampler


def check(
    model: Diffusion,
    request: EditRequest,
    material: Material,
    classifier: PictureClassifier | None = None,
    weak: Diffusion | None = None,
) -> None:
    """Raise Problem if a request cannot be answered, before any work is done."""
    shape = shape_of(model, request.edit)
    for number, picture in enumerate(material.pictures):
        if picture.shape != shape:
            raise Problem(f"picture {number} is {tuple(picture.shape)}: the model's are {shape} (channels, height, width)")
    if material.mask is not None and material.mask.shape != model.shape[1:]:
        raise Problem(f"the mask is {tuple(material.mask.shape)}: the model's pictures are {model.shape[1:]} (height, width)")
    if (material.digests, material.mask_digest) != (request.pictures, request.mask):
        raise Problem("these are not the pictures that the request is made of: their values have changed since")
    how = request.edit
    if request.temperature != 1 and not how.draws(len(request.pictures)):
        raise Problem(f"temperature is {request.temperature:g}: {how.kind} of pictures draws no noise that it could change")
    sampler = sampler_of(model, request)
    model.check(request.replace(sampler=sampler), classifier, weak, _low_res(request, material))
    how.check(request, sampler, model.steps(request), material.mask)


def stream(
    model: Diffusion,
    request: EditRequest,
    material: Material,
    *,
    batch_size: int = 32,
    classifier: PictureClassifier | None = None,
    weak: Diffusion | None = None,
) -> Iterator[Frame]:
    """Answer a request batch by batch, a frame for every step. Raises Problem at once if it cannot be done, see `check`."""
    if batch_size < 1:
        raise Problem(f"batch size is {batch_size}: at least 1")
    check(model, request, material, classifier, weak)
    return _frames(model, request, material, batch_size, classifier, weak)


@torch.inference_mode()
def _frames(
    model: Diffusion,
    request: EditRequest,
    material: Material,
    batch_size: int,
    classifier: PictureClassifier | None,
    weak: Diffusion | None,
) -> Iterator[Frame]:
    steps, sampler = model.steps(request), sampler_of(model, request)
    length = request.edit.length(steps)
    pictures = pixels.centre(material.pictures).to(model.device)
    mask = None if material.mask is None else material.mask.to(model.device)
    model.eval()
    if weak is not None:
        weak.eval()
    size = 1 if sampler.adaptive else batch_size
    for first in range(0, len(request.labels), size):
        part = request.only(*range(first, min(first + size, len(request.labels))))
        small, noise = _low_res(part, material), SeededNoise(part.seeds, part.temperature)
        batch = Batch(model, part, pictures, small, mask, classifier, weak, noise, steps, sampler)
        for state in request.edit.states(batch):
            done = state.index + 1
            yield Frame(first, done, length, state.x if done == length else state.estimate.x0)


def _low_res(request: EditRequest, material: Material) -> Tensor | None:
    """The picture that each result of a request is enlarged from, uint8 [B, C, h, w]; None where none is."""
    return material.pictures[list(request.sources)] if request.edit.enlarges else None


def _digest(values: Tensor) -> str:
    return hashlib.sha256(str(tuple(values.shape)).encode() + values.cpu().contiguous().numpy().tobytes()).hexdigest()
