"""The family of rosinality/vq-vae-2-pytorch: its VQ-VAE-2; and the names of its quantiser and of PixelSNAIL.

Weights tell all but the size of the pictures, which is a flag of training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor

from lodestar.codecs import VQVAECodec
from lodestar.config import edit
from lodestar.conversion.family import Facts, Family, ModelConfig, Shapes, moments
from lodestar.conversion.rename import Rule
from lodestar.conversion.settings import Foreign, Idle, flagged

_TRAINING = Idle("it is of training")


def _across(weight: Tensor) -> Tensor:
    return weight.T


BOOK = (
    Rule(r"(^|\.)embed$", r"\1codes", _across),
    Rule(r"(^|\.)embed_avg$", r"\1total", _across),
    Rule(r"(^|\.)cluster_size$", r"\1size"),
)
"""Rules of a quantiser."""

_LEVEL = {"b": "0", "t": "1"}


VQVAE2 = (
    Rule(r"^enc_([bt])\.blocks\.", lambda found: f"encoders.{_LEVEL[found[1]]}."),
    Rule(r"^dec_t\.blocks\.", "decoders.1."),
    Rule(r"^dec\.blocks\.", "decoders.0."),
    Rule(r"^((?:en|de)coders\.\d\.\d+)\.conv\.1\.", r"\1.conv1."),
    Rule(r"^((?:en|de)coders\.\d\.\d+)\.conv\.3\.", r"\1.conv2."),
    Rule(r"^quantize_conv_([bt])\.", lambda found: f"before.{_LEVEL[found[1]]}."),
    Rule(r"^quantize_([bt])\.", lambda found: f"books.{_LEVEL[found[1]]}."),
    Rule(r"^upsample_t\.", "up.0."),
    *BOOK,
)
"""Rules of a VQ-VAE-2."""


class VqVae2Flags(Foreign):
    """Flags of vq-vae-2-pytorch's train_vqvae.py; the network's own settings are in its weights."""

    size: int = Field(default=256, ge=1, le=65536)
    epoch: Annotated[int, _TRAINING] = 560
    lr: Annotated[float, _TRAINING] = 3e-4
    sched: Annotated[str | None, _TRAINING] = None
    n_gpu: Annotated[int, _TRAINING] = 1
    dist_url: Annotated[str, _TRAINING] = ""


def vqvae2_facts(shapes: Shapes) -> Facts:
    """The settings that the weights of a VQ-VAE-2 determine."""
    blocks = sorted(name for name in shapes if re.match(r"enc_b\.blocks\.\d+\.conv\.1\.weight$", name))
    found = {
        "in_channels": shapes["enc_b.blocks.0.weight"][1], "levels": 2, "width": shapes["enc_b.blocks.2.weight"][0],
        "blocks": len(blocks), "book.channels": shapes["quantize_b.embed"][0], "book.codes": shapes["quantize_b.embed"][1],
    }  # fmt: skip
    hidden = {"hidden": shapes[blocks[0]][0]} if blocks else {}
    return {"kind": "vqvae", **{f"network.{name}": value for name, value in {**found, **hidden}.items()}}


def _own(flags: Mapping[str, str], facts: Facts, code: str, what: str) -> ModelConfig:
    """The model of a user's flags."""
    given = flagged(VqVae2Flags, flags)
    fields = {name: value for name, value in facts.items() if name != "kind"}
    return edit(VQVAECodec(), [{**fields, **NEVER_REVIVED, "size": [given.size, given.size]}])


NEVER_REVIVED = {"network.book.revive": 0.0}
"""Training there lets dead codes be."""

VQVAE2_FILES = Family(
    name="vq-vae-2-pytorch",
    landmarks=frozenset({"enc_b.blocks.0.weight", "enc_t.blocks.0.weight", "quantize_t.embed", "quantize_b.embed"}),
    rules=VQVAE2,
    facts=vqvae2_facts,
    rules_for=lambda config: VQVAE2,
    own=_own,
    silent="the size of pictures",
    flags="--flag size=256",
    beside=moments,
)


PIXELSNAIL = (
    Rule(r"\.weight_v$", ".direction"),
    Rule(r"\.weight_g$", ".length", Tensor.flatten),
    Rule(r"\.bias$", ".bias"),
    Rule(r"(?:\.conv)+\.(direction|length|bias)$", r".\1"),
    Rule(r"^horizontal\.", "rows."),
    Rule(r"^vertical\.", "columns."),
    Rule(r"^cond_resnet\.blocks\.", "told."),
    Rule(r"\.resblocks\.", ".blocks."),
    Rule(r"\.(key|query|out)_resblock\.", r".\1."),
    Rule(r"\.causal_attention\.", ".attention."),
    Rule(r"\.aux_conv\.", ".beside."),
    Rule(r"\.condition\.", ".told."),
    Rule(r"^out\.(\d+)\.(?=conv|beside|told)", r"out_blocks.\1."),
    Rule(r"^out\.\d+\.", "head."),
)
"""Rules of a PixelSNAIL, but for its buffer `background`, which its size tells."""
