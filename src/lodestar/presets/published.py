"""Published autoencoders and GANs: a VQ-VAE-2 (Razavi et al. 2019) of faces, DALL·E's discrete VAE (Ramesh et al. 2021), and
denoising diffusion GANs (Xiao et al. 2022)."""

from __future__ import annotations

from lodestar.codecs import VQVAECodec
from lodestar.conversion import DALLE, DDGAN, VQVAE2_FILES, ddgan
from lodestar.conversion.published import Published
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.codebook import CodebookConfig
from lodestar.nets.dvae import DvaeConfig
from lodestar.nets.ncsnpp import NcsnppConfig
from lodestar.nets.pyramid import PyramidConfig


def _vqvae2() -> VQVAECodec:
    return VQVAECodec(network=PyramidConfig(levels=2, book=CodebookConfig(revive=0.0)), size=(256, 256))


def _dvae() -> VQVAECodec:
    book = CodebookConfig(codes=8192, channels=128, learning="gradient", revive=0.0)
    return VQVAECodec(network=DvaeConfig(book=book), size=(256, 256))


def _ddgan_cifar10() -> DiffusionConfig:
    network = NcsnppConfig(width=128, multipliers=(1, 2, 2, 2), attention=(2,))
    return ddgan.model(network, 32, 4, layers=5)


def _ddgan_celebahq() -> DiffusionConfig:
    network = NcsnppConfig(width=64, multipliers=(1, 1, 2, 2, 4, 4), attention=(16,))
    return ddgan.model(network, 256, 2)


_DDGAN = "https://github.com/NVlabs/denoising-diffusion-gan"

PUBLISHED: tuple[Published, ...] = (
    Published(
        "rosinality/vqvae2-ffhq", "vqvae_560.pt", _vqvae2, VQVAE2_FILES,
        "https://raw.githubusercontent.com/rosinality/vq-vae-2-pytorch/master/vqvae_560.pt",
    ),
    Published(
        "openai/dalle-dvae", "encoder.pkl", _dvae, DALLE, "https://cdn.openai.com/dall-e/encoder.pkl",
        others=("https://cdn.openai.com/dall-e/decoder.pkl",),
    ),
    Published("nvlabs/ddgan-cifar10", "netG_1200.pth", _ddgan_cifar10, DDGAN, page=_DDGAN),
    Published("nvlabs/ddgan-celebahq-256", "netG_550.pth", _ddgan_celebahq, DDGAN, page=_DDGAN),
)  # fmt: skip

RUNS = ()
