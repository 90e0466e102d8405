"""Ways of making pictures of pictures, one a file. `KINDS` is the list of ways."""

from __future__ import annotations

from typing import Annotated

from lodestar.config import Kinds
from lodestar.generators.edits.base import Edit, EditJob, Sourced
from lodestar.generators.edits.inpaint import Inpaint
from lodestar.generators.edits.interpolate import Interpolate
from lodestar.generators.edits.invert import Invert
from lodestar.generators.edits.reconstruct import Reconstruct
from lodestar.generators.edits.sdedit import SDEdit
from lodestar.generators.edits.upsample import Upsample
from lodestar.generators.edits.vary import Vary

KINDS = Kinds(SDEdit, Invert, Interpolate, Inpaint, Upsample, Vary, Reconstruct)
AnyEdit = Annotated[Edit, KINDS]

__all__ = [
    "KINDS", "AnyEdit", "Edit", "EditJob", "Inpaint", "Interpolate", "Invert", "Reconstruct", "SDEdit", "Sourced", "Upsample",
    "Vary",
]  # fmt: skip
