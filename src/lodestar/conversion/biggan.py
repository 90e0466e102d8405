"""The family of pytorch-pretrained-BigGAN: BigGAN-deep's generator, its spectral norms divided out."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from lodestar.config import Problem
from lodestar.conversion.family import Facts, Family, ModelConfig, Shapes
from lodestar.conversion.rename import Rule
from lodestar.models.gan import GanConfig

_PARTS = {"theta": "query", "phi": "key", "g": "value", "o_conv": "out"}

_NAMES = (
    Rule(r"^embeddings\.weight$", "table.weight", Tensor.t),
    Rule(r"^generator\.gen_z\.", "root."),
    Rule(r"^generator\.bn\.", "norm."),
    Rule(r"^generator\.layers\.", "layers."),
    Rule(r"\.bn_(\d)\.", r".norms.\1."),
    Rule(r"\.conv_(\d)\.", r".convs.\1."),
    Rule(r"\.running_means$", ".means"),
    Rule(r"\.running_vars$", ".variances"),
    Rule(r"\.offset\.", ".shift."),
    Rule(r"\.snconv1x1_(theta|phi|g|o_conv)\.", lambda found: f".{_PARTS[found[1]]}."),
    Rule(r"\.gamma$", ".gain"),
)


def _rules_for(config: ModelConfig) -> tuple[Rule, ...]:
    assert isinstance(config, GanConfig)
    channels = config.network.in_channels
    # Of as many channels as the last maps have, the first are the picture.
    return (*_NAMES, Rule(r"^generator\.conv_to_rgb\.", "head.", lambda tensor: tensor[:channels]))


def _facts(shapes: Shapes) -> Facts:
    """The settings that the shapes determine: all but the constant of the norms."""
    width = shapes["generator.conv_to_rgb.weight_orig"][0]
    blocks = {int(match[1]) for name in shapes if (match := re.match(r"generator\.layers\.(\d+)\.bn_0\.", name))}
    attention = {int(match[1]) for name in shapes if (match := re.match(r"generator\.layers\.(\d+)\.gamma$", name))}
    doubling = sorted(blocks)[1::2]
    if len(blocks) % 2 or not blocks or max(blocks) >= len(blocks | attention) or len(attention) > 1:
        raise Problem(f"{len(blocks)} blocks and {len(attention)} of attention make no BigGAN-deep")
    widths = [shapes[f"generator.layers.{sorted(blocks)[0]}.conv_0.weight_orig"][1]]
    widths += [shapes[f"generator.layers.{number}.conv_3.weight_orig"][0] for number in doubling]
    before = None if not attention else sum(number < min(attention) for number in doubling)
    network = {
        "kind": "biggan_deep", "latent": shapes["embeddings.weight"][0], "classes": shapes["embeddings.weight"][1],
        "size": [4 << len(doubling)] * 2, "width": width, "multipliers": [each // width for each in reversed(widths)],
        "attention": None if before is None else 1 << (len(doubling) - before),
        "statistics": shapes["generator.bn.running_means"][0],
    }  # fmt: skip
    return {"kind": "gan", **{f"network.{name}": value for name, value in network.items()}}


def _normalized(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with weights divided by their spectral norms, of the vectors beside them, as evaluation has them.

    Raises Problem naming a weight that lacks one.
    """
    made = {}
    for name, tensor in state.items():
        stem, _, leaf = name.rpartition(".")
        if leaf == "weight_orig":
            made[f"{stem}.weight"] = tensor / _norm(state, stem)
        elif leaf not in ("weight_u", "weight_v") and f"{name}_orig" not in state:
            made[name] = tensor
    return made


def _norm(state: Mapping[str, Tensor], stem: str) -> Tensor:
    """The largest singular value by a weight's two vectors, as PyTorch computes it."""
    weight, vectors = state[f"{stem}.weight_orig"].flatten(1), [state.get(f"{stem}.weight_{each}") for each in "uv"]
    u, v = vectors
    if u is None or v is None or (u.shape, v.shape) != ((weight.shape[0],), weight.shape[1:]):
        raise Problem(f"{stem}.weight_orig has no vectors of its shape beside it, {stem}.weight_u and .weight_v")
    return torch.dot(u, torch.mv(weight, v))


BIGGAN = Family(
    name="pytorch-pretrained-BigGAN",
    landmarks=frozenset({"embeddings.weight", "generator.gen_z.weight_orig", "generator.bn.running_means"}),
    rules=(*_NAMES, Rule(r"^generator\.conv_to_rgb\.", "head."), Rule(r"^generator\.", "")),
    facts=_facts,
    rules_for=_rules_for,
    silent="the constant of norms",
    fixed=_normalized,
)
