"""Requests for edits, and the pictures of an edit."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lodestar.config import Problem, shown
from lodestar.generators.edits import AnyEdit
from lodestar.generators.edits.base import Sourced
from lodestar.generators.guide import digest


class EditRequest(Sourced):
    """A request for an edit of pictures. The command line, Python and a manifest all make one of these."""

    edit: AnyEdit


@dataclass(frozen=True)
class Material:
    """The pictures that an edit is made of, of the shape that `shape_of` tells."""

    pictures: Tensor = field(repr=False)
    """uint8 [P, C, H, W]; P may be 0."""
    mask: Tensor | None = field(default=None, repr=False)
    """bool [H, W], True where something is to be made."""
    names: tuple[str, ...] = ()
    """Sources of the pictures, if from files."""
    labels: tuple[str, ...] = ()
    """The class that each is known to have, where that is told of all of them."""
    texts: tuple[str | None, ...] = ()
    """The prompt that each was made of, where an album tells it."""

    def __post_init__(self) -> None:
        """Raise Problem where pictures or mask are of another type."""
        _check("the pictures are", self.pictures, torch.uint8, "P, C, H, W")
        if self.mask is not None:
            _check("the mask is", self.mask, torch.bool, "H, W")

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each picture's values."""
        return tuple(digest(picture) for picture in self.pictures)

    @property
    def mask_digest(self) -> str | None:
        """SHA-256 of the mask's values."""
        return None if self.mask is None else digest(self.mask)


def _check(what: str, values: object, dtype: torch.dtype, shape: str) -> None:
    if not isinstance(values, Tensor) or values.dtype != dtype or values.ndim != len(shape.split()):
        told = f"{_name(values.dtype)} {list(values.shape)}" if isinstance(values, Tensor) else shown(values)
        raise Problem(f"{what} {told}: a tensor of them is {_name(dtype)} [{shape}]")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
