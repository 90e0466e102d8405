"""Data for training: rows of named fields, batches of rows, and facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from lodestar.config import Problem

Row = Mapping[str, Any]
"""One example by the names of its fields (image, label, caption, embedding, codes …): arrays, numbers or texts.

A picture is uint8 [C, H, W] in "image", its class an int in "label". A field that an example lacks is left out. A tuple of texts
is several of which one is drawn: a picture's captions in several languages, for instance.
"""


@dataclass(frozen=True)
class DataFacts:
    """Facts of the data."""

    channels: int
    size: tuple[int, int]
    """Height and width of the pictures."""
    names: tuple[str, ...] | None
    """Names of the classes by number; None where there are no labels."""
    captions: bool = False
    """True if every picture has a caption."""
    texts: Callable[[], Iterable[str]] | None = None
    """Captions of some of the pictures, the same each time, for a tokenizer to learn from; None without."""
    styles: tuple[str, ...] = ()
    """The styles behind captions, where the data has them (`data.style_column`)."""
    embeddings: np.ndarray | None = None
    """Embeddings float32 [N, D] that stand for the pictures; None where pictures are the data."""
    examples: Examples | None = None
    """The data themselves."""


@dataclass(frozen=True)
class Batch:
    """Examples by field: tensors [B, ...] of arrays and numbers, tuples of B texts."""

    fields: Mapping[str, Tensor | tuple[str, ...]]

    @classmethod
    def collate(cls, rows: Sequence[Row]) -> Self:
        """A batch of the fields that all rows have."""
        return cls({name: _stacked([row[name] for row in rows]) for name in rows[0] if all(name in row for row in rows)})

    @property
    def image(self) -> Tensor:
        """The pictures, uint8 [B, C, H, W]."""
        return self._tensor("image")

    @property
    def label(self) -> Tensor | None:
        """The class numbers, int64 [B], where the data has classes."""
        return self._tensor("label") if "label" in self.fields else None

    def __len__(self) -> int:
        return len(next(iter(self.fields.values())))

    def __getitem__(self, rows: slice) -> Self:
        """Some of the examples."""
        return type(self)({name: values[rows] for name, values in self.fields.items()})

    def to(self, device: torch.device) -> Self:
        """The batch with its tensors on a device."""
        moved = {name: values.to(device) if isinstance(values, Tensor) else values for name, values in self.fields.items()}
        return type(self)(moved)

    def _tensor(self, name: str) -> Tensor:
        values = self.fields[name]
        assert isinstance(values, Tensor), f"{name} is text"
        return values


def _stacked(values: Sequence[Any]) -> Tensor | tuple[str, ...]:
    if isinstance(values[0], str):
        return tuple(values)
    return torch.from_numpy(np.stack(values))


def share(count: int, rank: int, world: int) -> slice:
    """Rows of a batch of `count` examples for process `rank` of `world`: equal numbers, or one more."""
    return slice(rank * count // world, (rank + 1) * count // world)


class Examples(Protocol):
    """A data set of which any row can be read."""

    def __len__(self) -> int:
        """Number of rows."""

    def row(self, index: int) -> Row | None:
        """One example; None where it is damaged and such ones are to be left out. Raises Problem."""

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        """All indices once, in arrays [n] whose rows are cheap to read in any order; the arrays themselves in random order."""


def good_row(examples: Examples, index: int) -> Row:
    """The row at an index; the next good row stands in for a bad one. Raises Problem if there is none."""
    for candidate in range(index, index + len(examples)):
        row = examples.row(candidate % len(examples))
        if row is not None:
            return row
    raise Problem(f"none of the {len(examples):,} examples can be read")


class Stream(Protocol):
    """Batches without end to train on, in an order that is a function of the seed and the examples seen before."""

    def batches(self, seed: int, images_seen: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """From the example after `images_seen` on; of every batch the share of process `rank` of `world`, in its order."""
