"""User-trained files of guided-diffusion or improved-diffusion, configured by training flags.

The flags are defined in the projects' ``script_util.py``, with its defaults. They are read from a command line as published (the
variables ``MODEL_FLAGS="…"`` of its README too), from a file with a command line, or from a JSON object.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from lodestar.config import Problem, choose, from_json
from lodestar.conversion.adm import MULTIPLIERS, classifier_config, unet_config
from lodestar.conversion.family import Facts, ModelConfig, contradictions, show
from lodestar.conversion.settings import Foreign, Idle, flagged
from lodestar.core.plan import parse_plan
from lodestar.core.prediction import X0, Epsilon
from lodestar.core.schedule import AnySchedule, Cosine, Linear
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.files import reading
from lodestar.guidance import Clamp
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.classifier import Pool
from lodestar.samplers import DDIM, Ancestral

_LOSS = Idle("it is of the training loss")
_SPEED = Idle("it is of memory and speed")


class ProcessFlags(Foreign):
    """Flags of the noise process."""

    image_size: int = Field(default=64, ge=1, le=65536)
    learn_sigma: bool = False
    diffusion_steps: int = Field(default=1000, ge=1, le=1_000_000)
    noise_schedule: Literal["linear", "cosine"] = "linear"
    timestep_respacing: str = ""
    use_kl: Annotated[bool, _LOSS] = False
    predict_xstart: bool = False
    rescale_timesteps: bool = False
    rescale_learned_sigmas: Annotated[bool, _LOSS] = False

    def schedule(self) -> AnySchedule:
        """The chain."""
        kind = Cosine if self.noise_schedule == "cosine" else Linear
        return kind(timesteps=self.diffusion_steps, rescale_time=self.rescale_timesteps)


class ModelFlags(ProcessFlags):
    """Flags of a diffusion model of guided-diffusion, or of an upsampler, and the sampling flags of a model."""

    num_channels: int = Field(default=128, ge=1)
    num_res_blocks: int = Field(default=2, ge=1)
    num_heads: int = Field(default=4, ge=1)
    num_heads_upsample: int = -1
    num_head_channels: int = -1
    attention_resolutions: str = "16,8"
    channel_mult: str = ""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    class_cond: bool = False
    use_checkpoint: Annotated[bool, _SPEED] = False
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_fp16: Annotated[bool, _SPEED] = False
    use_new_attention_order: bool = False
    sigma_small: bool = False
    large_size: int | None = Field(default=None, ge=1, le=65536)
    small_size: int | None = Field(default=None, ge=1, le=65536)
    use_ddim: bool = False
    clip_denoised: bool = True

    def model(self, facts: Facts) -> DiffusionConfig:
        """The model with these flags; classes and channels are its weights', since the code has no flags for them."""
        size, enlarges = self.large_size or self.image_size, self.small_size is not None
        multipliers = _numbers("channel_mult", self.channel_mult, float) or _multipliers(size, enlarges)
        channels = facts["denoiser.network.in_channels"] // (2 if enlarges else 1)
        network = unet_config(
            {
                "in_channels": channels * (2 if enlarges else 1),
                "model_channels": self.num_channels,
                "out_channels": channels * (2 if self.learn_sigma else 1),
                "num_res_blocks": self.num_res_blocks,
                "attention_resolutions": _factors("attention_resolutions", self.attention_resolutions, size),
                "channel_mult": multipliers,
                "num_heads": self.num_heads,
                "num_head_channels": self.num_head_channels,
                "num_heads_upsample": self.num_heads_upsample,
                "use_scale_shift_norm": self.use_scale_shift_norm,
                "dropout": self.dropout,
                "resblock_updown": self.resblock_updown,
                "use_new_attention_order": self.use_new_attention_order,
            }
        )
        denoiser = DenoiserConfig(
            network=network,
            prediction=X0() if self.predict_xstart else Epsilon(),
            variance="learned_range" if self.learn_sigma else "fixed",
            conditions=conditions(
                facts["denoiser.classes"] or 1000 if self.class_cond else None,
                None if self.small_size is None else (self.small_size, self.small_size),
            ),
        )
        ancestral = Ancestral(variance=None if self.learn_sigma else "small" if self.sigma_small else "large")
        return DiffusionConfig(
            denoiser=denoiser,
            schedule=self.schedule(),
            size=(size, size),
            sampler=DDIM() if self.use_ddim else ancestral,
            steps=str(self.diffusion_steps) if not self.timestep_respacing else self._plan(),
            limit=Clamp(folded=True) if self.clip_denoised else None,
        )

    def _plan(self) -> str:
        parse_plan(self.timestep_respacing)
        return self.timestep_respacing


