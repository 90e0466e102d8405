"""Codecs between data and the values models are trained on, one a file. `KINDS` lists them."""

from __future__ import annotations

from typing import Annotated

from lodestar.codecs.base import Codec, Coder
from lodestar.codecs.embeddings import Embeddings
from lodestar.codecs.pixels import Pixels
from lodestar.config import Kinds

KINDS = Kinds(Pixels, Embeddings)
AnyCodec = Annotated[Codec, KINDS]

__all__ = ["KINDS", "AnyCodec", "Codec", "Coder", "Embeddings", "Pixels"]
