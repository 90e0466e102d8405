"""Adapters for the networks of guided-diffusion and improved-diffusion: U-Nets and the noised classifier."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar.conditions.label import LabelCondition
from lodestar.convert import unet2d
from lodestar.convert.adm import classifier_config, load_classifier, load_unet, unet_config

from .harness import Case, Check, Left, adapter


@adapter("gd_unet", "id_unet")
@torch.no_grad()
def unet(case: Case) -> Iterator[Check | Left]:
    network = unet_config(case.config).build().eval()
    classes = case.config.get("num_classes")
    label = None if classes is None else LabelCondition(classes, network.config.emb_width)
    load_unet(case.state, network, label)
    middle: list[Tensor] = []
    network.middle[-1].register_forward_hook(lambda *call: middle.append(call[-1]))
    emb = None if label is None else label(case.inputs["y"])
    yield Check("out", network(case.inputs["x"], case.inputs["timesteps"], emb))
    if "middle" in case.outputs:
        yield Check("middle", middle[0])


@adapter("gd_cls")
def classifier(case: Case) -> Iterator[Check | Left]:
    network = classifier_config(case.config).build().eval()
    load_classifier(case.state, network)
    x = case.inputs["x"].requires_grad_()
    logits = network(x, case.inputs["timesteps"])
    yield Check("logits", logits)
    if "y" in case.inputs:
        selected = F.log_softmax(logits, dim=-1).gather(1, case.inputs["y"][:, None])[:, 0]
        yield Check("selected_log_prob", selected)
        yield Check("grad", case.inputs["classifier_scale"] * torch.autograd.grad(selected.sum(), x)[0])


@adapter("df_unet2d")
@torch.no_grad()
def diffusers_unet(case: Case) -> Iterator[Check | Left]:
    config = unet2d.unet_config(case.config)
    network = config.build().eval()
    network.load_state_dict(unet2d.from_unet2d(config, case.state))
    table = case.state.get("class_embedding.weight")
    emb = None if table is None else table[case.inputs["y"]]
    yield Check("out", network(case.inputs["x"], case.inputs["timesteps"], emb))
