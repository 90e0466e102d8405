"""Pictures that are there in Python, by number: a map-style data set as PyTorch has them, or a list."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from lodestar.config import Problem
from lodestar.data.captions import CAPTION, Reader, Texts, text_columns
from lodestar.data.classes import numbered
from lodestar.data.colour import convert, in_colour
from lodestar.data.columns import Asked, Labels, if_asked
from lodestar.data.transforms import to_png
from lodestar.files import reading
from lodestar.progress import progress

_LIKELY = {1: 2, 3: 2, 2: 1, 4: 1}
"""Likelihood of an axis of a length to be channels: grey and RGB before those with alpha; other lengths are excluded."""


class ObjectRows:
    """The items of an object: see `lodestar.data.open_source` for what they may be. It is asked for one at a time.

    Labels are those in ``targets``, as torchvision's data sets have them, or each item's own, for which all are read once.
    """

    channels = None
    packed = False

    def __init__(self, data: Any, spec: str, asked: Asked = Asked()):  # noqa: B008 (it is frozen)
        self._data, self._spec, self._asked, self._lock = data, spec, asked, threading.Lock()
        self.texts: Reader | None = self._texts if asked.captions or asked.style is not None else None
        self.names, self.labels = if_asked(asked, self._labels)

    def __len__(self) -> int:
        return len(self._data)

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        yield np.arange(len(self))

    def where(self, index: int) -> str:
        return f"item {index} of {self._spec}"

    def picture(self, index: int) -> Image.Image:
        picture = self._item(index)[0]
        return picture if isinstance(picture, Image.Image) else _picture(picture)

    def encoded(self, index: int) -> bytes:
        picture = self.picture(index)
        return to_png(convert(picture, 3 if in_colour(picture) else 1))

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for index in range(len(self)):
            with reading(self.where(index), "cannot be decoded"):
                picture = convert(self.picture(index), 3)
            digest.update(f"{picture.size}".encode() + picture.tobytes())
        return digest.hexdigest()

    def _texts(self, index: int) -> Texts:
        with self._lock:
            item = self._data[index]
        if not isinstance(item, Mapping):
            item = {CAPTION: item[1]} if isinstance(item, tuple | list) and len(item) == 2 else {}
        columns = text_columns({str(name): None for name in item}, self.where(index), self._asked)
        assert columns is not None, "texts are asked for"
        return columns.read(item)

    def _item(self, index: int) -> tuple[Any, Any]:
        """A picture, and its label or None. Where captions are asked for, the second part of a pair is one, and no label."""
        with self._lock:
            item = self._data[index]
        if isinstance(item, Mapping):
            image, label = self._asked.image or "image", self._asked.label or "label"
            if image not in item:
                raise ValueError(f"it has no {image!r}, but {', '.join(map(str, item))}")
            return item[image], item.get(label)
        if isinstance(item, tuple | list):
            if len(item) not in (1, 2):
                raise ValueError(f"it has {len(item)} parts, and an item is a picture, or a picture and a label")
            return item[0], item[1] if len(item) == 2 and self.texts is None else None
        return item, None

    def _labels(self) -> Labels:
        values = [self._label(index, value) for index, value in enumerate(self._values())]
        if all(value is None or value == -1 for value in values):
            return None, None
        if None in values:
            raise Problem(f"{self.where(values.index(None))} has no label, and others have")
        names = getattr(self._data, "classes", None)
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            numbers = [value for value in values if isinstance(value, int) and 0 <= value < len(names)]
            if len(numbers) == len(values):
                return tuple(names), np.array(numbers, np.int64)
        return numbered([value for value in values if value is not None])

    def _values(self) -> Iterable[Any]:
        """The labels as the object has them."""
        targets = getattr(self._data, "targets", None)
        if targets is not None and getattr(self._data, "target_transform", None) is None and len(targets) == len(self):
            yield from targets
            return
        with progress(f"labels of {self._spec}", len(self)) as done:
            for index in range(len(self)):
                with reading(self.where(index)):
                    _, label = self._item(index)
                yield label
                done(index + 1)

    def _label(self, index: int, value: Any) -> int | str | None:
        value = value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value
        if value is not None and not isinstance(value, int | str):
            raise Problem(f"{self.where(index)} has a {type(value).__name__} for a label: labels are class numbers or names")
        return value


def _picture(value: Any) -> Image.Image:
    """An array [H, W] or [H, W, C], or a tensor [H, W] or [C, H, W], as a picture; the other way round where that is likelier."""
    first = hasattr(value, "detach")  # a tensor, without asking for torch
    array = np.asarray(value.detach().cpu() if first else value)
    if array.ndim == 3:
        begins, ends = _LIKELY.get(array.shape[0], 0), _LIKELY.get(array.shape[2], 0)
        array = array.transpose(1, 2, 0) if begins > ends or (first and begins == ends) else array
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _LIKELY):
        raise ValueError(f"it is {array.dtype} {list(array.shape)}, and no picture [H, W, C] or tensor [C, H, W]")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(_bytes(array)))


def _bytes(array: np.ndarray) -> np.ndarray:
    """Values as uint8."""
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return np.rint(array / 257).astype(np.uint8)
    if array.dtype.kind == "f":
        if not (array.size and np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ValueError("its values are floats outside of [0, 1]: give them as they are before they are normalised")
        return np.rint(array * 255.0).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f"its values are {array.dtype}: give uint8, uint16, or floats in [0, 1]")
    return array
