"""Published autoencoders: a VQ-VAE-2 (Razavi et al. 2019) of faces, and DALL·E's discrete VAE (Ramesh et al. 2021)."""

from __future__ import annotations

from lodestar.codecs import VQVAECodec
from lodestar.conversion import DALLE, VQVAE2_FILES
from lodestar.conversion.published import Published
from lodestar.nets.codebook import CodebookConfig
from lodestar.nets.dvae import DvaeConfig
from lodestar.nets.pyramid import PyramidConfig


def _vqvae2() -> VQVAECodec:
    return VQVAECodec(network=PyramidConfig(levels=2, book=CodebookConfig(revive=0.0)), size=(256, 256))


def _dvae() -> VQVAECodec:
    book = CodebookConfig(codes=8192, channels=128, learning="gradient", revive=0.0)
    return VQVAECodec(network=DvaeConfig(book=book), size=(256, 256))


PUBLISHED: tuple[Published, ...] = (
    Published(
        "rosinality/vqvae2-ffhq", "vqvae_560.pt", _vqvae2, VQVAE2_FILES,
        "https://raw.githubusercontent.com/rosinality/vq-vae-2-pytorch/master/vqvae_560.pt",
    ),
    Published(
        "openai/dalle-dvae", "encoder.pkl", _dvae, DALLE, "https://cdn.openai.com/dall-e/encoder.pkl",
        others=("https://cdn.openai.com/dall-e/decoder.pkl",),
    ),
)  # fmt: skip

RUNS = ()
