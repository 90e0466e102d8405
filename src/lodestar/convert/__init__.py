"""Other projects' checkpoints as ours, a file a family. This is the list of families."""

from dataclasses import replace

from lodestar.convert import adm, flags
from lodestar.convert.ddpm import DDPM
from lodestar.convert.family import Family

ADM = replace(adm.ADM, own=flags.own)

FAMILIES: tuple[Family, ...] = (ADM, DDPM)

__all__ = ["ADM", "DDPM", "FAMILIES", "Family"]
