"""What weights tell of their configuration, against the constructors of the reference."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from lodestar.config import Problem
from lodestar.conversion import ADM, DDPM, FAMILIES
from lodestar.conversion.adm import classifier_config, classifier_facts, unet_config, unet_facts
from lodestar.conversion.ddpm import unet_config as ddpm_unet_config
from lodestar.conversion.ddpm import unet_facts as ddpm_unet_facts
from lodestar.conversion.family import check, contradictions, recognize
from lodestar.conversion.run import facts, ours
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.models.diffusion import DiffusionConfig

from .foreign import GUIDE, MODEL, SMALL, classifier_shapes, state, unet_shapes

RESAMPLINGS: tuple[dict[str, Any], ...] = ({}, {"resblock_updown": True}, {"conv_resample": False})
LAYOUTS: tuple[dict[str, Any], ...] = (
    {},
    {"num_res_blocks": 2, "attention_resolutions": [1, 2]},
    {"num_res_blocks": 3, "channel_mult": [1, 1, 2], "attention_resolutions": [4]},
    {"channel_mult": [0.5, 1, 1], "attention_resolutions": []},
    {"channel_mult": [2], "attention_resolutions": [1]},
    {"in_channels": 1, "out_channels": 1, "use_scale_shift_norm": True, "num_classes": 7},
)


@pytest.mark.parametrize(
    "arguments", [{**SMALL, **layout, **way} for layout, way in itertools.product(LAYOUTS, RESAMPLINGS)], ids=str
)
def test_a_u_net_tells_all_but_heads_layout_and_dropout(arguments: dict[str, Any]) -> None:
    shapes = unet_shapes(arguments)
    network = unet_config({**arguments, "num_classes": None})
    told = unet_facts(shapes)
    silent = {"kind", "heads", "head_channels", "layout", "up_heads", "dropout", "norm_groups", "checkpointing", "stem"}
    silent |= {"rescale_residuals", "norm_eps", "closed_frequencies", "one_sided", "context", "ranges", "last_step"}
    silent |= {"coordinates"} | ({"resample"} if len(network.multipliers) == 1 else set())
    assert told.keys() == type(network).model_fields.keys() - silent
    for name, value in told.items():
        expected = getattr(network, name)
        assert (tuple(value) if isinstance(value, list) else value) == expected, name
    config = DiffusionConfig(
        denoiser=DenoiserConfig(
            network=network,
            variance="fixed" if network.out_channels == network.in_channels else "learned_range",
            conditions=conditions(arguments.get("num_classes")),
        ),
        size=(16, 16),
    )
    weights = state(shapes)
    check(config, facts(ADM, weights, "a"), "a", "b")
    assert sum(each.numel() for each in ours(ADM, config, weights, "a").values()) == sum(v.numel() for v in weights.values())


@pytest.mark.parametrize(
    "arguments",
    [{**GUIDE, "resblock_updown": False, **layout, **way} for layout, way in itertools.product(LAYOUTS[:3], RESAMPLINGS)],
    ids=str,
)
def test_a_classifier_tells_the_same_and_its_pool(arguments: dict[str, Any]) -> None:
    arguments = {**arguments, "image_size": 16}
    network, told = classifier_config(arguments), classifier_facts(classifier_shapes(arguments))
    assert told["size"] == [16, 16]
    for name, value in told.items():
        assert (tuple(value) if isinstance(value, list) else value) == getattr(network, name), name
    assert {"multipliers", "blocks", "attention", "resample", "pool", "classes"} <= told.keys()


def test_residual_halvings_that_look_like_blocks_are_not_guessed() -> None:
    arguments = {**GUIDE, "channel_mult": [1, 1], "num_res_blocks": 2, "attention_resolutions": [], "pool": "adaptive"}
    told = classifier_facts(classifier_shapes(arguments))
    assert told.keys() == {"in_channels", "width", "adaptive_norm", "pool", "classes"}


def test_a_contradiction_names_the_setting_in_both() -> None:
    network = unet_config({**MODEL, "num_classes": None, "model_channels": 16, "attention_resolutions": []})
    config = DiffusionConfig(
        denoiser=DenoiserConfig(network=network, variance="learned_range", conditions=conditions(3)), size=(8, 8)
    )
    told = facts(ADM, state(unet_shapes(MODEL)), "a.pt")
    assert contradictions(config, told).keys() == {"denoiser.network.width", "denoiser.network.attention"}
    with pytest.raises(Problem) as raised:
        check(config, told, "a.pt", "ada/tiny")
    assert str(raised.value) == (
        "a.pt is not ada/tiny: denoiser.network.width is 8, not 16; denoiser.network.attention is 2, not nowhere"
    )


def test_a_family_is_known_by_its_names() -> None:
    assert recognize(FAMILIES, unet_shapes(MODEL), "a.pt") is ADM
    assert recognize(FAMILIES, classifier_shapes(GUIDE), "a.pt") is ADM
    with pytest.raises(Problem) as raised:
        recognize(FAMILIES, [*unet_shapes(MODEL), "transformer.ln.weight"], "a.pt")
    count = len(unet_shapes(MODEL)) + 1
    assert f"guided-diffusion knows {count - 1} of its {count} names (not transformer.ln.weight)" in str(raised.value)
    assert "lacks middle_block.0.in_layers.0.weight" in _refusal([name for name in unet_shapes(MODEL) if "middle" not in name])


def _refusal(names: list[str]) -> str:
    with pytest.raises(Problem) as raised:
        recognize(FAMILIES, names, "a.pt")
    return str(raised.value)


def test_blocks_that_make_no_network_are_a_problem_of_one_line() -> None:
    shapes = {name: shape for name, shape in unet_shapes(MODEL).items() if not name.startswith("output_blocks.3.")}
    with pytest.raises(Problem, match=r"^a.pt has the names of guided-diffusion, and 4 input blocks and 3 output blocks"):
        facts(ADM, state(shapes), "a.pt")
    shapes = {name: shape for name, shape in unet_shapes(MODEL).items() if name != "out.2.weight"}
    with pytest.raises(Problem, match=r"lacks 'out\.2\.weight'"):
        facts(ADM, state(shapes), "a.pt")


def test_ddpm_s_first_convolution_has_the_width_of_the_network() -> None:
    arguments = {"T": 10, "ch": 32, "ch_mult": [2, 1], "attn": [], "num_res_blocks": 1, "dropout": 0.0}
    network = ddpm_unet_config(arguments)
    assert (network.stem, network.widths) == (32, (64, 32))
    shapes = {"head.weight": (32, 3, 3, 3), "downblocks.0.block1.2.weight": (64, 32, 3, 3)}
    shapes |= {"downblocks.1.main.weight": (64, 64, 3, 3), "downblocks.2.block1.2.weight": (32, 64, 3, 3)}
    told = ddpm_unet_facts({**shapes, "tail.2.weight": (3, 64, 3, 3)})
    assert told["stem"] == 32 and told["multipliers"] == list(network.multipliers)
    assert ddpm_unet_config({**arguments, "ch_mult": [1, 2]}).stem is None


def test_ddpm_s_table_has_to_be_the_fixed_one() -> None:
    name = "time_embedding.timembedding.0.weight"
    angles = torch.arange(1000.0)[:, None] * 10000 ** (-torch.arange(0, 8, 2) / 8)
    table = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
    assert DDPM.fixed({name: table, "head.bias": table}).keys() == {"head.bias"}
    for other in (torch.cat([angles.sin(), angles.cos()], dim=1), table[:, 0], table[:, :7], table[:, :, None]):
        with pytest.raises(Problem, match="is not the table of sinusoids"):
            DDPM.fixed({name: other})