class ImprovedFlags(ModelFlags):
    """Flags of improved-diffusion: fewer, and two other defaults."""

    rescale_timesteps: bool = True
    rescale_learned_sigmas: Annotated[bool, _LOSS] = True


class ClassifierFlags(ProcessFlags):
    """Flags of a noise-aware classifier of guided-diffusion."""

    classifier_use_fp16: Annotated[bool, _SPEED] = False
    classifier_width: int = Field(default=128, ge=1)
    classifier_depth: int = Field(default=2, ge=1)
    classifier_attention_resolutions: str = "32,16,8"
    classifier_use_scale_shift_norm: bool = True
    classifier_resblock_updown: bool = True
    classifier_pool: Pool = "attention"

    def model(self, facts: Facts) -> ClassifierModelConfig:
        """The classifier with these flags; classes and channels are its weights'."""
        network = classifier_config(
            {
                "image_size": self.image_size,
                "in_channels": facts["network.in_channels"],
                "model_channels": self.classifier_width,
                "out_channels": facts.get("network.classes", 1000),
                "num_res_blocks": self.classifier_depth,
                "attention_resolutions": _factors(
                    "classifier_attention_resolutions", self.classifier_attention_resolutions, self.image_size
                ),
                "channel_mult": _multipliers(self.image_size),
                "num_head_channels": 64,
                "use_scale_shift_norm": self.classifier_use_scale_shift_norm,
                "resblock_updown": self.classifier_resblock_updown,
                "pool": self.classifier_pool,
            }
        )
        return ClassifierModelConfig(network=network, schedule=self.schedule())


CODES: dict[str, type[ModelFlags]] = {"guided-diffusion": ModelFlags, "improved-diffusion": ImprovedFlags}
"""Projects with default flags, by name."""

_OTHERS = {
    "data_dir", "val_data_dir", "schedule_sampler", "lr", "weight_decay", "lr_anneal_steps", "batch_size", "microbatch",
    "ema_rate", "log_interval", "save_interval", "eval_interval", "resume_checkpoint", "fp16_scale_growth", "num_samples",
    "model_path",
    "classifier_path", "classifier_scale", "base_samples", "noised", "iterations", "anneal_lr", "local_rank", "log_dir",
}  # fmt: skip
"""Flags of training and sampling without effect on a model."""

_NAMES = {
    "denoiser.network.width": "num_channels",
    "denoiser.network.multipliers": "channel_mult (or image_size, which it follows from)",
    "denoiser.network.blocks": "num_res_blocks",
    "denoiser.network.attention": "attention_resolutions",
    "denoiser.network.adaptive_norm": "use_scale_shift_norm",
    "denoiser.network.resample": "resblock_updown",
    "denoiser.network.in_channels": "small_size",
    "denoiser.network.out_channels": "learn_sigma",
    "denoiser.classes": "class_cond",
    "network.width": "classifier_width",
    "network.multipliers": "image_size",
    "network.blocks": "classifier_depth",
    "network.attention": "classifier_attention_resolutions",
    "network.adaptive_norm": "classifier_use_scale_shift_norm",
    "network.resample": "classifier_resblock_updown",
    "network.pool": "classifier_pool",
    "network.size": "image_size",
}
"""Flags also determined by weights, by our settings."""


