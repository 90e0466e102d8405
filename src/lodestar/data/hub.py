"""Pictures of a data set on the Hugging Face hub, through `datasets`: downloaded once, then memory-mapped."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lodestar.config import Problem, first_line
from lodestar.data.captions import Reader, Texts, text_columns
from lodestar.data.columns import Asked, image_column, read_labels
from lodestar.extras import need
from lodestar.files import regular


def load(name: str, split: str, spec: str) -> Any:
    """The split of the hub's data set `name`, a `datasets.Dataset`. Raises Problem with the hub's reason."""
    datasets = need("datasets")
    try:
        return datasets.load_dataset(name, split=split)
    # The hub, the network, the cache and the data set's own files each raise their own kinds.
    except Exception as error:
        raise Problem(
            f"the hub data set {spec!r}, split {split!r}, cannot be loaded, and there is no such path: {first_line(error)}"
        ) from error


class HubRows:
    """The rows of a `datasets.Dataset`, which maps its files into memory and reads a row at a time."""

    channels = None
    packed = True

    def __init__(self, table: Any, spec: str, asked: Asked = Asked()):  # noqa: B008 (it is frozen)
        table = table.with_format(None)  # what is stored, whatever a user has it turned into
        features = table.features.to_dict()
        self._spec = spec
        self._columns = text_columns(features, spec, asked)
        texts = self._columns.all if self._columns else ()
        self._image = image_column(features, spec, asked, texts)
        self.texts: Reader | None = self._texts if self._columns else None
        self.names, self.labels = read_labels(features, spec, asked, table.__getitem__)
        # Decoding is ours, so that a picture that fails is named.
        self._table = table.select_columns([self._image]).cast_column(self._image, need("datasets").Image(decode=False))
        self._told = table.select_columns(list(texts)) if texts else None

    def __len__(self) -> int:
        return len(self._table)

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        yield np.arange(len(self))

    def where(self, index: int) -> str:
        return f"row {index} of {self._spec}"

    def picture(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self.encoded(index)))

    def encoded(self, index: int) -> bytes:
        cell = self._table[index][self._image]
        if not cell:
            raise ValueError("it holds no picture")
        return cell["bytes"] or regular(Path(cell["path"])).read_bytes()

    def styles(self) -> Sequence[str | None]:
        told = self._columns
        if told is None or told.style is None:
            return ()
        assert self._told is not None
        return told.styles(self._told[told.style])

    def _texts(self, index: int) -> Texts:
        assert self._columns is not None and self._told is not None
        return self._columns.read(self._told[index])

    def fingerprint(self) -> str:
        return str(self._table._fingerprint)
