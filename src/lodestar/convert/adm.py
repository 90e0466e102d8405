"""The family of guided-diffusion (ADM) and improved-diffusion (IDDPM): UNetModel and EncoderUNetModel as ours.

Both projects share one layout of names, flat lists of sequences: ``input_blocks.0`` is the stem, ``input_blocks.i`` our
``down.{i-1}``; in ``output_blocks.i`` the attention and the doubling stand wherever they happen to fall, which the names of
their parameters tell. Projections that they write as convolutions over one place are affine maps here.

What weights do not tell (heads, the layout of q, k and v, dropout) comes from the arguments of the reference's constructor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from lodestar.config import Config, decode
from lodestar.convert.rename import Rule, load
from lodestar.nets.classifier import Classifier, ClassifierConfig, Pool
from lodestar.nets.unet import UNet, UNetConfig


class BackboneArguments(Config):
    """What the constructors of both reference networks take, with their defaults. -1 stands for "not given", as it does there."""

    image_size: int | None = Field(default=None, ge=1)
    in_channels: int
    model_channels: int
    out_channels: int
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    """Factors of reduction, not sizes; those that the network does not reach mean nothing."""
    dropout: float = 0
    channel_mult: tuple[float, ...] = (1, 2, 4, 8)
    conv_resample: bool = True
    dims: Literal[2] = 2
    use_checkpoint: bool = False
    use_fp16: bool = False
    """Not of the network: ours computes in the precision of its input."""
    num_heads: int = 1
    num_head_channels: int = -1
    """Overrides the numbers of heads."""
    num_heads_upsample: int = -1
    use_scale_shift_norm: bool = False
    resblock_updown: bool = False
    """Overrides conv_resample."""
    use_new_attention_order: bool = False

    def backbone(self) -> dict[str, Any]:
        """The fields that the U-Net and the classifier have in common, by our names."""
        by_width = self.num_head_channels != -1
        return {
            "in_channels": self.in_channels,
            "width": self.model_channels,
            "multipliers": self.channel_mult,
            "blocks": self.num_res_blocks,
            "attention": [2**level for level in range(len(self.channel_mult)) if 2**level in self.attention_resolutions],
            "heads": None if by_width else self.num_heads,
            "head_channels": self.num_head_channels if by_width else None,
            "layout": "qkv_first" if self.use_new_attention_order else "heads_first",
            "resample": "residual" if self.resblock_updown else "conv" if self.conv_resample else "plain",
            "adaptive_norm": self.use_scale_shift_norm,
            "dropout": self.dropout,
            "checkpointing": self.use_checkpoint,
        }


class UNetArguments(BackboneArguments):
    """The arguments of UNetModel."""

    num_classes: int | None = Field(default=None, ge=1)


class ClassifierArguments(BackboneArguments):
    """The arguments of EncoderUNetModel."""

    image_size: int = Field(ge=1)
    pool: Pool = "adaptive"


def unet_config(arguments: Mapping[str, Any]) -> UNetConfig:
    """Ours for the arguments of UNetModel; `num_classes` is not the network's but the label condition's. Raises Problem."""
    given = decode(UNetArguments, arguments, "UNetModel")
    up_heads = None if given.num_heads_upsample == -1 or given.num_head_channels != -1 else given.num_heads_upsample
    return decode(UNetConfig, {**given.backbone(), "out_channels": given.out_channels, "up_heads": up_heads}, "UNetModel")


def classifier_config(arguments: Mapping[str, Any]) -> ClassifierConfig:
    """Ours for the arguments of EncoderUNetModel. Raises Problem."""
    given = decode(ClassifierArguments, arguments, "EncoderUNetModel")
    fields = {"classes": given.out_channels, "pool": given.pool, "size": (given.image_size, given.image_size)}
    return decode(ClassifierConfig, {**given.backbone(), **fields}, "EncoderUNetModel")


def load_unet(state: Mapping[str, Tensor], network: UNet, label: nn.Module | None = None, what: str = "weights") -> None:
    """Fill a U-Net, and the label condition where there is one (its parameter is ``table.weight``), from UNetModel's state dict.

    Raises Problem when a name or shape differs; then nothing is loaded.
    """
    parts: dict[str, nn.Module] = {"": network} if label is None else {"": network, "label.": label}
    load(parts, state, (*_BACKBONE, *_UNET_HEAD), what)


def load_classifier(state: Mapping[str, Tensor], network: Classifier, what: str = "weights") -> None:
    """Fill a classifier from EncoderUNetModel's state dict. Raises Problem as `load_unet` does."""
    load({"": network}, state, (*_BACKBONE, *_CLASSIFIER_HEAD[network.config.pool]), what)


def _matrix(weight: Tensor) -> Tensor:
    """The weight of a convolution over one place, [O, I, 1] or [O, I, 1, 1], as that of an affine map, [O, I]."""
    return weight.flatten(1)


def _down(match: re.Match[str]) -> str:
    return f"down.{int(match[1]) - 1}.{'block' if match[2] == '0' else 'attention'}."


_BACKBONE = (
    Rule(r"^time_embed\.0\.", "time.linear1."),
    Rule(r"^time_embed\.2\.", "time.linear2."),
    Rule(r"^label_emb\.", "label.table."),
    # Where a module stands.
    Rule(r"^input_blocks\.0\.0\.", "stem."),
    Rule(r"^input_blocks\.(\d+)\.([01])\.", _down),
    Rule(r"^middle_block\.0\.", "middle.0.block."),
    Rule(r"^middle_block\.1\.", "middle.0.attention."),
    Rule(r"^middle_block\.2\.", "middle.1.block."),
    Rule(r"^output_blocks\.(\d+)\.0\.", r"up.\1.block."),
    Rule(r"^output_blocks\.(\d+)\.1\.(?=norm|qkv|proj_out)", r"up.\1.attention."),
    Rule(r"^output_blocks\.(\d+)\.[12]\.", r"up.\1.resample."),
    # What its parameters are called: residual block, convolution of a resampling, attention.
    Rule(r"\.in_layers\.0\.", ".norm1."),
    Rule(r"\.in_layers\.2\.", ".conv1."),
    Rule(r"\.emb_layers\.1\.", ".emb."),
    Rule(r"\.out_layers\.0\.", ".norm2."),
    Rule(r"\.out_layers\.3\.", ".conv2."),
    Rule(r"\.skip_connection\.", ".skip."),
    Rule(r"\.block\.op\.", ".block.conv."),
    Rule(r"\.attention\.proj_out\.", ".attention.out."),
    Rule(r"\.attention\.(qkv|out)\.weight$", r".attention.\1.weight", _matrix),
)

_UNET_HEAD = (Rule(r"^out\.0\.", "norm."), Rule(r"^out\.2\.", "head."))

_CLASSIFIER_HEAD: dict[Pool, tuple[Rule, ...]] = {
    "adaptive": (
        Rule(r"^out\.0\.", "norm."),
        Rule(r"^out\.3\.weight$", "head.weight", _matrix),
        Rule(r"^out\.3\.bias$", "head.bias"),
    ),
    "attention": (
        Rule(r"^out\.0\.", "norm."),
        Rule(r"^out\.2\.positional_embedding$", "head.position", Tensor.t),
        Rule(r"^out\.2\.qkv_proj\.", "head.qkv."),
        Rule(r"^out\.2\.c_proj\.", "head.out."),
        Rule(r"^head\.(qkv|out)\.weight$", r"head.\1.weight", _matrix),
    ),
    "spatial": (Rule(r"^out\.", "head."),),
    "spatial_v2": (Rule(r"^out\.", "head."),),
}
