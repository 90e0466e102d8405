"""Published autoencoders and GANs: VQ-VAE-2 (Razavi et al. 2019), DALL·E's discrete VAE (Ramesh et al. 2021), denoising
diffusion GANs (Xiao et al. 2022), and BigGAN-deep (Brock et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lodestar.codecs import VQVAECodec
from lodestar.conversion import BIGGAN, DALLE, DDGAN, VQVAE2_FILES, ddgan
from lodestar.conversion.published import Published
from lodestar.data.imagenet import NAMES
from lodestar.models.diffusion import DiffusionConfig
from lodestar.models.gan import GanConfig
from lodestar.nets.biggan import BigGanConfig
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


def _biggan(*multipliers: int) -> Callable[[], GanConfig]:
    """A BigGAN-deep of ImageNet's classes; all have attention at 64×64."""
    side = 4 << (len(multipliers) - 1)
    network = BigGanConfig(multipliers=multipliers, size=(side, side), attention=side // 64)
    return lambda: GanConfig(network=network, names=NAMES)


_BIGGAN: Mapping[int, tuple[int, ...]] = {
    128: (1, 2, 4, 8, 16, 16), 256: (1, 2, 4, 8, 8, 16, 16), 512: (1, 1, 2, 4, 8, 8, 16, 16),
}  # fmt: skip
"""Widths of the resolutions, by size."""
_HUGGINGFACE = "https://s3.amazonaws.com/models.huggingface.co/biggan"
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
    *(
        Published(
            f"huggingface/biggan-deep-{size}", file := f"biggan-deep-{size}-pytorch_model.bin", _biggan(*multipliers), BIGGAN,
            f"{_HUGGINGFACE}/{file}",
        )
        for size, multipliers in _BIGGAN.items()
    ),
)  # fmt: skip

RUNS = ()
