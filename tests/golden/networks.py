"""Adapters for networks: U-Nets, upsamplers and noised classifiers by their state dicts, and published models by their keys.

Each is loaded through `lodestar.conversion`: what its names and shapes tell is taken from them, the rest (heads, layout, dropout)
from the case's constructor arguments; where the two contradict each other, the case fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar.config import decode
from lodestar.conversion import FAMILIES, unet2d
from lodestar.conversion.adm import classifier_config, unet_config
from lodestar.conversion.ddpm import unet_config as ddpm_unet_config
from lodestar.conversion.family import ModelConfig, check, recognize
from lodestar.conversion.run import facts, ours
from lodestar.conversion.settings import read as read_settings
from lodestar.core.level import Level
from lodestar.core.schedule import Cosine
from lodestar.denoiser import Denoiser, DenoiserConfig, conditions
from lodestar.generators.diffusion import Diffusion
from lodestar.models.classifier import ClassifierModelConfig, PictureClassifier
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNetConfig
from lodestar.presets import PUBLISHED

from .harness import Case, Check, Left, adapter


def loaded(case: Case, preset: ModelConfig) -> Any:
    """The model of a case's state dict: settings from its shapes where they tell, else the preset's."""
    family = recognize(FAMILIES, case.state, case.path.name)
    told = facts(family, case.state, case.path.name)
    check(preset, told, case.path.name, "its constructor's arguments")
    config = edited(preset, told)
    model = config.build().eval()
    model.load_state_dict(ours(family, config, case.state, case.path.name))
    return model


def edited(preset: ModelConfig, told: Any) -> ModelConfig:
    data = preset.model_dump(mode="json")
    if told.get("denoiser.classes") is not None:
        others = [each for each in data["denoiser"]["conditions"] if each["kind"] != "label"]
        data["denoiser"]["conditions"] = [{"kind": "label", "classes": told["denoiser.classes"]}, *others]
    for path, value in told.items():
        if path == "denoiser.classes":
            continue
        *parents, last = path.split(".")
        node = data
        for name in parents:
            node = node[name]
        node[last] = value
    return decode(type(preset), data)


def diffusion(network: UNetConfig, classes: int | None, low_res: Tensor | None = None) -> DiffusionConfig:
    """A model around a network of guided-diffusion's kind, of which only the denoiser is used."""
    inputs = network.in_channels
    if low_res is not None:
        network = network.replace(in_channels=2 * inputs)
    denoiser = DenoiserConfig(
        network=network,
        variance="fixed" if network.out_channels == inputs else "learned_range",
        conditions=conditions(classes, None if low_res is None else tuple(low_res.shape[-2:])),
    )
    return DiffusionConfig(denoiser=denoiser)


def said(denoiser: Denoiser, x: Tensor, time: Tensor, cond: dict[str, Tensor]) -> Tensor:
    """All channels of a network's answer."""
    output = denoiser.output(x, Level(time.double(), time.double(), time.double()), denoiser.encode(cond))
    return output.value if output.frac is None else torch.cat([output.value, output.frac], dim=1)


@adapter("gd_unet", "id_unet", "gd_sr", "id_sr")
@torch.no_grad()
def unet(case: Case) -> Iterator[Check | Left]:
    inputs = case.inputs
    model: Diffusion = loaded(case, diffusion(unet_config(case.config), case.config.get("num_classes"), inputs.get("low_res")))
    middle: list[Tensor] = []
    model.denoiser.network.middle[-1].register_forward_hook(lambda *call: middle.append(call[-1]))
    cond = {name: inputs[theirs] for name, theirs in (("label", "y"), ("low_res", "low_res")) if theirs in inputs}
    yield Check("out", said(model.denoiser, inputs["x"], inputs["timesteps"], cond))
    if "middle" in case.outputs:
        yield Check("middle", middle[0])


@adapter("pd_unet")
@torch.no_grad()
def ddpm_unet(case: Case) -> Iterator[Check | Left]:
    preset = diffusion(ddpm_unet_config(case.config), None)
    preset = preset.replace(schedule=Cosine(timesteps=case.config["T"]))  # a chain of any length
    model: Diffusion = loaded(case, preset)
    yield Check("out", said(model.denoiser, case.inputs["x"], case.inputs["t"], {}))


@adapter("gd_cls")
def classifier(case: Case) -> Iterator[Check | Left]:
    model: PictureClassifier = loaded(case, ClassifierModelConfig(network=classifier_config(case.config)))
    x = case.inputs["x"].requires_grad_()
    logits = model.network(x, case.inputs["timesteps"])
    yield Check("logits", logits)
    if "y" in case.inputs:
        selected = F.log_softmax(logits, dim=-1).gather(1, case.inputs["y"][:, None])[:, 0]
        yield Check("selected_log_prob", selected)
        yield Check("grad", case.inputs["classifier_scale"] * torch.autograd.grad(selected.sum(), x)[0])


@adapter("df_unet2d")
@torch.no_grad()
def diffusers_unet(case: Case) -> Iterator[Check | Left]:
    config = unet2d.unet_config(read_settings(unet2d.UNet2DModel, case.config, case.path.name), case.path.name)
    network = config.build().eval()
    state = dict(case.state)
    table = state.pop("class_embedding.weight", None)
    network.load_state_dict(unet2d.from_unet2d(config, state))
    emb = None if table is None else table[case.inputs["y"]]
    yield Check("out", network(case.inputs["x"], case.inputs["timesteps"], emb))


@adapter("manifest guided-diffusion", "manifest improved-diffusion", "manifest pytorch-ddpm")
def manifest(case: Case) -> Iterator[Check | Left]:
    """The preset of a published model builds its keys and shapes, each of them once; on the meta device."""
    file, name = case.meta["checkpoint"].rpartition("/")[2], case.meta["name"]
    published = next(each for each in PUBLISHED if each.file == file or each.short == _DDPM.get(name))
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in case.meta["keys"].items()}
    family = recognize(FAMILIES, state, name)
    assert family is published.family
    config = published.model()
    check(config, facts(family, state, name), name, published.name)
    assert network_of(config) == theirs(case, config)
    mapped = ours(family, config, state, name)
    left_out = {key for key in state if key not in family.fixed(state)}
    yield Check("tensors", torch.tensor(len(state)))
    yield Check("params_total", torch.tensor(sum(t.numel() for t in (*mapped.values(), *(state[key] for key in left_out)))))


_DDPM = {"pytorch-ddpm_cifar10": "ddpm-cifar10"}


def network_of(config: ModelConfig) -> Any:
    return config.denoiser.network if isinstance(config, DiffusionConfig) else config.network


def theirs(case: Case, config: ModelConfig) -> Any:
    """The network that a manifest's own settings make, as ours."""
    if "constructor_kwargs" not in case.config:
        return ddpm_unet_config(case.config)
    arguments = case.config["constructor_kwargs"]
    if isinstance(config, ClassifierModelConfig):
        return classifier_config(arguments)
    network = unet_config(arguments)
    return network if config.denoiser.low_res is None else network.replace(in_channels=2 * network.in_channels)
