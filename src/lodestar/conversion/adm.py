"""The family of guided-diffusion (ADM), improved-diffusion (IDDPM) and consistency_models: UNetModel, EncoderUNetModel as ours.

The three projects share one layout of names, flat lists of sequences: ``input_blocks.0`` is the stem, ``input_blocks.i`` our
``down.{i-1}``. In ``output_blocks.i`` the positions of attention and upsampling vary, and follow from the names of their
parameters. Projections written there as convolutions over one place are affine maps here. An upsampler (SuperResModel) is a U-Net
of twice the channels.

Settings that weights do not determine (heads, the layout of q, k and v, dropout; schedule, prediction) come from the arguments of
the reference's constructor, or from the table of published models.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from lodestar.config import Config, Problem, decode
from lodestar.conversion.family import Facts, Family, ModelConfig, Shapes
from lodestar.conversion.rename import Rule, matrix
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.classifier import ClassifierConfig, Pool
from lodestar.nets.unet import UNetConfig

MULTIPLIERS: dict[int, tuple[float, ...]] = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    32: (1, 2, 2, 2),
}
"""Channel multipliers of the resolutions, by picture size, as in OpenAI's code."""


class BackboneArguments(Config):
    """Constructor arguments of both reference networks, with their defaults. As there, -1 stands for "not given"."""

    image_size: int | None = Field(default=None, ge=1)
    in_channels: int
    model_channels: int
    out_channels: int
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    """Reduction factors of the resolutions with attention, not sizes; factors beyond the coarsest have no effect."""
    dropout: float = 0
    channel_mult: tuple[float, ...] = (1, 2, 4, 8)
    conv_resample: bool = True
    dims: Literal[2] = 2
    use_checkpoint: bool = False
    use_fp16: bool = False
    """Unused: our networks compute in the precision of their input."""
    num_heads: int = 1
    num_head_channels: int = -1
    """Number of channels of a head; overrides the numbers of heads."""
    num_heads_upsample: int = -1
    use_scale_shift_norm: bool = False
    resblock_updown: bool = False
    """Resampling in residual blocks; overrides conv_resample."""
    use_new_attention_order: bool = False

    def backbone(self) -> dict[str, Any]:
        """The common fields of U-Net and classifier, under our names."""
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
    """Our configuration for the arguments of UNetModel; `num_classes` belongs to the label condition. Raises Problem."""
    given = decode(UNetArguments, arguments, "UNetModel")
    up_heads = None if given.num_heads_upsample == -1 or given.num_head_channels != -1 else given.num_heads_upsample
    return decode(UNetConfig, {**given.backbone(), "out_channels": given.out_channels, "up_heads": up_heads}, "UNetModel")


def classifier_config(arguments: Mapping[str, Any]) -> ClassifierConfig:
    """Our configuration for the arguments of EncoderUNetModel. Raises Problem."""
    given = decode(ClassifierArguments, arguments, "EncoderUNetModel")
    fields = {"classes": given.out_channels, "pool": given.pool, "size": (given.image_size, given.image_size)}
    return decode(ClassifierConfig, {**given.backbone(), **fields}, "EncoderUNetModel")


def unet_facts(shapes: Shapes) -> Facts:
    """The fields of a UNetConfig determined by the shapes of UNetModel's state dict. Raises Problem for shapes of no U-Net."""
    blocks = _backbone_blocks(shapes, "input_blocks")
    outputs = 1 + max(_backbone_blocks(shapes, "output_blocks"), default=-1)
    doubled = [index for index in range(outputs) if _any(shapes, rf"output_blocks\.{index}\.[12]\.(conv|in_layers\.0)\.weight")]
    skipped = sorted(set(range(max(blocks))) - blocks.keys())
    resolutions = 1 + len(doubled or skipped)
    depth = outputs // resolutions - 1
    if depth < 1 or max(blocks) + 1 != outputs or outputs % resolutions:
        raise Problem(f"{max(blocks) + 1} input blocks and {outputs} output blocks of {resolutions} resolutions make no U-Net")
    facts = _backbone_facts(shapes, blocks, resolutions, depth)
    facts |= {"out_channels": shapes["out.2.weight"][0], "middle_attention": "middle_block.1.qkv.weight" in shapes}
    if resolutions > 1:
        convolved = f"output_blocks.{depth}.1.conv.weight" in shapes or f"output_blocks.{depth}.2.conv.weight" in shapes
        facts["resample"] = "plain" if not doubled else "conv" if convolved else "residual"
    return facts


