"""Conditions of a denoiser, one modality a file; each encodes to `Signals`, which add. `KINDS` lists the kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from torch import Tensor

from lodestar.conditions.ask import Ask
from lodestar.conditions.base import Condition, Encoder, Fields
from lodestar.conditions.clip_text import ClipText
from lodestar.conditions.composed import Composed, Label, signs
from lodestar.conditions.embedding import Embedding
from lodestar.conditions.label import LabelCondition, LabelEncoder, sign_table
from lodestar.conditions.low_res import LowRes
from lodestar.conditions.masked import Masked
from lodestar.conditions.signals import Signals
from lodestar.conditions.text import TextCondition, Texts
from lodestar.config import Kinds

Cond = Mapping[str, Tensor]
"""Conditions by name, as from `Condition.asked` and `Condition.seen`; a missing name means unconditional."""

KINDS = Kinds(LabelCondition, LowRes, TextCondition, Masked, ClipText, Embedding)
AnyCondition = Annotated[Condition, KINDS]

__all__ = [
    "KINDS", "AnyCondition", "Ask", "ClipText", "Composed", "Cond", "Condition", "Embedding", "Encoder", "Fields", "Label",
    "LabelCondition", "LabelEncoder", "LowRes", "Masked", "Signals", "TextCondition", "Texts", "sign_table", "signs",
]  # fmt: skip
