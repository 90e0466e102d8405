"""Published models: their files, and configurations not contained in the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lodestar import download
from lodestar.config import Problem, nearest
from lodestar.conversion.family import Facts, Family, ModelConfig, check, contradictions


@dataclass(frozen=True)
class Published:
    """A published file of a model."""

    name: str
    """Our name, publisher and model, as in ``openai/adm-64``."""
    file: str
    """Published name of the file."""
    model: Callable[[], ModelConfig]
    """The whole configuration of the model."""
    family: Family
    url: str | None = None
    """Address of the file; None if it cannot be fetched by a program."""
    page: str = ""
    """Page with instructions to get the file."""
    sha256: str | None = None
    """SHA-256 of the file; None if unpublished."""
    others: tuple[str, ...] = ()
    """Addresses of the model's other files."""

    @property
    def short(self) -> str:
        """The model's name without its publisher; also the name of the converted file."""
        return self.name.rpartition("/")[2]

    def fetch(self) -> Path:
        """The file, in the cache folder. Raises Problem if it cannot be fetched."""
        if self.url is None:
            raise Problem(f"{self.name} cannot be fetched by a program: get {self.file} from {self.page}, and convert it")
        for other in self.others:
            download.fetch(other, None)
        return download.fetch(self.url, self.sha256)

    def check_hash(self, sha256: str, what: object) -> None:
        """Raise Problem unless the SHA-256 of the file is the known one, if any."""
        if self.sha256 not in (None, sha256):
            raise Problem(f"{what} is not {self.name}: its SHA-256 is {sha256}, the published one {self.sha256}")


def by_name(name: str, published: Sequence[Published]) -> Published:
    """The published model of this name, with or without its publisher. Raises Problem naming the nearest."""
    found = next((each for each in published if name in (each.name, each.short)), None)
    if found is None:
        names = [name for each in published for name in (each.name, each.short)]
        raise Problem(
            f"no published model {name!r}: choose from {', '.join(each.name for each in published)}{nearest(name, names)}"
        )
    return found


def identify(file: str, given: str | None, family: Family, facts: Facts, published: Sequence[Published]) -> Published:
    """The published model of a file: the given one, else the one with this file name.

    Raises Problem listing models compatible with the weights, if undecided, and if the weights contradict the model.
    """
    if given is not None:
        chosen = by_name(given, published)
        if chosen.family.name != family.name:
            raise Problem(f"{file} has the names of {family.name}, and {chosen.name} is a model of {chosen.family.name}")
    else:
        named = next((each for each in published if each.file == file and each.family.name == family.name), None)
        if named is None:
            raise Problem(_unnamed(file, family, facts, published))
        chosen = named
    check(chosen.model(), facts, file, chosen.name)
    return chosen


def _unnamed(file: str, family: Family, facts: Facts, published: Sequence[Published]) -> str:
    """Error message for a file of a family with an unpublished name."""
    allowed = [each.name for each in published if each.family.name == family.name and not contradictions(each.model(), facts)]
    says = (
        f"{file} has the names of {family.name} but not the name of a published file, and weights do not tell everything "
        f"({family.silent}): "
    )
    flags = f"the flags that it was trained with, as in {family.flags}"
    if allowed:
        return f"{says}its weights are those of {' or '.join(allowed)}; say which with --as NAME" + (
            f"; or, if it is none of them, give {flags}" if family.own else ""
        )
    if family.own is None:
        return f"{says}its weights are those of no published model known here, and others of this family are not read"
    return f"{says}its weights are those of no published model known here; give {flags}"
