"""The names of rosinality/vq-vae-2-pytorch: its quantiser, VQ-VAE-2 and PixelSNAIL."""

from __future__ import annotations

from torch import Tensor

from lodestar.conversion.rename import Rule


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
