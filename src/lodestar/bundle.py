"""A model of several files: one small JSON file, ``NAME.bundle.json``, that names its parts by role and pins them by SHA-256.

Roles are open text; a user of a bundle takes the roles it knows. The bundle is loaded as its part "model"; other parts go with
this model: its guides, under the roles in which guidance asks for them, a "reference" to measure against, and so on. An embedded
model's companions are named in a bundle in the package.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lodestar import checkpoint
from lodestar.config import Config, Problem, decode, nearest
from lodestar.files import read_json, write_text

SUFFIX = ".bundle.json"
"""Ending of the names of bundles."""

MAIN = "model"
"""The role of the part that a bundle is loaded as."""

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the embedded models and their bundles."""

DEEPEST = 16
"""Bundles in bundles are refused when they are nested deeper."""

_CHECKPOINT = ".safetensors"

Role = Annotated[str, Field(min_length=1, max_length=100)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Part(Config):
    """A file beside the bundle, or a model in the package."""

    file: str | None = Field(default=None, min_length=1, max_length=4_096)
    """Path from the bundle's folder, with ``/``; it may not leave that folder."""
    name: str | None = Field(default=None, min_length=1, max_length=100)
    """Or an embedded model's name."""
    sha256: Digest
    """Digest of a checkpoint's content, or of a bundle's roles and digests, as `lodestar info` shows it."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is None) == (self.name is None):
            raise Problem("a part is a file or the name of an embedded model: give exactly one")
        if self.file is not None and not _stays(self.file):
            raise Problem(f"file {self.file!r} leaves the bundle's folder: give a path below that, without ..")
        return self

    def place(self, folder: Path) -> tuple[str, Path]:
        """Name or path to load the part by, and its file, for a bundle in this folder. Raises Problem for an unknown name."""
        if self.file is not None:
            path = folder.joinpath(*PurePosixPath(self.file).parts)
            return str(path), path
        assert self.name is not None
        if self.name not in embedded():
            raise Problem(f"no embedded model {self.name!r}: choose from {', '.join(embedded())}{nearest(self.name, embedded())}")
        return self.name, packaged(self.name)


class Bundle(Config):
    """The parts of a model, by role."""

    format: Literal["lodestar-bundle/1"] = "lodestar-bundle/1"
    parts: Mapping[Role, Part] = Field(min_length=1, max_length=1_000)

    @property
    def digest(self) -> str:
        """SHA-256 of the roles and their digests, wherever the files are."""
        told = json.dumps({role: part.sha256 for role, part in self.parts.items()}, sort_keys=True)
        return hashlib.sha256(f"{self.format}\n{told}".encode()).hexdigest()


@dataclass(frozen=True)
class Found:
    """A part whose file exists and has the digest named by its bundle."""

    name: str
    """Name or path to load the part by."""
    file: Path
    kind: str
    """Kind of the file: "bundle", or a checkpoint's kind ("diffusion", "classifier", "statistics" …)."""
    digest: str


def embedded() -> list[str]:
    """Names of the models in the package."""
    return sorted({path.name.removesuffix(suffix) for suffix in (_CHECKPOINT, SUFFIX) for path in WEIGHTS.glob(f"*{suffix}")})


def packaged(name: str) -> Path:
    """The file of an embedded model: its bundle, where it has one."""
    bundle = WEIGHTS / f"{name}{SUFFIX}"
    return bundle if bundle.exists() else WEIGHTS / f"{name}{_CHECKPOINT}"


def save(path: str | Path, parts: Mapping[str, str | Path]) -> Bundle:
    """Write a bundle, atomically, of files below its folder and of embedded models by name, as they are now.

    path: ends in ``.bundle.json``. parts: by role; "model" is what is loaded. Raises Problem for a part that cannot be read.
    """
    path = Path(path)
    if not path.name.endswith(SUFFIX):
        raise Problem(f"{path} is no name for a bundle: end it with {SUFFIX}")
    bundle = decode(Bundle, {"parts": {role: _part(role, part, path) for role, part in parts.items()}}, str(path))
    write_text(path, json.dumps(bundle.model_dump(mode="json", exclude_none=True), indent=2) + "\n")
    return bundle


def read(path: str | Path) -> Bundle:
    """A bundle's file, its parts unseen. Raises Problem."""
    return decode(Bundle, read_json(path), str(path))


def find(path: Path) -> dict[str, Found]:
    """The parts of a bundle, by role, each checked by its header. Raises Problem naming the part that is missing or another."""
    return _Search().parts(path, ())


class _Search:
    """Looks at each file once, however many bundles name it."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, str]] = {}

    def parts(self, path: Path, around: tuple[str, ...]) -> dict[str, Found]:
        """The parts of a bundle that stands in these others, the outermost first."""
        around = (*around, os.path.realpath(path))
        found = {}
        for role, part in read(path).parts.items():
            what = f"{path}: part {role!r}"
            try:
                name, file = part.place(path.parent)
                kind, digest = self.look(file, around)
            except Problem as problem:
                raise Problem(f"{what}: {problem}") from None
            if digest != part.sha256:
                raise Problem(f"{what}: {file} is another one: its SHA-256 is {digest}, and the bundle names {part.sha256}")
            found[role] = Found(name, file, kind, digest)
        return found

    def look(self, file: Path, around: tuple[str, ...]) -> tuple[str, str]:
        """The kind of a file and its digest. Raises Problem."""
        if not os.path.isfile(file):  # which says no to a name that no system takes
            raise Problem(f"{file} is missing")
        real = os.path.realpath(file)
        if real in around:
            raise Problem(f"{file} is a bundle that this one is a part of, and so a circle")
        if real not in self.known:
            if not file.name.endswith(SUFFIX):
                header = checkpoint.peek(file)
                self.known[real] = header.kind, header.digest
            elif len(around) == DEEPEST:
                raise Problem(f"{file} is a bundle in {DEEPEST} others: {DEEPEST} is the most")
            else:
                self.parts(file, around)
                self.known[real] = "bundle", read(file).digest
        return self.known[real]


def _part(role: str, given: str | Path, path: Path) -> dict[str, str]:
    """The JSON of a part of the bundle at `path`. Raises Problem for a file that is not there, or not below its folder."""
    inside = str(given) in embedded()
    file = packaged(str(given)) if inside else Path(given)
    try:
        place = {"name": str(given)} if inside else {"file": _below(file, path.parent)}
        return {**place, "sha256": _Search().look(file, (os.path.realpath(path),))[1]}
    except Problem as problem:
        raise Problem(f"{path}: part {role!r}: {problem}") from None


def _below(file: Path, folder: Path) -> str:
    """The path of a file from a folder. Raises Problem where it is not in there."""
    try:
        return Path(os.path.abspath(file)).relative_to(os.path.abspath(folder)).as_posix()
    except ValueError:
        raise Problem(f"{file} is not below {folder}, where the bundle is") from None


def _stays(file: str) -> bool:
    """Whether a path is relative and goes up nowhere, on any system."""
    path = PureWindowsPath(file)  # which knows both separators
    return not path.anchor and not PurePosixPath(file).anchor and ".." not in path.parts and path.name != ""