def classifier_facts(shapes: Shapes) -> Facts:
    """The fields of a ClassifierConfig determined by the shapes of EncoderUNetModel's state dict.

    Residual downsampling blocks look like the others, so the number of resolutions is included only if unambiguous. Raises
    Problem for shapes of no classifier.
    """
    blocks = _backbone_blocks(shapes, "input_blocks")
    count = 1 + max(blocks)
    halved = [index for index in blocks if f"input_blocks.{index}.0.op.weight" in shapes]
    skipped = sorted(set(range(count)) - blocks.keys())
    if halved or skipped:
        candidates = [(1 + len(halved or skipped), count // (1 + len(halved or skipped)) - 1)]
    else:
        candidates = [
            (n, count // n - 1) for n in range(1, count // 2 + 1) if count % n == 0 and _regular(blocks, n, count // n - 1)
        ]
    if not candidates:
        raise Problem(f"{count} input blocks make no classifier of one number of residual blocks at every resolution")
    facts = _backbone_facts(shapes, blocks, *candidates[0])
    if len(candidates) > 1:
        facts = {name: facts[name] for name in ("in_channels", "width", "adaptive_norm")}
    elif candidates[0][0] > 1:
        facts["resample"] = "plain" if skipped else "conv" if halved else "residual"
    if "out.2.positional_embedding" in shapes:
        facts |= {"pool": "attention", "classes": shapes["out.2.c_proj.weight"][0]}
        side = math.isqrt(shapes["out.2.positional_embedding"][1] - 1)
        if len(candidates) == 1 and side**2 == shapes["out.2.positional_embedding"][1] - 1:
            facts["size"] = [side * 2 ** (candidates[0][0] - 1)] * 2
    elif len(shapes["out.0.weight"]) == 1:
        facts |= {"pool": "adaptive", "classes": shapes["out.3.weight"][0]}
    else:
        last = max(int(match[1]) for name in shapes if (match := re.match(r"out\.(\d+)\.weight", name)))
        facts |= {"pool": "spatial" if last == 2 else "spatial_v2", "classes": shapes[f"out.{last}.weight"][0]}
    return facts


@dataclass(frozen=True)
class _Block:
    """Shapes of one of the input blocks."""

    width: int
    attends: bool
    widens: bool


def _backbone_blocks(shapes: Shapes, where: str) -> dict[int, _Block]:
    """The blocks with parameters of a list, by number."""
    numbers = sorted({int(match[1]) for name in shapes if (match := re.match(rf"{where}\.(\d+)\.", name))})
    if numbers and numbers[-1] > 2 * len(numbers):  # halvings without parameters stand between others, one at a time
        raise Problem(f"{where}.{numbers[-1]} is the last of {len(numbers)} blocks: the others are missing")
    blocks = {}
    for number in numbers:
        first = f"{where}.{number}.0"
        weight = next(
            (
                shapes[name]
                for name in (f"{first}.out_layers.3.weight", f"{first}.op.weight", f"{first}.weight")
                if name in shapes
            ),
            None,
        )
        if weight is None:
            raise Problem(f"{first} is no residual block, halving or convolution")
        attends, widens = f"{where}.{number}.1.qkv.weight" in shapes, f"{first}.skip_connection.weight" in shapes
        blocks[number] = _Block(weight[0], attends, widens)
    return blocks


def _regular(blocks: Mapping[int, _Block], resolutions: int, depth: int) -> bool:
    """True if blocks can be `resolutions` resolutions of `depth` residual blocks, with residual downsampling between them."""
    if depth < 1:
        return False
    for level in range(resolutions):
        first = 1 + level * (depth + 1)
        stages = [blocks[number] for number in range(first, first + depth)]
        if len({(stage.width, stage.attends) for stage in stages}) > 1 or any(stage.widens for stage in stages[1:]):
            return False
        halving = blocks.get(first + depth)
        if halving is not None and (halving.attends or halving.widens or halving.width != stages[0].width):
            return False
    return True


def _backbone_facts(shapes: Shapes, blocks: Mapping[int, _Block], resolutions: int, depth: int) -> dict[str, Any]:
    width = shapes["time_embed.0.weight"][1]
    finest = [blocks[1 + level * (depth + 1)] for level in range(resolutions)]
    block = "input_blocks.1.0"
    return {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "width": width,
        "multipliers": [stage.width / width for stage in finest],
        "blocks": depth,
        "attention": [2**level for level, stage in enumerate(finest) if stage.attends],
        "adaptive_norm": shapes[f"{block}.emb_layers.1.weight"][0] == 2 * shapes[f"{block}.out_layers.3.weight"][0],
    }


def _any(shapes: Shapes, pattern: str) -> bool:
    return any(re.fullmatch(pattern, name) for name in shapes)


def _facts(shapes: Shapes) -> Facts:
    if not _any(shapes, r"output_blocks\..*"):
        return {"kind": "classifier", **{f"network.{name}": value for name, value in classifier_facts(shapes).items()}}
    classes = shapes["label_emb.weight"][0] if "label_emb.weight" in shapes else None
    network = {f"denoiser.network.{name}": value for name, value in unet_facts(shapes).items()}
    return {"kind": "diffusion", **network, "denoiser.classes": classes}


def _rules_for(config: ModelConfig) -> tuple[Rule, ...]:
    if isinstance(config, DiffusionConfig):
        return *BACKBONE, *UNET_HEAD
    assert isinstance(config, ClassifierModelConfig)
    return *BACKBONE, *CLASSIFIER_HEAD[config.network.pool]


def _down(match: re.Match[str]) -> str:
    return f"down.{int(match[1]) - 1}.{'block' if match[2] == '0' else 'attention'}."


BACKBONE = (
    Rule(r"^time_embed\.0\.", "time.linear1."),
    Rule(r"^time_embed\.2\.", "time.linear2."),
    Rule(r"^label_emb\.", "label.table."),
    # Positions of modules.
    Rule(r"^input_blocks\.0\.0\.", "stem."),
    Rule(r"^input_blocks\.(\d+)\.([01])\.", _down),
    Rule(r"^middle_block\.0\.", "middle.0.block."),
    Rule(r"^middle_block\.[12]\.(?=in_layers|emb_layers|out_layers)", "middle.1.block."),  # 1 where no attention is between
    Rule(r"^middle_block\.1\.", "middle.0.attention."),
    Rule(r"^output_blocks\.(\d+)\.0\.", r"up.\1.block."),
    Rule(r"^output_blocks\.(\d+)\.1\.(?=norm|qkv|proj_out)", r"up.\1.attention."),
    Rule(r"^output_blocks\.(\d+)\.[12]\.", r"up.\1.resample."),
    # Names of parameters: residual block, convolution of a resampling, attention.
    Rule(r"\.in_layers\.0\.", ".norm1."),
    Rule(r"\.in_layers\.2\.", ".conv1."),
    Rule(r"\.emb_layers\.1\.", ".emb."),
    Rule(r"\.out_layers\.0\.", ".norm2."),
    Rule(r"\.out_layers\.3\.", ".conv2."),
    Rule(r"\.skip_connection\.", ".skip."),
    Rule(r"\.block\.op\.", ".block.conv."),
    Rule(r"\.attention\.proj_out\.", ".attention.out."),
    Rule(r"\.attention\.(qkv|out)\.weight$", r".attention.\1.weight", matrix),
)

UNET_HEAD = (Rule(r"^out\.0\.", "norm."), Rule(r"^out\.2\.", "head."))

CLASSIFIER_HEAD: dict[Pool, tuple[Rule, ...]] = {
    "adaptive": (
        Rule(r"^out\.0\.", "norm."),
        Rule(r"^out\.3\.weight$", "head.weight", matrix),
        Rule(r"^out\.3\.bias$", "head.bias"),
    ),
    "attention": (
        Rule(r"^out\.0\.", "norm."),
        Rule(r"^out\.2\.positional_embedding$", "head.position", Tensor.t),
        Rule(r"^out\.2\.qkv_proj\.", "head.qkv."),
        Rule(r"^out\.2\.c_proj\.", "head.out."),
        Rule(r"^head\.(qkv|out)\.weight$", r"head.\1.weight", matrix),
    ),
    "spatial": (Rule(r"^out\.", "head."),),
    "spatial_v2": (Rule(r"^out\.", "head."),),
}

ADM = Family(
    name="guided-diffusion",
    landmarks=frozenset({"time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight"}),
    rules=(*BACKBONE, *UNET_HEAD, *(rule for rules in CLASSIFIER_HEAD.values() for rule in rules)),
    facts=_facts,
    rules_for=_rules_for,
)
