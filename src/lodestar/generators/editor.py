"""Generators that make pictures of pictures."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch
from PIL import Image
from pydantic import InstanceOf
from torch import Tensor

from lodestar.config import BatchSize, Count, checked, parse
from lodestar.core.noise import seeds_from
from lodestar.generators.base import Generator, Prepared, reported
from lodestar.generators.edits import AnyEdit, Edit
from lodestar.generators.edits.arrange import arrange, gather
from lodestar.generators.edits.request import EditRequest, Material
from lodestar.generators.guide import Guide, Guides
from lodestar.generators.request import AskedLabel, Frame, Wanted, listed
from lodestar.generators.samples import Samples


class Editor(Generator):
    """A generator with edits."""

    @abc.abstractmethod
    def prepare_edit(self, asked: EditRequest, material: Material, guides: Guides | None = None) -> Prepared:
        """Check a request for edited pictures, before any work is done. Raises Problem if it cannot be answered."""

    def source_shape(self, how: AnyEdit) -> tuple[int, int, int]:
        """Channels, height and width of the pictures that an edit is made of. Raises Problem for one that is not supported."""
        return self.shape

    def edit(
        self,
        how: AnyEdit | str,
        pictures: Any = (),
        label: AskedLabel | Sequence[AskedLabel] = None,
        *,
        origin: AskedLabel | Sequence[AskedLabel] = None,
        mask: str | Path | Image.Image | Tensor | None = None,
        count: int | None = None,
        seed: int = 0,
        batch_size: int = 32,
        guides: Guides | None = None,
        callback: Callable[[Frame], None] | None = None,
        **given: Unpack[Wanted],
    ) -> Samples:
        """Make pictures of pictures.

        how: ``SDEdit(strength=0.5)``, ``Invert()``, ``Interpolate(points=8)``, ``Inpaint()``, ``Upsample()`` or
        ``Reconstruct()``, or the short form of one, ``"sdedit:0.5"``. pictures: files, folders, albums, PIL pictures, arrays
        uint8 [H, W, C], or uint8 [P, C, H, W] of the model's size; those to be enlarged have any size, from that of the model's
        input on. label: what the results are to be; every picture × every label, but `Upsample` pairs picture k with label k
        (default: what an album says). origin: the class of the pictures, or of each, which inversion goes up under; from origin
        to label goes an interpolation. mask: of `Inpaint`, a file or PIL picture that is white where something is to be made, or
        bool [H, W].
        count: how many results, instead of one for each picture and label. The rest is `sample`'s (two prompts are the ends of an
        interpolation); a temperature is refused where no noise is drawn. Raises Problem.
        """
        batch_size = checked("batch size", batch_size, BatchSize)
        asked, material, guiding = self.arranged(
            how, pictures, label, origin=origin, mask=mask, count=count, seed=seed, guides=guides, **given
        )
        return self.edited(asked, material, guiding, batch_size, callback)

    def arranged(
        self,
        how: AnyEdit | str,
        pictures: Any = (),
        label: AskedLabel | Sequence[AskedLabel] = None,
        *,
        origin: AskedLabel | Sequence[AskedLabel] = None,
        mask: str | Path | Image.Image | Tensor | None = None,
        count: int | None = None,
        seed: int = 0,
        guides: Guides | None = None,
        **given: Unpack[Wanted],
    ) -> tuple[EditRequest, Material, dict[str, Guide]]:
        """The request for what `edit` is given, its pictures, and the guides of its guidance. Raises Problem."""
        way: AnyEdit = checked("how", parse("edit", how, AnyEdit) if isinstance(how, str) else how, InstanceOf[Edit])
        count = checked("count", count, Count | None)
        (seed,) = seeds_from(seed, 1)
        prompts, chosen_settings, guiding, _ = self.guided(guides, given)
        material = gather(self.source_shape(way), self.shape[1:], pictures, mask, keeps_size=way.keeps_size)
        asked = arrange(self, way, material, listed(label), listed(origin), count, seed, guiding, prompts)
        return asked.replace(settings=self.resolved(chosen_settings)), material, guiding

    def edited(
        self,
        asked: EditRequest,
        material: Material,
        guides: Guides | None = None,
        batch_size: int = 32,
        callback: Callable[[Frame], None] | None = None,
    ) -> Samples:
        """The results of an edit's request. guides: by role. callback: called with each `Frame`. Raises Problem."""
        checked("callback", callback, Callable | None)
        again = partial(self.prepare_edit(asked, material, guides).frames, batch_size)
        images = torch.cat([frame.images for frame in reported(again(), callback) if frame.final])
        return Samples(images, asked, self.origin(guides), material, again)
