"""Class numbers: the same in a folder, an archive, a table and an array of the same pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

_NUMBER = re.compile(r"-?[0-9]{1,18}")


def in_order(names: Iterable[str]) -> list[str]:
    """Distinct names in the order of classes: whole numbers by their size, so that 10 comes after 9, then words by spelling."""

    def place(name: str) -> tuple[bool, int, str]:
        number = _NUMBER.fullmatch(name) is not None
        return not number, int(name) if number else 0, name

    return sorted(set(names), key=place)


def numbered(values: Sequence[int | str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names, those of the distinct values in order, and the class numbers int64 [N] of the values."""
    names = in_order(map(str, set(values)))
    number = {name: k for k, name in enumerate(names)}
    return tuple(names), np.fromiter((number[str(value)] for value in values), np.int64, len(values))
