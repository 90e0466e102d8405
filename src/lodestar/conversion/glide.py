"""The family of glide-text2im (GLIDE): guided-diffusion's U-Net, which attends to the states of a text transformer.

A network that upsamples or inpaints has more input channels, for the planes of its conditions, and is the same otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from lodestar.config import Config, decode
from lodestar.conversion.adm import BACKBONE, UNET_HEAD, UNetArguments, unet_config, unet_facts
from lodestar.conversion.family import Facts, Family, Shapes
from lodestar.conversion.rename import Rule, matrix
from lodestar.nets.text import TextTransformerConfig
from lodestar.nets.unet import UNetConfig


class TextArguments(Config):
    """The arguments of Text2ImUNet that are of its text."""

    text_ctx: int = Field(ge=1)
    xf_width: int
    xf_layers: int
    xf_heads: int
    xf_final_ln: bool
    xf_padding: bool = False


def configs(arguments: Mapping[str, Any]) -> tuple[UNetConfig, TextTransformerConfig]:
    """Our configurations for the arguments of Text2ImUNet: of the U-Net, but for its text, and of the text transformer."""
    own = {name: arguments[name] for name in TextArguments.model_fields if name in arguments}
    given = decode(TextArguments, own, "Text2ImUNet")
    network = TextTransformerConfig(
        context=given.text_ctx,
        width=given.xf_width,
        layers=given.xf_layers,
        heads=given.xf_heads,
        final_norm=given.xf_final_ln,
        padding=given.xf_padding,
    )
    return unet_config({name: arguments[name] for name in UNetArguments.model_fields if name in arguments}), network


def _facts(shapes: Shapes) -> Facts:
    network = {f"denoiser.network.{name}": value for name, value in unet_facts(shapes).items()}
    context, width = shapes["positional_embedding"]
    text = {
        "context": context,
        "width": width,
        "layers": len({match[1] for name in shapes if (match := re.match(r"transformer\.resblocks\.(\d+)\.", name))}),
        "final_norm": "final_ln.weight" in shapes,
        "padding": "padding_embedding" in shapes,
    }
    return {
        "kind": "diffusion",
        **network,
        "denoiser.classes": None,
        "denoiser.text.tokenizer.vocabulary": shapes["token_embedding.weight"][0],
        **{f"denoiser.text.network.{name}": value for name, value in text.items()},
    }


_TEXT = (
    Rule(r"^token_embedding\.", "text.network.embedding."),
    Rule(r"^positional_embedding$", "text.network.position"),
    Rule(r"^padding_embedding$", "text.network.padding"),
    Rule(r"^final_ln\.", "text.network.norm."),
    Rule(r"^transformer_proj\.", "text.network.project."),
    Rule(r"^transformer\.resblocks\.", "text.network.blocks."),
    Rule(r"^(text\.network\.blocks\.\d+)\.ln_([12])\.", r"\1.norm\2."),
    Rule(r"^(text\.network\.blocks\.\d+)\.attn\.c_qkv\.", r"\1.qkv."),
    Rule(r"^(text\.network\.blocks\.\d+)\.attn\.c_proj\.", r"\1.out."),
    Rule(r"^(text\.network\.blocks\.\d+)\.mlp\.c_fc\.", r"\1.widen."),
    Rule(r"^(text\.network\.blocks\.\d+)\.mlp\.c_proj\.", r"\1.narrow."),
)
ATTENDING = (
    Rule(r"^output_blocks\.(\d+)\.1\.encoder_kv\.", r"up.\1.attention.encoder_kv."),
    *BACKBONE,
    Rule(r"\.attention\.encoder_kv\.bias$", ".attention.text.bias"),
    Rule(r"\.attention\.encoder_kv\.weight$", ".attention.text.weight", matrix),
    *UNET_HEAD,
)
"""Rules for a U-Net that attends to a text."""
_RULES = (*_TEXT, *ATTENDING)

GLIDE = Family(
    name="glide-text2im",
    landmarks=frozenset({"time_embed.0.weight", "input_blocks.0.0.weight", "token_embedding.weight", "transformer_proj.weight"}),
    rules=_RULES,
    facts=_facts,
    rules_for=lambda config: _RULES,
)
