"""The models, sweeps and training runs of a playground: embedded ones, and all in its folders."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lodestar import bundle, checkpoint, library
from lodestar.config import Problem, choose
from lodestar.evaluation.sweep import CSV
from lodestar.generators.base import Generator
from lodestar.models.diffusion import DiffusionConfig
from lodestar.training.names import LOG

KEPT = 4
"""Maximum number of models in memory, the last used."""


@dataclass(frozen=True)
class Loading:
    """The way in which models are loaded."""

    device: str | None = None
    dtype: str | None = None


class Shelf:
    """Models by their names in a list, never by a client's path."""

    def __init__(self, folders: Sequence[str | Path] = (), loading: Loading | None = None) -> None:
        """folders: those that are looked through, also below them. Raises Problem for one that is none."""
        self.folders, self.loading = tuple(map(Path, folders)), loading or Loading()
        for folder in self.folders:
            if not folder.is_dir():
                raise Problem(f"{folder} is no folder: give those of your runs and models")
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[Path, int], Any] = OrderedDict()

    def models(self) -> list[str]:
        """Names of the models that make pictures: embedded ones, runs, files and bundles."""
        return [name for name, file in self._files() if _makes_pictures(*_stamped(file))]

    def guides(self) -> list[str]:
        """Names of all models."""
        return [name for name, file in self._files() if _kind(*_stamped(file)) in library.KINDS]

    def upsamplers(self) -> list[str]:
        """Names of the models that enlarge pictures."""
        return [name for name, file in self._files() if _kind(*_stamped(file)) == "diffusion" and _enlarges(*_stamped(file))]

    def runs(self) -> dict[str, Path]:
        """The folders of training runs, by name."""
        return {str(path.parent): path.parent for path in self._below(LOG)}

    def sweeps(self) -> dict[str, Path]:
        """The folders of sweeps, by name."""
        return {str(path.parent): path.parent for path in self._below(CSV)}

    def generator(self, name: str) -> Generator:
        """A model that makes pictures, of the list. Raises Problem for another name, and for a file that is damaged."""
        choose("model", name, dict.fromkeys(self.models()))
        found: Generator = self._loaded(name, library.load_generator)
        return found

    def guide(self, name: str) -> Any:
        """A model that steers others, of the list. Raises Problem as `generator` does."""
        choose("model", name, dict.fromkeys(self.guides()))
        return self._loaded(name, library.load)

    def _loaded(self, name: str, load: Any) -> Any:
        """A model in memory; another one is loaded where its file has changed."""
        with self._lock:
            key = _stamped(library.bundled(name) or library.find(name))
            if key not in self._held:
                self._held[key] = load(name, self.loading.device, dtype=self.loading.dtype)
            self._held.move_to_end(key)
            while len(self._held) > KEPT:
                self._held.popitem(last=False)
            return self._held[key]

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Names of models and their files."""
        yield from ((name, bundle.packaged(name)) for name in bundle.embedded())
        for path in (*self._below(f"*{bundle.SUFFIX}"), *self._below("*.safetensors")):
            yield str(path.parent if path.name == library.MODEL else path), path

    def _below(self, pattern: str) -> Iterator[Path]:
        """Files in the folders, by a pattern of their names; links that lead out of them are left out."""
        for folder in self.folders:
            whole = folder.resolve()
            yield from (path for path in sorted(folder.rglob(pattern)) if path.resolve().is_relative_to(whole))


def _stamped(file: Path) -> tuple[Path, int]:
    return file, file.stat().st_mtime_ns


@lru_cache(maxsize=10_000)
def _kind(file: Path, stamp: int) -> str | None:
    """Kind of a model's file, or of a bundle's part "model"; None where it cannot be read."""
    try:
        part = bundle.find(file)[bundle.MAIN].file if file.name.endswith(bundle.SUFFIX) else file
        return checkpoint.peek(part).kind
    except (Problem, KeyError):
        return None


@lru_cache(maxsize=10_000)
def _enlarges(file: Path, stamp: int) -> bool:
    """True for the file of an upsampler, or its bundle."""
    try:
        config = library.config(file)
    except Problem:
        return False
    return isinstance(config, DiffusionConfig) and config.denoiser.low_res is not None


def _makes_pictures(file: Path, stamp: int) -> bool:
    kind = library.KINDS.get(_kind(file, stamp) or "")
    return kind is not None and (not isinstance(kind.build, type) or issubclass(kind.build, Generator))
