"""Models as folders of diffusers (DDPMPipeline: a UNet2DModel and a DDPMScheduler), out and in, without that library.

A model that was trained without its classes too gets one class more, the last: the zero vector, "no class". Times that are
scaled become the table of a "learned" embedding, a row a step. For a model that enlarges there is no pipeline: its folder holds a
UNet2DModel whose input is x and, after it, the small picture (scaled to x's size, bilinearly).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from lodestar import checkpoint
from lodestar.config import Problem, decode
from lodestar.convert.unet2d import from_unet2d, to_unet2d, unet_config
from lodestar.core.prediction import AnyPrediction
from lodestar.core.schedule import AnySchedule
from lodestar.denoiser import DenoiserConfig, Variance, conditions
from lodestar.files import atomic, write_text
from lodestar.generators.diffusion import Diffusion
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.layers import timestep_embedding

_UNET, _SCHEDULER, _INDEX = "unet/config.json", "scheduler/scheduler_config.json", "model_index.json"
_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
_OURS = "lodestar.json"
"""What the format has no place for: the names of the classes, whether the last one is none, the size of what is enlarged."""
_TABLE = "time_proj.weight"

_PREDICTIONS = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2",
              "squaredcos_cap_v2": "squaredcos_cap_v2", "sigmoid": "sigmoid"}  # fmt: skip


def export(model: Diffusion, folder: Path) -> None:
    """Write a model as a folder that diffusers' DDPMPipeline and UNet2DModel load. Raises Problem if they have none such."""
    config = model.config
    scheduler = _scheduler(config)
    state = {name: tensor.float().cpu() for name, tensor in model.denoiser.state_dict().items()}
    network = {name.removeprefix("network."): tensor for name, tensor in state.items() if name.startswith("network.")}
    settings, tensors = to_unet2d(config.denoiser.network, network, config.size)
    if (table := state.get("label.table.weight")) is not None:
        rows = [table, torch.zeros_like(table[:1])] if config.droppable else [table]
        tensors["class_embedding.weight"] = torch.cat(rows)
        settings["num_class_embeds"] = len(tensors["class_embedding.weight"])
    if config.schedule.time_scale != 1:
        settings |= {"time_embedding_type": "learned", "num_train_timesteps": config.schedule.timesteps}
        tensors[_TABLE] = _times(config.schedule, config.denoiser.network.width)
    index = {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    with atomic(folder / _WEIGHTS) as file:
        file.write(serialize({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={"format": "pt"}))
    for name, content in (
        (_UNET, settings),
        (_SCHEDULER, scheduler),
        (_OURS, {"names": config.names, "droppable": config.droppable, "low_res": config.denoiser.low_res}),
        *([(_INDEX, index)] if config.denoiser.low_res is None else []),
    ):
        write_text(folder / name, json.dumps(content, indent=2) + "\n")


def load(folder: Path) -> tuple[DiffusionConfig, dict[str, Tensor]]:
    """A model from a folder of diffusers: its configuration, and the state of `Diffusion`. Raises Problem where we have none."""
    settings, scheduler = _read(folder / _UNET), _read(folder / _SCHEDULER)
    ours: dict[str, Any] = {"names": None, "droppable": False, "low_res": None}
    if (folder / _OURS).exists():
        ours |= _read(folder / _OURS)
    try:
        tensors = load_file(folder / _WEIGHTS)
    except OSError as error:
        raise Problem(f"cannot read {folder / _WEIGHTS}: {error.strerror or error}") from None
    except Exception as error:  # safetensors raises its own type, which is not exported
        raise Problem(f"{folder / _WEIGHTS} is damaged: {error}") from None
    prediction, variance, schedule = _diffusion(scheduler, str(folder / _SCHEDULER))
    if settings.get("time_embedding_type") == "learned":
        schedule = schedule.replace(rescale_time=True)
        settings |= {"time_embedding_type": "positional", "num_train_timesteps": None}
    network = unet_config(settings)
    if (times := tensors.get(_TABLE)) is not None:
        ours_times = _times(schedule, network.width)
        if times.shape != ours_times.shape or not torch.allclose(times.float(), ours_times, atol=1e-3):
            raise Problem(f"{folder / _WEIGHTS}: {_TABLE} was learned: only times of 1000/T a step are read")
    state = {f"denoiser.network.{name}": tensor for name, tensor in from_unet2d(network, tensors).items()}
    classes = None
    if (table := tensors.get("class_embedding.weight")) is not None:
        classes = len(table) - ours["droppable"]
        state["denoiser.label.table.weight"] = table[:classes]
    size = settings.get("sample_size") or 32
    config = DiffusionConfig(
        denoiser=DenoiserConfig(
            network=network,
            prediction=prediction,
            variance=variance,
            conditions=conditions(classes, None if ours["low_res"] is None else tuple(ours["low_res"])),
        ),
        schedule=schedule,
        size=(size, size) if isinstance(size, int) else (size[0], size[1]),
        names=None if ours["names"] is None else tuple(ours["names"]),
        droppable=ours["droppable"],
    )
    return config, state


def convert(source: Path, folder: Path) -> Path:
    """A folder of diffusers as one file of ours, ``folder/NAME.safetensors``, NAME that of the folder. Raises Problem.

    Nothing is written for one that is cut short, or whose weights are not those that its settings tell.
    """
    if not (source / _UNET).exists():
        raise Problem(f"{source} holds no {_UNET}: a folder is converted if it is one of diffusers, with a UNet2DModel")
    config, state = load(source)
    checkpoint.fill(config.build(), state, source)
    path = folder / f"{source.resolve().name}.safetensors"
    checkpoint.save(path, config.kind, config.to_json(), state, {"source": f"{source.resolve().name} (diffusers)"})
    return path


def _diffusion(scheduler: dict[str, Any], where: str) -> tuple[Any, Variance, Any]:
    """Prediction, variance and schedule of a DDPMScheduler's settings. Raises Problem for those that we have no formula for."""
    if scheduler.get("trained_betas") is not None:
        raise Problem(f"{where}: trained_betas is a list: only schedules with a formula are read")
    named, theirs = {theirs: ours for ours, theirs in _PREDICTIONS.items()}, scheduler.get("prediction_type", "epsilon")
    if theirs not in named:
        raise Problem(f"{where}: prediction_type is {theirs!r}: choose from {', '.join(named)}")
    kind = scheduler.get("beta_schedule", "linear")
    schedule: dict[str, Any] = {"kind": kind, "timesteps": scheduler.get("num_train_timesteps", 1000)}
    if kind != "squaredcos_cap_v2":
        schedule |= {key: scheduler[key] for key in ("beta_start", "beta_end") if key in scheduler}
    if kind == "linear":
        schedule["scaled"] = False
    return (
        decode(AnyPrediction, {"kind": named[theirs]}, where),
        "learned_range" if scheduler.get("variance_type") == "learned_range" else "fixed",
        decode(AnySchedule, schedule, where),
    )


def _times(schedule: AnySchedule, width: int) -> Tensor:
    """What the first layer of a network is told at each step of a chain, float32 [T, width]."""
    return timestep_embedding(schedule.times(), width)


def _scheduler(config: DiffusionConfig) -> dict[str, Any]:
    """The settings of a DDPMScheduler. Raises Problem where it has none for this model."""
    schedule, denoiser = config.schedule, config.denoiser
    kind = _SCHEDULES.get(schedule.kind)
    default = {"offset": 0.008, "beta_cap": 0.999}
    fields = schedule.model_dump()
    if (
        kind is None
        or any(fields.get(name, value) != value for name, value in default.items())
        or fields.get("zero_terminal_snr")
    ):
        raise Problem(
            f"diffusers has no schedule {schedule.kind!r} with these settings: it has {', '.join(sorted(set(_SCHEDULES)))}"
        )
    if denoiser.prediction.kind not in _PREDICTIONS:
        raise Problem(f"diffusers has no prediction {denoiser.prediction.kind!r}: it has {', '.join(_PREDICTIONS)}")
    if denoiser.variance == "learned":
        raise Problem("diffusers reads a learned variance as a fraction of its range, and this model gives its logarithm")
    settings = {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": schedule.timesteps,
        "beta_schedule": kind,
        "prediction_type": _PREDICTIONS[denoiser.prediction.kind],
        "variance_type": "fixed_small" if denoiser.variance == "fixed" else denoiser.variance,
        "clip_sample": True,
        "clip_sample_range": 1.0,
    }
    if "beta_start" in fields:
        scale = 1000 / schedule.timesteps if fields.get("scaled") else 1.0
        settings |= {"beta_start": scale * fields["beta_start"], "beta_end": scale * fields["beta_end"]}
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise Problem(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise Problem(f"{path} is not a JSON object")
    return content
