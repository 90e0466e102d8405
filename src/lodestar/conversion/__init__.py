"""Other projects' checkpoints as ours, a file a family. This is the list of families."""

from dataclasses import replace

from lodestar.conversion import adm, flags
from lodestar.conversion.ddpm import DDPM
from lodestar.conversion.family import Family

ADM = replace(adm.ADM, own=flags.own)

FAMILIES: tuple[Family, ...] = (ADM, DDPM)

__all__ = ["ADM", "DDPM", "FAMILIES", "Family"]