def parse(given: Iterable[str], text: str | None = None) -> dict[str, str]:
    """Flags by name, as text. given: ``name=value`` each. text: a file, or a command line; `given` takes precedence.

    Raises Problem for anything else than flags.
    """
    flags: dict[str, str] = {}
    if text is not None:
        path = Path(text)
        is_file = "\n" not in text and not text.lstrip().startswith("-") and path.is_file()
        if is_file:
            with reading(path):
                text = path.read_text(encoding="utf-8")
        flags = _parse_text(text)
        if not flags:
            raise Problem(f"--flags {text!r}: no file, and no flags such as --image_size 64")
    for each in given:
        name, separator, value = each.removeprefix("--").partition("=")
        if not separator:
            raise Problem(f"--flag {each!r}: write it as name=value, as in image_size=64")
        flags[name] = value
    return flags


def own(flags: Mapping[str, str], facts: Facts, code: str, what: str) -> ModelConfig:
    """The model of a project's flags. Raises Problem naming invalid flags, or those contradicted by the weights."""
    kind: type[ModelFlags] | type[ClassifierFlags]
    kind = ClassifierFlags if facts["kind"] == "classifier" else choose("code", code, CODES)
    other = set(ModelFlags.model_fields if kind is ClassifierFlags else ClassifierFlags.model_fields)
    used = {name: value for name, value in flags.items() if name not in _OTHERS and name not in other - set(kind.model_fields)}
    config: ModelConfig = flagged(kind, used).model(facts)
    differing = contradictions(config, facts)
    if differing:
        told = "; ".join(
            f"{_flag(path, used)}: {path.rpartition('.')[2]} is {show(theirs)} in the weights, {show(ours)} by the flags"
            for path, (theirs, ours) in list(differing.items())[:4]
        )
        raise Problem(f"{what} is not what its flags say: {told}")
    return config


def _flag(path: str, given: Mapping[str, str]) -> str:
    name = _NAMES.get(path, path)
    return name if name.split()[0] in given else f"{name} (left at its default)"


def _parse_text(text: str) -> dict[str, str]:
    if text.lstrip().startswith("{"):
        with reading("flags", "are not JSON"):
            held = from_json(text)
        return {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in held.items()}
    try:
        words = shlex.split(text, comments=True)
    except ValueError as error:
        raise Problem(f"flags cannot be read as a command line: {error}") from None
    flags: dict[str, str] = {}
    waiting = None
    for word in words:
        if match := re.fullmatch(r"[A-Z_]+=(.*)", word, re.DOTALL):
            flags |= _parse_text(match[1])
        elif match := re.fullmatch(r"(?:--)?([a-z]\w*)=(.*)", word, re.DOTALL):
            flags[match[1]] = match[2]
        elif match := re.fullmatch(r"--([a-z]\w*)", word):
            waiting = match[1]
            continue
        elif waiting is not None:
            flags[waiting] = word
        # The other words call the script: python, its name, mpiexec, variables.
        waiting = None
    return flags


def _numbers(name: str, text: str, kind: type[Any]) -> list[Any]:
    try:
        return [kind(each) for each in text.split(",") if each.strip()]
    except ValueError:
        raise Problem(f"flags {name} is {text!r}: write numbers, as in 32,16,8") from None


def _factors(name: str, text: str, size: int) -> list[int]:
    """The reduction factors at which pictures have these sides."""
    sides = _numbers(name, text, int)
    if any(side < 1 for side in sides):
        raise Problem(f"flags {name} is {text!r}: sides are at least 1")
    return [size // side for side in sides]


def _multipliers(size: int, enlarges: bool = False) -> tuple[float, ...]:
    """Channel multipliers for a picture size, as in the code. Raises Problem if there are none."""
    if size not in MULTIPLIERS:
        raise Problem(f"flags image_size is {size}: channel_mult has a default for {', '.join(map(str, MULTIPLIERS))} only")
    return MULTIPLIERS[256 if enlarges and size == 512 else size]
