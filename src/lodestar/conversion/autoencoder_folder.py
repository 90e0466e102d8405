"""Folders of diffusers' AutoencoderKL and VQModel, without that library: settings and weights as ours.

Its scaling of latents becomes their moments, so that a diffusion model in them has them as diffusers' pipelines do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lodestar import __version__, checkpoint
from lodestar.codecs import AutoencoderCodec, VQVAECodec
from lodestar.codecs.autoencoder import FIRST
from lodestar.config import Problem, decode
from lodestar.conversion import folder as folders
from lodestar.conversion.family import moments
from lodestar.conversion.rename import Rule, matrix, rename
from lodestar.conversion.settings import Foreign, Idle, Only, read, typed
from lodestar.files import check_writable, read_json

_SWISH = Only(("silu", "swish"), "networks here have no other")
_PRECISION = Idle("the precision of networks is chosen by itself")
Pixels = Annotated[int, Field(ge=1, le=65536)]


class _Both(Foreign):
    """Settings of both classes."""

    in_channels: int = Field(default=3, ge=1)
    out_channels: int = Field(default=3, ge=1)
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(64,), min_length=1, max_length=12)
    layers_per_block: int = Field(default=1, ge=1)
    act_fn: Annotated[str, _SWISH] = "silu"
    sample_size: Pixels | tuple[Pixels, Pixels] = 32
    norm_num_groups: int = Field(default=32, ge=1)
    scaling_factor: float = Field(default=0.18215, gt=0)
    mid_block_add_attention: bool = True

    @model_validator(mode="after")
    def _reads_as_ours(self) -> Self:
        if self.out_channels != self.in_channels:
            raise Problem(f"out_channels is {self.out_channels}, in_channels {self.in_channels}: only equal ones are read")
        attended = [name == "AttnDownEncoderBlock2D" for name in self.down_block_types]
        for side, blocks, flags in (("Down", self.down_block_types, attended), ("Up", self.up_block_types, attended[::-1])):
            part = "Encoder" if side == "Down" else "Decoder"
            expected = [f"{'Attn' if flag else ''}{side}{part}Block2D" for flag in flags]
            if list(blocks) != expected or len(flags) != len(self.block_out_channels):
                raise Problem(
                    f"{side.lower()}_block_types is {', '.join(blocks)}: with {len(self.block_out_channels)} resolutions only "
                    f"{', '.join(expected)} is read"
                )
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return (self.sample_size, self.sample_size) if isinstance(self.sample_size, int) else self.sample_size

    def parts(self) -> dict[str, Any]:
        """Our fields of encoder and decoder."""
        width = self.block_out_channels[0]
        return {
            "in_channels": self.in_channels, "width": width, "blocks": self.layers_per_block,
            "multipliers": [channels / width for channels in self.block_out_channels],
            "attention": [2**level for level, name in enumerate(self.down_block_types) if name.startswith("Attn")],
            "middle_attention": self.mid_block_add_attention, "heads": 1, "head_channels": None, "resample": "conv",
            "one_sided": True, "norm_groups": self.norm_num_groups, "norm_eps": 1e-6, "kernel": 3,
        }  # fmt: skip


class AutoencoderKL(_Both):
    """The settings of diffusers' AutoencoderKL, with its defaults."""

    latent_channels: int = Field(default=4, ge=1)
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    force_upcast: Annotated[bool, _PRECISION] = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True

    @model_validator(mode="after")
    def _latents(self) -> Self:
        if self.use_quant_conv != self.use_post_quant_conv:
            raise Problem(f"use_quant_conv is {self.use_quant_conv}, and use_post_quant_conv is not: only equal ones are read")
        for name in ("latents_mean", "latents_std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.latent_channels:
                raise Problem(f"{name} has {len(values)} values, and latent_channels is {self.latent_channels}")
        return self

    def codec(self, where: str) -> AutoencoderCodec:
        """The codec with these settings. Raises Problem."""
        mixed = self.latent_channels if self.use_quant_conv else None
        network = {"kind": "autoencoder", **self.parts(), "latent": self.latent_channels, "mixed": mixed}
        return decode(AutoencoderCodec, {"network": network, "size": self.size}, where)

    def beside(self, codec: AutoencoderCodec) -> Mapping[str, Tensor]:
        """Our tensors without a counterpart."""
        mean = torch.tensor(self.shift_factor or 0.0 if self.latents_mean is None else self.latents_mean)
        std = torch.tensor(1.0 if self.latents_std is None else self.latents_std) / self.scaling_factor
        return {**moments(codec, mean, std), "log_scale": torch.tensor(0.0)}


class VQModel(_Both):
    """The settings of diffusers' VQModel, with its defaults."""

    latent_channels: int = Field(default=3, ge=1)
    num_vq_embeddings: int = Field(default=256, ge=1)
    vq_embed_dim: int | None = Field(default=None, ge=1)
    norm_type: Annotated[str, Only(("group",), "norms here are not told the codes")] = "group"
    lookup_from_codebook: Annotated[bool, Idle("codes are looked up where they are given")] = False
    force_upcast: Annotated[bool, _PRECISION] = False

    def codec(self, where: str) -> VQVAECodec:
        """The codec with these settings. Raises Problem."""
        channels = self.vq_embed_dim or self.latent_channels
        book = {"codes": self.num_vq_embeddings, "channels": channels, "learning": "gradient", "revive": 0.0}
        network = {"kind": "quantized", **self.parts(), "mixed": self.latent_channels, "book": book}
        return decode(VQVAECodec, {"network": network, "size": self.size}, where)

    def beside(self, codec: VQVAECodec) -> Mapping[str, Tensor]:
        """Our tensors without a counterpart."""
        usage = torch.zeros(self.num_vq_embeddings)
        return {**moments(codec, std=1 / self.scaling_factor), "network.codebook.size": usage}


CLASSES: dict[str, type[AutoencoderKL | VQModel]] = {"AutoencoderKL": AutoencoderKL, "VQModel": VQModel}
"""Classes of diffusers that are read, by name."""


def is_autoencoder(folder: Path) -> bool:
    """True for a folder of diffusers with an autoencoder alone."""
    settings = folder / "config.json"
    content = read_json(settings) if settings.is_file() else None
    return isinstance(content, dict) and content.get("_class_name") in CLASSES


def load(folder: Path, flags: Mapping[str, str] | None = None) -> tuple[AutoencoderCodec | VQVAECodec, dict[str, Tensor]]:
    """A codec from a folder, and the state of its coder. flags: the size of pictures, where it is another. Raises Problem."""
    where = folder / "config.json"
    content = folders.read(where)
    kind = CLASSES[content["_class_name"]]
    if odd := sorted(set(flags or ()) - {"sample_size"}):
        raise Problem(f"flag {odd[0]!r}: a folder of diffusers has its own settings; sample_size alone may be another")
    told = read(kind, {**content, **typed(kind, flags or {})}, str(where))
    codec = told.codec(str(where))
    with torch.device("meta"):
        expected = codec.build().state_dict()
    beside = told.beside(codec)  # type: ignore[arg-type]
    weights = folders.weights_of(folder)
    renamed = rename(
        folders.tensors(weights),
        rules(codec, told.layers_per_block),
        {name: tensor for name, tensor in expected.items() if name not in beside},
        str(weights),
    )
    return codec, {**renamed, **beside}


def convert_folder(source: Path, out: Path, flags: Mapping[str, str] | None = None) -> Path:
    """Convert a folder into ``out/FOLDER.safetensors``; returns its path. Raises Problem, with nothing written."""
    path = out / f"{source.resolve().name}.safetensors"
    check_writable(path)
    codec, state = load(source, flags)
    provenance = {"source": f"{source.resolve().name} (diffusers)", "lodestar": __version__, "torch": torch.__version__}
    checkpoint.save(path, codec.kind, codec.to_json(), state, provenance)
    return path


def rules(codec: AutoencoderCodec | VQVAECodec, layers: int) -> tuple[Rule, ...]:
    """The rules for a network of `layers` residual blocks at each resolution of the encoder."""

    def stage(found: re.Match[str], blocks: int) -> str:
        side, level, kind, number = found[1], int(found[2]), found[3], int(found[4])
        if side == "down":
            # In the encoder a halving is a stage of its own.
            place = level * (layers + 1) + (blocks if kind == "downsamplers" else number)
            return f"down.{place}.{'attention' if kind == 'attentions' else 'block'}."
        place = level * blocks + (blocks - 1 if kind == "upsamplers" else number)
        return f"up.{place}.{ {'attentions': 'attention', 'upsamplers': 'resample'}.get(kind, 'block') }."

    gaussian = isinstance(codec, AutoencoderCodec)
    last = "mix" if isinstance(codec, VQVAECodec) or codec.network.mixed else "head"  # type: ignore[attr-defined]
    prefix = "network." if gaussian else "network.body."
    later = (Rule(rf"^{last}\.bias$", f"{last}.bias", _later),) if gaussian else ()
    return (
        Rule(r"^encoder\.conv_in\.", "stem."),
        Rule(r"^encoder\.(down)_blocks\.(\d+)\.(\w+)\.(\d+)\.", lambda found: stage(found, layers)),
        Rule(r"^decoder\.(up)_blocks\.(\d+)\.(\w+)\.(\d+)\.", lambda found: stage(found, layers + 1)),
        Rule(r"^encoder\.mid_block\.resnets\.", "middle."),
        Rule(r"^decoder\.mid_block\.resnets\.", "upper."),
        Rule(r"^(middle|upper)\.(\d+)\.", r"\1.\2.block."),
        Rule(r"^encoder\.mid_block\.attentions\.0\.", "middle.0.attention."),
        Rule(r"^decoder\.mid_block\.attentions\.0\.", "upper.0.attention."),
        Rule(r"^encoder\.conv_norm_out\.", "norm."),
        Rule(r"^encoder\.conv_out\.", "head."),
        Rule(r"^quant_conv\.", "mix."),
        Rule(r"^post_quant_conv\.", "unmix."),
        Rule(r"^decoder\.conv_in\.", "root."),
        Rule(r"^decoder\.conv_norm_out\.", "out_norm."),
        Rule(r"^decoder\.conv_out\.", "out."),
        Rule(r"\.conv_shortcut\.", ".skip."),
        Rule(r"\.attention\.group_norm\.", ".attention.norm."),
        *(
            Rule(rf"\.attention\.(?:to_{part}|{old})\.(weight|bias)$", rf".attention.qkv.\1[{number}]")
            for number, (part, old) in enumerate((("q", "query"), ("k", "key"), ("v", "value")))
        ),
        Rule(r"\.attention\.(?:to_out\.0|proj_attn)\.", ".attention.out."),
        Rule(r"\.attention\.(qkv|out)\.weight", r".attention.\1.weight", matrix),
        *later,
        Rule(r"^quantize\.embedding\.weight$", "network.codebook.codes"),
        Rule(r"^(?!network\.)", prefix),
    )


def _later(bias: Tensor) -> Tensor:
    """The bias of means and logarithms of variances, with those of variances as told here."""
    mean, logvar = bias.chunk(2)
    return torch.cat([mean, logvar - FIRST])
