"""The training and validation pictures of a run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from lodestar.config import Note, Problem
from lodestar.data import DataFacts, Pictures, Source, divide, open_source, part
from lodestar.data.transforms import Size, show
from lodestar.training.run import DataConfig, Run

_CAPTIONS = 10_000
"""Number of pictures whose captions a tokenizer learns from, at most twice as many."""
_DIGITS = 16
"""Digits of a fingerprint in the name of pictures given in Python."""


@dataclass(frozen=True)
class Given:
    """Pictures given as Python objects, in the place of those named by a run; None: the named ones."""

    source: Source | Pictures | None = None
    validation: Source | Pictures | None = None

    def named(self, run: Run, source: Source, held_out: Source | None) -> Run:
        """The run with names for the given pictures. A name tells their content, so that the run resumes with the same alone."""
        names = {
            name: f"{opened.spec} {opened.fingerprint[:_DIGITS]}"
            for name, given, opened in (("source", self.source, source), ("validation", self.validation, held_out))
            if given is not None and opened is not None
        }
        return run.replace(data=run.data.replace(**names)) if names else run


def open_data(run: Run, given: Given = Given()) -> tuple[Source, Source | None]:
    """The training pictures of a run, and its validation pictures, if any, in the size of training.

    given: pictures in the place of the run's. Raises Problem, also if the two differ in size or classes.
    """
    data, transforms = run.data, run.data.transforms
    if not run.task.conditions:
        data = data.replace(labels=False)
    captions = run.task.captions
    source = _open(data, data.source if given.source is None else given.source, transforms.source_size, data.channels, captions)
    if source.captioned and transforms.flip:
        told = f"{source.spec}: data.transforms.flip mirrors pictures, and not the left and right of their captions"
        warnings.warn(Note(told), stacklevel=2)
    size = transforms.applied_size(source.size)
    fitted = None if transforms.size is None else size
    if data.held_out:
        kept, apart = divide(len(source), data.held_out)
        source, held_out = part(source, kept, transforms.source_size), part(source, apart, fitted)
    elif (validation := data.validation if given.validation is None else given.validation) is not None:
        held_out = _open(data, validation, fitted, source.channels, captions)
    else:
        return source, None
    if held_out.size != size:
        raise Problem(
            f"to validate on, {held_out.spec} has pictures of {show(held_out.size)}, "
            f"the run trains on {show(size)} (height×width)"
        )
    if held_out.names != source.names:
        raise Problem(
            f"to validate on, {held_out.spec} has {classes(held_out)}, {source.spec} has {classes(source)}: they must be the same"
        )
    return source, held_out


def facts_of(run: Run, source: Source) -> DataFacts:
    """Facts of the training pictures, for a run's task."""
    size = run.data.transforms.applied_size(source.size)
    texts = partial(captions_of, source) if source.captioned else None
    embeddings = source.instead.get("embedding")
    return DataFacts(source.channels, size, source.names, source.captioned, texts, source.styles, embeddings, source)


def captions_of(source: Source) -> Iterator[str]:
    """Captions of pictures of a source, evenly over all of it, for a tokenizer to learn from."""
    for index in range(0, len(source), max(len(source) // _CAPTIONS, 1)):
        told = (source.row(index) or {}).get("caption", ())
        yield from (told,) if isinstance(told, str) else told


def _open(data: DataConfig, spec: str | Source | Pictures, size: Size | None, channels: int | None, captions: bool) -> Source:
    return open_source(
        spec,
        size=size,
        channels=channels,
        image_column=data.image_column,
        label_column=data.label_column,
        labels=data.labels,
        captions=captions,
        caption_column=data.caption_column,
        style_column=data.style_column,
        skip_bad=data.skip_bad,
    )


def classes(source: Source) -> str:
    """A description of the classes: their number, and the first names."""
    if source.names is None:
        return "no classes"
    return f"{len(source.names)} classes ({', '.join(source.names[:3])}{', …' if len(source.names) > 3 else ''})"
