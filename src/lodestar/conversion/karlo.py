"""The families of Karlo, an open DALL·E 2: prior, decoder and the upsampler of two networks.

The prior's statistics of embeddings lie in a file of their own. The text transformer of prior and decoder is CLIP's, a model by
itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lodestar.codecs import Embeddings
from lodestar.conditions import ClipText, Embedding, LowRes
from lodestar.conversion.adm import BACKBONE, MULTIPLIERS, UNET_HEAD, unet_facts
from lodestar.conversion.family import Facts, Family, ModelConfig, Shapes
from lodestar.conversion.glide import ATTENDING
from lodestar.conversion.rename import Rule
from lodestar.core.prediction import X0
from lodestar.core.schedule import Cosine
from lodestar.denoiser import DenoiserConfig
from lodestar.guidance import Clamp
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.prior import PriorConfig
from lodestar.nets.unet import UNetConfig
from lodestar.samplers import Ancestral
from lodestar.text import AnyTokenizer, ClipTokenizer

_TOKENIZER = ClipTokenizer()
_LARGEST = 10.0
"""Limit of a whitened embedding."""

# ------------------------------------------------------------------------------------------------------------ configurations


def prior(arguments: Mapping[str, Any], tokenizer: AnyTokenizer = _TOKENIZER, states: int | None = None) -> DiffusionConfig:
    """Our configuration for the arguments of PriorDiffusionModel. states: channels of the text's states; default the
    embedding's."""
    width, embed = arguments["xf_width"], arguments["clip_dim"]
    network = PriorConfig(
        context=arguments["text_ctx"], width=width, layers=arguments["xf_layers"], heads=arguments["xf_heads"], in_channels=embed
    )
    text = ClipText(tokenizer=tokenizer, length=arguments["text_ctx"], states=states or embed, embed=embed, width=width)
    return DiffusionConfig(
        denoiser=DenoiserConfig(network=network, prediction=X0(), channels=embed, conditions=(text,)),
        schedule=Cosine(),
        codec=Embeddings(embed=embed, largest=_LARGEST),
        size=(1, 1),
        droppable=True,
        sampler=Ancestral(),
        steps="25",
        limit=Clamp(limit=_LARGEST),
    )


