"""Degradations, one a file: upsamplers' small pictures in training. `KINDS` lists the kinds; a new one is added there."""

from __future__ import annotations

from typing import Annotated

from lodestar.config import Kinds
from lodestar.degradations.area import Area
from lodestar.degradations.base import Degradation, Drawn
from lodestar.degradations.bilinear import Bilinear
from lodestar.degradations.blur import Blur
from lodestar.degradations.bsr import BSR

KINDS = Kinds(Area, Bilinear, Blur, BSR)
AnyDegradation = Annotated[Degradation, KINDS]

__all__ = ["BSR", "KINDS", "AnyDegradation", "Area", "Bilinear", "Blur", "Degradation", "Drawn"]
