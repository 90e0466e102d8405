"""Tokenizers of our own models: byte pairs of any script, learned from captions and kept in the model's configuration."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Literal, Self

from pydantic import Field

from lodestar.config import Problem
from lodestar.extras import need
from lodestar.text.base import Tokenizer
from lodestar.text.pieces import CONTRACTIONS, WORDS, BytePairs, split

_FIRST = re.compile(CONTRACTIONS)


class OwnTokenizer(Tokenizer):
    """Byte pairs in lower case, in Unicode's composed form. The last token fills up, and is in no text."""

    kind: Literal["own"] = "own"
    size: int = Field(default=1024, ge=257, le=2**20)
    """Number of tokens to be learned; a few captions may give fewer."""
    merges: str | None = Field(default=None, max_length=2**24)
    """The merges in their order, a line for each; None before they are learned, when tokens are single bytes."""

    @property
    def pairs(self) -> BytePairs:
        """The byte pairs."""
        return _pairs(self.merges or "")

    @property
    def symbols(self) -> tuple[str, ...]:
        """Texts of the tokens, in the spelling of bytes of `ALPHABET`; empty for the one that fills up."""
        return (*self.pairs.symbols, "")

    @property
    def vocabulary(self) -> int:
        return self.pad + 1

    @property
    def pad(self) -> int:
        return self.pairs.count

    def encode(self, text: str) -> list[int]:
        pairs = self.pairs
        return [token for piece in split(_normal(text), WORDS, _FIRST) for token in pairs(piece)]

    def settled(self, captions: Callable[[], Iterable[str]] | None) -> Self:
        if self.merges is not None:
            return self
        if captions is None:
            raise Problem("captions are missing: this run's tokenizer learns from them, and its data has none")
        return self.learned(captions())

    def learned(self, captions: Iterable[str]) -> Self:
        """The tokenizer with merges learned from captions. Raises Problem where the package `tokenizers` is missing."""
        tokenizers = need("tokenizers")
        learner = tokenizers.Tokenizer(tokenizers.models.BPE())
        learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(vocab_size=self.size - 1, initial_alphabet=alphabet, show_progress=False)
        learner.train_from_iterator(map(_normal, captions), trainer)
        pairs = json.loads(learner.to_str())["model"]["merges"]
        return self.replace(merges="\n".join(" ".join(pair) for pair in pairs))


@lru_cache(maxsize=16)
def _pairs(merges: str) -> BytePairs:
    return BytePairs([(first, second) for first, second in (line.split(" ") for line in merges.splitlines())])


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()
