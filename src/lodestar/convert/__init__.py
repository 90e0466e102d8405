"""Other projects' checkpoints as ours, a file a family. This is the list of families."""

from lodestar.convert.adm import ADM
from lodestar.convert.ddpm import DDPM
from lodestar.convert.family import Family

FAMILIES: tuple[Family, ...] = (ADM, DDPM)

__all__ = ["ADM", "DDPM", "FAMILIES", "Family"]
