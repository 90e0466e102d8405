"""Pictures in memory, among them the 8×8 digits that scikit-learn carries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from PIL import Image

from lodestar.data.captions import Reader
from lodestar.data.columns import Asked
from lodestar.data.transforms import to_png
from lodestar.extras import need


class ArrayRows:
    """Pictures uint8 [N,H,W] (grey) or [N,H,W,3], with labels [N] in 0..len(names)-1, or without."""

    packed = False
    texts: Reader | None = None

    def __init__(self, images: np.ndarray, labels: np.ndarray | None = None, names: tuple[str, ...] | None = None):
        assert images.dtype == np.uint8 and images.ndim in (3, 4)
        assert (labels is None) == (names is None)
        self._images, self.labels, self.names = images, labels, names
        self.channels = 1 if images.ndim == 3 else 3

    def __len__(self) -> int:
        return len(self._images)

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        yield np.arange(len(self))

    def where(self, index: int) -> str:
        return f"picture {index}"

    def picture(self, index: int) -> Image.Image:
        return Image.fromarray(self._images[index])

    def encoded(self, index: int) -> bytes:
        return to_png(self.picture(index))

    def fingerprint(self) -> str:
        return hashlib.sha256(self._images.tobytes()).hexdigest()


def digits(asked: Asked = Asked()) -> ArrayRows:  # noqa: B008 (it is frozen)
    """1,797 handwritten digits, 8×8, grey, 0..16 scaled to 0..255: the test part of UCI's optical digits."""
    bunch = need("sklearn.datasets").load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    if asked.labels is False:
        return ArrayRows(images)
    return ArrayRows(images, bunch.target, tuple(str(name) for name in bunch.target_names))
