"""Editing from Python and from the command line: pictures and settings in, a request or its answer out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lodestar.conditions import Label
from lodestar.config import Problem
from lodestar.core.noise import seeds_from
from lodestar.data.mask import read_mask
from lodestar.data.pictures import read_pictures
from lodestar.guidance import AnyGuidance
from lodestar.models.classifier import PictureClassifier
from lodestar.models.diffusion import Diffusion
from lodestar.models.editing import Edited, EditRequest, Material, shape_of, stream
from lodestar.models.edits import AnyEdit, Interpolate
from lodestar.samplers import AnySampler

Asked = str | int | None
"""A label as it is given: a class by name or number, several ("dog+ship"); None or "none" is none."""


def edit(
    model: Diffusion,
    how: AnyEdit,
    pictures: str | Path | Tensor | Sequence[str | Path] = (),
    label: Asked | Sequence[Asked] = None,
    *,
    origin: Asked | Sequence[Asked] = None,
    mask: str | Path | Tensor | None = None,
    count: int | None = None,
    seed: int = 0,
    steps: str | int | None = None,
    sampler: AnySampler | None = None,
    guidance: AnyGuidance | Sequence[AnyGuidance] = (),
    clip: bool = True,
    temperature: float = 1.0,
    batch_size: int = 32,
    classifier: PictureClassifier | None = None,
    weak: Diffusion | None = None,
) -> Edited:
    """Make pictures of pictures.

    how: ``SDEdit(strength=0.5)``, ``Invert()``, ``Interpolate(points=8)``, ``Inpaint()`` or ``Upsample()``. pictures: files,
    folders, albums, or uint8 [P, C, H, W] of the model's size (of the size that it enlarges). label: what the results are to be;
    each picture becomes each of them, but is enlarged once: as the next of them, or what an album says that it is. origin: the
    class of the pictures, or of each, which inversion goes up under; from origin to label goes an interpolation. mask: of
    `Inpaint`, a file with white where something is to be made (`lodestar.data.mask.read_mask`), or bool [H, W]. count: how many
    results, instead of one for each picture and label. The rest is `Diffusion.sample`'s; a temperature and a seed are refused
    where no noise is drawn.
    Raises Problem.
    """
    guides, classifier, weak = model.guides(guidance, classifier, weak)
    material = gather(model, how, [pictures] if isinstance(pictures, str | Path) else pictures, mask)
    asked = arrange(model, how, material, _listed(label), _listed(origin), count, seed, classifier)
    request = asked.replace(
        plan=None if steps is None else str(steps), sampler=sampler, guidance=guides, clip=clip, temperature=temperature
    )
    frames = stream(model, request, material, batch_size=batch_size, classifier=classifier, weak=weak)
    images = torch.cat([frame.images for frame in frames if frame.final])
    return Edited(images, request, model, classifier, weak, material=material)


def gather(
    model: Diffusion,
    how: AnyEdit,
    pictures: Tensor | Sequence[str | Path],
    mask: str | Path | Tensor | None = None,
    chosen: Sequence[int] = (),
) -> Material:
    """The pictures and the mask of an edit, in their size. chosen: only these of them, by number. Raises Problem."""
    channels, height, width = shape_of(model, how)
    if isinstance(pictures, Tensor):
        if isinstance(mask, str | Path):
            mask = torch.from_numpy(read_mask(mask, model.config.size, ()))
        return Material(pictures, mask)
    read = read_pictures(pictures, channels, (height, width), chosen)
    if isinstance(mask, str | Path):
        mask = torch.from_numpy(read_mask(mask, model.config.size, read))
    images = [torch.from_numpy(picture.image.copy()) for picture in read]
    labels = tuple(picture.label for picture in read if picture.label is not None)
    return Material(
        torch.stack(images) if images else torch.empty((0, channels, height, width), dtype=torch.uint8),
        mask,
        tuple(picture.name for picture in read),
        labels if len(labels) == len(read) else (),
    )


def arrange(
    model: Diffusion, how: AnyEdit, material: Material, label: Sequence[Asked] | None, origin: Sequence[Asked] | None,
    count: int | None, seed: int, classifier: PictureClassifier | None = None,
) -> EditRequest:  # fmt: skip
    """The request for what is asked, with the sampling settings of the model. Raises Problem."""

    def numbers(asked: Sequence[Asked] | None) -> tuple[Label, ...]:
        return model.labels(asked or ["none"], None, classifier)

    if isinstance(how, Interpolate):
        ends = (numbers(origin or label), numbers(label or origin))
        if any(len(end) != 1 for end in ends):
            raise Problem("interpolate goes from one label to one label: give one at each end")
        labels = origins = (*ends[0], *ends[1])
    else:
        if how.enlarges and label is None and model.classes(classifier)[1] is not None:
            label = material.labels or None
            if label is None and model.config.denoiser.classes is not None:
                free = " (none is one)" if model.config.droppable else ""
                raise Problem(f"this model knows classes, and nothing tells the pictures': --label, or label= in Python{free}")
        labels, origins, pictures = numbers(label), numbers(origin) if how.inverts else (), len(material.pictures)
        if origin and not how.inverts:
            raise Problem(f"the class that pictures have has no effect on {how.kind}: leave it out, or invert")
        if len(origins) == 1:
            origins *= pictures
        if len(origins) not in (0, pictures):
            raise Problem(f"{len(origins)} classes are given for {pictures} pictures: give one for all of them, or one for each")
    layout = how.layout(len(material.pictures), len(labels), count)
    first, *_ = seeds_from(seed, 1 + max(layout.seeds, default=0))
    if first and not how.draws(len(material.pictures)):
        raise Problem(f"seed is {first}: {how.kind} of pictures draws no noise that it could change")
    return EditRequest(
        labels=tuple(labels[place] for place in layout.labels),
        seeds=tuple(first + more for more in layout.seeds),
        edit=how,
        pictures=material.digests,
        mask=material.mask_digest,
        origins=origins,
        sources=layout.sources,
        weights=layout.weights,
    )


def _listed(given: Asked | Sequence[Asked]) -> list[Asked] | None:
    if given is None:
        return None
    return [given] if isinstance(given, str | int) else list(given)
