"""Folders of diffusers' UnCLIPPipeline, the layout of Karlo there: a prior, a decoder and an upsampler of two networks, as ours.

Their text encoder is OpenAI's CLIP ViT-L/14, which is converted from its own file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from lodestar import checkpoint
from lodestar.codecs import Embeddings
from lodestar.conditions import ClipText, Embedding, LowRes
from lodestar.config import Problem, shown
from lodestar.conversion import folder as folders
from lodestar.conversion.rename import Rule, rename
from lodestar.conversion.schedulers.base import PREDICTIONS
from lodestar.conversion.settings import Foreign, Only, read
from lodestar.conversion.unet2d import UNet2DModel, from_unet2d, unet_config
from lodestar.core.schedule import Cosine
from lodestar.denoiser import DenoiserConfig
from lodestar.files import check_writable
from lodestar.guidance import Clamp
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.prior import PriorConfig
from lodestar.nets.unet import UNetConfig
from lodestar.samplers import Ancestral
from lodestar.text import ClipTokenizer

C = TypeVar("C", bound=Foreign)
_KARLO = "only the layout of Karlo is read"


class PriorTransformer(Foreign):
    """Settings of the prior."""

    num_attention_heads: int = 32
    attention_head_dim: int = 64
    num_layers: int = 20
    embedding_dim: int = 768
    num_embeddings: int = 77
    additional_embeddings: Annotated[int, Only((4,), _KARLO)] = 4
    dropout: float = 0.0
    time_embed_act_fn: Annotated[str, Only(("silu",), _KARLO)] = "silu"
    norm_in_type: Annotated[None, Only((None,), _KARLO)] = None
    embedding_proj_norm_type: Annotated[None, Only((None,), _KARLO)] = None
    encoder_hid_proj_type: Annotated[str, Only(("linear",), _KARLO)] = "linear"
    added_emb_type: Annotated[str, Only(("prd",), _KARLO)] = "prd"
    time_embed_dim: Annotated[None, Only((None,), _KARLO)] = None
    embedding_proj_dim: Annotated[None, Only((None,), _KARLO)] = None
    clip_embed_dim: Annotated[None, Only((None,), _KARLO)] = None


class UnCLIPTextProjModel(Foreign):
    """Settings of the decoder's conditions."""

    clip_extra_context_tokens: int = 4
    clip_embeddings_dim: int = 768
    time_embed_dim: int
    cross_attention_dim: int


class UNet2DConditionModel(Foreign):
    """Settings of the decoder's network; all others have to be the class's own (`_USUAL`)."""

    sample_size: int
    in_channels: Annotated[int, Only((3,), _KARLO)] = 4
    out_channels: Annotated[int, Only((6,), _KARLO)] = 4
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]
    mid_block_type: Annotated[str, Only(("UNetMidBlock2DSimpleCrossAttn",), _KARLO)]
    block_out_channels: tuple[int, ...]
    layers_per_block: int = 2
    attention_head_dim: int = 8
    cross_attention_dim: int = 1280
    class_embed_type: Annotated[str | None, Only(("identity",), _KARLO)] = None
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    dropout: float = 0.0

    def plain(self) -> UNet2DModel:
        """Settings of the same network without its text, as a UNet2DModel."""
        own = self.model_dump(exclude={"cross_attention_dim", "class_embed_type", "mid_block_type"})
        for side in ("down", "up"):
            names = own[f"{side}_block_types"]
            own[f"{side}_block_types"] = [name.replace("SimpleCrossAttn", "Attn") for name in names]
        own |= {**_RESIDUAL, "attn_norm_num_groups": self.norm_num_groups}
        return read(UNet2DModel, own, "UNet2DConditionModel")


class UnCLIPScheduler(Foreign):
    """Settings of a part's process."""

    num_train_timesteps: int = Field(default=1000, ge=1, le=1_000_000)
    variance_type: Literal["fixed_small_log", "learned_range"] = "fixed_small_log"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    prediction_type: Literal["epsilon", "sample"] = "epsilon"
    beta_schedule: Annotated[str, Only(("squaredcos_cap_v2",), _KARLO)] = "squaredcos_cap_v2"

    @property
    def process(self) -> dict[str, Any]:
        """Process and sampling, as fields of a model."""
        limit = Clamp(limit=self.clip_sample_range) if self.clip_sample else None
        return {"schedule": Cosine(timesteps=self.num_train_timesteps), "sampler": Ancestral(), "limit": limit}

    @property
    def denoising(self) -> dict[str, Any]:
        """Prediction and variance, as fields of a denoiser."""
        learned = self.variance_type == "learned_range"
        return {"prediction": PREDICTIONS[self.prediction_type], "variance": "learned_range" if learned else "fixed"}


