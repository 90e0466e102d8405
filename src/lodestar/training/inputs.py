"""The training and validation pictures of a run."""

from __future__ import annotations

from dataclasses import dataclass

from lodestar.config import Problem
from lodestar.data import Pictures, Source, divide, open_source, part
from lodestar.data.transforms import Size, show
from lodestar.training.run import DataConfig, Run

_DIGITS = 16
"""Of a fingerprint, in the name of what has no other."""


@dataclass(frozen=True)
class Given:
    """Pictures that are there in Python, in the place of those that a run names; None: those."""

    source: Source | Pictures | None = None
    validation: Source | Pictures | None = None

    def named(self, run: Run, source: Source, held_out: Source | None) -> Run:
        """The run with the names of what it was given, which tell its content too, so that it resumes with the same alone."""
        names = {
            name: f"{opened.spec} {opened.fingerprint[:_DIGITS]}"
            for name, given, opened in (("source", self.source, source), ("validation", self.validation, held_out))
            if given is not None and opened is not None
        }
        return run.replace(data=run.data.replace(**names)) if names else run


def open_data(run: Run, given: Given = Given()) -> tuple[Source, Source | None]:
    """The pictures that a run trains on, and those that it validates on, if any, of the size that it trains on.

    given: those that it does not name. Raises Problem, also if the two differ in size or classes.
    """
    data, transforms = run.data, run.data.transforms
    if not run.task.conditions:
        data = data.replace(labels=False)
    source = _open(data, data.source if given.source is None else given.source, transforms.source_size, data.channels)
    size = transforms.result_size(source.size)
    fitted = None if transforms.size is None else size
    if data.held_out:
        kept, apart = divide(len(source), data.held_out)
        source, held_out = part(source, kept, transforms.source_size), part(source, apart, fitted)
    elif (validation := data.validation if given.validation is None else given.validation) is not None:
        held_out = _open(data, validation, fitted, source.channels)
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


def _open(data: DataConfig, spec: str | Source | Pictures, size: Size | None, channels: int | None) -> Source:
    return open_source(
        spec,
        size=size,
        channels=channels,
        image_column=data.image_column,
        label_column=data.label_column,
        labels=data.labels,
        skip_bad=data.skip_bad,
    )


def classes(source: Source) -> str:
    """A description of the classes: their number, and the first names."""
    if source.names is None:
        return "no classes"
    return f"{len(source.names)} classes ({', '.join(source.names[:3])}{', …' if len(source.names) > 3 else ''})"
