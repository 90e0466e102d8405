"""Codecs between data and the values models are trained on, one a file. `KINDS` lists them."""

from __future__ import annotations

from typing import Annotated

from lodestar.codecs.autoencoder import AutoencoderCodec
from lodestar.codecs.base import Codec, Coder
from lodestar.codecs.embeddings import Embeddings
from lodestar.codecs.pixels import Pixels
from lodestar.codecs.vqvae import VQVAECodec
from lodestar.config import Kinds

KINDS = Kinds(Pixels, Embeddings, AutoencoderCodec, VQVAECodec)
AnyCodec = Annotated[Codec, KINDS]

__all__ = ["KINDS", "AnyCodec", "AutoencoderCodec", "Codec", "Coder", "Embeddings", "Pixels", "VQVAECodec"]
