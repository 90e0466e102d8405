"""Edits with a model: checks, and the stream of frames of the answer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lodestar.config import Note, Problem
from lodestar.core.noise import SeededNoise
from lodestar.core.transition import Transition
from lodestar.generators.edits import AnyEdit, Upsample
from lodestar.generators.edits.base import EditJob
from lodestar.generators.edits.request import EditRequest, Material
from lodestar.generators.edits.tiles import TILES
from lodestar.generators.guide import NOTHING, Handed
from lodestar.generators.guided import Guided
from lodestar.generators.request import Frame
from lodestar.guidance import REFERENCE
from lodestar.models.diffusion import DiffusionConfig, DiffusionModel
from lodestar.samplers import Sampler

_ARRAYS = 18
"""Numbers in memory at each place of a large picture at most, as measured: 14 with dpmpp, heun and ancestral, 18 with plms."""


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
        large = asked.edit.keeps_size and tuple(pictures.shape[1:]) != shape_of(model, asked.edit)
        size = 1 if self.sampler.adaptive or large else batch_size
        for first in range(0, len(asked.asks), size):
            part = asked.only(*range(first, min(first + size, len(asked.asks))))
            noise = SeededNoise(part.seeds, part.settings.temperature)
            handed = handed_of(part, material)
            job = EditJob(self.guided, part, pictures, handed, mask, noise, self.steps, self.sampler, batch_size)
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
    if how.keeps_size and tuple(material.pictures.shape[1:]) != shape:
        _check_kept(model, material, shape)
        return
    for number, picture in enumerate(material.pictures):
        if picture.shape != shape:
            raise Problem(f"picture {number} is {tuple(picture.shape)}: the model's are {shape} (channels, height, width)")
    if material.mask is not None and material.mask.shape != model.shape[1:]:
        raise Problem(f"the mask is {tuple(material.mask.shape)}: the model's pictures are {model.shape[1:]} (height, width)")


def _check_kept(model: DiffusionModel, material: Material, shape: tuple[int, int, int]) -> None:
    """Raise Problem unless a model can enlarge pictures of another size than its input's."""
    (channels, *size), (known, *small), large = material.pictures.shape[1:], shape, model.shape[1:]
    spelled = f"{size[0]}×{size[1]}, and this model enlarges"
    if channels != known:
        raise Problem(f"the pictures have {channels} channels, and the model's have {known}")
    if any(side < least for side, least in zip(size, small, strict=True)):
        raise Problem(
            f"a picture is {spelled} those of {small[0]}×{small[1]} and more (--fit, fit=True in Python, enlarges it first)"
        )
    if large[0] % small[0] or large[0] * small[1] != large[1] * small[0]:
        raise Problem(
            f"a picture is {spelled} {small[0]}×{small[1]} to {large[0]}×{large[1]}, by no whole number: "
            "--fit (fit=True in Python) brings it to that size"
        )


def note_tiles(model: DiffusionModel, asked: EditRequest, material: Material, steps: int) -> None:
    """Tell by a Note the tiles of large pictures, and their cost. Raises Problem for guidance that compares with a picture."""
    how, size = asked.edit, (material.pictures.shape[-2], material.pictures.shape[-1])
    tiling = how.tiling(model.config, size) if isinstance(how, Upsample) else None
    if tiling is None:
        return
    if compared := [each.kind for each in asked.settings.guidance if REFERENCE in each.roles]:
        raise Problem(f"guidance {compared[0]} compares pictures of the model's size with a reference: --fit brings them to it")
    tiles, (height, width) = tiling.count, tiling.result
    if tiles > TILES:
        raise Problem(f"{size[0]}×{size[1]} are {tiles:,} tiles, and {TILES:,} is the most: a smaller picture, or less --overlap")
    side = tiling.tile[0] * tiling.factor, tiling.tile[1] * tiling.factor
    planes = tiles * side[0] * side[1] / (height * width)
    memory = 4 * model.space[0] * height * width * (_ARRAYS + planes) / 2**20
    warnings.warn(
        f"{size[0]}×{size[1]} becomes {height}×{width} in {tiles:,} overlapping tiles of {side[0]}×{side[1]}: "
        f"{tiles * steps:,} evaluations of a tile for each picture, and at most about {math.ceil(memory):,} MiB of memory "
        "beside the network's for a batch of tiles",
        Note,
        stacklevel=2,
    )


def sampler_of(model: DiffusionConfig, asked: EditRequest) -> Sampler:
    """The sampler of a request: the one asked for, else the edit's usual one, else the model's."""
    return asked.settings.sampler or asked.edit.usual or model.sampler


def handed_of(asked: EditRequest, material: Material) -> Handed:
    """The picture that each result of a request is enlarged from; nothing where none is."""
    return {"low_res": material.pictures[asked.sources]} if asked.edit.enlarges else NOTHING
