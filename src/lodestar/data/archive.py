"""Pictures in a zip archive: one folder for each class, all in one, without labels, or with ``dataset.json`` (as EDM's are)."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from lodestar.config import Problem
from lodestar.data.folder import is_picture
from lodestar.files import sha256


class ZipRows:
    """The picture files of an archive, in the order of their names. Nothing is unpacked on disk."""

    def __init__(self, path: Path, spec: str):
        self._path, self._spec = path, spec
        try:
            self._archive = zipfile.ZipFile(path)
        except OSError as error:
            raise Problem(f"cannot read {path}: {error.strerror or error}") from None
        except zipfile.BadZipFile:
            raise Problem(f"{path} is no zip archive, or it is cut short") from None
        every = self._archive.namelist()
        self._files = sorted(name for name in every if is_picture(name.rpartition("/")[2]))
        self.names: tuple[str, ...] | None = None
        self.labels: np.ndarray | None = None
        kinds = self._told() if "dataset.json" in every else [name.rpartition("/")[0] for name in self._files]
        if any(kinds) and not all(kinds):
            raise Problem(
                f"{spec} holds pictures ({self._files[kinds.index('')]}) beside folders of pictures ({max(kinds)}): "
                "either every picture is in a folder named after its class, or none is"
            )
        if any(kinds):
            ordered = sorted(set(kinds), key=lambda kind: (len(kind), kind) if kind.isdecimal() else (0, kind))
            number = {kind: k for k, kind in enumerate(ordered)}
            self.names, self.labels = tuple(ordered), np.array([number[kind] for kind in kinds], np.int64)

    def __len__(self) -> int:
        return len(self._files)

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        yield np.arange(len(self))

    def where(self, index: int) -> str:
        return f"{self._files[index]} in {self._spec}"

    def picture(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self.encoded(index)))

    def encoded(self, index: int) -> bytes:
        return self._archive.read(self._files[index])

    def fingerprint(self) -> str:
        return sha256(self._path)

    def _told(self) -> list[str]:
        """The class of each picture in ``dataset.json``, ``{"labels": [[file, number], ...] or null}``; "" is none."""
        try:
            labels = dict(json.loads(self._archive.read("dataset.json"))["labels"] or [])
            return [str(int(labels[name])) if labels else "" for name in self._files]
        except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            reason = f"it has no label for {error}" if isinstance(error, KeyError) else error
            raise Problem(f"{self._spec}: dataset.json is not as expected: {reason}") from None
