"""The family of pytorch-ddpm (w86763777), the port of DDPM to PyTorch: its UNet as ours.

Attention is part of the residual block, with separate convolutions for q, k and v; resamplings stand in the lists beside the
blocks. The sinusoids of time are a fixed table in the state dict, sine and cosine in turn; the table is left out, and the affine
map after it takes its columns in our order. All models have one head, which weights do not determine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from lodestar.config import Config, Problem, decode
from lodestar.conversion.family import Facts, Family, ModelConfig, Shapes
from lodestar.conversion.rename import Rule, matrix
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.layers import timestep_embedding
from lodestar.nets.unet import UNetConfig

_TABLE = "time_embedding.timembedding.0.weight"


class UNetArguments(Config):
    """Constructor arguments of the reference's UNet."""

    T: int = Field(ge=1)
    ch: int
    ch_mult: tuple[int, ...] = Field(min_length=1)
    attn: tuple[int, ...]
    """Indices of the resolutions with attention, from the finest, 0."""
    num_res_blocks: int
    dropout: float


def unet_config(arguments: Mapping[str, Any]) -> UNetConfig:
    """Our configuration for the arguments of UNet. Raises Problem."""
    given = decode(UNetArguments, arguments, "UNet")
    fields = {
        "width": given.ch,
        "multipliers": given.ch_mult,
        "blocks": given.num_res_blocks,
        "attention": [2**level for level in given.attn],
        "dropout": given.dropout,
        "stem": _stem(given.ch, given.ch_mult[0]),
    }
    return decode(UNetConfig, {**_ALWAYS, **fields}, "UNet")


_ALWAYS = {
    "in_channels": 3, "out_channels": 3, "heads": 1, "head_channels": None, "resample": "conv", "adaptive_norm": False,
}  # fmt: skip


def unet_facts(shapes: Shapes) -> Facts:
    """The fields of a UNetConfig determined by the shapes of the state dict."""
    width = shapes["head.weight"][0]
    levels: list[list[str]] = [[]]
    for number in sorted({int(match[1]) for name in shapes if (match := re.match(r"downblocks\.(\d+)\.", name))}):
        if f"downblocks.{number}.main.weight" in shapes:
            levels.append([])
        else:
            levels[-1].append(f"downblocks.{number}")
    if not all(len(blocks) == len(levels[0]) > 0 for blocks in levels):
        raise Problem(
            f"{', '.join(str(len(blocks)) for blocks in levels)} residual blocks at the resolutions make no U-Net of it"
        )
    multipliers = [shapes[f"{blocks[0]}.block1.2.weight"][0] / width for blocks in levels]
    return {
        "width": width,
        "multipliers": multipliers,
        "stem": _stem(width, multipliers[0]),
        "blocks": len(levels[0]),
        "attention": [2**level for level, blocks in enumerate(levels) if f"{blocks[0]}.attn.proj.weight" in shapes],
        "in_channels": shapes["head.weight"][1],
        "out_channels": shapes["tail.2.weight"][0],
    }


def _stem(width: int, finest: float) -> int | None:
    """Channels of the first convolution, if not the finest resolution's: they equal the width, whatever the first multiplier."""
    return None if finest == 1 else width


