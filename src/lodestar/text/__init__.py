"""Texts as tokens, a tokenizer a file. `KINDS` lists the tokenizers."""

from __future__ import annotations

from typing import Annotated

from lodestar.config import Kinds
from lodestar.text.base import Tokenizer
from lodestar.text.language import LanguageModel
from lodestar.text.own import OwnTokenizer
from lodestar.text.published import ClipTokenizer, GlideTokenizer

KINDS = Kinds(OwnTokenizer, ClipTokenizer, GlideTokenizer, LanguageModel)
AnyTokenizer = Annotated[Tokenizer, KINDS]

__all__ = ["KINDS", "AnyTokenizer", "ClipTokenizer", "GlideTokenizer", "LanguageModel", "OwnTokenizer", "Tokenizer"]
