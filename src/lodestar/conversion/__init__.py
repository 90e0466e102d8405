"""Conversion of other projects' checkpoints, a family of checkpoints a file. `FAMILIES` lists them."""

from dataclasses import replace

from lodestar.conversion import adm, flags
from lodestar.conversion.biggan import BIGGAN
from lodestar.conversion.clip import GLIDE_CLIP, OPENAI_CLIP
from lodestar.conversion.dalle import DALLE
from lodestar.conversion.ddgan import DDGAN
from lodestar.conversion.ddpm import DDPM
from lodestar.conversion.family import Family
from lodestar.conversion.glide import GLIDE
from lodestar.conversion.karlo import KARLO
from lodestar.conversion.rosinality import VQVAE2_FILES

ADM = replace(adm.ADM, own=flags.own)

FAMILIES: tuple[Family, ...] = (ADM, DDPM, GLIDE, OPENAI_CLIP, GLIDE_CLIP, *KARLO, VQVAE2_FILES, DALLE, DDGAN, BIGGAN)

__all__ = [
    "ADM", "BIGGAN", "DALLE", "DDGAN", "DDPM", "FAMILIES", "GLIDE", "GLIDE_CLIP", "KARLO", "OPENAI_CLIP", "VQVAE2_FILES",
    "Family",
]  # fmt: skip
