"""A published model: where it is, and what its weights do not tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lodestar import download
from lodestar.config import Problem, nearest
from lodestar.conversion.family import Facts, Family, ModelConfig, check, contradictions


@dataclass(frozen=True)
class Published:
    """One file that somebody has published."""

    name: str
    """Ours for it: the publisher and the model, as in ``openai/adm-64``."""
    file: str
    """The name that it has where it is published."""
    model: Callable[[], ModelConfig]
    """The whole configuration."""
    family: Family
    url: str | None = None
    """Where it is; None where no program can fetch it."""
    page: str = ""
    """The page that tells how to get it."""
    sha256: str | None = None
    """Of the file; None where nobody has published it."""

    @property
    def short(self) -> str:
        """The model's name without its publisher's; that of the converted file."""
        return self.name.rpartition("/")[2]

    def fetch(self) -> Path:
        """The file, in the cache folder. Raises Problem if it cannot be fetched."""
        if self.url is None:
            raise Problem(f"{self.name} cannot be fetched by a program: get {self.file} from {self.page}, and convert it")
        return download.fetch(self.url, self.sha256)

    def check_hash(self, sha256: str, what: object) -> None:
        """Raise Problem if the SHA-256 of the file is known, and another."""
        if self.sha256 not in (None, sha256):
            raise Problem(f"{what} is not {self.name}: its SHA-256 is {sha256}, the published one {self.sha256}")


def by_name(name: str, published: Sequence[Published]) -> Published:
    """The published model of this name, its publisher's given or not. Raises Problem naming the nearest."""
    found = next((each for each in published if name in (each.name, each.short)), None)
    if found is None:
        names = [name for each in published for name in (each.name, each.short)]
        raise Problem(
            f"no published model {name!r}: choose from {', '.join(each.name for each in published)}{nearest(name, names)}"
        )
    return found


def identify(file: str, given: str | None, family: Family, facts: Facts, published: Sequence[Published]) -> Published:
    """Which published model a file is: the one given, else the one whose file has this name.

    Raises Problem where neither tells, with those that its weights allow, and where the weights contradict it.
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
    """What to say of a file of a family whose name is no published one's."""
    allowed = [each.name for each in published if each.family.name == family.name and not contradictions(each.model(), facts)]
    says = (
        f"{file} has the names of {family.name} but not the name of a published file, and weights do not tell everything "
        "(attention heads, noise schedule): "
    )
    flags = "the flags that it was trained with, as in --flags '--image_size 64 --num_channels 128 …', or --flags FILE"
    if allowed:
        return f"{says}its weights are those of {' or '.join(allowed)}; say which with --as NAME" + (
            f"; or, if it is none of them, give {flags}" if family.own else ""
        )
    if family.own is None:
        return f"{says}its weights are those of no published model known here, and others of this family are not read"
    return f"{says}its weights are those of no published model known here; give {flags}"
