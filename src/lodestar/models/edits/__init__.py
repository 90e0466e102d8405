"""Ways of making pictures of pictures, one a file. The union is the list of ways."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lodestar.models.edits.base import Batch, Edit, Layout
from lodestar.models.edits.inpaint import Inpaint
from lodestar.models.edits.interpolate import Interpolate
from lodestar.models.edits.invert import Invert
from lodestar.models.edits.sdedit import SDEdit
from lodestar.models.edits.upsample import Upsample

AnyEdit = Annotated[SDEdit | Invert | Interpolate | Inpaint | Upsample, Field(discriminator="kind")]

__all__ = ["AnyEdit", "Batch", "Edit", "Inpaint", "Interpolate", "Invert", "Layout", "SDEdit", "Upsample"]
