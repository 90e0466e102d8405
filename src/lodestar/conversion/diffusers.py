"""Models as folders of diffusers (a UNet2DModel, a scheduler and their pipeline), export and import, without that library.

A model trained with dropped classes gets an additional last class: the zero vector, "no class". Scaled times become the table of
a "learned" embedding, a row a step. An upsampler has no pipeline: its folder holds a UNet2DModel whose input is x followed by the
small picture (scaled to x's size, bilinearly).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialize
from torch import Tensor

from lodestar import checkpoint
from lodestar.conditions import LabelCondition, LowRes
from lodestar.config import Config, Problem, decode
from lodestar.conversion import folder as folders
from lodestar.conversion import schedulers
from lodestar.conversion.family import resampled
from lodestar.conversion.schedulers.base import Limit
from lodestar.conversion.schedulers.write import PIPELINES, write
from lodestar.conversion.settings import read as read_settings
from lodestar.conversion.unet2d import UNet2DModel, from_unet2d, to_unet2d, unet_config
from lodestar.core.schedule import AnySchedule, EDMSigma
from lodestar.denoiser import DenoiserConfig, Variance, conditions
from lodestar.files import atomic, check_writable, write_text
from lodestar.generators.diffusion import Diffusion
from lodestar.guidance import Clamp
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.layers import timestep_embedding
from lodestar.nets.unet import UNetConfig
from lodestar.samplers import Ancestral, AnySampler

_OURS = "lodestar.json"
_TABLE, _LABELS = "time_proj.weight", "class_embedding.weight"


class Sampling(Config):
    """Process and sampling of a model, in our terms, beyond the scheduler's settings."""

    schedule: AnySchedule
    sampler: AnySampler
    plan: str
    limit: Limit


class Beside(Config):
    """Everything without a place in the format, kept in a file of our own beside diffusers'."""

    names: tuple[str, ...] | None = None
    """Names of the classes."""
    droppable: bool = False
    """True if the last class is "no class"."""
    low_res: tuple[int, int] | None = None
    """Size of an upsampler's input."""
    scheduler: dict[str, Any] | None = None
    """Scheduler settings belonging to `sampling`: if changed since, they alone count."""
    sampling: Sampling | None = None