def decoder(arguments: Mapping[str, Any], tokenizer: AnyTokenizer = _TOKENIZER, states: int | None = None) -> DiffusionConfig:
    """Our configuration for the arguments of Text2ImProgressiveModel; see `prior`."""
    size, embed, width = arguments["image_size"], arguments["clip_dim"], arguments["xf_width"]
    multipliers = tuple(map(float, filter(None, arguments["channel_mult"].split(",")))) or MULTIPLIERS[size]
    network = UNetConfig(
        width=arguments["num_channels"],
        multipliers=multipliers,
        blocks=arguments["num_res_blocks"],
        attention=tuple(sorted(size // int(side) for side in arguments["attention_resolutions"].split(","))),
        head_channels=arguments["num_head_channels"],
        layout="heads_first",
        adaptive_norm=arguments["use_scale_shift_norm"],
        resample="residual" if arguments["resblock_updown"] else "conv",
        dropout=arguments["dropout"],
    )
    text = ClipText(
        tokenizer=tokenizer, length=arguments["text_ctx"], states=states or embed, embed=embed, width=width, norm=True
    )
    picture = Embedding(embed=embed, width=width, tokens=arguments["clip_emb_mult"])
    return DiffusionConfig(
        denoiser=DenoiserConfig(network=network, variance="learned_range", channels=3, conditions=(picture, text)),
        schedule=Cosine(),
        size=(size, size),
        droppable=True,
        sampler=Ancestral(),
        steps="50",
    )


def upsampler(arguments: Mapping[str, Any], size: int = 256, small: int = 64) -> DiffusionConfig:
    """Our configuration for the arguments of ImprovedSupRes64to256ProgressiveModel."""
    network = UNetConfig(
        width=arguments["channels"],
        multipliers=tuple(arguments["channels_multiple"]),
        blocks=arguments["depth"],
        attention=(),
        middle_attention=False,
        heads=1,
        head_channels=None,
        layout="heads_first",
        adaptive_norm=False,
        dropout=arguments["dropout"],
        last_step=True,
    )
    low_res = LowRes(size=(small, small), enlarging="bicubic")
    return DiffusionConfig(
        denoiser=DenoiserConfig(network=network, channels=3, conditions=(low_res,)),
        schedule=Cosine(),
        size=(size, size),
        sampler=Ancestral(),
        steps="7",
    )


# --------------------------------------------------------------------------------------------------------------------- names


def by_kind(heads: int) -> Any:
    """The change of a projection with its heads first into ours, which has all queries first, then keys, then values."""

    def change(each: Tensor) -> Tensor:
        changed: Tensor = each.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)
        return changed

    return change


_PRIOR = (
    Rule(r"^model\.positional_embedding$", "position", lambda each: each[0]),
    Rule(r"^model\.prd_emb$", "query", lambda each: each[0]),
    Rule(r"^model\.time_embed\.0\.", "time.linear1."),
    Rule(r"^model\.time_embed\.2\.", "time.linear2."),
    Rule(r"^model\.text_enc_proj\.", "clip_text.states."),
    Rule(r"^model\.text_emb_proj\.", "clip_text.embedding."),
    Rule(r"^model\.clip_img_proj\.", "embedding."),
    Rule(r"^model\.out_proj\.", "out."),
    Rule(r"^model\.final_ln\.", "norm."),
    Rule(r"^model\.transformer\.resblocks\.", "blocks."),
    Rule(r"^(blocks\.\d+)\.ln_([12])\.", r"\1.norm\2."),
    Rule(r"^(blocks\.\d+)\.attn\.c_proj\.", r"\1.out."),
    Rule(r"^(blocks\.\d+)\.mlp\.c_fc\.", r"\1.up."),
    Rule(r"^(blocks\.\d+)\.mlp\.c_proj\.", r"\1.down."),
    Rule(r"^statistics\.0$", "codec.mean"),
    Rule(r"^statistics\.1$", "codec.std"),
)


def _prior_rules(config: ModelConfig) -> Sequence[Rule]:
    assert isinstance(config, DiffusionConfig) and isinstance(config.denoiser.network, PriorConfig)
    return (*_PRIOR, Rule(r"^(blocks\.\d+)\.attn\.c_qkv\.", r"\1.qkv.", by_kind(config.denoiser.network.heads)))


def _prior_facts(shapes: Shapes) -> Facts:
    width, embed = shapes["model.clip_img_proj.weight"]
    _, places, _ = shapes["model.positional_embedding"]
    network = {
        "kind": "prior", "context": places - 4, "width": width, "in_channels": embed,
        "layers": len({match[1] for name in shapes if (match := re.match(r"model\.transformer\.resblocks\.(\d+)\.", name))}),
    }  # fmt: skip
    return {
        "kind": "diffusion",
        **{f"denoiser.network.{name}": value for name, value in network.items()},
        "denoiser.text.length": places - 4,
        "denoiser.text.states": shapes["model.text_enc_proj.weight"][1],
        "denoiser.text.embed": shapes["model.text_emb_proj.weight"][1],
        "codec.embed": shapes["statistics.0"][0],
    }


_DECODER = (
    Rule(r"^model\.cf_param$", "embedding.nothing"),
    Rule(r"^model\.clip_emb\.", "embedding.vector."),
    Rule(r"^model\.clip_tok_proj\.", "embedding.tokens."),
    Rule(r"^model\.text_seq_proj\.0\.", "clip_text.states."),
    Rule(r"^model\.text_seq_proj\.1\.", "clip_text.norm."),
    Rule(r"^model\.text_feat_proj\.", "clip_text.embedding."),
    Rule(r"^model\.(?=time_embed|input_blocks|middle_block|output_blocks|out)", ""),
    *ATTENDING,
)


def _decoder_facts(shapes: Shapes) -> Facts:
    stripped = {name.removeprefix("model."): shape for name, shape in shapes.items()}
    network = {f"denoiser.network.{name}": value for name, value in unet_facts(stripped).items()}
    width, embed = stripped["text_seq_proj.0.weight"][0], stripped["cf_param"][0]
    return {
        "kind": "diffusion",
        **network,
        "denoiser.network.context": width,
        "denoiser.text.states": stripped["text_seq_proj.0.weight"][1],
        "denoiser.text.embed": stripped["text_feat_proj.weight"][1],
        "denoiser.embedding.embed": embed,
        "denoiser.embedding.tokens": stripped["clip_tok_proj.weight"][0] // width,
    }


_NETWORKS = {"first": "model_first_steps.", "last": "model_last_step."}
# The network's name waits at the end until the rules for names from their beginning are through.
_UPSAMPLER = (
    *(Rule(rf"^{foreign.replace('.', chr(92) + '.')}(.*)$", rf"\1@{ours}") for ours, foreign in _NETWORKS.items()),
    *BACKBONE,
    *UNET_HEAD,
    Rule(r"^(.*)@(first|last)$", r"\2.\1"),
)


def _upsampler_facts(shapes: Shapes) -> Facts:
    first, last = (
        unet_facts({name.removeprefix(foreign): shape for name, shape in shapes.items() if name.startswith(foreign)})
        for foreign in _NETWORKS.values()
    )
    # Two networks that differ fit no configuration: `rename` tells where.
    return {"kind": "diffusion", **{f"denoiser.network.{name}": value for name, value in {**last, **first}.items()}}


FILES = {
    "prior": "prior-ckpt-step=01000000-of-01000000.ckpt",
    "statistics": "ViT-L-14_stats.th",
    "decoder": "decoder-ckpt-step=01000000-of-01000000.ckpt",
    "upsampler": "improved-sr-ckpt-step=1.2M.ckpt",
    "clip": "ViT-L-14.pt",
}
"""Published files, by part."""

KARLO_PRIOR = Family(
    name="karlo-prior",
    landmarks=frozenset({"model.prd_emb", "model.clip_img_proj.weight", "statistics.0"}),
    rules=(*_PRIOR, Rule(r"^blocks\.\d+\.attn\.c_qkv\.", "")),
    facts=_prior_facts,
    rules_for=_prior_rules,
    inside="state_dict",
    parts={FILES["prior"]: "", FILES["statistics"]: "statistics."},
)
KARLO_DECODER = Family(
    name="karlo-decoder",
    landmarks=frozenset({"model.cf_param", "model.clip_tok_proj.weight"}),
    rules=_DECODER,
    facts=_decoder_facts,
    rules_for=lambda config: _DECODER,
    inside="state_dict",
)
KARLO_UPSAMPLER = Family(
    name="karlo-upsampler",
    landmarks=frozenset(f"{foreign}time_embed.0.weight" for foreign in _NETWORKS.values()),
    rules=_UPSAMPLER,
    facts=_upsampler_facts,
    rules_for=lambda config: _UPSAMPLER,
    inside="state_dict",
)
KARLO = (KARLO_PRIOR, KARLO_DECODER, KARLO_UPSAMPLER)
