"""The options `--prior`, and `--then`: further stages of a cascade, each a model with settings of its own in one text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar.cli.options import Sampling, Solving
from lodestar.config import Problem

if TYPE_CHECKING:
    from lodestar.generators.base import Generator
    from lodestar.generators.cascade import Stage
    from lodestar.generators.request import Asked
    from lodestar.generators.spelled import Spelled


@dataclass(frozen=True)
class Cascading:
    """Options of the commands that take a bundle with priors, and a cascade."""

    then: Annotated[
        list[str] | None,
        typer.Option(
            "--then",
            help="An upsampler that enlarges the pictures, with settings of its own: MODEL,steps=fast27,sampler=ddim,"
            "guidance=cfg:3 (also clamp, temperature, reuse, augment, classifier=MODEL); upsampler is the part of a bundle. "
            "Repeatable: in series.",
        ),
    ] = None
    prior: Annotated[
        str | None,
        typer.Option(
            "--prior",
            help="The prior of a bundle with a decoder: diffusion:scale=2,best_of=2 (default), autoregressive, or text.",
        ),
    ] = None

    def onto(self, first: Generator, options: Solving) -> Generator:
        """The model with its prior, and with the further stages after it, where they are given. Raises Problem."""
        first = first if self.prior is None else first.using(self.prior)
        if not self.then:
            return first
        from lodestar.generators.cascade import Cascade

        further = [read(text, options) for text in self.then]
        return Cascade([first, *(replace(each, model=_named_in(first.name, each.model)).stage() for each in further)])

    def last(self, model: str) -> str:
        """The name of the last stage's model; `model` is the first's."""
        return _named_in(model, _spelled(self.then[-1]).model) if self.then else model


def _named_in(first: str, model: str) -> str:
    """The name of a further stage's model: where it is a role in the first one's bundle, the name of that part."""
    from lodestar.library import parts

    found = parts(first)
    return found[model].name if model in found else model


@dataclass(frozen=True)
class Further(Sampling):
    """A further stage, as options have it."""

    model: str = ""
    augment: float = 0.0

    def asked(self) -> Asked:
        return super().asked() | {"augment": self.augment}

    def option(self, role: str) -> str:
        return f"--then {self.model},…,{role}=MODEL"

    def _given(self) -> dict[str, tuple[str, str]]:
        named = (text.partition("=") for text in self.guide or ())
        return {role: (f"{role}={name}", name) for role, _, name in named}

    def stage(self) -> Stage:
        """The stage, loaded. Raises Problem."""
        from lodestar.generators.cascade import Stage, further
        from lodestar.library import load_diffusion

        with _named(self.model):
            how = further(**self.asked())
            model = load_diffusion(self.model, self.device, self.precision)
            return Stage(model, guides=self.guides(self.model, how.guidance), **self.asked())


def read(text: str, options: Solving) -> Further:
    """A further stage in text: ``MODEL,name=value,…``; device and precision are those of the options. Raises Problem."""
    found = _spelled(text)
    numbers = found.numbers
    return Further(
        model=found.model, guidance=list(found.guidance) or None, sampler=found.sampler, steps=found.steps,
        guide=[f"{role}={value}" for role, value in found.guides.items()],
        clamp=numbers.clamp, temperature=numbers.temperature, reuse=numbers.reuse, augment=numbers.augment,
        device=options.device, precision=options.precision,
    )  # fmt: skip


def _spelled(text: str) -> Spelled:
    from lodestar.generators.spelled import STAGED, Spelled

    return Spelled.read(text, "--then ", STAGED)


@contextmanager
def _named(model: str) -> Iterator[None]:
    """Names the stage in the Problems that are raised within."""
    try:
        yield
    except Problem as problem:
        raise Problem(f"--then {model}: {problem}") from None
