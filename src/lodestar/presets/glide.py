"""GLIDE (Nichol et al. 2022): the published small models of openai/glide-text2im, trained on filtered pictures.

Networks, schedules and sampling are those of its code and notebooks. Training follows the paper; the learning rate is ADM's, as
the paper names none. Pictures are not mirrored, as their captions tell left and right. Batch sizes are totals over all devices.
"""

from __future__ import annotations

from lodestar.conditions import Condition, LowRes, Masked, TextCondition
from lodestar.conversion import GLIDE
from lodestar.conversion.adm import MULTIPLIERS
from lodestar.conversion.published import Published
from lodestar.core.schedule import Cosine, Linear
from lodestar.denoiser import DenoiserConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.text import TextTransformerConfig
from lodestar.nets.unet import UNetConfig
from lodestar.presets.parts import attention, denoise, loop, model_of
from lodestar.samplers import DDIM, Ancestral
from lodestar.text import GlideTokenizer
from lodestar.training.run import Run

_URL = "https://openaipublic.blob.core.windows.net/diffusion/dec-2021/"


def _model(size: int, blocks: int, *pictures: Condition) -> DiffusionConfig:
    """pictures: the conditions beside the text."""
    network = UNetConfig(
        width=192,
        multipliers=MULTIPLIERS[size],
        blocks=blocks,
        attention=attention(size, (32, 16, 8)),
        head_channels=64,
        layout="heads_first",
        dropout=0.1,
    )
    text = TextCondition(tokenizer=GlideTokenizer(), network=TextTransformerConfig(context=128, width=512, layers=16, heads=8))
    small = any(isinstance(each, LowRes) for each in pictures)
    return DiffusionConfig(
        denoiser=DenoiserConfig(network=network, variance="learned_range", channels=3, conditions=(text, *pictures)),
        schedule=Linear() if small else Cosine(),
        size=(size, size),
        droppable=True,
        # The notebooks' settings; the upsampler's 27 steps are for DDIM without noise.
        sampler=DDIM() if small else Ancestral(),
        steps="fast27" if small else "100",
    )


def base() -> Run:
    """GLIDE's base model of 64×64 pictures."""
    return denoise(_model(64, 3), loop(1_600_000, 2048), flip=False)


def upsample() -> Run:
    """GLIDE's upsampler, from 64×64 to 256×256."""
    return denoise(_model(256, 2, LowRes(size=(64, 64))), loop(1_600_000, 512), flip=False)


def base_inpaint() -> Run:
    """GLIDE's base model fine-tuned to inpaint: begin it with ``--init`` and the plain one. Its length is not stated."""
    return denoise(_model(64, 3, Masked()), loop(500_000, 2048), flip=False)


def upsample_inpaint() -> Run:
    """GLIDE's upsampler fine-tuned to inpaint: begin it with ``--init`` and the plain one. Its length is not stated."""
    return denoise(_model(256, 2, Masked(), LowRes(size=(64, 64))), loop(500_000, 512), flip=False)


_FILES = {
    "glide-base": ("base.pt", base),
    "glide-base-inpaint": ("base_inpaint.pt", base_inpaint),
    "glide-upsample": ("upsample.pt", upsample),
    "glide-upsample-inpaint": ("upsample_inpaint.pt", upsample_inpaint),
}

PUBLISHED: tuple[Published, ...] = tuple(
    Published(f"openai/{name}", file, model_of(run), GLIDE, _URL + file) for name, (file, run) in _FILES.items()
)

RUNS = (base, upsample, base_inpaint, upsample_inpaint)
