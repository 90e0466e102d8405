"""Captions to make pictures of: those of a data set, in its order."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lodestar.config import Note, Problem
from lodestar.data import Pictures, Source, open_source
from lodestar.data.captions import CAPTION
from lodestar.data.shapes import SPLITS
from lodestar.generators.base import Generator
from lodestar.generators.guide import Guides
from lodestar.generators.request import Prompts

HELD_OUT = "shapes@held_out"
"""Captions of models that were trained on `shapes`, where no others are given."""

CaptionsOf = str | Path | Source | Pictures | Sequence[str] | None
"""A data set whose captions are meant, or the captions themselves; None: those that suit the model's training."""


@dataclass(frozen=True)
class Captions:
    """Captions to make pictures of, in turn, or to compare pictures with."""

    texts: tuple[str, ...]
    spec: str
    """Name of their data set; empty for texts that are given as they are."""

    note: str | None = None
    """A remark for the report."""
    whole: tuple[str, ...] = ()
    """The captions before any was cut to a context; empty where none was."""

    @property
    def digest(self) -> str:
        """SHA-256 of the captions."""
        return hashlib.sha256("\n".join(self.texts).encode()).hexdigest()

    def compared(self, count: int) -> list[str]:
        """The captions that `count` pictures are compared with: in turn, and whole, since a part of one may mean nothing."""
        texts = self.whole or self.texts
        return [texts[k % len(texts)] for k in range(count)]

    def within(self, model: Generator, guides: Guides | None = None) -> Captions:
        """The captions as prompts of a model: cut to its context, as in training. Raises Problem."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Note)
            texts = tuple(text or "" for text in model.texts(Prompts(self.texts, cut=True), guides))
        cut = sum(text != whole for text, whole in zip(texts, self.texts, strict=True))
        if not cut:
            return self
        note = f"{cut} of {len(texts):,} captions are longer than the model's context, and cut"
        return Captions(texts, self.spec, note, self.texts)


def read_captions(given: CaptionsOf, count: int) -> Captions:
    """The first `count` captions of a data set, or fewer where it has fewer; of several of picture k, number k in turn.

    Raises Problem where there are none.
    """
    if isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(each, str) for each in given):
        if not given:
            raise Problem("captions are an empty list: give at least one")
        return Captions(tuple(given[:count]), "")
    assert given is not None
    source = open_source(given, captions=True, labels=False)
    found = [first_of(source.texts(index), index) for index in range(min(count, len(source)))]
    if not (texts := tuple(text for text in found if text)):
        raise Problem(f"{source.spec}: none of the first {len(found):,} pictures has a caption that can be read")
    return Captions(texts, source.spec)


def own_captions(model: Generator) -> str | None:
    """The data set of captions that suits a model's training; None where there is none."""
    data = model.provenance.get("data")
    return HELD_OUT if model.reads and isinstance(data, str) and data in SPLITS else None


def first_of(texts: Mapping[str, Any] | None, turn: int = 0) -> str | None:
    """The caption among a row's texts: of several the first, or another in turn. None of none."""
    caption = None if texts is None else texts[CAPTION]
    return caption[turn % len(caption)] if isinstance(caption, tuple) else caption