_RESIDUAL = {"downsample_type": "resnet", "upsample_type": "resnet"}
_USUAL: Mapping[str, Any] = {
    "center_input_sample": False, "flip_sin_to_cos": True, "freq_shift": 0, "only_cross_attention": False,
    "downsample_padding": 1, "mid_block_scale_factor": 1, "act_fn": "silu", "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None, "encoder_hid_dim": None, "encoder_hid_dim_type": None,
    "num_attention_heads": None, "dual_cross_attention": False, "use_linear_projection": False, "addition_embed_type": None,
    "addition_time_embed_dim": None, "num_class_embeds": None, "upcast_attention": False, "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0, "time_embedding_type": "positional", "time_embedding_dim": None,
    "time_embedding_act_fn": None, "timestep_post_act": None, "time_cond_proj_dim": None, "conv_in_kernel": 3,
    "conv_out_kernel": 3, "projection_class_embeddings_input_dim": None, "attention_type": "default",
    "class_embeddings_concat": False, "mid_block_only_cross_attention": None, "cross_attention_norm": None,
    "addition_embed_type_num_heads": 64,
}  # fmt: skip
"""Settings of UNet2DConditionModel that mean its usual network, with their values."""

_PRIOR = (
    Rule(r"^positional_embedding$", "position", lambda each: each[0]),
    Rule(r"^prd_embedding$", "query", lambda each: each[0]),
    Rule(r"^clip_(mean|std)$", r"codec.\1", lambda each: each[0]),
    Rule(r"^time_embedding\.linear_([12])\.", r"time.linear\1."),
    Rule(r"^proj_in\.", "embedding."),
    Rule(r"^embedding_proj\.", "clip_text.embedding."),
    Rule(r"^encoder_hidden_states_proj\.", "clip_text.states."),
    Rule(r"^norm_out\.", "norm."),
    Rule(r"^proj_to_clip_embeddings\.", "out."),
    Rule(r"^transformer_blocks\.", "blocks."),
    Rule(r"^(blocks\.\d+)\.norm3\.", r"\1.norm2."),
    Rule(r"^(blocks\.\d+\.norm1\..*)$", r"\1"),
    Rule(r"\.attn1\.to_([qkv])\.(weight|bias)$", lambda match: f".qkv.{match[2]}[{'qkv'.index(match[1])}]"),
    Rule(r"\.attn1\.to_out\.0\.", ".out."),
    Rule(r"\.ff\.net\.0\.proj\.", ".up."),
    Rule(r"\.ff\.net\.2\.", ".down."),
)
_CONDITIONS = (
    Rule(r"^learned_classifier_free_guidance_embeddings$", "embedding.nothing"),
    Rule(r"^embedding_proj\.", "clip_text.embedding."),
    Rule(r"^clip_image_embeddings_project_to_time_embeddings\.", "embedding.vector."),
    Rule(r"^clip_extra_context_tokens_proj\.", "embedding.tokens."),
    Rule(r"^encoder_hidden_states_proj\.", "clip_text.states."),
    Rule(r"^text_encoder_hidden_states_norm\.", "clip_text.norm."),
)


def is_unclip(folder: Path) -> bool:
    """True for a folder of diffusers with an UnCLIPPipeline."""
    index = folder / folders.INDEX
    return index.is_file() and str(folders.read(index).get("_class_name", "")).startswith("UnCLIP")


def convert_folder(folder: Path, out: Path) -> list[Path]:
    """Convert a folder into ``out/FOLDER-prior.safetensors``, ``-decoder`` and ``-upsampler``; returns their paths.

    Raises Problem naming a part that is missing, and settings without an equivalent here; then nothing is written.
    """
    name = folder.resolve().name
    made = {"prior": _prior(folder), "decoder": _decoder(folder), "upsampler": _upsampler(folder)}
    paths = {part: out / f"{name}-{part}.safetensors" for part in made}
    for path in paths.values():
        check_writable(path)
    for part, (config, state) in made.items():
        provenance = {"source": f"{name} (diffusers)", "part": part}
        checkpoint.save(paths[part], config.kind, config.to_json(), state, provenance)
    return list(paths.values())


Converted = tuple[DiffusionConfig, dict[str, Tensor]]


def _prior(folder: Path) -> Converted:
    settings, tensors = _part(folder, "prior", PriorTransformer)
    scheduler = _scheduler(folder, "prior_scheduler")
    embed, width = settings.embedding_dim, settings.num_attention_heads * settings.attention_head_dim
    network = PriorConfig(
        context=settings.num_embeddings, width=width, layers=settings.num_layers, heads=settings.num_attention_heads,
        in_channels=embed,
    )  # fmt: skip
    text = _text(embed, settings.num_embeddings, width, norm=False)
    config = DiffusionConfig(
        denoiser=DenoiserConfig(network=network, channels=embed, conditions=(text,), **scheduler.denoising),
        codec=Embeddings(embed=embed, largest=scheduler.clip_sample_range),
        size=(1, 1),
        droppable=True,
        steps="25",
        **scheduler.process,
    )
    return config, _renamed(config, tensors, _PRIOR, f"{folder}/prior")


