"""A user-defined sampler: a function, or an object of an unregistered class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal, Self

from pydantic import PrivateAttr
from torch import Tensor

from lodestar.config import Problem
from lodestar.core.estimate import Denoise, Noise
from lodestar.core.transition import Transition
from lodestar.samplers.base import Sampler, State

Algorithm = Callable[[Denoise, Tensor, Sequence[Transition], Noise], Iterator[State]]


class Own(Sampler):
    """A sampler known to this process alone. Its pictures cannot be made again from their manifest."""

    in_text: ClassVar[bool] = False

    kind: Literal["own"] = "own"
    name: str
    """Name of the function or class."""

    _call: Algorithm | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, call: Algorithm) -> Self:
        """Wrap ``call(denoise, x, steps, noise)``, an iterator that yields a `State` after each step."""
        own = cls(name=getattr(call, "__name__", type(call).__name__))
        own._call = call
        return own

    def check(
        self, steps: Sequence[Transition], *, renoiser: str | None = None, shifted: bool = False, learned: bool = True
    ) -> None:
        """Raise Problem if the function is missing; the function's own refusals are known only once it runs."""
        self.algorithm()

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        return self.algorithm()(denoise, x, steps, noise)

    def algorithm(self) -> Algorithm:
        """The function itself. Raises Problem if the function belonged to another process."""
        if self._call is None:
            raise Problem(f"sampler own: {self.name!r} was an object of the program that used it, which no file holds")
        return self._call
