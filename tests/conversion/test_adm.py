"""Configurations and names of guided-diffusion and improved-diffusion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lodestar.config import Problem
from lodestar.conversion.adm import BACKBONE, CLASSIFIER_HEAD, UNET_HEAD, classifier_config, unet_config
from lodestar.conversion.rename import rename

SMALL: dict[str, Any] = {
    "in_channels": 3,
    "model_channels": 32,
    "out_channels": 6,
    "num_res_blocks": 1,
    "attention_resolutions": [2],
    "channel_mult": [1, 2],
}


BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "emb": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "skip": "skip_connection",
}
ATTENTION = {"norm": "norm", "qkv": "qkv", "out": "proj_out"}
PLACES = {
    "time.linear1": "time_embed.0",
    "time.linear2": "time_embed.2",
    "stem": "input_blocks.0.0",
    "down.0.block": "input_blocks.1.0",
    "down.1.block": "input_blocks.2.0",
    "down.2.block": "input_blocks.3.0",
    "middle.0.block": "middle_block.0",
    "middle.0.attention": "middle_block.1",
    "middle.1.block": "middle_block.2",
    "up.0.block": "output_blocks.0.0",
    "up.1.block": "output_blocks.1.0",
    "up.2.block": "output_blocks.2.0",
    "up.3.block": "output_blocks.3.0",
    "norm": "out.0",
    "head": "out.2",
}
COARSE = {"down.2.attention": "input_blocks.3.1", "up.0.attention": "output_blocks.0.1", "up.1.attention": "output_blocks.1.1"}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "convolutions": ({}, {**COARSE, "down.1.block.conv": "input_blocks.2.0.op", "up.1.resample.conv": "output_blocks.1.2.conv"}),
    "residual": ({"resblock_updown": True}, {**COARSE, "up.1.resample": "output_blocks.1.2"}),
    "no attention": ({"attention_resolutions": [], "resblock_updown": True}, {"up.1.resample": "output_blocks.1.1"}),
}


def load(state: dict[str, Tensor], network: nn.Module, rules: Any = (*BACKBONE, *UNET_HEAD)) -> None:
    network.load_state_dict(rename(state, rules, network.state_dict()))


def foreign_state(network: nn.Module, places: dict[str, str]) -> dict[str, Tensor]:
    """The network's parameters as the reference names and shapes them."""
    state = {}
    for name, tensor in network.state_dict().items():
        module, _, kind = name.rpartition(".")
        parent, _, leaf = module.rpartition(".")
        attends = parent.endswith("attention")
        foreign = places[module] if module in places else f"{places[parent]}.{(ATTENTION if attends else BLOCK)[leaf]}"
        state[f"{foreign}.{kind}"] = tensor[:, :, None] if attends and tensor.dim() == 2 else tensor
    return state


@pytest.mark.parametrize(("arguments", "places"), VARIANTS.values(), ids=VARIANTS.keys())
def test_every_parameter_arrives_at_its_place(arguments: dict[str, Any], places: dict[str, str]) -> None:
    network, other = (unet_config({**SMALL, **arguments}).build() for _ in range(2))
    for number, parameter in enumerate(network.parameters()):
        nn.init.constant_(parameter, number)
    load(foreign_state(network, {**PLACES, **places}), other)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name


@pytest.mark.parametrize(
    ("pool", "head"),
    [
        ("adaptive", {"out.3.weight": (6, 64, 1, 1), "out.3.bias": (6,)}),
        (
            "attention",
            {
                "out.2.positional_embedding": (64, 17),
                "out.2.qkv_proj.weight": (192, 64, 1),
                "out.2.qkv_proj.bias": (192,),
                "out.2.c_proj.weight": (6, 64, 1),
                "out.2.c_proj.bias": (6,),
            },
        ),
        ("spatial", {"out.0.weight": (2048, 224), "out.0.bias": (2048,), "out.2.weight": (6, 2048), "out.2.bias": (6,)}),
        (
            "spatial_v2",
            {
                **{"out.0.weight": (2048, 224), "out.0.bias": (2048,), "out.1.weight": (2048,), "out.1.bias": (2048,)},
                **{"out.3.weight": (6, 2048), "out.3.bias": (6,)},
            },
        ),
    ],
)
def test_every_pool_is_filled(pool: str, head: dict[str, tuple[int, ...]]) -> None:
    network = classifier_config({**SMALL, "image_size": 8, "pool": pool, "num_head_channels": 16}).build()
    backbone = nn.ModuleDict({name: module for name, module in network.named_children() if name != "head"})
    places = {**PLACES, "down.1.block.conv": "input_blocks.2.0.op", "down.2.attention": "input_blocks.3.1"}
    state = {**foreign_state(backbone, places), **{name: torch.full(shape, 0.5) for name, shape in head.items()}}
    load(state, network, (*BACKBONE, *CLASSIFIER_HEAD[network.config.pool]))
    assert all((parameter == 0.5).all() for parameter in network.head.parameters())


def test_defaults_are_those_of_the_reference() -> None:
    config = unet_config({name: value for name, value in SMALL.items() if name != "channel_mult"})
    assert (config.multipliers, config.heads, config.head_channels, config.up_heads) == ((1, 2, 4, 8), 1, None, None)
    assert (config.layout, config.resample, config.adaptive_norm) == ("heads_first", "conv", False)


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        ({"num_heads": 4, "num_head_channels": 16}, "heads", None),
        ({"num_heads": 4, "num_head_channels": 16}, "head_channels", 16),
        ({"num_heads_upsample": 2, "num_head_channels": 16}, "up_heads", None),
        ({"num_heads": 4, "num_heads_upsample": 2}, "up_heads", 2),
        ({"resblock_updown": True, "conv_resample": False}, "resample", "residual"),
        ({"conv_resample": False}, "resample", "plain"),
        ({"use_new_attention_order": True}, "layout", "qkv_first"),
        ({"attention_resolutions": [2, 4, 8]}, "attention", (2,)),
        ({"use_checkpoint": True}, "checkpointing", True),
        ({"channel_mult": [0.5, 1.5]}, "widths", (16, 48)),
    ],
    ids=str,
)
def test_arguments_that_override_others(arguments: dict[str, Any], field: str, value: Any) -> None:
    assert getattr(unet_config({**SMALL, **arguments}), field) == value


def test_a_classifier_has_the_size_of_its_pictures() -> None:
    config = classifier_config({**SMALL, "image_size": 16, "pool": "attention", "num_head_channels": 16})
    assert (config.size, config.classes, config.build().get_parameter("head.position").shape[0]) == ((16, 16), 6, 8 * 8 + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dims": 3}, "UNetModel dims is 3"),
        ({"num_head_chanels": 3}, "did you mean 'num_head_channels'?"),
        ({"num_heads": 3}, "64 channels do not divide by 3"),
    ],
    ids=str,
)
def test_arguments_that_make_no_network_are_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(Problem) as raised:
        unet_config({**SMALL, **arguments})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_labels_need_a_place() -> None:
    with pytest.raises(Problem, match=r"no place in the network \(label_emb.weight\)"):
        load({"label_emb.weight": torch.zeros(10, 128)}, unet_config(SMALL).build())
