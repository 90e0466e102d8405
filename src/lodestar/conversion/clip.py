"""The families of CLIP: OpenAI's nine models, GLIDE's noise-aware one, and the folders of transformers' CLIPModel.

OpenAI's files are TorchScript archives, of which only the tensors are read. Their heads have 64 channels. GLIDE's towers are two
files, whose names have no prefix; keys have no bias there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lodestar.config import Problem, decode
from lodestar.conversion.family import Facts, Family, ModelConfig, Shapes
from lodestar.conversion.rename import Rule
from lodestar.models.clip import ClipModelConfig
from lodestar.nets.clip import ClipConfig, TextTowerConfig
from lodestar.nets.clip_image import ResNetConfig, ViTConfig
from lodestar.text import ClipTokenizer

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Normalisation of the pictures of all published CLIPs."""
HEAD = 64
"""Channels of a head in OpenAI's networks."""


def openai(
    embed: int, size: int, vision: int | Sequence[int], width: int, patch: int | None, text: int, *,
    layers: int = 12, context: int = 77, vocabulary: int = 49_408,
) -> ClipConfig:  # fmt: skip
    """OpenAI's network. vision: blocks of a transformer, or of a ResNet's stages. text: the text tower's width."""
    common = {"size": (size, size), "embed": embed, "width": width}
    if patch is None:
        assert not isinstance(vision, int)
        image: Any = ResNetConfig(**common, layers=tuple(vision))  # type: ignore[arg-type]
    else:
        image = ViTConfig(**common, layers=vision, heads=max(1, width // HEAD), patch=patch)  # type: ignore[arg-type]
    tower = TextTowerConfig(vocabulary=vocabulary, context=context, width=text, layers=layers, heads=max(1, text // HEAD))
    return ClipConfig(image=image, text=tower)


def of(network: ClipConfig, **others: Any) -> ClipModelConfig:
    """The model of a network with CLIP's tokens and normalisation."""
    return ClipModelConfig(network=network, tokenizer=ClipTokenizer(), mean=MEAN, std=STD, **others)


def glide(image: Mapping[str, int], text: Mapping[str, int]) -> ClipConfig:
    """Our configuration for the arguments of GLIDE's ImageEncoder and TextEncoder."""
    towers = [
        {
            "width": each["n_head"] * each["n_head_state"], "layers": each["n_xf_blocks"], "heads": each["n_head"],
            "activation": "gelu", "key_bias": False,
        }
        for each in (image, text)
    ]  # fmt: skip
    time = {"time": "table", "timesteps": image["n_timestep"]} if image["n_timestep"] else {}
    picture = {"size": [image["image_size"]] * 2, "patch": image["patch_size"], "embed": image["n_embd"]}
    words = {"vocabulary": text["n_bpe_vocab"], "context": text["max_text_len"]}
    return decode(ClipConfig, {"image": {"kind": "vit", **towers[0], **time, **picture}, "text": {**towers[1], **words}})


# ----------------------------------------------------------------------------------------------------------------- OpenAI

_BLOCKS = (
    Rule(r"\.(?:transformer\.resblocks|encoder\.layers|blocks)\.(?:block_)?(\d+)\.", r".blocks.\1."),
    Rule(r"\.(?:ln_|layer_norm)([12])\.", r".norm\1."),
    Rule(r"\.attn\.in_proj_", ".qkv."),
    Rule(r"\.attn\.out_proj\.", ".out."),
    Rule(r"\.mlp\.c_fc\.", ".up."),
    Rule(r"\.mlp\.c_proj\.", ".down."),
)
_OPENAI = (
    Rule(r"^logit_scale$", "log_scale"),
    Rule(r"^visual\.", "image."),
    Rule(r"^transformer\.", "text.transformer."),
    Rule(r"^token_embedding\.", "text.token."),
    Rule(r"^positional_embedding$", "text.position"),
    Rule(r"^ln_final\.", "text.norm."),
    Rule(r"^text_projection$", "text.out.weight", Tensor.t),
    # The vision transformer.
    Rule(r"^image\.class_embedding$", "image.start", lambda each: each[None]),
    Rule(r"^image\.positional_embedding$", "image.position"),
    Rule(r"^image\.ln_pre\.", "image.norm1."),
    Rule(r"^image\.ln_post\.", "image.norm2."),
    Rule(r"^image\.proj$", "image.out.weight", Tensor.t),
    # The ResNet.
    Rule(r"^image\.layer(\d)\.", lambda match: f"image.stages.{int(match[1]) - 1}."),
    Rule(r"^(image\..*)bn(\d)\.", r"\1norm\2."),
    Rule(r"\.downsample\.0\.", ".skip."),
    Rule(r"\.downsample\.1\.", ".skip_norm."),
    Rule(r"^image\.attnpool\.positional_embedding$", "image.pool.position"),
    Rule(r"^image\.attnpool\.([qkv])_proj\.(weight|bias)$", lambda match: f"image.pool.qkv.{match[2]}[{'qkv'.index(match[1])}]"),
    Rule(r"^image\.attnpool\.c_proj\.", "image.pool.out."),
    *_BLOCKS,
)
_PATCHES = Rule(r"^image\.conv1\.", "image.patch.")
_COUNTER = re.compile(r"(^|\.)(num_batches_tracked|input_resolution|context_length|vocab_size)$")
"""Numbers beside the weights: what they tell, shapes tell too, or nothing asks for."""


def _counted(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not _COUNTER.search(name)}


def _layers(shapes: Shapes, pattern: str) -> int:
    return len({match[1] for name in shapes if (match := re.match(pattern, name))})


def _openai_facts(shapes: Shapes) -> Facts:
    text = {
        "vocabulary": shapes["token_embedding.weight"][0],
        "context": shapes["positional_embedding"][0],
        "width": shapes["ln_final.weight"][0],
        "layers": _layers(shapes, r"transformer\.resblocks\.(\d+)\."),
    }
    transformer = "visual.proj" in shapes
    places = shapes["visual.positional_embedding" if transformer else "visual.attnpool.positional_embedding"][0] - 1
    image: dict[str, Any]
    if transformer:
        width, channels, patch, _ = shapes["visual.conv1.weight"]
        depth: Any = _layers(shapes, r"visual\.transformer\.resblocks\.(\d+)\.")
        image = {"kind": "vit", "patch": patch, "embed": shapes["visual.proj"][1]}
    else:
        width, channels, patch = shapes["visual.conv3.weight"][0], shapes["visual.conv1.weight"][1], 32
        depth = [_layers(shapes, rf"visual\.layer{number}\.(\d+)\.") for number in range(1, 5)]
        image = {"kind": "resnet", "embed": shapes["visual.attnpool.c_proj.weight"][0]}
    image |= {"in_channels": channels, "width": width, "layers": depth, "size": [math.isqrt(places) * patch] * 2}
    return _told(image, text)


def _told(image: Mapping[str, Any], text: Mapping[str, Any]) -> Facts:
    pictures = {f"network.image.{name}": value for name, value in image.items()}
    return {"kind": "clip", **pictures, **{f"network.text.{name}": value for name, value in text.items()}}


def _openai_rules(config: ModelConfig) -> Sequence[Rule]:
    assert isinstance(config, ClipModelConfig)
    return (*_OPENAI, _PATCHES) if isinstance(config.network.image, ViTConfig) else _OPENAI


def _openai_own(flags: Mapping[str, str], told: Facts, code: str, what: str) -> ModelConfig:
    """The configuration of a file of OpenAI's layout, which its weights tell whole."""
    if flags:
        raise Problem(f"{what} is of {code}, whose weights tell everything: leave the flags out")
    image, text = (
        {name.removeprefix(part): value for name, value in told.items() if name.startswith(part)}
        for part in ("network.image.", "network.text.")
    )
    for tower in (text, *([image] if image["kind"] == "vit" else [])):
        tower["heads"] = max(1, tower["width"] // HEAD)
    return of(decode(ClipConfig, {"image": image, "text": text}, what))


OPENAI_CLIP = Family(
    name="openai-clip",
    landmarks=frozenset({"visual.conv1.weight", "token_embedding.weight", "text_projection", "logit_scale"}),
    rules=(*_OPENAI, _PATCHES, Rule(_COUNTER.pattern, "")),
    facts=_openai_facts,
    rules_for=_openai_rules,
    own=_openai_own,
    fixed=_counted,
)

# ------------------------------------------------------------------------------------------------------------------ GLIDE

_GLIDE = (
    Rule(r"^(image|text)_encoder\.", r"\1."),
    Rule(r"^(image|text)\.blocks\.input\.w_pos$", r"\1.position"),
    Rule(r"^image\.blocks\.input\.w_t$", "image.start"),
    Rule(r"^image\.blocks\.input\.pred_state$", "image.start", lambda each: each[None]),
    Rule(r"^image\.blocks\.input\.patch_proj$", "image.patch.weight"),
    Rule(r"^image\.blocks\.input\.ln\.", "image.norm1."),
    Rule(r"^text\.blocks\.input\.w_voc$", "text.token.weight"),
    Rule(r"^image\.blocks\.output\.ln\.", "image.norm2."),
    Rule(r"^text\.blocks\.output\.ln\.", "text.norm."),
    Rule(r"\.blocks\.output\.f\.w$", ".out.weight"),
    Rule(r"\.f_attn\.ln\.", ".norm1."),
    Rule(r"\.f_mlp\.ln\.", ".norm2."),
    Rule(r"\.f_attn\.f_([qkv])\.w$", lambda match: f".qkv.weight[{'qkv'.index(match[1])}]"),
    Rule(r"\.f_attn\.f_([qv])\.b$", lambda match: f".qv_bias[{'qv'.index(match[1])}]"),
    Rule(r"\.f_attn\.f_c\.", ".out."),
    Rule(r"\.f_mlp\.f_1\.", ".up."),
    Rule(r"\.f_mlp\.f_2\.", ".down."),
    Rule(r"\.(g|w)$", ".weight"),
    Rule(r"\.b$", ".bias"),
    *_BLOCKS[:1],
)
GLIDE_SCALE = 100.0
"""The factor of the cosine, of GLIDE's settings: its files have none."""


def _scaled(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The state with the factor, which the settings tell."""
    return {**state, "log_scale": torch.tensor(math.log(GLIDE_SCALE))}


def _glide_facts(shapes: Shapes) -> Facts:
    image, text = "image_encoder.blocks.", "text_encoder.blocks."
    width, channels, patch, _ = shapes[f"{image}input.patch_proj"]
    side = math.isqrt(shapes[f"{image}input.w_pos"][0] - 1)
    timed = f"{image}input.w_t" in shapes
    picture = {
        "kind": "vit", "in_channels": channels, "size": [side * patch] * 2, "patch": patch, "width": width,
        "embed": shapes[f"{image}output.f.w"][0], "layers": _layers(shapes, r"image_encoder\.blocks\.block_(\d+)\."),
        "time": "table" if timed else "none", **({"timesteps": shapes[f"{image}input.w_t"][0]} if timed else {}),
    }  # fmt: skip
    vocabulary, words = shapes[f"{text}input.w_voc"]
    return _told(picture, {
        "vocabulary": vocabulary, "context": shapes[f"{text}input.w_pos"][0], "width": words,
        "layers": _layers(shapes, r"text_encoder\.blocks\.block_(\d+)\."),
    })  # fmt: skip


GLIDE_CLIP = Family(
    name="glide-clip",
    landmarks=frozenset({"image_encoder.blocks.input.patch_proj", "text_encoder.blocks.input.w_voc"}),
    rules=_GLIDE,
    facts=_glide_facts,
    rules_for=lambda config: (*_GLIDE, Rule(r"^log_scale$", "log_scale")),
    fixed=_scaled,
    parts={"clip_image_enc.pt": "image_encoder.", "clip_text_enc.pt": "text_encoder."},
)

# ----------------------------------------------------------------------------------------------------------- transformers

FOLDER = (
    Rule(r"^logit_scale$", "log_scale"),
    Rule(r"^(text|visual)_projection\.weight$", lambda match: f"{'text' if match[1] == 'text' else 'image'}.out.weight"),
    Rule(r"^text_model\.", "text."),
    Rule(r"^vision_model\.", "image."),
    Rule(r"^text\.embeddings\.token_embedding\.", "text.token."),
    Rule(r"^(text|image)\.embeddings\.position_embedding\.weight$", r"\1.position"),
    Rule(r"^text\.final_layer_norm\.", "text.norm."),
    Rule(r"^image\.embeddings\.class_embedding$", "image.start", lambda each: each[None]),
    Rule(r"^image\.embeddings\.patch_embedding\.", "image.patch."),
    Rule(r"^image\.pre_layrnorm\.", "image.norm1."),
    Rule(r"^image\.post_layernorm\.", "image.norm2."),
    *_BLOCKS,
    Rule(r"\.self_attn\.([qkv])_proj\.(weight|bias)$", lambda match: f".qkv.{match[2]}[{'qkv'.index(match[1])}]"),
    Rule(r"\.self_attn\.out_proj\.", ".out."),
    Rule(r"\.mlp\.fc1\.", ".up."),
    Rule(r"\.mlp\.fc2\.", ".down."),
)
"""Rules for transformers' names."""
