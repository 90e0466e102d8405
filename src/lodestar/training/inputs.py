"""The training and validation pictures of a run."""

from __future__ import annotations

from lodestar.config import Problem
from lodestar.data import Source, divide, open_source, part
from lodestar.data.transforms import Size, show
from lodestar.training.run import DataConfig, Run


def open_data(run: Run) -> tuple[Source, Source | None]:
    """The training pictures of a run, and the validation pictures, if any, both at the training size.

    Raises Problem, also if the two differ in size or classes.
    """
    data, transforms = run.data, run.data.transforms
    if not run.task.conditions:
        data = data.replace(labels=False)
    source = _open(data, data.source, transforms.source_size, data.channels)
    size = transforms.result_size(source.size)
    fitted = None if transforms.size is None else size
    if data.held_out:
        kept, apart = divide(len(source), data.held_out)
        source, held_out = part(source, kept, transforms.source_size), part(source, apart, fitted)
    elif data.validation is not None:
        held_out = _open(data, data.validation, fitted, source.channels)
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


def _open(data: DataConfig, spec: str, size: Size | None, channels: int | None) -> Source:
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