def _decoder(folder: Path) -> Converted:
    conditions, told = _part(folder, "text_proj", UnCLIPTextProjModel)
    settings, tensors = _part(folder, "decoder", UNet2DConditionModel, _USUAL)
    scheduler, length = _scheduler(folder, "decoder_scheduler"), _part(folder, "prior", PriorTransformer)[0].num_embeddings
    embed, width, where = conditions.clip_embeddings_dim, settings.cross_attention_dim, f"{folder}/decoder"
    picture = Embedding(embed=embed, width=width, tokens=conditions.clip_extra_context_tokens)
    config = DiffusionConfig(
        denoiser=DenoiserConfig(
            network=unet_config(settings.plain(), where),
            channels=3,
            conditions=(picture, _text(embed, length, width, norm=True)),
            **scheduler.denoising,
        ),
        size=(settings.sample_size, settings.sample_size),
        droppable=True,
        steps="50",
        **scheduler.process,
    )
    state = {f"denoiser.network.{name}": each for name, each in _network(config, tensors, where).items()}
    return config, state | _renamed(config, told, _CONDITIONS, f"{folder}/text_proj", "denoiser.network.")


def _upsampler(folder: Path) -> Converted:
    (settings, first), (other, last) = (
        _part(folder, f"super_res_{name}", UNet2DModel, also=_RESIDUAL) for name in ("first", "last")
    )
    if settings != other:
        raise Problem(f"{folder}: super_res_first and super_res_last have different settings: they are two of one network")
    scheduler, where = _scheduler(folder, "super_res_scheduler"), f"{folder}/super_res_first"
    small = _part(folder, "decoder", UNet2DConditionModel, _USUAL)[0].sample_size
    low_res = LowRes(size=(small, small), enlarging="bicubic")
    network = unet_config(settings, where).replace(last_step=True)
    config = DiffusionConfig(
        denoiser=DenoiserConfig(network=network, channels=3, conditions=(low_res,), **scheduler.denoising),
        size=settings.size,
        steps="7",
        **scheduler.process,
    )
    state: dict[str, Tensor] = {}
    for name, tensors in (("first", first), ("last", last)):
        of = _network(config, tensors, f"{folder}/super_res_{name}")
        state |= {f"denoiser.network.{name}.{ours}": each for ours, each in of.items()}
    return config, state


def _text(embed: int, length: int, width: int, norm: bool) -> ClipText:
    return ClipText(tokenizer=ClipTokenizer(), length=length, states=embed, embed=embed, width=width, norm=norm)


def _part(
    folder: Path, name: str, kind: type[C], usual: Mapping[str, Any] | None = None, also: Mapping[str, Any] | None = None
) -> tuple[C, dict[str, Tensor]]:
    """Settings and tensors of a part. usual: values that other settings have to have. also: settings in place of the file's."""
    where = folder / name / "config.json"
    if not where.is_file():
        raise Problem(f"{folder} has no part {name}: {where} is missing")
    settings = {**folders.read(where), **(also or {})}
    for setting, value in (usual or {}).items():
        if (given := settings.pop(setting, value)) != value:
            raise Problem(f"{where}: {setting} is {shown(given)}: only {shown(value)} is read, because {_KARLO}")
    return read(kind, settings, str(where)), folders.tensors(folders.weights_of(where.parent))


def _scheduler(folder: Path, name: str) -> UnCLIPScheduler:
    where = folder / name / "scheduler_config.json"
    if not where.is_file():
        raise Problem(f"{folder} has no part {name}: {where} is missing")
    return read(UnCLIPScheduler, folders.read(where), str(where))


def _network(config: DiffusionConfig, tensors: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    network = config.denoiser.network
    assert isinstance(network, UNetConfig)
    try:
        return from_unet2d(network, tensors)
    except Problem as problem:
        raise Problem(f"{where}: {problem}") from None


def _renamed(
    config: DiffusionConfig, tensors: dict[str, Tensor], rules: tuple[Rule, ...], where: str, but: str = "codec.none"
) -> dict[str, Tensor]:
    """The tensors under our names, all of the model's but those that begin so."""
    with torch.device("meta"):
        expected = {name: each for name, each in config.build().state_dict().items() if not name.startswith(but)}
    short = {name.removeprefix("denoiser.network.").removeprefix("denoiser."): name for name in expected}
    found = rename(tensors, rules, {each: expected[name] for each, name in short.items()}, where)
    return {short[each]: tensor for each, tensor in found.items()}
