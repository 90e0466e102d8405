"""Tokenizers: texts as numbers of tokens."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import torch
from torch import Tensor

from lodestar.config import Config, Problem, shown


class Tokenizer(Config, abc.ABC):
    """A tokenizer. It is its own configuration."""

    kind: str

    @property
    @abc.abstractmethod
    def vocabulary(self) -> int:
        """Number of tokens."""

    @property
    @abc.abstractmethod
    def pad(self) -> int:
        """Token at the places after a text."""

    @property
    def begin(self) -> tuple[int, ...]:
        """Tokens before every text."""
        return ()

    @property
    def end(self) -> tuple[int, ...]:
        """Tokens after every text, which stay if it is cut."""
        return ()

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without those before and after every text. Raises Problem if it cannot be read."""

    def batch(self, texts: Sequence[str], context: int, cut: bool = False) -> tuple[Tensor, Tensor]:
        """Tokens int64 [B, L] of texts, filled up to L = `context`, and a mask bool [B, L], True at the texts' tokens.

        cut: shorten a text with more tokens. Raises Problem naming such a text otherwise.
        """
        tokens = torch.full((len(texts), context), self.pad)
        mask = torch.zeros(len(texts), context, dtype=torch.bool)
        room = context - len(self.begin) - len(self.end)
        for row, text in enumerate(texts):
            inner = self.encode(text)
            if len(inner) > room and not cut:
                raise Problem(f"text {shown(text)} has {len(inner)} tokens: {room} is the most")
            ids = [*self.begin, *inner[:room], *self.end]
            tokens[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
            mask[row, : len(ids)] = True
        return tokens, mask

    def settled(self, captions: Callable[[], Iterable[str]] | None) -> Self:
        """The tokenizer ready for a run: learned from captions, where it learns. Raises Problem without any to learn from."""
        return self

    def check(self, text: str, context: int, name: str, whose: str) -> None:
        """Raise Problem for a text that is not valid Unicode, or has more than `context` tokens.

        name: of the text; whose: of the context, "this model's".
        """
        if not _valid(text):
            raise Problem(f"{name} {text!a} is not valid Unicode (UTF-8)")
        if not self.fits(text, context):
            raise Problem(
                f"{name} {shown(text)} has more than {whose} {context} tokens: shorten it, or --cut-prompt "
                f"(cut_prompt=True in Python) keeps {self.cut(text, context)!r}"
            )

    def fits(self, text: str, context: int) -> bool:
        """True if a text needs no more than `context` tokens."""
        return len(self.begin) + len(self.encode(text)) + len(self.end) <= context

    def cut(self, text: str, context: int) -> str:
        """The longest beginning of a text that needs no more than `context` tokens; all of a text that is not valid Unicode."""
        if not _valid(text) or self.fits(text, context):
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.fits(text[:middle], context) else (low, middle - 1)
        return text[:low].rstrip()


def _valid(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