def export(model: Diffusion, folder: Path, sampler: AnySampler | None = None, plan: str | None = None) -> str:
    """Write a model as a folder of diffusers; returns a description of it. Raises Problem if diffusers has no such model.

    sampler, plan: for the scheduler, in place of the model's own. If diffusers has no scheduler for the model's own, ancestral
    sampling of the chain takes its place, which is reported, and the model's own is kept in our file beside.
    """
    check_writable(folder / folders.WEIGHTS)
    config = resampled(model.config, sampler, plan)
    unet = config.denoiser.network
    if not isinstance(unet, UNetConfig):
        raise Problem(f"diffusers has no network for this model: it is of kind {unet.kind!r}, and only a 'unet' is written")
    for condition in config.denoiser.conditions:
        if not isinstance(condition, LabelCondition | LowRes):
            raise Problem(f"diffusers has no UNet2DModel with condition {condition.kind!r}: only classes and small pictures are")
        if isinstance(condition, LowRes) and condition.augment:
            raise Problem("diffusers has no UNet2DModel that is told the noise level of a small picture: it is not written")
    state = {name: tensor.float().cpu() for name, tensor in model.denoiser.state_dict().items()}
    network = {name.removeprefix("network."): tensor for name, tensor in state.items() if name.startswith("network.")}
    network.pop("ranges", None)  # which diffusers has no use for; `lodestar.quantize` finds them again
    settings, tensors = to_unet2d(unet.without_ranges(), network, config.size)
    scheduler, written, instead = _scheduler(config, exact=sampler is not None or plan is not None)
    if (table := state.get("label.table.weight")) is not None:
        rows = [table, torch.zeros_like(table[:1])] if config.droppable else [table]
        tensors[_LABELS] = torch.cat(rows)
        settings["num_class_embeds"] = len(tensors[_LABELS])
    if config.schedule.time_scale != 1:
        settings |= {"time_embedding_type": "learned", "num_train_timesteps": config.schedule.timesteps}
        tensors[_TABLE] = _times(config.schedule, unet)
    beside = Beside(
        names=config.names,
        droppable=config.droppable,
        low_res=config.denoiser.low_res,
        scheduler=written,
        sampling=Sampling(schedule=config.schedule, sampler=config.sampler, plan=config.steps, limit=config.limit),
    )
    pipeline = PIPELINES.get(scheduler) if config.denoiser.low_res is None else None
    index = {"_class_name": pipeline, "scheduler": ["diffusers", scheduler], "unet": ["diffusers", "UNet2DModel"]}
    with atomic(folder / folders.WEIGHTS) as file:
        file.write(serialize({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={"format": "pt"}))
    for name, content in (
        (folders.UNET, settings),
        (folders.SCHEDULER, written),
        (_OURS, beside.model_dump(mode="json")),
        *([(folders.INDEX, index)] if pipeline else []),
    ):
        write_text(folder / name, json.dumps(content, indent=2) + "\n")
    whose = f"for {pipeline}" if pipeline else "for a loop of your own, since no pipeline of diffusers runs it"
    return f"a folder of diffusers: UNet2DModel and {scheduler}, {whose}{instead}"


def _scheduler(config: DiffusionConfig, exact: bool) -> tuple[str, dict[str, Any], str]:
    """The scheduler's class and settings, and the reason why its sampling differs from the model's, if any. Raises Problem."""
    try:
        return *write(config), ""
    except Problem as problem:
        if exact or isinstance(config.schedule, EDMSigma):
            raise
        limit = config.limit if isinstance(config.limit, Clamp) else None
        chain = config.replace(sampler=Ancestral(), steps=f"leading:{config.schedule.timesteps}", limit=limit)
        return *write(chain), f"; it samples with the chain's own steps, because {problem}"


def load(folder: Path, sampler: AnySampler | None = None, plan: str | None = None) -> tuple[DiffusionConfig, dict[str, Tensor]]:
    """A model from a folder of diffusers: its configuration, and the state of `Diffusion`.

    sampler, plan: in place of the scheduler's. Raises Problem naming unsupported settings, and for models we do not have.
    """
    parts = folders.find(folder)
    beside = decode(Beside, folders.read(folder / _OURS), str(folder / _OURS)) if (folder / _OURS).exists() else Beside()
    settings = read_settings(UNet2DModel, folders.read(parts.config), str(parts.config))
    scheduler = folders.read(parts.scheduler)
    process = schedulers.read(parts.scheduler_class(scheduler), scheduler, str(parts.scheduler), sampler, plan)
    network, tensors = unet_config(settings, str(parts.config)), parts.tensors()
    schedule, chosen = process.schedule, (process.sampler, process.plan, process.limit)
    if beside.sampling is not None and beside.scheduler == scheduler:
        schedule = beside.sampling.schedule
        chosen = (sampler or beside.sampling.sampler, plan or beside.sampling.plan, beside.sampling.limit)
    schedule = _learned_times(settings, schedule, network, tensors, parts.weights)
    labels = tensors.pop(_LABELS, None)
    state = {f"denoiser.network.{name}": tensor for name, tensor in _network(settings, network, tensors, parts.weights).items()}
    classes = _classes(settings, labels, beside, parts.config)
    if labels is not None:
        state["denoiser.label.table.weight"] = labels[:classes]
    denoiser = DenoiserConfig(
        network=network,
        prediction=process.prediction,
        variance=_variance(process.variance, settings, beside, parts),
        conditions=conditions(classes, beside.low_res),
    )
    config = DiffusionConfig(
        denoiser=denoiser,
        schedule=schedule,
        size=settings.size,
        names=beside.names,
        droppable=beside.droppable,
        sampler=chosen[0],
        steps=chosen[1],
        limit=chosen[2],
    )
    return config, state


def convert(source: Path, folder: Path, sampler: AnySampler | None = None, plan: str | None = None) -> tuple[Path, Diffusion]:
    """Convert a folder of diffusers into our file ``folder/NAME.safetensors``, named after the folder. Raises Problem.

    Nothing is written for a truncated folder, or weights that contradict the settings.
    """
    path = folder / f"{source.resolve().name}.safetensors"
    check_writable(path)
    config, state = load(source, sampler, plan)
    model = Diffusion(config)
    checkpoint.fill(model, state, source)
    checkpoint.save(path, config.kind, config.to_json(), state, {"source": f"{source.resolve().name} (diffusers)"})
    return path, model


def _network(settings: UNet2DModel, network: UNetConfig, tensors: dict[str, Tensor], weights: Path) -> dict[str, Tensor]:
    """The network's tensors under our names. Raises Problem naming the file and its missing or superfluous tensors."""
    # A table of learned times is ours, with the cosines first, whatever the order of computed sinusoids.
    sines_first = not settings.flip_sin_to_cos and settings.time_embedding_type == "positional"
    try:
        return from_unet2d(network, {name: tensor for name, tensor in tensors.items() if name != _TABLE}, sines_first)
    except Problem as problem:
        raise Problem(f"{weights}: {problem}") from None


def _learned_times(
    settings: UNet2DModel, schedule: AnySchedule, network: UNetConfig, tensors: dict[str, Tensor], weights: Path
) -> AnySchedule:
    """The schedule with the times of a "learned" embedding's table. Raises Problem unless its times are 1000/T a step."""
    if settings.time_embedding_type != "learned":
        return schedule
    schedule = schedule.replace(rescale_time=True)
    if (times := tensors.get(_TABLE)) is None:
        raise Problem(f"{weights}: {_TABLE} is missing, and time_embedding_type is 'learned'")
    ours = _times(schedule, network)
    if times.shape != ours.shape or not torch.allclose(times.float(), ours, atol=1e-3):
        raise Problem(f"{weights}: {_TABLE} was learned: only times of 1000/T a step are read")
    return schedule


def _classes(settings: UNet2DModel, labels: Tensor | None, beside: Beside, where: Path) -> int | None:
    """The number of classes. Raises Problem if settings and weights contradict each other."""
    told = None if labels is None else len(labels)
    if settings.num_class_embeds != told:
        raise Problem(
            f"{where}: num_class_embeds is {settings.num_class_embeds}, and the weights' table of classes has {told} rows"
        )
    return None if told is None else told - beside.droppable


def _variance(told: Variance | None, settings: UNet2DModel, beside: Beside, parts: folders.Parts) -> Variance:
    """The kind of reverse variance predicted by the network. Raises Problem if the kind is unknown."""
    channels = settings.in_channels // (1 if beside.low_res is None else 2)
    if told is not None and (told == "fixed") != (settings.out_channels == channels):
        raise Problem(
            f"{parts.config}: out_channels is {settings.out_channels} for {channels} channels, and {parts.scheduler}: "
            f"variance_type is that of {'no learned variance' if told == 'fixed' else 'a learned one'}"
        )
    if told is None and settings.out_channels != channels:
        raise Problem(
            f"{parts.config}: out_channels is {settings.out_channels} for {channels} channels, and the scheduler of "
            f"{parts.scheduler} has no variance_type to tell what the others are"
        )
    return told or "fixed"


def _times(schedule: AnySchedule, network: UNetConfig) -> Tensor:
    """Input of a network's first time layer at each step of a chain, float32 [T, width]."""
    return timestep_embedding(schedule.times(), network.width, closed=network.closed_frequencies)
