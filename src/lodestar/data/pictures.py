"""Pictures to edit or enlarge: files, folders, tables and albums as they come, each brought to the size of a model's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lodestar.config import Problem, nearest, shown
from lodestar.data.colour import convert
from lodestar.data.source import ending, open_source
from lodestar.data.transforms import Size, fit, to_array
from lodestar.files import reading, regular


@dataclass(frozen=True)
class Picture:
    """One picture."""

    name: str
    """Location of the picture."""
    image: np.ndarray
    """uint8 [C, H, W], resized and cropped as pictures are for training."""
    size: Size
    """Size of the picture before."""
    label: str | None
    """The name of its class, where its folder, table or album tells it."""


Given = str | Path | Image.Image | np.ndarray
"""Pictures as a person has them: files, folders and so on, PIL's, or arrays uint8 [H, W] or [H, W, C]."""


def read_pictures(specs: Sequence[Given], channels: int, size: Size | None, chosen: Sequence[int] = ()) -> list[Picture]:
    """The pictures of files, and of whatever else `lodestar.data.open_source` opens, and those in memory, one after another.

    size: what they are resized and cropped to; None keeps their own. chosen: the numbers of the wanted pictures, in their order;
    all if empty. Raises Problem naming an unreadable picture.
    """
    ways = [way for number, spec in enumerate(specs) for way in _ways(spec, number, channels, size)]
    for number in chosen:
        if not 0 <= number < len(ways):
            raise Problem(f"picture {number}: there are 0 to {len(ways) - 1} of them")
    return [_read(*ways[number], channels, size) for number in chosen or range(len(ways))]


def _ways(
    given: Given, number: int, channels: int, size: Size | None
) -> Iterator[tuple[Callable[[], Image.Image], str, str | None]]:
    """Openers of the given pictures, with their names in messages, and their classes."""
    if isinstance(given, Image.Image):
        yield lambda: given, f"picture {number}", None
        return
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or given.ndim not in (2, 3) or given.shape[2:] not in ((), (1,), (3,), (4,)):
            raise Problem(f"picture {number} is {given.dtype} {list(given.shape)}: an array of one is uint8 [H, W] or [H, W, C]")
        array = given[:, :, 0] if given.shape[2:] == (1,) else given
        yield lambda: Image.fromarray(array), f"picture {number}", None
        return
    if not isinstance(given, str | Path):
        raise Problem(f"picture {number} is {shown(given)}: a file, a folder, a PIL picture or an array uint8 [H, W, C]")
    spec = str(given)
    with reading(spec):
        path = Path(spec).expanduser()
        there, whole = path.exists(), path.is_dir() or bool(ending(path))
    if there and not whole:
        yield lambda: Image.open(regular(path)), spec, None
        return
    if not there and path.suffix.lower() in Image.registered_extensions():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise Problem(f"no picture {spec!r}{nearest(path.name, beside)}")
    rows = open_source(spec, channels=channels, size=size, labels=None).rows
    for index in range(len(rows)):
        label = None if rows.names is None or rows.labels is None else rows.names[rows.labels[index]]
        yield lambda index=index: rows.picture(index), rows.where(index), label  # type: ignore[misc]


def _read(picture: Callable[[], Image.Image], name: str, label: str | None, channels: int, size: Size | None) -> Picture:
    whole = converted(picture, name, channels)
    return Picture(name, to_array(whole if size is None else fit(whole, size)), (whole.height, whole.width), label)


def converted(picture: Callable[[], Image.Image], name: str, channels: int) -> Image.Image:
    """A picture opened now, by `convert`. Raises Problem by its name if it cannot be decoded."""
    with reading(name, "cannot be decoded"):
        try:
            return convert(picture(), channels)
        except FileNotFoundError:
            raise Problem(f"no picture {name!r}") from None
