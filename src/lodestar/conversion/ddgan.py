"""The family of denoising-diffusion-gan (Xiao et al. 2022): the generator, an NCSN++ in one flat list of modules.

Weights do not tell the size of pictures nor the number of steps, which are flags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from lodestar.config import Problem, edit
from lodestar.conversion.family import Facts, Family, ModelConfig, Shapes
from lodestar.conversion.rename import Rule
from lodestar.conversion.settings import Foreign, Idle, flagged
from lodestar.core.prediction import X0
from lodestar.core.schedule import VP
from lodestar.denoiser import DenoiserConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.ncsnpp import NcsnppConfig
from lodestar.samplers import Ancestral

_WEIGHTS = Idle("the weights tell")


class DdganFlags(Foreign):
    """Flags of denoising-diffusion-gan's test_ddgan.py; those of the layout have to be its defaults."""

    image_size: int = Field(default=32, ge=1, le=65536)
    num_timesteps: int = Field(default=4, ge=1, le=1_000)
    beta_min: float = 0.1
    beta_max: float = 20.0
    not_use_tanh: bool = False
    num_channels: Annotated[int, _WEIGHTS] = 3
    num_channels_dae: Annotated[int, _WEIGHTS] = 128
    num_res_blocks: Annotated[int, _WEIGHTS] = 2
    ch_mult: Annotated[str, _WEIGHTS] = ""
    n_mlp: Annotated[int, _WEIGHTS] = 3
    nz: Annotated[int, _WEIGHTS] = 100
    z_emb_dim: Annotated[int, _WEIGHTS] = 256


def model(network: NcsnppConfig, size: int, steps: int, latent: int = 100, layers: int = 4) -> DiffusionConfig:
    """A denoising diffusion GAN of square pictures in so many steps. layers: affine maps of the latent's embedding."""
    return DiffusionConfig(
        denoiser=DenoiserConfig(network=network, prediction=X0(), latent=latent, latent_layers=layers),
        schedule=VP(timesteps=steps),
        size=(size, size),
        sampler=Ancestral(variance="small"),
        steps=str(steps),
    )


def _own(flags: Mapping[str, str], facts: Facts, code: str, what: str) -> ModelConfig:
    given = flagged(DdganFlags, flags)
    told = {name: value for name, value in facts.items() if name != "kind"}
    made = model(NcsnppConfig(bounded=not given.not_use_tanh), given.image_size, given.num_timesteps)
    return edit(made, [{**told, "schedule.beta_min": given.beta_min, "schedule.beta_max": given.beta_max}])


