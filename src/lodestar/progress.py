"""Progress bars on standard error, so that standard output stays for results."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lodestar.models.classifier import PictureClassifier
from lodestar.models.diffusion import Diffusion, Frame, Request


def bar(console: Console | None = None, unit: str = "") -> Progress:
    """A bar with a count, a free text field ``note``, and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=console or Console(stderr=True),
    )


def track(model: Diffusion, request: Request, batch_size: int, classifier: PictureClassifier | None) -> Iterator[Frame]:
    """The final frames of a request, with a bar that counts picture steps."""
    with bar(unit="picture steps") as progress:
        task = None
        for frame in model.stream(request, batch_size=batch_size, classifier=classifier):
            if task is None:
                task = progress.add_task("sampling", total=len(request.labels) * frame.steps, note="")
            progress.advance(task, len(frame.x))
            if frame.final:
                yield frame
