"""User-defined guidance: a function, or an object of an unregistered class."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, Self

from pydantic import PrivateAttr

from lodestar.config import Problem
from lodestar.core.estimate import Denoise
from lodestar.guidance.base import Context, Guidance


class Own(Guidance):
    """A guidance known to this process alone. Its pictures cannot be made again from their manifest."""

    in_text: ClassVar[bool] = False

    kind: Literal["own"] = "own"
    name: str
    """Name of the function or class."""

    _call: Callable[[Denoise, Context], Denoise] | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, call: Callable[[Denoise, Context], Denoise]) -> Self:
        """Wrap ``call(inner, context)``, which returns the guided `Denoise`."""
        own = cls(name=getattr(call, "__name__", type(call).__name__))
        own._call = call
        return own

    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        if self._call is None:
            raise Problem(f"guidance own: {self.name!r} was an object of the program that used it, which no file holds")
        return self._call(inner, context)
