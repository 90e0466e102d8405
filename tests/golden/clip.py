"""Adapters for CLIP's networks, of OpenAI and of GLIDE, by their state dicts, and for the presets of the published ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lodestar.conversion import FAMILIES
from lodestar.conversion.clip import MEAN, STD, glide, openai
from lodestar.conversion.family import check, recognize
from lodestar.conversion.published import Published
from lodestar.conversion.run import facts, ours
from lodestar.core.level import CLEAN, Level
from lodestar.models.clip import ClipModelConfig, PictureClip
from lodestar.nets.clip import Clip, ClipConfig, unit
from lodestar.presets import PUBLISHED

from .harness import Case, Check, Left, adapter


def network(state: Mapping[str, Tensor], config: ClipConfig, name: str) -> Clip:
    """The network of a state dict, of which names and shapes agree with its arguments."""
    family = recognize(FAMILIES, state, name)
    model = described(config)
    told = facts(family, dict(state), name)
    check(model, told, name, "its constructor's arguments")
    built = config.build().eval()
    built.load_state_dict({key.removeprefix("network."): each for key, each in ours(family, model, dict(state), name).items()})
    return built


def arguments(config: Mapping[str, Any]) -> ClipConfig:
    return openai(
        config["embed_dim"], config["image_resolution"], config["vision_layers"], config["vision_width"],
        config["vision_patch_size"], config["transformer_width"], layers=config["transformer_layers"],
        context=config["context_length"], vocabulary=config["vocab_size"],
    )  # fmt: skip


def described(config: ClipConfig) -> ClipModelConfig:
    """A model around a network, whose few tokens are no tokenizer's."""
    return ClipModelConfig.model_construct(kind="clip", network=config, mean=MEAN, std=STD)


@adapter("clip")
def clip(case: Case) -> Iterator[Check | Left]:
    built = network(case.state, arguments(case.config), case.path.name)
    image, text = case.inputs["image"].requires_grad_(), case.inputs["text"]
    seen, _ = built.image(image, None, torch.float32)
    said = built.text(text)
    yield Check("image_features", seen)
    yield Check("text_features", said)
    yield Check("text_sequence", built.text.states(text))
    logits = built.scale * unit(seen) @ unit(said).T
    yield Check("logits_per_image", logits)
    yield Check("logits_per_text", logits.T)
    alike = min(len(seen), len(said))
    similar = (unit(seen)[:alike] * unit(said)[:alike]).sum()
    yield Check("grad_image", torch.autograd.grad(similar, image)[0])


@adapter("gl_clip")
def glide_clip(case: Case) -> Iterator[Check | Left]:
    config, inputs = glide(case.config["image_encoder"], case.config["text_encoder"]), case.inputs
    built = network(case.state, config, case.path.name)
    model = PictureClip(described(config))
    model.network = built.eval()
    probes: dict[str, Tensor] = {}
    built.image.norm2.register_forward_pre_hook(lambda _, given: probes.update(image=given[0]))  # type: ignore[operator, union-attr]
    built.text.norm.register_forward_pre_hook(lambda _, given: probes.update(text=given[0]))
    x = inputs["x"].requires_grad_()
    time = inputs.get("timesteps", torch.zeros(len(x))).double()
    level = Level(time, torch.full_like(time, 0.6), torch.full_like(time, 0.8)) if config.image.noised else CLEAN
    seen = model.image_features(x, level)
    mask = torch.arange(inputs["tokens"].shape[1]) < inputs["text_len"][:, None]
    said = built.text(inputs["tokens"], mask)
    yield Check("text_raw", said)
    yield Check("text_probe", probes["text"][torch.arange(len(said)), inputs["text_len"] - 1])
    yield Check("text_embeddings", unit(said))
    yield Check("image_raw", seen)
    yield Check("image_probe", probes["image"])
    yield Check("image_embeddings", unit(seen))
    similarity = inputs["logit_scale"].exp() * (unit(seen) * unit(said)).sum(dim=-1)
    yield Check("similarity", similarity)
    yield Check("grad", inputs["grad_scale"] * torch.autograd.grad(similarity.sum(), x)[0])


@adapter("manifest CLIP")
def manifest(case: Case) -> Iterator[Check | Left]:
    """The preset of a published model builds its keys and shapes, each of them once; on the meta device."""
    published = next(each for each in PUBLISHED if each.url == case.meta["checkpoint"])
    assert published.sha256 == case.meta["checkpoint"].split("/")[-2]
    config = published.model()
    assert isinstance(config, ClipModelConfig)
    assert config.network == arguments(case.config)
    yield from counted(case, case.meta["keys"], config, published)


def counted(case: Case, keys: Mapping[str, Any], config: ClipModelConfig, published: Published) -> Iterator[Check | Left]:
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in keys.items()}
    family = recognize(FAMILIES, state, published.file)
    assert family is published.family
    check(config, facts(family, state, published.file), published.file, published.name)
    mapped = ours(family, config, state, published.file)
    statistics = sum(each.numel() for name, each in mapped.items() if "running_" in name)
    yield Check("tensors", torch.tensor(len(state)))
    yield Check("params_total", torch.tensor(sum(each.numel() for each in mapped.values()) - statistics))


def glide_manifest(case: Case) -> Iterator[Check | Left]:
    """One of GLIDE's two towers: its keys and shapes, beside those of the other."""
    published = next(each for each in PUBLISHED if each.short == "glide-clip")
    assert case.meta["checkpoint"] in (published.url, *published.others)
    config, prefixes = published.model(), published.family.parts
    assert isinstance(config, ClipModelConfig)
    manifests = case.path.parent.glob("glide_clip_*_enc.json")
    cases = {each.meta["checkpoint"].rpartition("/")[2]: each.meta for each in map(Case, manifests)}
    assert config.network == glide(*(cases[file]["config"] for file in prefixes))
    state = {f"{prefix}{key}": shape for file, prefix in prefixes.items() for key, shape in cases[file]["keys"].items()}
    list(counted(case, state, config, published))
    mine = prefixes[case.meta["checkpoint"].rpartition("/")[2]]
    tower = {name: each for name, each in state.items() if name.startswith(mine)}
    yield Check("tensors", torch.tensor(len(tower)))
    yield Check("params_total", torch.tensor(sum(math.prod(shape) for shape in tower.values())))