def _facts(shapes: Shapes) -> Facts:
    """The settings that the shapes determine."""
    count = 1 + max(int(match[1]) for name in shapes if (match := re.match(r"all_modules\.(\d+)\.", name)))
    if count > 10 * len(shapes):
        raise Problem(f"all_modules.{count - 1} is the last of fewer modules")
    kinds = [_kind(shapes, f"all_modules.{number}.") for number in range(count)]
    width, levels = shapes["all_modules.2.weight"][0], [list[int]()]
    for number in range(3, count):
        if kinds[number] == "halving":
            levels.append([])
        else:
            levels[-1].append(number)
    blocks = sum(kinds[number] == "block" for number in levels[0]) - 1
    if len(levels) == 1 or blocks < 1:
        raise Problem(f"{len(levels)} resolutions of {blocks} residual blocks make no NCSN++ that is known here")
    maps = sorted(int(match[1]) for name in shapes if (match := re.fullmatch(r"z_transform\.(\d+)\.weight", name)))
    network = {
        "kind": "ncsnpp", "in_channels": shapes["all_modules.2.weight"][1], "width": width, "blocks": blocks,
        "multipliers": [shapes[f"all_modules.{numbers[0]}.Conv_0.weight"][0] // width for numbers in levels],
        "attention": [2**level for level, numbers in enumerate(levels) if kinds[numbers[1]] == "attention"],
        "told_width": shapes["z_transform.1.weight"][0],
    }  # fmt: skip
    latent = {"denoiser.latent": shapes["z_transform.1.weight"][1], "denoiser.latent_layers": len(maps)}
    return {"kind": "diffusion", **{f"denoiser.network.{name}": value for name, value in network.items()}, **latent}


def _kind(shapes: Shapes, prefix: str) -> str:
    marks = {"GroupNorm_0.style.weight": "block", "NIN_0.W": "attention", "Conv2d_0.weight": "halving"}
    return next((kind for leaf, kind in marks.items() if f"{prefix}{leaf}" in shapes), "other")


def _modules(network: NcsnppConfig) -> Iterator[str]:
    """Our names of the modules of the list, in their order."""
    yield from ("time.linear1", "time.linear2", "stem")
    levels, place = len(network.multipliers), 0
    for level in range(levels):
        for _ in range(network.blocks):
            yield f"down.{place}.block"
            if 2**level in network.attention:
                yield f"down.{place}.attention"
            place += 1
        if level + 1 < levels:
            yield f"down.{place}.block"
            yield f"smaller.{level}"
            place += 1
    yield from ("middle.0.block", "middle.0.attention", "middle.1.block")
    place = 0
    for level in reversed(range(levels)):
        for _ in range(network.blocks + 1):
            yield f"up.{place}.block"
            place += 1
        if 2**level in network.attention:
            yield f"up.{place - 1}.attention"
        if level > 0:
            yield f"up.{place}.block"
            place += 1
    yield from ("norm", "head")


def _rules_for(config: ModelConfig) -> tuple[Rule, ...]:
    assert isinstance(config, DiffusionConfig) and isinstance(config.denoiser.network, NcsnppConfig)
    names = dict(enumerate(_modules(config.denoiser.network)))
    return (
        Rule(r"^all_modules\.(\d+)\.", lambda found: f"{names.get(int(found[1]), found[0])}."),
        Rule(r"^z_transform\.(\d+)\.", lambda found: f"latent.maps.{int(found[1]) - 1}."),
        Rule(r"^time\.linear1\.weight$", "time.linear1.weight", _cosines_first),
        Rule(r"\.GroupNorm_([01])\.style\.bias$", lambda found: f".norm{int(found[1]) + 1}.told.bias", _beside_one),
        Rule(r"\.GroupNorm_([01])\.style\.weight$", lambda found: f".norm{int(found[1]) + 1}.told.weight"),
        Rule(r"\.GroupNorm_0\.(?=weight|bias)", ".norm."),
        Rule(r"\.Dense_0\.", ".time."),
        Rule(r"\.Conv_2\.", ".skip."),
        Rule(r"\.Conv_([01])\.", lambda found: f".conv{int(found[1]) + 1}."),
        Rule(r"\.Conv2d_0\.", "."),
        Rule(r"\.NIN_3\.W$", ".out.weight", Tensor.t),
        Rule(r"\.NIN_3\.b$", ".out.bias"),
        Rule(r"\.NIN_([012])\.W$", r".qkv.weight[\1]", Tensor.t),
        Rule(r"\.NIN_([012])\.b$", r".qkv.bias[\1]"),
    )


def _cosines_first(weight: Tensor) -> Tensor:
    """Columns [O, W] reordered: cosines, then sines."""
    sines, cosines = weight.chunk(2, dim=1)
    return torch.cat([cosines, sines], dim=1)


def _beside_one(bias: Tensor) -> Tensor:
    """The bias of scale and shift, with that of the scale counted from 1."""
    scale, shift = bias.chunk(2)
    return torch.cat([scale - 1, shift])


def _beside(config: ModelConfig) -> Mapping[str, Tensor]:
    """Scales and shifts of the norms themselves, where the embedding's are all there."""
    with torch.device("meta"):
        ours = config.build().state_dict()
    plain = {name: tensor for name, tensor in ours.items() if re.search(r"\.norm[12]\.norm\.(weight|bias)$", name)}
    return {name: torch.full(tensor.shape, float(name.endswith("weight"))) for name, tensor in plain.items()}


DDGAN = Family(
    name="denoising-diffusion-gan",
    landmarks=frozenset({"all_modules.0.weight", "all_modules.2.weight", "z_transform.1.weight"}),
    rules=(Rule(r"^(all_modules|z_transform)\.\d+\.", ""),),
    facts=_facts,
    rules_for=_rules_for,
    own=_own,
    silent="the size of pictures, the number of steps",
    flags="--flags '--image_size 256 --num_timesteps 2'",
    beside=_beside,
)