def without_table(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without its table of sinusoids. Raises Problem for another table than the fixed one."""
    table = state[_TABLE]
    if table.device.type != "meta":
        ours = timestep_embedding(torch.arange(len(table)), table.shape[-1] // 2 * 2)
        cosines, sines = ours.chunk(2, dim=1)
        theirs = torch.stack([sines, cosines], dim=2).flatten(1)
        # In float32 the angles of a thousand steps are known to about 1e-4.
        if table.shape != theirs.shape or not torch.allclose(table.float(), theirs, atol=1e-3):
            raise Problem(f"{_TABLE} is not the table of sinusoids that this family has: its times would be told wrongly")
    return {name: tensor for name, tensor in state.items() if name != _TABLE}


def _facts(shapes: Shapes) -> Facts:
    network = {f"denoiser.network.{name}": value for name, value in unet_facts(shapes).items()}
    return {"kind": "diffusion", **network, "denoiser.classes": None, "schedule.timesteps": shapes[_TABLE][0]}


def _rules_for(config: ModelConfig) -> tuple[Rule, ...]:
    assert isinstance(config, DiffusionConfig) and isinstance(config.denoiser.network, UNetConfig)
    depth = config.denoiser.network.blocks
    assert isinstance(depth, int), "the family has one depth"
    return rules(depth)


def rules(depth: int) -> tuple[Rule, ...]:
    """The rules for a network of `depth` residual blocks at each resolution of the encoder.

    The lists hold resamplings between the blocks, so positions in the decoder depend on the number of blocks.
    """
    return (
        Rule(r"^time_embedding\.timembedding\.1\.weight$", "time.linear1.weight", _columns),
        Rule(r"^time_embedding\.timembedding\.1\.", "time.linear1."),
        Rule(r"^time_embedding\.timembedding\.3\.", "time.linear2."),
        Rule(r"^head\.", "stem."),
        Rule(r"^tail\.0\.", "norm."),
        Rule(r"^tail\.2\.", "head."),
        Rule(r"^downblocks\.(\d+)\.main\.", r"down.\1.block.conv."),
        Rule(r"^upblocks\.(\d+)\.main\.", lambda match: f"up.{_stage(int(match[1]) - 1, depth)}.resample.conv."),
        Rule(r"^downblocks\.(\d+)\.attn\.", r"down.\1.attention."),
        Rule(r"^middleblocks\.(\d+)\.attn\.", r"middle.\1.attention."),
        Rule(r"^upblocks\.(\d+)\.attn\.", lambda match: f"up.{_stage(int(match[1]), depth)}.attention."),
        Rule(r"^downblocks\.(\d+)\.", r"down.\1.block."),
        Rule(r"^middleblocks\.(\d+)\.", r"middle.\1.block."),
        Rule(r"^upblocks\.(\d+)\.", lambda match: f"up.{_stage(int(match[1]), depth)}.block."),
        Rule(r"\.block1\.0\.", ".norm1."),
        Rule(r"\.block1\.2\.", ".conv1."),
        Rule(r"\.temb_proj\.1\.", ".emb."),
        Rule(r"\.block2\.0\.", ".norm2."),
        Rule(r"\.block2\.3\.", ".conv2."),
        Rule(r"\.shortcut\.", ".skip."),
        Rule(r"\.group_norm\.", ".norm."),
        *(
            rule
            for number, name in enumerate("qkv")
            for rule in (
                Rule(rf"\.proj_{name}\.weight$", f".qkv.weight[{number}]", matrix),
                Rule(rf"\.proj_{name}\.bias$", f".qkv.bias[{number}]"),
            )
        ),
        Rule(r"\.proj\.weight$", ".out.weight", matrix),
        Rule(r"\.proj\.bias$", ".out.bias"),
    )


def _stage(place: int, depth: int) -> int:
    """The stage of a position in the decoder's list: after every depth + 1 blocks follows an upsampling."""
    return place - place // (depth + 2)


def _columns(weight: Tensor) -> Tensor:
    """Columns [O, W] reordered, from sine and cosine in turn to ours: all cosines, then all sines."""
    return torch.cat([weight[:, 1::2], weight[:, 0::2]], dim=1)


DDPM = Family(
    name="pytorch-ddpm",
    landmarks=frozenset({_TABLE, "head.weight", "middleblocks.0.attn.proj_q.weight", "tail.2.weight"}),
    rules=(Rule(rf"^{re.escape(_TABLE)}$", ""), *rules(1)),
    facts=_facts,
    rules_for=_rules_for,
    inside="ema_model",
    fixed=without_table,
)
